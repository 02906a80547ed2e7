"""The rewrite table: what it replaces, what it guards, what it leaves alone, in any definition."""

from __future__ import annotations

import logging

import pytest

from wan_fixes.pipeline import EnhancedSafePipelineModule, SafeAspectBatchSorting, rewrite_definition
from wan_fixes.pipeline.base import OutputPipelineModule, PipelineModule
from wan_fixes.pipeline.rewrite import REPLACEMENTS

from .toys import Collector, RandomAccess, Serial, SingleVariation, build, concept_of, output
from .world import World, concept_over, trained, write_sample


def flat(definition):
    for part in definition:
        if isinstance(part, list):
            yield from flat(part)
        elif part is not None:
            yield part


def stock_like(name, bases=(RandomAccess,), origin="mgds.pipelineModules.Something"):
    return type(name, bases, {"__module__": origin})


def test_every_module_is_guarded_in_place_and_lists_stay_as_they_are(context):
    make = lambda *_: {"x": 1}  # noqa: E731
    definition = [RandomAccess(make), None, [SingleVariation(make), [None, RandomAccess(make)], []], output("x")]
    report = rewrite_definition(definition, context)
    assert [type(part).__name__ for part in flat(definition)] == [
        "_GuardedRandomAccess", "_GuardedSingleVariation", "_GuardedRandomAccess", "OutputPipelineModule",
    ]  # fmt: skip
    assert definition[1] is None and definition[2][2] == [] and definition[2][1][0] is None
    assert dict(report.guarded) == {"RandomAccess": 2, "SingleVariation": 1}
    assert dict(report.untouched) == {"OutputPipelineModule": 1}
    assert str(report) == "3 guarded, 1 untouched"


def test_sinks_outputs_serial_modules_and_guards_are_left_as_they_are(context):
    class OutputPipelineModule(Serial):
        """Of another engine, known by its name alone."""

    guard = EnhancedSafePipelineModule(RandomAccess(lambda *_: {}), "guarded before", context=context)
    parts = [
        SafeAspectBatchSorting("x", ["x"], 1, context=context),
        Serial(lambda module: {}),
        OutputPipelineModule(lambda module: {}),
        guard,
    ]
    definition = list(parts)
    rewrite_definition(definition, context)
    assert definition == parts


def test_a_module_of_no_kind_that_the_engine_runs_is_left_alone_and_named(context, caplog):
    """A fork wraps its loaders in such modules, from which the engine gets nothing."""

    class Wrapper(PipelineModule):
        def get_inputs(self):
            return []

        def get_outputs(self):
            return ["video"]

    wrapper, module = Wrapper(), RandomAccess(lambda *_: {"x": 1})
    definition = [[wrapper, Wrapper()], module]
    with caplog.at_level(logging.WARNING):
        report = rewrite_definition(definition, context)
    assert definition[0][0] is wrapper and definition[1].wrapped_module is module
    assert dict(report.untouched) == {"Wrapper": 2} and dict(report.guarded) == {"RandomAccess": 1}
    (record,) = caplog.records
    assert "Wrapper is of no kind" in record.message and "nobody gets video from it" in record.message


def test_rewriting_twice_is_rewriting_once(context):
    definition = [RandomAccess(lambda *_: {"x": 1}), output("x")]
    rewrite_definition(definition, context)
    once = list(definition)
    report = rewrite_definition(definition, context)
    assert definition == once
    assert not report.guarded and not report.replaced


@pytest.mark.parametrize("name", REPLACEMENTS)
def test_a_module_of_the_same_name_from_elsewhere_is_guarded_and_not_replaced(context, name):
    definition = [stock_like(name, origin="someones.plugin")(lambda *_: {"x": 1})]
    module = definition[0]
    report = rewrite_definition(definition, context)
    assert definition[0].wrapped_module is module
    assert not report.replaced


@pytest.mark.parametrize("name", REPLACEMENTS)
def test_a_stock_module_that_has_changed_is_guarded_and_named_in_the_log(context, caplog, name):
    """A newer mgds may keep its arguments under other names."""
    definition = [stock_like(name)(lambda *_: {"x": 1})]
    module = definition[0]
    with caplog.at_level(logging.WARNING):
        report = rewrite_definition(definition, context)
    assert definition[0].wrapped_module is module
    assert not report.replaced
    assert f"{name} is not the module that is known here" in caplog.text


def test_a_subclass_of_a_stock_module_is_somebodys_own(context):
    own = type("MyLoader", (stock_like("LoadImage"),), {"__module__": "mgds_plugin"})
    definition = [own(lambda *_: {"x": 1})]
    rewrite_definition(definition, context)
    assert isinstance(definition[0], EnhancedSafePipelineModule)


def test_guards_take_the_limits_of_the_settings(contexts):
    definition = [RandomAccess(lambda *_: {"x": None})]
    rewrite_definition(definition, contexts.new(max_consecutive_failures=3))
    assert definition[0].max_failures == 3


def test_a_rewritten_definition_gives_what_it_gave(context):
    def definition():
        return [
            Collector([concept_of()] * 5),
            RandomAccess(lambda module, variation, index, name: {name: 10 * index}),
            SingleVariation(
                lambda module, index, name: {name: module._get_previous_item(0, "x", 4 - index)}, ("y",), "x"
            ),
            output("x", "y"),
        ]

    def values(parts):
        pipeline = build(*parts)
        pipeline.start_next_epoch()
        return [(int(sample["x"]), int(sample["y"])) for sample in pipeline]

    rewritten = definition()
    rewrite_definition(rewritten, context)
    assert isinstance(rewritten[-1], OutputPipelineModule)
    assert values(rewritten) == values(definition()) == [(0, 40), (10, 30), (20, 20), (30, 10), (40, 0)]


@pytest.mark.parametrize("caching", [True, False])
def test_guards_change_nothing_about_the_cache(contexts, tmp_path, caching):
    for number in range(1, 6):
        write_sample(tmp_path / "clips", number)
    concepts = [concept_over(tmp_path / "clips")]
    counts = []
    for guards in (False, True):
        world = World(contexts.new(), tmp_path / "cache", concepts, caching=caching, guards=guards)
        counts.append(trained(world.epoch()))
        encoded = world.encoded()
    assert counts[0] == counts[1] == dict.fromkeys(range(1, 6), 1)
    assert encoded == (([], []) if caching else ([(n, 0) for n in range(1, 6)],) * 2)
