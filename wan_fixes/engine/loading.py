"""LoadingPipeline: keeps the modules in order, starts them epoch by epoch and hands out finished samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from wan_fixes.engine.kinds import (
    RandomAccessPipelineModule,
    SerialPipelineModule,
    SingleVariationRandomAccessPipelineModule,
)
from wan_fixes.engine.module import PipelineModule, PipelineState


class LoadingPipeline(Iterator[dict[str, Any]]):
    """An iterator over the samples of the current epoch, on `device`.

    Parameters
    ----------
    modules:
        Modules, lists of them nested to any depth, and None for what is switched off.
    initial_epoch, initial_index:
        Where to resume; the index is rounded down to a whole batch.
    """

    device: torch.device
    modules: list[PipelineModule]

    def __init__(
        self,
        device: torch.device,
        modules: list[Any],
        batch_size: int,
        seed: int,
        state: PipelineState,
        initial_epoch: int = 0,
        initial_index: int = 0,
    ) -> None:
        self.device = device
        self.modules = list(_flatten(modules))
        for index, module in enumerate(self.modules):
            module.init(self, seed, index, state)

        self.__initial_epoch = initial_epoch
        self.__initial_index = initial_index - initial_index % batch_size
        self.__current_epoch = initial_epoch - 1
        self.__mark_reset_serial_modules = False

    @property
    def __output_module(self) -> Any:
        """The last output module. Found by name: with two engines at hand there are two classes of it."""
        for module in reversed(self.modules):
            if type(module).__name__ == "OutputPipelineModule":
                return module
        raise AttributeError("the pipeline has no OutputPipelineModule, so it can give no samples")

    def approximate_length(self) -> int:
        """Samples in an epoch; not exact, since it can change from one to the next."""
        return max(0, self.__output_module.approximate_length())

    def start_next_epoch(self) -> None:
        """Start every module that wants to be started for the next epoch, in order."""
        self.__current_epoch += 1
        with torch.no_grad():
            for module in self.modules:
                # Also what makes a random module vary when the data set is a single sample.
                module.clear_item_cache()

                if isinstance(module, RandomAccessPipelineModule):
                    if not module.started:
                        module.start(self.__current_epoch)
                    module.started = True
                elif isinstance(module, SingleVariationRandomAccessPipelineModule):
                    module.current_variation = self.__current_epoch
                    module.start(self.__current_epoch)
                elif isinstance(module, SerialPipelineModule):
                    module.current_variation = self.__current_epoch
                    self.__start_serial(module)
        self.__mark_reset_serial_modules = True

    def reset_serial_modules_before(self, module_index: int) -> None:
        """Start the serial modules up to and including `module_index` again, and forget all items up to there."""
        with torch.no_grad():
            for module in self.modules[: module_index + 1]:
                module.clear_item_cache()
                if isinstance(module, SerialPipelineModule):
                    self.__start_serial(module)

    def __start_serial(self, module: SerialPipelineModule) -> None:
        is_first_epoch = self.__current_epoch == self.__initial_epoch
        module.current_index = self.__initial_index if is_first_epoch else 0
        module.start(self.__current_epoch, module.current_index)

    def __next__(self) -> dict[str, Any]:
        if self.__mark_reset_serial_modules:
            # A module started late in the list may have read a serial one before it, which must begin anew.
            self.__mark_reset_serial_modules = False
            self.reset_serial_modules_before(len(self.modules) - 1)

        output = self.__output_module
        if not output.has_next():
            raise StopIteration
        with torch.no_grad():
            item = output.get_next_item()
            output.current_index += 1
            return item


def _flatten(definition: Any) -> Iterator[Any]:
    """The modules in nested lists, in order, without the Nones."""
    if isinstance(definition, list):
        for part in definition:
            yield from _flatten(part)
    elif definition is not None:
        yield definition
