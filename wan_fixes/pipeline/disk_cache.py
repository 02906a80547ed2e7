"""The validated sample cache as a pipeline module, in place of MGDS's DiskCache."""

from __future__ import annotations

import copy
import gc
import logging
import time
from collections.abc import Callable
from itertools import compress
from pathlib import Path
from typing import Any

import torch

from wan_fixes.errors import CriticalError, NothingUsableError, SampleError, UserError
from wan_fixes.health import ErrorType
from wan_fixes.health.diagnosis import failure_kind
from wan_fixes.pipeline import pixel_memory
from wan_fixes.pipeline.base import DiskCache, SerialPipelineModule
from wan_fixes.pipeline.cache_builder import CacheBuilder, Job
from wan_fixes.pipeline.cache_stats import CacheStats
from wan_fixes.pipeline.context import PipelineContext
from wan_fixes.pipeline.entries import Entries, problem_in
from wan_fixes.pipeline.groups import GroupPlan, SampleGroup, read_groups
from wan_fixes.pipeline.known_samples import KnownSamples
from wan_fixes.pipeline.needed import NeededEntries
from wan_fixes.pipeline.pixels import SHORT_OF_MEMORY, too_little_memory
from wan_fixes.pipeline.quiet_gc import quiet_gc
from wan_fixes.pipeline.sample_keys import SampleKeys
from wan_fixes.pipeline.upstream import all_group_names, is_collector, producers, unwrap
from wan_fixes.store.values import values_from_json

logger = logging.getLogger(__name__)

Place = tuple[int, int]
"""An input index, and the number of an entry among those of the sample, as `_number` counts them."""


class ValidatedDiskCache(DiskCache):
    """Caches `split_names` and `aggregate_names` of each sample under a key that says what made them.

    Takes the arguments of MGDS's DiskCache. Entries are checked before they are written and verified when
    they are read; a bad one is rebuilt. A sample that cannot be made is dropped from the roster, so that the
    epoch shrinks instead of the run ending.
    """

    def __init__(
        self,
        cache_dir: str,
        split_names: list[str] | None = None,
        aggregate_names: list[str] | None = None,
        variations_in_name: str | None = None,
        balancing_in_name: str | None = None,
        balancing_strategy_in_name: str | None = None,
        variations_group_in_name: str | list[str] | None = None,
        group_enabled_in_name: str | None = None,
        before_cache_fun: Callable[[], None] | None = None,
        *,
        context: PipelineContext,
    ) -> None:
        super().__init__(
            cache_dir=cache_dir,
            split_names=split_names,
            aggregate_names=aggregate_names,
            variations_in_name=variations_in_name,
            balancing_in_name=balancing_in_name,
            balancing_strategy_in_name=balancing_strategy_in_name,
            variations_group_in_name=variations_group_in_name,
            group_enabled_in_name=group_enabled_in_name,
            before_cache_fun=before_cache_fun,
        )
        self.context = context
        self.store = context.store_for(cache_dir)
        self._groups: list[SampleGroup] | None = None
        self._plan: GroupPlan | None = None
        self._keys: dict[tuple[int, int], str] = {}
        #: Plain values of entries, as JSON.
        self._small: dict[str, str] = {}
        self._entries = Entries(
            self.store, context, self.safe_get_previous_item, self._path_of, owner=type(self).__name__
        )

    # The interface of a pipeline module

    def init(self, pipeline: Any, base_seed: int, module_index: int, state: Any) -> None:
        super().init(pipeline, base_seed, module_index, state)
        self._module_index = module_index
        names = self.get_outputs()
        self._live_names = {name for name in names if self._is_plain_path(pipeline.modules, name)}
        self._cached_names = [name for name in names if name not in self._live_names]
        self._sample_keys = SampleKeys(pipeline.modules, module_index, self._cached_names, self.context)
        self._parts = self._sample_keys.parts
        self._unit = "sample" if len(self._parts) == 1 else "part"
        self._part_of = {name: part for part, names in enumerate(self._parts) for name in names}
        #: What is known from the last start; asked by the modules before this one too.
        self.known_samples = KnownSamples(
            self.store, self._sample_keys, self._cached_names, pipeline.modules, module_index, self.context
        )
        self._needed = NeededEntries(self.store, self._cached_names, self._sample_keys.concept_of)

    def _is_plain_path(self, modules: list[Any], name: str) -> bool:
        """Paths are read afresh, never from the cache: a renamed clip keeps its entry, and has its new name."""
        nearest = next(producers(modules, self._module_index, name), None)
        return nearest is not None and is_collector(unwrap(modules[nearest]))

    def get_inputs(self) -> list[str]:
        names = [
            self.variations_in_name,
            self.balancing_in_name,
            self.balancing_strategy_in_name,
            self.group_enabled_in_name,
        ]
        groups = self.variations_group_in_names or []
        return [*self.split_names, *self.aggregate_names, *groups, *(name for name in names if name)]

    def get_outputs(self) -> list[str]:
        return [*self.split_names, *self.aggregate_names]

    def length(self) -> int:
        if self._plan is None:
            return int(self._get_previous_length(self.get_outputs()[0]))
        return len(self._current_plan())

    def start(self, out_variation: int) -> None:
        """Make what this epoch needs and the store does not have.

        Raises ``NothingUsableError`` when not one sample is usable, ``CriticalError`` when caching cannot go on.
        """
        self.context.open_epoch(out_variation)
        if self._groups is None:
            self._groups = self._read_groups()
            self._keys |= self.known_samples.keys()
            self.context.roster.take_in(index for group in self._groups for index in group.indices)
        self._plan = GroupPlan(self._groups, self.context.roster)
        self._entries.without_room.clear()  # there may be some by now
        keys: set[str] = set()
        small: dict[str, str] = {}
        planned = None
        while planned is not self._current_plan():  # without the samples that failed, others may come round
            planned = self._current_plan()
            wanted = self._wanted(out_variation, keys)
            self._note_needed(*wanted)
            small |= self._provide(*wanted)
            keys.update(wanted[1])
        self._small = small
        if self.context.fills_cache:
            dropped = self.context.roster.dropped()
            present = self._keys
            if dropped:
                present = {place: key for place, key in self._keys.items() if place[0] not in dropped}
            self.known_samples.remember(present, small)
        if self._groups and any(group.indices for group in self._groups) and not len(planned):
            self._refuse_empty_epoch()

    def get_item(self, index: int, requested_name: str | None = None) -> dict[str, Any]:
        plan = self._current_plan()
        location = plan.locate(self.current_variation, index)
        variation = location.turn % plan.groups[location.group].variations
        if requested_name in self._live_names:
            return {requested_name: self._get_previous_item(variation, requested_name, location.sample)}
        parts = range(len(self._parts)) if requested_name is None else [self._part_of[requested_name]]
        try:
            item: dict[str, Any] = {}
            for part in parts:
                item |= self._part(location.sample, variation, part, requested_name)
            return item
        except SampleError as error:
            self._skip(location.sample, error)
            raise

    def plain_values(self, name: str) -> list[Any]:
        """A plain item of all samples of the open epoch, by output index; None where it has to be asked for singly.

        Through the engine it takes twenty times as long, which counts with 100,000 samples.
        """
        if name in self._live_names:
            return [None] * self.length()
        read: dict[str, Any] = {}
        values = []
        part = self._part_of[name]
        for index, variation in self._current_plan().order(self.current_variation):
            key = self._keys.get((index, self._number(variation, part)), "")
            text = self._small.get(key, "{}")
            if text not in read:
                read[text] = values_from_json(text).get(name)
            values.append(read[text])
        return values

    # The interface of the seed document

    def validate_cache_item(self, item: dict[str, Any]) -> bool:
        """True when every cached name is there, and no value is None, NaN or infinite."""
        return problem_in(item, self._cached_names) is None

    def safe_get_previous_item(self, variation: int, name: str, index: int) -> Any:
        """The upstream item. Raises ``SampleError`` naming item and sample when it is None or cannot be made."""
        try:
            item = self._get_previous_item(variation, name, index)
        except (SampleError, UserError, CriticalError):
            raise
        except Exception as error:
            raise self._as_ours(error, name, index) from error
        if item is None:
            raise SampleError(
                "a sample is incomplete",
                path=self._path_of(index),
                reason=f"the pipeline made no '{name}' of it",
                fix="check the file; if it plays, please report this",
                module=type(self).__name__,
            )
        return item

    def handle_cache_corruption(self, cache_path: str) -> bool:
        """Set the entry (a key, or the path of its file) aside. True: it is made again when it is next needed.

        False: this is no entry of a cache, and it is left alone.
        """
        try:
            self._entries.set_aside(Path(cache_path).stem)
        except ValueError:
            return False
        return True

    def get_cache_statistics(self) -> CacheStats:
        """What this cache did in this process, and what its store holds."""
        return self._entries.counts.stats(self.store.stats())

    # Inside

    @quiet_gc()
    def _read_groups(self) -> list[SampleGroup]:
        first = self.variations_in_name or self.get_outputs()[0]
        return read_groups(
            lambda name, index: self._get_previous_item(0, name, index),
            self._get_previous_length(first),
            variations_name=self.variations_in_name,
            balancing_name=self.balancing_in_name if self.variations_in_name else None,
            strategy_name=self.balancing_strategy_in_name,
            group_names=all_group_names(self.pipeline.modules, self._module_index),
            read_concept=self._sample_keys.read_concept,
            enabled_name=self.group_enabled_in_name,
        )

    def _current_plan(self) -> GroupPlan:
        """The plan of the open epoch; a cache that starts later may have dropped samples since."""
        assert self._plan is not None and self._groups is not None, "read before the pipeline was started"
        if self._plan.version != self.context.roster.version:
            self._plan = GroupPlan(self._groups, self.context.roster)
        return self._plan

    @quiet_gc()
    def _wanted(self, epoch: int, without: set[str]) -> tuple[list[Place], list[str]]:
        """What this epoch needs: places, and the key of each. Samples with one content share a key."""
        count = len(self._parts)
        needed = self._current_plan().needed(epoch)
        places = [(index, variation * count + part) for index, variation in needed for part in range(count)]
        if not all(map(self._keys.get, places)):
            places = self._with_keys(places)
        keys = [self._keys[place] for place in places]
        if without:
            is_new = [key not in without for key in keys]
            places, keys = list(compress(places, is_new)), list(compress(keys, is_new))
        return places, keys

    def _with_keys(self, places: list[Place]) -> list[Place]:
        """Find the keys of places; returns them without those of samples that cannot be read."""
        unreadable = set()
        for index, number in places:
            try:
                if index not in unreadable:
                    self._key(index, number)
            except SampleError as error:
                self._skip(index, error)
                unreadable.add(index)
        return [place for place in places if place[0] not in unreadable]

    @quiet_gc()
    def _note_needed(self, places: list[Place], keys: list[str]) -> None:
        """Before anything is made: an interrupted caching has said what it is for."""
        if self.context.fills_cache:
            samples = (index for group in self._groups or () for index in group.indices)
            self._needed.note(keys, [index for index, _ in places], samples)

    def _number(self, variation: int, part: int) -> int:
        """Which of a sample's entries it is: of each variation in turn those of its parts."""
        return variation * len(self._parts) + part

    def _key(self, index: int, number: int) -> str:
        """The key of an entry. Raises ``SampleError`` when what it hangs on cannot be read."""
        place = index, number
        if place not in self._keys:
            try:
                self._keys[place] = self._sample_keys.of(index, *divmod(number, len(self._parts)))
            except (SampleError, UserError, CriticalError):
                raise
            except Exception as error:
                raise self._as_ours(error, "key", index) from error
        return self._keys[place]

    def _part(self, index: int, variation: int, part: int, requested_name: str | None) -> dict[str, Any]:
        """The items of one part of a sample, or as many of them as are at hand with the one that is asked for."""
        # A sample that failed in a cache behind this one may have moved others to a variation not made yet.
        key = self._key(index, self._number(variation, part))
        if key in self._entries.without_room and requested_name is not None:
            return self._to_device(self._entries.encode(index, variation, [requested_name]))
        small = values_from_json(self._small[key]) if key in self._small else {}
        if requested_name in small:
            return small
        return self._to_device(self._entries.read(key, index, variation, self._parts[part]))

    def _provide(self, places: list[Place], keys: list[str]) -> dict[str, str]:
        """Make what the store lacks. The plain values of all that it has then, as JSON."""
        wanted = list(dict.fromkeys(keys))
        there = self._there(wanted)
        lacking: dict[str, list[Place]] = {}
        for key, place in zip(keys, places, strict=True):
            if key not in there:
                lacking.setdefault(key, []).append(place)
        missing = [Job(*job) for job in lacking.items()]
        misses = sum(map(len, lacking.values()))
        hits = len(places) - misses
        self._entries.counts.asked(hits, misses)
        self.context.metrics.count("cache_hits", hits)
        self.context.metrics.count("cache_misses", misses)
        if missing and self.context.fills_cache:
            self._build(missing, len(wanted), hits)
            there |= self.store.present(job.key for job in missing)
        elif missing:
            self._leave_out(missing)
        return there

    @quiet_gc()
    def _there(self, keys: list[str]) -> dict[str, str]:
        """The plain values, as JSON, of those entries that are there: as they are known, or as the store says."""
        there = self.known_samples.present(keys)
        there |= self._entries.present([key for key in keys if key not in there])
        return there

    def _leave_out(self, missing: list[Job]) -> None:
        """Where another process fills the cache: for this epoch, since that one may make the samples in a later one."""
        for index in sorted({index for job in missing for index, _ in job.samples}):
            error = SampleError(
                "a sample is not in the cache",
                path=self._path_of(index),
                reason="the process that fills the cache could not make it",
                fix="see what that process reported of this file",
                module=type(self).__name__,
                context={"this_epoch_only": True},
            )
            self._skip(index, error)

    def _build(self, missing: list[Job], wanted: int, hits: int) -> None:
        self.before_cache_fun()
        name = " and ".join(self._cached_names[:2]) + (" …" if len(self._cached_names) > 2 else "")
        self.context.event(
            "caching_started",
            f"caching {len(missing)} of {wanted} {self._unit}s ({name})",
            missing=len(missing),
            wanted=wanted,
        )
        started = time.perf_counter()
        builder = CacheBuilder(
            self._make,
            self._skip,
            self._state.executor,
            self.context.recovery.policy.max_threads,
            file_of=self._path_of,
            announce=self._announce,
            narrowed=self._narrowed,
            unit=self._unit,
            facts=lambda: {"hits": hits, "written": f"{self._entries.bytes_written / 1e6:.1f} MB"},
        )
        made = builder.run(missing) - len(self._entries.without_room)
        self._forget_items(with_failures=made < len(missing))
        self.context.event(
            "caching_finished",
            f"cached {made} of {len(missing)} {self._unit}s in {time.perf_counter() - started:.1f} s",
            made=made,
            failed=len(missing) - made,
        )

    def _make(self, key: str, index: int, number: int, patience: float) -> bool:
        if self.context.roster.is_dropped(index):  # another part of it failed, and was tried often enough
            error = copy.copy(self.context.roster.reasons()[index])
            error.context = error.context | {SHORT_OF_MEMORY: False}
            raise error from None
        variation, part = divmod(number, len(self._parts))
        return self._entries.make(key, index, variation, self._parts[part], patience)

    def _announce(self, file: str, places: list[Place]) -> None:
        pairs = [(index, number // len(self._parts)) for index, number in places]
        self.context.announce(file, list(dict.fromkeys(pairs)))

    def _narrowed(self, at_once: int) -> None:
        self.context.recovery.lower_threads(at_once)
        message = f"memory ran short: at most {at_once} samples are made at the same time from now on"
        self.context.event("reconfigured", message)
        logger.warning("%s", message)
        self._forget_items(with_failures=True)

    def _forget_items(self, *, with_failures: bool) -> None:
        """Free the items that each loader thread holds in every module: whole clips, until it is asked for another.

        What failed holds clips too: its exceptions and their frames refer to each other. To find those takes a tenth
        of a second.
        """
        for module in self.pipeline.modules[: self._module_index]:
            if not isinstance(module, SerialPipelineModule):
                module.clear_item_cache()
        if with_failures:
            gc.collect()
        pixel_memory.release()

    def _to_device(self, item: dict[str, Any]) -> dict[str, Any]:
        device = self.pipeline.device
        return {name: value.to(device) if torch.is_tensor(value) else value for name, value in item.items()}

    def _skip(self, index: int, error: SampleError) -> None:
        self.context.skip(index, error, self._path_of(index))

    def _path_of(self, index: int) -> str | None:
        return self._sample_keys.path_of(index)

    def _as_ours(self, error: Exception, name: str, index: int) -> Exception:
        """A foreign exception as one of ours: one sample's, or the run's."""
        if failure_kind(error) == "memory":
            return too_little_memory(self._path_of(index))
        kind = self.context.recovery.classify_error(error, {"module": type(self).__name__, "item": name})
        ours = CriticalError if kind is ErrorType.CRITICAL else SampleError
        return ours(
            "caching cannot go on" if ours is CriticalError else "a sample cannot be encoded",
            path=self._path_of(index),
            reason=f"'{name}' failed: {type(error).__name__}: {error}",
            fix="check the clip, or take it out of the folder" if ours is SampleError else "see the reason",
            module=type(self).__name__,
            context={"failed": True},
        )

    def _refuse_empty_epoch(self) -> None:
        raise NothingUsableError(
            "no usable sample is left",
            reason="; ".join(self.context.skip_summary()[:5]) or "balancing leaves none for this epoch",
            fix="run `wan check` on the preset to see each file's reason and fix",
            module=type(self).__name__,
        )
