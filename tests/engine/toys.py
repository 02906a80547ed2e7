"""Shared by tests: finding the engines at hand, forcing one of them, and toy modules to build pipelines from.

Imports torch only once an engine is asked for.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

NO_MGDS = "mgds is not installed: name a checkout of it in WAN_FIXES_MGDS to check it too"


def put_mgds_on_path() -> None:
    """Make the checkout that WAN_FIXES_MGDS names importable, if it names one. Raises FileNotFoundError."""
    checkout = os.environ.get("WAN_FIXES_MGDS")
    if not checkout:
        return
    source = Path(checkout) / "src"
    if not (source / "mgds").is_dir():
        raise FileNotFoundError(f"WAN_FIXES_MGDS={checkout} is not a checkout of mgds: it has no folder src/mgds")
    if str(source) not in sys.path:
        sys.path.insert(0, str(source))


def engine_names() -> list[str]:
    """The engines at hand: ours, and the real one where it can be found."""
    put_mgds_on_path()
    try:
        has_mgds = importlib.util.find_spec("mgds.MGDS") is not None
    except ModuleNotFoundError:
        has_mgds = False
    return ["standalone", "mgds"] if has_mgds else ["standalone"]


@functools.cache
def load_engine(name: str) -> SimpleNamespace:
    """The classes of engine `name` by their names, its `name`, and `toys`: the toy modules built on it."""
    if name == "standalone":
        engine = importlib.import_module("wan_fixes.engine")
        classes = {name: getattr(engine, name) for name in engine.__all__}
    else:
        put_mgds_on_path()
        classes = importlib.import_module("wan_fixes.pipeline.base").import_mgds()
    loaded = SimpleNamespace(name=name, **classes)
    loaded.toys = make_toys(loaded)
    return loaded


def available_engines() -> list[SimpleNamespace]:
    """Ours, and the real one where it is at hand."""
    return [load_engine(name) for name in engine_names()]


@contextlib.contextmanager
def forced_engine(name: str) -> Iterator[ModuleType]:
    """Within it, whatever is imported from `wan_fixes.pipeline` is a fresh copy that runs on engine `name`.

    Gives the fresh `wan_fixes.pipeline.base`. Import what you need inside: the copies imported before stay on the
    engine that they were on, and come back afterwards.
    """
    load_engine(name)
    with mock.patch.dict(os.environ, {"WAN_FIXES_ENGINE": name}), fresh_modules("wan_fixes.pipeline"):
        yield importlib.import_module("wan_fixes.pipeline.base")


@contextlib.contextmanager
def fresh_modules(*packages: str) -> Iterator[None]:
    """Within it, importing from `packages` runs their files again; afterwards all is as before."""

    def take_out() -> dict[str, ModuleType]:
        names = [name for name in sys.modules if any(f"{name}.".startswith(f"{package}.") for package in packages)]
        return {name: sys.modules.pop(name) for name in names}

    before = take_out()
    try:
        yield
    finally:
        take_out()
        sys.modules.update(before)
        for package in packages:
            parent, _, child = package.rpartition(".")
            if parent and package in before:
                setattr(sys.modules[parent], child, before[package])


def make_toys(engine: Any) -> SimpleNamespace:
    """A toy of each kind on the engine's base classes.

    `item` is what computes an item: a function of the module and of the arguments that this kind gets. Every toy
    records in `calls` how it was started and asked.
    """

    class Toy:
        def __init__(
            self,
            item: Callable[..., Any],
            *,
            outputs: tuple[str, ...] = ("x",),
            length: int | Callable[[Any], int] = 4,
            on_start: Callable[..., None] | None = None,
        ) -> None:
            super().__init__()
            self.item = item
            self.outputs = list(outputs)
            self.item_count = length
            self.on_start = on_start
            self.calls: list[tuple[Any, ...]] = []

        def get_inputs(self) -> list[str]:
            return []

        def get_outputs(self) -> list[str]:
            return self.outputs

        def length(self) -> int:
            self.calls.append(("length",))
            return self.item_count(self) if callable(self.item_count) else self.item_count

        def start(self, *place: int) -> None:
            self.calls.append(("start", *place))
            if self.on_start is not None:
                self.on_start(self, *place)

        def get_meta(self, *request: Any) -> Any:
            return ("meta", *request)

        def get_item(self, *request: Any) -> Any:
            self.calls.append(("item", *request))
            return self.item(self, *request)

        def calls_of(self, kind: str) -> list[tuple[Any, ...]]:
            return [call[1:] for call in self.calls if call[0] == kind]

    class RandomAccess(Toy, engine.PipelineModule, engine.RandomAccessPipelineModule):
        """item(module, variation, index, requested_name)"""

    class SingleVariation(Toy, engine.PipelineModule, engine.SingleVariationRandomAccessPipelineModule):
        """item(module, index, requested_name)"""

    class Serial(Toy, engine.PipelineModule, engine.SerialPipelineModule):
        """item(module), for `module.current_index`; ends at its length unless `more(module)` says otherwise."""

        def __init__(self, *args: Any, more: Callable[[Any], bool] | None = None, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.more = more

        def approximate_length(self) -> int:
            return self.length()

        def get_next_item(self) -> Any:
            self.calls.append(("item", self.current_index))
            return self.item(self)

        def has_next(self) -> bool:
            return self.current_index < self.length() if self.more is None else self.more(self)

    class Reader(RandomAccess):
        """Gives nothing; a place from which to look at the modules before."""

        def __init__(self) -> None:
            super().__init__(lambda *_: {}, outputs=())

    return SimpleNamespace(RandomAccess=RandomAccess, SingleVariation=SingleVariation, Serial=Serial, Reader=Reader)


def build(
    engine: Any,
    *modules: Any,
    seed: int = 1,
    batch_size: int = 1,
    threads: int | None = 1,
    initial_epoch: int = 0,
    initial_index: int = 0,
    device: str = "cpu",
) -> Any:
    """A LoadingPipeline of `modules`, on `device`, not started yet."""
    import torch

    state = engine.PipelineState(threads)
    return engine.LoadingPipeline(
        torch.device(device), list(modules), batch_size, seed, state, initial_epoch, initial_index
    )


def values(samples: Any, name: str = "x") -> list[Any]:
    """What each sample holds under `name`, tensors as plain numbers."""
    return [sample[name].tolist() if hasattr(sample[name], "tolist") else sample[name] for sample in samples]


def next_epoch(pipeline: Any, name: str = "x") -> list[Any]:
    """Run the next epoch to its end; its values of `name`."""
    pipeline.start_next_epoch()
    return values(pipeline, name)
