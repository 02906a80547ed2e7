"""Random toy pipelines, and what they must give: worked out on whole lists, without modules, caches or threads.

A pipeline is a plan: data. `expected` says what samples it gives; `run` builds it on an engine and says what came out.
Every sample holds two numbers, x and y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from hypothesis import strategies as st

MODULUS = 1_000_003  # keeps numbers small however long the chain
FIRST_STAGE = 3  # behind the concepts, the settings and the source

Sample = tuple[int, int]


@dataclass(frozen=True)
class Stage:
    """One module: `kind` is a key of STAGES, `amount` is what it depends on."""

    kind: str
    amount: int


@dataclass(frozen=True)
class Plan:
    """A pipeline and how it is run."""

    samples: int
    stages: tuple[Stage, ...]
    seed: int
    batch_size: int
    epochs: int
    initial_epoch: int
    initial_sample: int
    threads: int
    by_loader: bool
    """Whether samples are taken in batches, by TrainDataLoader."""


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any plan that a pipeline can follow: whatever reads in any order stands before what gives items in order only."""
    resumes_within_an_epoch = draw(st.booleans())
    serial: list[str] = draw(st.sampled_from([[], ["line_up"], ["buckets"]]))
    behind = []
    if serial == ["line_up"]:
        # Restarting a serial module in a resumed epoch begins where it was resumed: no reading ahead, no striding then.
        kinds = ["scale", "draw", "relay"] + ([] if resumes_within_an_epoch else ["stride", "read_ahead"])
        behind = draw(st.lists(st.sampled_from(kinds), max_size=3))
    elif serial == ["buckets"]:
        behind = draw(st.lists(st.just("relay"), max_size=2))
    any_variation = ["scale", "draw", "gap"]
    before = draw(st.lists(st.sampled_from([*any_variation, "first_variation"]), max_size=3))
    before += draw(st.lists(st.sampled_from([*any_variation, "sort", "halve", "gather"]), max_size=4))
    batch_size = draw(st.integers(1, 3))
    return Plan(
        samples=draw(st.integers(0, 9)),
        stages=tuple(Stage(kind, draw(st.integers(2, 4))) for kind in before + serial + behind),
        seed=draw(st.integers(-(2**31), 2**31).filter(lambda seed: seed != -1)),  # which would be another each time
        batch_size=batch_size,
        epochs=draw(st.integers(1, 3)),
        initial_epoch=draw(st.integers(0, 3)),
        initial_sample=draw(st.integers(0, 10)) if resumes_within_an_epoch else draw(st.integers(0, batch_size - 1)),
        threads=draw(st.integers(1, 4)),
        by_loader=draw(st.booleans()),
    )


def source_sample(variation: int, index: int) -> Sample:
    return 1000 * variation + index + 1, index


def random_for(plan: Plan, position: int, variation: int, index: int = -1) -> Random:
    """The generator of the stage at `position`."""
    return Random(hash((plan.seed, FIRST_STAGE + position, variation, index)))


def order_for(plan: Plan, position: int, variation: int, length: int) -> list[int]:
    order = list(range(length))
    random_for(plan, position, variation).shuffle(order)
    return order


def expected(plan: Plan) -> list[list[Sample]]:
    """The samples of each epoch."""
    epochs = []
    for variation in range(plan.initial_epoch, plan.initial_epoch + plan.epochs):
        start = plan.initial_sample - plan.initial_sample % plan.batch_size if variation == plan.initial_epoch else 0
        samples = _from_start(plan, variation, start)
        if plan.by_loader:
            samples = samples[: len(samples) - len(samples) % plan.batch_size]
        epochs.append(samples)
    return epochs


def _from_start(plan: Plan, variation: int, start: int) -> list[Sample]:
    """Buckets are the one stage that sorts what is left, instead of leaving out the beginning of what is sorted."""
    kinds = [stage.kind for stage in plan.stages]
    if "buckets" not in kinds:
        return _whole(plan, len(plan.stages), variation)[start:]
    position = kinds.index("buckets")
    samples = _whole(plan, position, variation)
    left = [samples[index] for index in order_for(plan, position, variation, len(samples))][start:]
    return _bucketed(left, plan.stages[position].amount)


def _bucketed(samples: list[Sample], size: int) -> list[Sample]:
    """Buckets of even and of odd y, each given when it is full; what never fills one is left out."""
    buckets: dict[int, list[Sample]] = {0: [], 1: []}
    given = []
    for sample in samples:
        bucket = buckets[sample[1] % 2]
        bucket.append(sample)
        if len(bucket) == size:
            given += bucket
            bucket.clear()
    return given


def _whole(plan: Plan, position: int, variation: int) -> list[Sample]:
    """All samples of one variation behind the first `position` stages."""
    if position == 0:
        return [source_sample(variation, index) for index in range(plan.samples)]
    position -= 1
    stage = plan.stages[position]
    before = _whole(plan, position, 0 if stage.kind == "first_variation" else variation)
    amount = stage.amount
    if stage.kind == "scale":
        return [((amount * x + variation) % MODULUS, y) for x, y in before]
    if stage.kind == "draw":
        return [
            (x, (y + random_for(plan, position, variation, index).randrange(10 * amount)) % MODULUS)
            for index, (x, y) in enumerate(before)
        ]
    if stage.kind == "gap":
        return [(x if index % amount == 0 else -index, y) for index, (x, y) in enumerate(before)]
    if stage.kind in ("sort", "line_up"):
        return [before[index] for index in order_for(plan, position, variation, len(before))]
    if stage.kind in ("halve", "stride"):
        return [before[2 * index + amount % 2] for index in range(len(before) // 2)]
    return before  # gather, read_ahead, relay, first_variation


def run(engine: Any, plan: Plan) -> tuple[list[list[Sample]], list[list[tuple[Any, ...]]]]:
    """The samples of each epoch, and the calls that each module saw, sorted (threads come in any order)."""
    toys = engine.toys
    source = toys.RandomAccess(
        lambda module, variation, index, name: dict(zip("xy", source_sample(variation, index), strict=True)),
        outputs=("x", "y"),
        length=plan.samples,
    )
    stages = [STAGES[stage.kind](toys, stage.amount) for stage in plan.stages]
    state = engine.PipelineState(plan.threads)
    data = engine.MGDS(
        torch.device("cpu"),
        [{}],
        {},
        [source, [None, stages], engine.OutputPipelineModule(["x", "y"])],
        plan.batch_size,
        state,
        plan.seed,
        plan.initial_epoch,
        plan.initial_sample,
    )
    loader = engine.TrainDataLoader(data, batch_size=plan.batch_size) if plan.by_loader else data
    epochs = []
    with state.executor:
        for _ in range(plan.epochs):
            data.start_next_epoch()
            samples: list[Sample] = []
            for given in loader:
                xs, ys = given["x"].reshape(-1).tolist(), given["y"].reshape(-1).tolist()
                samples += zip(xs, ys, strict=True)
            epochs.append(samples)
    return epochs, [sorted(module.calls) for module in (source, *stages)]


# The stages as modules. `read` is a sample of the module before.


def read(module: Any, variation: int, index: int) -> dict[str, int]:
    return {name: module._get_previous_item(variation, name, index) for name in ("x", "y")}


def length_before(module: Any) -> int:
    return module._get_previous_length("x")


def shuffle(module: Any, variation: int, *_: int) -> None:
    module.order = list(range(length_before(module)))
    module._get_rand(variation).shuffle(module.order)


def scale(toys: Any, amount: int) -> Any:
    def item(module: Any, variation: int, index: int, name: str) -> dict[str, int]:
        # Only what is asked for, so that the other name has to be added to the remembered item.
        value = module._get_previous_item(variation, name, index)
        return {name: (amount * value + variation) % MODULUS if name == "x" else value}

    return toys.RandomAccess(item, outputs=("x", "y"), length=length_before)


def draw_numbers(toys: Any, amount: int) -> Any:
    def item(module: Any, variation: int, index: int, name: str) -> dict[str, int]:
        drawn = module._get_rand(variation, index).randrange(10 * amount)
        return {"y": (module._get_previous_item(variation, "y", index) + drawn) % MODULUS}

    return toys.RandomAccess(item, outputs=("y",), length=length_before)


def gap(toys: Any, amount: int) -> Any:
    return toys.RandomAccess(
        lambda module, variation, index, name: {"x": None if index % amount == 0 else -index}, length=length_before
    )


def first_variation(toys: Any, amount: int) -> Any:
    return toys.RandomAccess(
        lambda module, variation, index, name: read(module, 0, index), outputs=("x", "y"), length=length_before
    )


def sort(toys: Any, amount: int) -> Any:
    return toys.SingleVariation(
        lambda module, index, name: read(module, module.current_variation, module.order[index]),
        outputs=("x", "y"),
        length=length_before,
        on_start=shuffle,
    )


def halve(toys: Any, amount: int) -> Any:
    return toys.SingleVariation(
        lambda module, index, name: read(module, module.current_variation, 2 * index + amount % 2),
        outputs=("x", "y"),
        length=lambda module: length_before(module) // 2,
    )


def gather(toys: Any, amount: int) -> Any:
    """Reads everything while it starts, in the pipeline's threads."""

    def start(module: Any, variation: int) -> None:
        indices = range(length_before(module))
        module.gathered = list(module._state.executor.map(lambda index: read(module, variation, index), indices))

    return toys.SingleVariation(
        lambda module, index, name: module.gathered[index],
        outputs=("x", "y"),
        length=length_before,
        on_start=start,
    )


def read_ahead(toys: Any, amount: int) -> Any:
    """Reads everything while it starts, one after the other, as a serial module before it wants it."""

    def start(module: Any, variation: int) -> None:
        module.gathered = [read(module, variation, index) for index in range(length_before(module))]

    return toys.SingleVariation(
        lambda module, index, name: module.gathered[index],
        outputs=("x", "y"),
        length=length_before,
        on_start=start,
    )


def line_up(toys: Any, amount: int) -> Any:
    return toys.Serial(
        lambda module: read(module, module.current_variation, module.order[module.current_index]),
        outputs=("x", "y"),
        length=length_before,
        on_start=shuffle,
    )


def relay(toys: Any, amount: int) -> Any:
    return toys.Serial(
        lambda module: read(module, module.current_variation, module.current_index),
        outputs=("x", "y"),
        length=length_before,
        more=lambda module: module._has_previous_next("x"),
    )


def stride(toys: Any, amount: int) -> Any:
    def item(module: Any) -> dict[str, int]:
        two = [read(module, module.current_variation, 2 * module.current_index + place) for place in (0, 1)]
        return two[amount % 2]

    return toys.Serial(
        item,
        outputs=("x", "y"),
        length=lambda module: length_before(module) // 2,
        more=lambda module: module._has_previous_next("x"),
    )


def buckets(toys: Any, amount: int) -> Any:
    def fill(module: Any) -> None:
        """Read on until a bucket is full, if there is still enough to read."""
        while not module.full and module.waiting:
            sample = read(module, module.current_variation, module.waiting.pop(0))
            bucket = module.buckets[sample["y"] % 2]
            bucket.append(sample)
            if len(bucket) == amount:
                module.full = bucket[:]
                bucket.clear()

    def start(module: Any, variation: int, start_index: int) -> None:
        shuffle(module, variation)
        module.waiting = module.order[start_index:]
        module.full, module.buckets = [], {0: [], 1: []}
        fill(module)

    def item(module: Any) -> dict[str, int]:
        sample = module.full.pop(0)
        fill(module)
        return sample

    return toys.Serial(
        item, outputs=("x", "y"), length=length_before, on_start=start, more=lambda module: bool(module.full)
    )


STAGES: dict[str, Callable[[Any, int], Any]] = {
    "scale": scale,
    "draw": draw_numbers,
    "gap": gap,
    "first_variation": first_variation,
    "sort": sort,
    "halve": halve,
    "gather": gather,
    "read_ahead": read_ahead,
    "line_up": line_up,
    "relay": relay,
    "stride": stride,
    "buckets": buckets,
}
