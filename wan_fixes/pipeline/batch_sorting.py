"""Samples into batches of one size: nothing is dropped in silence, and a bad sample never breaks a batch."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from wan_fixes.errors import CriticalError, NothingUsableError, SampleError
from wan_fixes.pipeline.base import PipelineModule, SerialPipelineModule, SingleVariationRandomAccessPipelineModule
from wan_fixes.pipeline.context import PipelineContext
from wan_fixes.pipeline.disk_cache import ValidatedDiskCache
from wan_fixes.pipeline.quiet_gc import quiet_gc
from wan_fixes.pipeline.upstream import producers, unwrap

logger = logging.getLogger(__name__)

LOSS_WEIGHT = "loss_weight"


class _Waiting(NamedTuple):
    """A sample in a bucket that is not full yet; not loaded while an epoch is replayed."""

    sample: int
    item: dict[str, Any] | None


def as_placeholder(item: dict[str, Any]) -> dict[str, Any]:
    """The same item with weight 0 in the loss. The concept is copied: all its samples share the one object."""
    changed = dict(item)
    if isinstance(changed.get("concept"), dict):
        changed["concept"] = {**changed["concept"], LOSS_WEIGHT: 0.0}
    if LOSS_WEIGHT in changed:
        changed[LOSS_WEIGHT] = 0.0
    return changed


def can_carry_weight(names: list[str]) -> bool:
    """True when items with these names can say that they must not be trained on."""
    return "concept" in names or LOSS_WEIGHT in names


def report_incomplete(context: PipelineContext, batch_size: int, placeholders: int, dropped: int) -> None:
    """Say what became of the samples that did not fill a batch."""
    if placeholders:
        context.metrics.count("placeholders", placeholders)
        context.event(
            "incomplete_batches",
            f"{placeholders} places in incomplete batches are filled with placeholders that carry no weight",
            placeholders=placeholders,
        )
    if dropped:
        context.metrics.count("samples_dropped", dropped)
        context.event(
            "samples_dropped",
            f"{dropped} samples are left out of this epoch: they do not fill a batch of {batch_size} of one size",
            dropped=dropped,
        )


def check_empty_epoch(context: PipelineContext, batch_size: int, samples: int) -> None:
    """Raise ``NothingUsableError`` when an epoch without a batch means that there will never be one.

    Parameters
    ----------
    samples:
        How many there were, all good, that filled no batch. With 0 all failed, and others may come round.
    """
    if not samples and not context.roster.nobody_is_left():
        return
    reasons = [f"{samples} samples do not fill a batch of {batch_size} of one size"] if samples else []
    raise NothingUsableError(
        "there is nothing to train on",
        reason="; ".join([*reasons, *context.skip_summary()[:5]]),
        fix="lower the batch size, or run `wan check` on the preset to see each file's reason and fix",
    )


class SafeAspectBatchSorting(PipelineModule, SingleVariationRandomAccessPipelineModule):
    """Sorts cached samples into batches of equal resolution, shuffled as MGDS's AspectBatchSorting shuffles them.

    MGDS silently drops what does not fill a batch. Here a batch that is not full is filled with placeholders:
    samples of the same bucket with loss weight 0, so that each sample weighs what it weighs in a full batch.
    Where an item cannot carry a weight, or ``incomplete_batches`` is set to ``drop``, they are dropped and reported.
    """

    def __init__(self, resolution_in_name: str, names: list[str], batch_size: int, *, context: PipelineContext) -> None:
        super().__init__()
        self.resolution_in_name = resolution_in_name
        self.names = names
        self.batch_size = batch_size
        self.context = context
        self._order: list[int] = []
        #: The places in it that are only filled, with a sample that has another one.
        self._fills: set[int] = set()
        self._bucket_of: dict[int, list[int]] = {}

    def init(self, pipeline: Any, base_seed: int, module_index: int, state: Any) -> None:
        super().init(pipeline, base_seed, module_index, state)
        self._module_index = module_index

    def get_inputs(self) -> list[str]:
        return [self.resolution_in_name, *self.names]

    def get_outputs(self) -> list[str]:
        return self.names

    def length(self) -> int:
        return len(self._order)

    def start(self, variation: int) -> None:
        self.context.open_epoch(variation)
        self.context.roster.close_epoch()  # from here on an index means one sample, also for those that fail now
        buckets = self._buckets()
        self._shuffle(buckets)
        if not self._order:
            check_empty_epoch(self.context, self.batch_size, sum(map(len, buckets.values())))

    @quiet_gc()
    def _buckets(self) -> dict[Any, list[int]]:
        buckets: dict[Any, list[int]] = {}
        for index, known in enumerate(self._resolutions()):
            resolution = known
            if resolution is None:
                try:
                    resolution = self._get_previous_item(self.current_variation, self.resolution_in_name, index)
                except SampleError as error:
                    logger.warning("left out of this epoch: %s", error)
                    continue
            buckets.setdefault(resolution, []).append(index)
        return buckets

    def _resolutions(self) -> list[Any]:
        """As a cache has them; None where one has to be asked for singly."""
        nearest = next(producers(self.pipeline.modules, self._module_index, self.resolution_in_name), None)
        cache = None if nearest is None else unwrap(self.pipeline.modules[nearest])
        if isinstance(cache, ValidatedDiskCache):
            return cache.plain_values(self.resolution_in_name)
        return [None] * self._get_previous_length(self.resolution_in_name)

    @quiet_gc()
    def _shuffle(self, buckets: dict[Any, list[int]]) -> None:
        rand = self._get_rand(self.current_variation)
        pads = self.context.settings.incomplete_batches == "pad" and can_carry_weight(self.names)
        batches = []
        for resolution, members in buckets.items():
            count = -(-len(members) // self.batch_size) if pads else len(members) // self.batch_size
            batches += [(resolution, number) for number in range(count)]
        rand.shuffle(batches)
        for members in buckets.values():
            rand.shuffle(members)

        order: list[int] = []
        fills: set[int] = set()
        for resolution, number in batches:
            members = buckets[resolution]
            batch = members[number * self.batch_size : (number + 1) * self.batch_size]
            order += batch
            missing = self.batch_size - len(batch)
            if missing:
                fills.update(range(len(order), len(order) + missing))
                # From the front of the bucket, so that a bucket of one still makes a batch.
                order += [members[i % len(members)] for i in range(missing)]
        self._bucket_of = {index: members for members in buckets.values() for index in members}
        dropped = sum(map(len, buckets.values())) - (len(order) - len(fills))
        report_incomplete(self.context, self.batch_size, len(fills), dropped)
        self._order, self._fills = order, fills

    def get_item(self, index: int, requested_name: str | None = None) -> dict[str, Any]:
        sample = self._order[index]
        try:
            item = self._read(sample)
            return as_placeholder(item) if index in self._fills else item
        except SampleError as error:
            return self._substitute(sample, error)

    def _read(self, index: int) -> dict[str, Any]:
        return {name: self._get_previous_item(self.current_variation, name, index) for name in self.names}

    def _substitute(self, failed: int, error: SampleError) -> dict[str, Any]:
        """A sibling of the same bucket in place of a sample that can no longer be read.

        Where none of the bucket can be read, the batch is filled from another one, each place with the same sample.
        """
        if not can_carry_weight(self.names):
            raise CriticalError(
                "a sample failed and nothing can stand in for it",
                path=error.path,
                reason=error.reason or error.what,
                fix="mend or remove the file and start again; what is cached is kept",
                module=type(self).__name__,
            ) from error
        siblings = self._bucket_of[failed]
        for sibling in (*siblings, *(sample for sample in self._order if sample not in siblings)):
            if sibling == failed:
                continue
            try:
                item = self._read(sibling)
            except SampleError:
                continue
            self.context.metrics.count("placeholders")
            return as_placeholder(item)
        raise CriticalError(
            "no sample can be read any more",
            path=error.path,
            reason=error.reason or error.what,
            fix="check that the drive with the cache and the clips is connected, then start again",
            module=type(self).__name__,
        ) from error


class SafeInlineAspectBatchSorting(PipelineModule, SerialPipelineModule):
    """Sorts samples into batches while they are loaded, for training without a latent cache.

    A sample that cannot be loaded is passed over. What is left in buckets that never filled up is handed out at
    the end with placeholders, or reported. Starting in the middle of an epoch replays the sorting up to
    there, so that a resumed run sees the batches that an uninterrupted one would.
    """

    def __init__(self, resolution_in_name: str, names: list[str], batch_size: int, *, context: PipelineContext) -> None:
        super().__init__()
        self.resolution_in_name = resolution_in_name
        self.names = names
        self.batch_size = batch_size
        self.context = context
        self._order: list[int] = []
        self._next = 0
        self._handed_out = 0
        self._to_replay = 0
        self._buckets: dict[Any, list[_Waiting]] = {}
        self._ready: list[dict[str, Any]] = []
        self._at_the_end = False

    def init(self, pipeline: Any, base_seed: int, module_index: int, state: Any) -> None:
        super().init(pipeline, base_seed, module_index, state)
        self._module_index = module_index

    def _processes(self) -> int:
        """How many processes share the batches, as a sampler behind this module knows."""
        behind = self.pipeline.modules[self._module_index + 1 :]
        samplers = (module for module in behind if isinstance(module, SerialPipelineModule))
        return next((int(sampler.world_size) for sampler in samplers if hasattr(sampler, "world_size")), 1)

    def get_inputs(self) -> list[str]:
        return [self.resolution_in_name, *self.names]

    def get_outputs(self) -> list[str]:
        return self.names

    def approximate_length(self) -> int:
        known = self._handed_out + len(self._ready)
        return known if self._at_the_end else max(len(self._order), known)

    def start(self, variation: int, start_index: int) -> None:
        self.context.open_epoch(variation)
        self._order = list(range(self._get_previous_length(self.resolution_in_name)))
        self._get_rand(variation).shuffle(self._order)
        self._next = 0
        # The engine counts what this process has had; here every process's samples are counted.
        self.current_index = self._handed_out = self._to_replay = start_index * self._processes()
        self._buckets = {}
        self._ready = []
        self._at_the_end = False
        self.context.roster.close_epoch()

    def has_next(self) -> bool:
        # Filled on demand: the engine starts serial modules twice, and the first batch need not be decoded twice.
        if not self._ready:
            self._fill()
        return bool(self._ready)

    def get_next_item(self) -> dict[str, Any]:
        if not self.has_next():
            raise StopIteration
        self._handed_out += 1
        return self._ready.pop(0)

    def _fill(self) -> None:
        """Load samples until one bucket is full, then hand out what is left."""
        while self._next < len(self._order) and not self._ready:
            index = self._order[self._next]
            self._next += 1
            try:
                resolution = self._get_previous_item(self.current_variation, self.resolution_in_name, index)
                item = None if self._to_replay > 0 else self._read(index)
            except SampleError as error:
                logger.debug("passed over: %s", error)
                continue
            bucket = self._buckets.setdefault(resolution, [])
            bucket.append(_Waiting(index, item))
            if len(bucket) == self.batch_size:
                self._hand_out(bucket)
        if self._next == len(self._order) and not self._ready and not self._at_the_end:
            self._hand_out_the_rest()

    def _hand_out(self, bucket: list[_Waiting]) -> None:
        """Make a full bucket ready; while replaying only count it. A sample that fails now leaves its place open."""
        if self._to_replay > 0:
            self._to_replay -= self.batch_size
            bucket.clear()
            return
        bucket[:] = self._loaded(bucket)
        if len(bucket) == self.batch_size:
            self._ready += [waiting.item for waiting in bucket if waiting.item is not None]
            bucket.clear()

    def _hand_out_the_rest(self) -> None:
        pads = self.context.settings.incomplete_batches == "pad" and can_carry_weight(self.names)
        placeholders = dropped = 0
        for bucket in self._buckets.values():
            if bucket and pads and self._to_replay > 0:
                self._to_replay -= self.batch_size
                continue
            items = [waiting.item for waiting in self._loaded(bucket) if waiting.item is not None]
            if not items:
                continue
            if not pads:
                dropped += len(items)
                continue
            missing = self.batch_size - len(items)
            self._ready += items + [as_placeholder(items[i % len(items)]) for i in range(missing)]
            placeholders += missing
        self._at_the_end = True
        if not self._handed_out and not self._ready:
            check_empty_epoch(self.context, self.batch_size, dropped)
        # The engine remembers lengths; it has to ask again, since the placeholders came on top. Modules behind this one
        # hand its length on: where several processes share the batches, each one's part of it.
        for module in self.pipeline.modules[self._module_index :]:
            module.clear_item_cache()
        report_incomplete(self.context, self.batch_size, placeholders, dropped)

    def _loaded(self, bucket: list[_Waiting]) -> list[_Waiting]:
        loaded = []
        for index, item in bucket:
            try:
                loaded.append(_Waiting(index, self._read(index) if item is None else item))
            except SampleError as error:
                logger.debug("passed over: %s", error)
        return loaded

    def _read(self, index: int) -> dict[str, Any]:
        return {name: self._get_previous_item(self.current_variation, name, index) for name in self.names}
