"""Both ends of a pipeline: concepts and settings, samples as tensors, MGDS and its loader, the cache's face."""

from __future__ import annotations

import inspect
import random

import pytest
import torch

from .toys import build, load_engine, next_epoch, values


def dataset(engine, *modules, concepts=(), settings=None, batch_size=1, **options):
    return engine.MGDS(
        torch.device("cpu"),
        list(concepts),
        settings or {},
        list(modules),
        batch_size,
        engine.PipelineState(1),
        **options,
    )


def numbers(toys, length):
    return toys.RandomAccess(lambda module, variation, index, name: {"x": 100 * variation + index}, length=length)


def one_sample(engine, item, names, device="cpu"):
    source = engine.toys.RandomAccess(lambda *_: item, outputs=tuple(item), length=1)
    pipeline = build(engine, source, engine.OutputPipelineModule(names), device=device)
    pipeline.start_next_epoch()
    return next(pipeline)


def test_numbers_leave_as_tensors(engine):
    sample = one_sample(engine, {"i": 3, "f": 0.5, "b": True}, ["i", "f", "b"])
    assert all(torch.is_tensor(value) and value.ndim == 0 for value in sample.values())
    assert {name: value.dtype for name, value in sample.items()} == {
        "i": torch.int64,
        "f": torch.float32,
        "b": torch.bool,
    }
    assert {name: value.item() for name, value in sample.items()} == {"i": 3, "f": 0.5, "b": True}


def test_everything_else_leaves_as_it_is(engine):
    item = {"s": "text", "d": {"n": 1}, "l": [1, 2], "t": (1, 2)}
    sample = one_sample(engine, item, list(item))
    assert all(sample[name] is value for name, value in item.items())


def test_tensors_leave_on_the_pipelines_device(engine):
    sample = one_sample(engine, {"t": torch.ones(2), "i": 3}, ["t", "i"], device="meta")
    assert {value.device.type for value in sample.values()} == {"meta"}


def test_what_is_none_is_left_out(engine):
    assert list(one_sample(engine, {"a": None, "b": "text"}, ["a", "b"])) == ["b"]


def test_names_can_change_at_the_end_and_reach_into_dictionaries(engine):
    item = {"concept": {"name": "cat", "weight": 2.0}, "x": "text"}
    output_names = ["x", ("concept.name", "name"), ("concept.weight", "loss_weight"), ("concept.no", "no")]
    sample = one_sample(engine, item, output_names)
    assert list(sample) == ["x", "name", "loss_weight"]
    assert (sample["x"], sample["name"], sample["loss_weight"].item()) == ("text", "cat", 2.0)

    output = engine.OutputPipelineModule(output_names)
    assert output.get_inputs() == ["x", "concept.name", "concept.weight", "concept.no"]
    assert output.get_outputs() == ["x", "name", "loss_weight", "no"]


def test_of_two_inputs_with_one_output_name_the_last_counts_even_when_none(engine):
    assert one_sample(engine, {"a": "first", "b": "second"}, [("a", "x"), ("b", "x")]) == {"x": "second"}
    assert one_sample(engine, {"a": "first", "b": None}, [("a", "x"), ("b", "x")]) == {}


def test_the_shortest_input_ends_the_epoch(engine, toys):
    long = numbers(toys, 5)
    short = toys.RandomAccess(lambda module, variation, index, name: {"y": index}, outputs=("y",), length=3)
    pipeline = build(engine, long, short, engine.OutputPipelineModule(["x", "y"]))
    assert next_epoch(pipeline) == [0, 1, 2]
    assert pipeline.approximate_length() == 5


def test_a_serial_module_that_ends_early_ends_the_epoch(engine, toys):
    serial = toys.Serial(
        lambda module: {"x": module.current_index}, length=5, more=lambda module: module.current_index < 3
    )
    pipeline = build(engine, serial, engine.OutputPipelineModule(["x"]))
    assert next_epoch(pipeline) == [0, 1, 2]


def test_an_input_that_nobody_gives_is_an_error(engine, toys):
    pipeline = build(engine, numbers(toys, 2), engine.OutputPipelineModule(["x", "misspelt"]))
    pipeline.start_next_epoch()
    with pytest.raises(TypeError):
        next(pipeline)


def test_a_first_input_that_reaches_into_a_dictionary_gives_no_samples(engine, toys):
    """MGDS asks for its next item by the whole name. A definition must begin with a plain one."""
    source = toys.RandomAccess(lambda *_: {"concept": {"x": 1}, "y": 2}, outputs=("concept", "y"), length=1)
    assert next_epoch(build(engine, source, engine.OutputPipelineModule(["concept.x"])), "concept.x") == []
    assert next_epoch(build(engine, source, engine.OutputPipelineModule(["y", "concept.x"])), "concept.x") == [1]


def test_concepts_and_settings_stand_before_every_definition(engine, toys):
    concepts = [{"name": "cat"}, {"name": "dog"}]
    reader = toys.Reader()
    data = dataset(engine, reader, concepts=concepts, settings={"resolution": 64}, seed=5)
    data.start_next_epoch()

    assert [type(module).__name__ for module in data.loading_pipeline.modules[:2]] == [
        "ConceptPipelineModule",
        "SettingsPipelineModule",
    ]
    assert reader._get_previous_length("concept") == 2
    assert [reader._get_previous_item(0, "concept.name", index) for index in (1, 0)] == ["dog", "cat"]
    assert reader._get_previous_item(0, "concept", 0) is concepts[0]
    assert reader._get_previous_length("settings") == 1
    assert [reader._get_previous_item(0, "settings.resolution", index) for index in (0, 99)] == [64, 64]
    assert reader._get_rand(0).random() == random.Random(hash((5, 2, 0, -1))).random()


def test_the_heads_read_nothing_and_name_what_they_give(engine):
    concepts, settings = engine.ConceptPipelineModule([]), engine.SettingsPipelineModule({})
    assert (concepts.get_inputs(), concepts.get_outputs()) == ([], ["concept"])
    assert (settings.get_inputs(), settings.get_outputs()) == ([], ["settings"])


@pytest.mark.parametrize("seed", [0, 1, -2, 2**40])
def test_the_seed_is_the_one_given(engine, toys, seed):
    reader = toys.Reader()
    dataset(engine, reader, seed=seed)
    assert reader._get_rand(1, 2).random() == random.Random(hash((seed, 2, 1, 2))).random()


def test_the_seed_is_42_unless_given(engine, toys):
    reader = toys.Reader()
    dataset(engine, reader)
    assert reader._get_rand(0).random() == random.Random(hash((42, 2, 0, -1))).random()


def test_seed_minus_one_is_another_one_each_time(engine, toys):
    before = random.getstate()
    try:
        random.seed(7)
        drawn = [random.randint(-(1 << 30), 1 << 30) for _ in range(2)]
        random.seed(7)
        readers = [toys.Reader(), toys.Reader()]
        for reader in readers:
            dataset(engine, reader, seed=-1)
    finally:
        random.setstate(before)
    assert drawn[0] != drawn[1]
    assert [reader._get_rand(0).random() for reader in readers] == [
        random.Random(hash((seed, 2, 0, -1))).random() for seed in drawn
    ]


def test_the_dataset_is_torchs_and_iterates_over_the_current_epoch(engine, toys):
    data = dataset(engine, numbers(toys, 3), engine.OutputPipelineModule(["x"]))
    assert isinstance(data, torch.utils.data.IterableDataset)
    for epoch in range(2):
        data.start_next_epoch()
        assert values(data) == [100 * epoch + index for index in range(3)]


@pytest.mark.parametrize(("length", "batch_size", "batches"), [(7, 3, 2), (6, 3, 2), (2, 3, 0), (0, 1, 0)])
def test_the_loader_gives_whole_batches_only(engine, toys, length, batch_size, batches):
    data = dataset(engine, numbers(toys, length), engine.OutputPipelineModule(["x"]), batch_size=batch_size)
    loader = engine.TrainDataLoader(data, batch_size=batch_size)
    for epoch in range(2):
        data.start_next_epoch()
        assert data.approximate_length() == batches
        assert [batch["x"].tolist() for batch in loader] == [
            [100 * epoch + batch * batch_size + place for place in range(batch_size)] for batch in range(batches)
        ]


def test_the_loader_goes_on_where_an_interrupted_run_was(engine, toys):
    """Steps until the interruption, and the rest after resuming, are the steps of an uninterrupted run."""

    def loader(**resume):
        source = numbers(toys, 9)
        shuffle = toys.SingleVariation(
            lambda module, index, name: {
                "x": module._get_previous_item(module.current_variation, "x", module.order[index])
            },
            length=9,
            on_start=lambda module, variation: setattr(module, "order", shuffled(module, variation)),
        )
        data = dataset(engine, source, shuffle, engine.OutputPipelineModule(["x"]), batch_size=2, **resume)
        return data, engine.TrainDataLoader(data, batch_size=2)

    def shuffled(module, variation):
        order = list(range(9))
        module._get_rand(variation).shuffle(order)
        return order

    def run(epochs, **resume):
        data, batches = loader(**resume)
        steps = []
        for _ in range(epochs):
            data.start_next_epoch()
            steps += [batch["x"].tolist() for batch in batches]
        return steps

    uninterrupted = run(3)
    assert len(uninterrupted) == 3 * 4
    for step in range(4):
        assert run(2, initial_epoch=1, initial_epoch_sample=2 * step) == uninterrupted[4 + step :]
        assert run(2, initial_epoch=1, initial_epoch_sample=2 * step + 1) == uninterrupted[4 + step :]


def test_the_cache_takes_and_keeps_mgds_arguments(engine):
    class Cache(engine.DiskCache):
        def length(self):
            return 0

        def get_item(self, index, requested_name=None):
            return {}

    called = []
    cache = Cache(
        "folder",
        split_names=["latent"],
        aggregate_names=["crop"],
        variations_in_name="v",
        balancing_in_name="b",
        balancing_strategy_in_name="s",
        variations_group_in_name="path",
        group_enabled_in_name="e",
        before_cache_fun=lambda: called.append(1),
    )
    assert isinstance(cache, engine.PipelineModule)
    assert isinstance(cache, engine.SingleVariationRandomAccessPipelineModule)
    assert cache.get_outputs() == ["latent", "crop"]
    assert (cache.cache_dir, cache.split_names, cache.aggregate_names) == ("folder", ["latent"], ["crop"])
    assert (cache.variations_in_name, cache.balancing_in_name, cache.balancing_strategy_in_name) == ("v", "b", "s")
    assert (cache.variations_group_in_names, cache.group_enabled_in_name) == (["path"], "e")
    cache.before_cache_fun()
    assert called == [1]

    bare = Cache("folder")
    assert (bare.split_names, bare.aggregate_names, bare.variations_group_in_names) == ([], [], None)
    assert (bare.group_variations, bare.group_indices, bare.group_output_samples) == ({}, {}, {})
    assert bare.variations_initialized is False
    assert bare.before_cache_fun() is None
    assert Cache("folder", variations_group_in_name=["a", "b"]).variations_group_in_names == ["a", "b"]


STANDALONE = load_engine("standalone")


@pytest.mark.host
@pytest.mark.parametrize("name", sorted(vars(STANDALONE).keys() - {"name", "toys"}))
def test_our_classes_take_what_mgds_classes_take(real, name):
    """Same methods, same parameters in the same order, same defaults."""
    ours, theirs = getattr(STANDALONE, name), getattr(real, name)

    def methods(cls):
        # What DiskCache stores with is not ours to promise, nor are name-mangled methods.
        members = {key: value for key, value in vars(cls).items() if inspect.isfunction(value)}
        private = {key for key in members if key.startswith((f"_{name}__", "_PipelineModule__"))}
        storage = {"start", "length", "get_item"} if name == "DiskCache" else set()
        return {
            key: [(parameter.name, parameter.kind, parameter.default) for parameter in parameters(value)]
            for key, value in members.items()
            if key not in private | storage
        }

    def parameters(function):
        return inspect.signature(function).parameters.values()

    assert methods(ours) == methods(theirs)
