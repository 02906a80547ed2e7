"""PipelineModule: what every module can ask of the modules before it, and the item cache that answers twice."""

from __future__ import annotations

import gc
import threading
from abc import ABCMeta, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import AbstractContextManager, ExitStack
from random import Random
from typing import TYPE_CHECKING, Any

import torch

from wan_fixes.engine.kinds import RandomAccessPipelineModule, SerialPipelineModule
from wan_fixes.errors import CriticalError

if TYPE_CHECKING:
    from wan_fixes.engine.loading import LoadingPipeline


class PipelineState:
    """What all modules of one pipeline share; each part of it may be used from any thread."""

    executor: futures.Executor

    def __init__(self, max_threads: int | None = None) -> None:
        self.executor = futures.ThreadPoolExecutor(max_threads)


class PipelineModule(metaclass=ABCMeta):
    """Base of all modules. A module is also of one of the kinds in `kinds.py`, which come second in its bases.

    A module finds its inputs by name in the modules before it, the nearest first. Each module remembers, for each
    thread, the one item that it gave last, so that asking for ten names of one sample computes that sample once.
    """

    pipeline: LoadingPipeline
    _state: PipelineState

    class Cache(threading.local):
        """The last item given to this thread, and which one it is."""

        def __init__(self) -> None:
            self.variation_cache_index = -1
            self.item_cache_index = -1
            self.item_cache: dict[str, Any] = {}
            self.length_cache = -1

    def __init__(self) -> None:
        super().__init__()
        self.clear_item_cache()

    def init(self, pipeline: LoadingPipeline, base_seed: int, module_index: int, state: PipelineState) -> None:
        """Take the module's place in `pipeline`: it sees the modules before `module_index`."""
        self.pipeline = pipeline
        self.__base_seed = base_seed
        self.__module_index = module_index
        self._state = state

    def clear_item_cache(self) -> None:
        """Forget the items of all threads."""
        self.__local_cache = self.Cache()

    @abstractmethod
    def get_inputs(self) -> list[str]:
        """Names that this module reads."""

    @abstractmethod
    def get_outputs(self) -> list[str]:
        """Names that this module gives."""

    def _get_previous_item(self, variation: int, name: str, index: int) -> Any:
        """Value of `name` for one sample, from the nearest module before this one that has it.

        A module whose value is None is passed over for the one before it. `concept.image.path` reads into nested
        dictionaries, and is None where one of them lacks the key. None when nobody has the name.
        """
        item_name, *keys = name.split(".")
        value = None
        for module in self.__previous_modules(item_name):
            value = self.__read_item(module, variation, item_name, index)
            if value is not None:
                break

        for key in keys:
            if value is None:
                raise TypeError(f"{name} was requested by {self}, but there is no value to look up {key!r} in")
            if key not in value:
                return None
            value = value[key]
        return value

    def _get_previous_length(self, name: str) -> int:
        """Number of items of the nearest module before this one that gives `name`; None when nobody does."""
        for module in self.__previous_modules(name.split(".")[0]):
            cache = module.__local_cache
            if cache.length_cache < 0:
                is_serial = isinstance(module, SerialPipelineModule)
                cache.length_cache = module.approximate_length() if is_serial else module.length()
            return cache.length_cache
        return None  # type: ignore[return-value]  # MGDS's modules take the length without asking

    def _get_previous_meta(self, variation: int, name: str) -> Any:
        """Meta information on `name` from the nearest module before this one that gives it."""
        for module in self.__previous_modules(name):
            if isinstance(module, RandomAccessPipelineModule):
                return module.get_meta(variation, name)
            self.__check_variation(module, variation, name)
            return module.get_meta(name)
        return None

    def _has_previous_next(self, name: str) -> bool | None:
        """Whether the nearest module before this one that gives `name` has one more item; None when nobody does."""
        for module in self.__previous_modules(name):
            return module.has_next() if isinstance(module, SerialPipelineModule) else True
        return None

    def _all_contexts(self, autocast_contexts: Sequence[AbstractContextManager[Any]]) -> ExitStack:
        """All the contexts as one; leaving it leaves them in reverse order."""
        with ExitStack() as stack:
            for context in autocast_contexts:
                stack.enter_context(context)
            return stack.pop_all()

    def _get_rand(self, variation: int, index: int = -1) -> Random:
        """A generator that depends on the pipeline's seed, this module's place, the variation and the index only.

        The seed is the one that MGDS takes, so that both engines draw the same numbers.
        """
        return Random(hash((self.__base_seed, self.__module_index, variation, index)))

    def _torch_gc(self) -> None:
        """Give unused accelerator memory back to the system."""
        has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        if has_cuda:
            torch.cuda.synchronize()
        if has_mps:
            torch.mps.synchronize()
        gc.collect()
        if has_cuda:
            torch.cuda.empty_cache()
        if has_mps:
            torch.mps.empty_cache()

    def __previous_modules(self, item_name: str) -> Iterator[Any]:
        """The modules before this one that give `item_name`, the nearest first."""
        for module in reversed(self.pipeline.modules[: self.__module_index]):
            if item_name in module.get_outputs():
                yield module

    def __read_item(self, module: Any, variation: int, item_name: str, index: int) -> Any:
        """Value of `item_name` in `module`'s item, computed only when its cache cannot answer.

        The cache changes only once the item is there, so an error leaves it as it was.
        """
        cache = module.__local_cache
        if (cache.variation_cache_index, cache.item_cache_index) != (variation, index):
            item = self.__compute_item(module, variation, item_name, index)
            cache = module.__local_cache  # a serial module that had to restart has a new one
            cache.variation_cache_index = variation
            cache.item_cache_index = index
            cache.item_cache = item
        elif item_name not in cache.item_cache and not isinstance(module, SerialPipelineModule):
            # The module answered another name with part of its item. A serial one has moved on since.
            cache.item_cache.update(self.__compute_item(module, variation, item_name, index))

        try:
            return cache.item_cache[item_name]
        except KeyError:
            raise KeyError(f"{module} names {item_name!r} among its outputs, but its item {index} lacks it") from None

    def __compute_item(self, module: Any, variation: int, item_name: str, index: int) -> dict[str, Any]:
        if isinstance(module, RandomAccessPipelineModule):
            item = module.get_item(variation, index, item_name)
        else:
            self.__check_variation(module, variation, item_name)
            if isinstance(module, SerialPipelineModule):
                self.__go_to_index(module, item_name, index)
                item = module.get_next_item()
            else:
                item = module.get_item(index, item_name)

        if item is None:
            raise TypeError(f"{module} returned None as its item {index} when {item_name!r} was requested by {self}")
        if isinstance(module, SerialPipelineModule):
            module.current_index += 1
        return item

    def __go_to_index(self, module: Any, item_name: str, index: int) -> None:
        """A serial module can go on, or start again with everything before it; it cannot go anywhere else."""
        if index == module.current_index:
            return
        if index != 0:
            raise CriticalError(
                "wrong index requested",
                module=type(module).__name__,
                reason=f"{self} asks {module} for {item_name!r} of item {index}, "
                f"but it stands at item {module.current_index}",
                fix="read a serial module one item after the other",
            )
        self.pipeline.reset_serial_modules_before(self.pipeline.modules.index(module))

    def __check_variation(self, module: Any, variation: int, item_name: str) -> None:
        if variation != module.current_variation:
            raise CriticalError(
                "wrong variation requested",
                module=type(module).__name__,
                reason=f"{self} asks {module} for {item_name!r} of variation {variation}, "
                f"but it is in variation {module.current_variation}",
                fix="only random access modules can give another variation than the current one",
            )
