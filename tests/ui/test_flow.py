"""The data flow: from what a run recorded to nodes and edges, and to pictures in which nothing overlaps."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline.toys import Collector, RandomAccess, build, concept_of, output

from wan_fixes.health import RunDatabase
from wan_fixes.pipeline import EnhancedSafePipelineModule, PipelineContext, observing, structure
from wan_fixes.ui.flow import STATE_PREFIX, FlowEdge, flow_of, flows_of, mermaid
from wan_fixes.ui.flow_layout import Arrow, Box, lay_out
from wan_fixes.ui.flow_page import flow_page, flow_svg_file
from wan_fixes.ui.flow_svg import flow_svg

from .web_pages import assert_needs_nothing


def module(at: int, name: str, reads: str = "", gives: str = "", part: str = "validated") -> dict[str, Any]:
    return {"at": at, "name": name, "part": part, "inputs": reads.split(), "outputs": gives.split(), "sources": {}}


CHAIN = [
    module(0, "ConceptPipelineModule", "", "concept", "as it was"),
    module(1, "SettingsPipelineModule", "", "settings", "as it was"),
    module(2, "ValidatedCollectPaths", "concept concept.enabled path", "image_path concept"),
    module(3, "ValidatedImageLoader", "image_path", "image"),
    module(4, "RobustVideoLoader", "image_path settings.target_frames", "image"),
    module(5, "Scale", "image concept.image.size", "image crop_resolution", "guarded"),
    module(6, "ValidatedCaptionLoader", "concept.text.prompt_path", "prompt"),
    module(7, "ValidatedDiskCache", "image crop_resolution image_path prompt", "image crop_resolution image_path"),
    module(8, "Out", "image crop_resolution image_path", "image", "as it was"),
]
COUNTERS = {
    "Scale.calls": 12.0,
    "Scale.seconds": 3.0,
    "Scale.max_seconds": 0.5,
    "ValidatedDiskCache.calls": 12.0,
    "ValidatedDiskCache.seconds": 1.0,
    "cache_hits": 7.0,
    "cache_misses": 5.0,
    "samples_skipped{module=media}": 2.0,
    "samples_skipped{module=Scale}": 1.0,
    "module_failures{module=Scale}": 4.0,
    "warnings{module=ValidatedCaptionLoader}": 3.0,
}


def edges_of(modules: list[dict[str, Any]]) -> dict[tuple[int, int], FlowEdge]:
    return {(edge.source, edge.target): edge for edge in flow_of(modules, {}, {}).edges}


def test_each_item_comes_from_the_nearest_that_gives_it() -> None:
    edges = edges_of(CHAIN)
    assert edges[2, 3].items == ("image_path",)
    assert edges[5, 7].items == ("image", "crop_resolution")
    assert edges[7, 8].items == ("image", "crop_resolution", "image_path")
    assert (3, 7) not in edges and (5, 8) not in edges


def test_where_a_module_may_give_nothing_the_one_before_it_is_drawn_too() -> None:
    edges = edges_of(CHAIN)
    assert not edges[4, 5].is_fallback
    assert edges[3, 5].is_fallback and edges[3, 5].items == ("image",)


def test_settings_are_drawn_only_where_a_module_reads_nothing_else() -> None:
    edges = edges_of(CHAIN)
    assert edges[2, 6].is_settings and edges[2, 6].items == ("concept.text.prompt_path",)
    assert not any(source == 1 for source, _ in edges)
    assert flow_of(CHAIN, {}, {}).nodes[5].settings == ("concept.image.size",)


def test_many_items_are_folded_in_the_label() -> None:
    assert FlowEdge(0, 1, ("a", "b")).label == "a, b"
    assert FlowEdge(0, 1, ("a", "b", "c", "d")).label == "a, b +2"


def test_what_was_counted_stands_at_its_module() -> None:
    flow = flow_of(CHAIN, COUNTERS, {"Scale": "open"})
    scale, cache = flow.nodes[5], flow.nodes[7]
    assert (scale.items, scale.seconds, scale.share) == (12, 3.0, 0.75)
    assert (scale.left_out, scale.failures, scale.is_off) == (1, 4, True)
    assert scale.work == "12 items · 3.0 s · 75%"
    assert scale.trouble == "switched off · 1 left out · 4 failed"
    assert cache.facts == "7 found, 5 made"
    assert flow.elsewhere == (("media", 2),)
    assert flow.collector == 2


def test_modules_of_one_name_say_that_they_are_counted_together() -> None:
    flow = flow_of([*CHAIN, module(9, "Scale", "image", "image")], COUNTERS, {})
    assert flow.nodes[5].work == "12 items in 2 modules · 3.0 s · 75%"
    assert flow.nodes[5].trouble.endswith("in 2 modules")


def test_the_nearest_giver_is_the_one_that_the_pipeline_itself_names() -> None:
    toys = [
        RandomAccess(lambda *_: {}, ("a",), "image_path"),
        RandomAccess(lambda *_: {}, ("b",), "a"),
        RandomAccess(lambda *_: {}, ("a",), "a"),
        RandomAccess(lambda *_: {}, ("b", "c"), "b"),
    ]
    guarded = EnhancedSafePipelineModule(toys[1], "b", context=PipelineContext.create())
    modules = [Collector([concept_of()]), toys[0], guarded, *toys[2:], output("a", "b", "c", "concept.name")]
    described = structure.structure_of(build(*modules).modules)
    edges = flow_of(described, {}, {}).edges
    named = {(source, one["at"], item) for one in described for item, source in one["sources"].items()}
    drawn = {(edge.source, edge.target, item) for edge in edges if not edge.is_fallback for item in edge.items}
    assert drawn == {(source, at, item) for source, at, item in named if not item.startswith("concept.")}
    assert [one["part"] for one in described] == [
        "as it was",
        "as it was",
        "guarded",
        "as it was",
        "as it was",
        "as it was",
    ]


def test_the_name_of_the_state_is_the_one_that_is_written() -> None:
    assert STATE_PREFIX == observing.STATE_PREFIX


@pytest.mark.parametrize(
    "damaged",
    [
        None,
        [],
        "text",
        [None, 3, {}, {"at": "1"}],
        [{**CHAIN[0], "part": "unknown"}],
        [{**CHAIN[0], "inputs": [3]}],
        [{**CHAIN[0], "outputs": None}],
    ],
)
def test_what_is_damaged_in_the_database_is_passed_over(damaged: Any) -> None:
    assert flows_of({"pipeline training": damaged, "phase": "training"}, {}) == {}


def test_training_and_validation_are_two_flows() -> None:
    flows = flows_of({"pipeline training": CHAIN, "pipeline validation": CHAIN[:4], "breakers": {}}, COUNTERS)
    assert [(what, len(flow.nodes)) for what, flow in flows.items()] == [("training", 9), ("validation", 4)]


# Where everything lies


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Box], list[Arrow]]:
    count = draw(st.integers(0, 25))
    boxes = [Box(key, draw(st.integers(40, 300)), draw(st.integers(30, 80))) for key in range(count)]
    pairs = draw(
        st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24)).filter(lambda pair: pair[0] < pair[1]), max_size=50)
    )
    return boxes, [Arrow(one, other, draw(st.integers(0, 200))) for one, other in pairs if other < count]


@settings(max_examples=60)
@given(graph=graphs())
def test_nothing_overlaps_and_every_arrow_leads_down(graph: tuple[list[Box], list[Arrow]]) -> None:
    boxes, arrows = graph
    layout = lay_out(boxes, arrows)
    places = []
    for box in boxes:
        x, y = layout.boxes[box.key]
        places.append((x - box.width / 2, y - box.height / 2, x + box.width / 2, y + box.height / 2))
        assert places[-1][0] >= -0.01 and places[-1][1] >= -0.01
        assert places[-1][2] <= layout.width + 0.01 and places[-1][3] <= layout.height + 0.01
    for one, other in itertools.combinations(places, 2):
        assert not overlap(one, other)
    for arrow, route, label in zip(arrows, layout.routes, layout.labels, strict=True):
        heights = [y for _, y in route]
        assert heights == sorted(heights)
        assert route[0][1] == pytest.approx(places[arrow.source][3])
        assert route[-1][1] == pytest.approx(places[arrow.target][1])
        half = arrow.label_width / 2
        assert not any(
            overlap((label[0] - half, label[1] - 6, label[0] + half, label[1] + 6), place) for place in places
        )
        for x, y in route[1:-1]:
            assert not any(place[0] < x < place[2] and place[1] < y < place[3] for place in places)


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def test_a_chain_is_drawn_as_one_straight_line() -> None:
    boxes = [Box(key, 100, 40) for key in range(6)]
    layout = lay_out(boxes, [Arrow(key, key + 1, 50) for key in range(5)])
    assert {round(x, 3) for x, _ in layout.boxes.values()} == {50.0}


def test_lines_that_need_not_cross_do_not() -> None:
    boxes = [Box(key, 100, 40) for key in range(6)]
    layout = lay_out(boxes, [Arrow(0, 5, 10), Arrow(1, 4, 10), Arrow(2, 3, 10)])
    assert [place[0] for _, place in sorted(layout.boxes.items())][3:] == pytest.approx(
        [layout.boxes[2][0], layout.boxes[1][0], layout.boxes[0][0]]
    )


# Pictures, pages, graphs

HOSTILE = '\ufffe\uffff<img src=x onerror="alert(1)">]]>"\'&\u202e`|;\n-->'


@settings(max_examples=60)
@given(
    names=st.lists(st.text(max_size=60), min_size=1, max_size=4),
    items=st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=3),
    where=st.text(max_size=30),
)
def test_texts_are_never_markup_wherever_they_come_from(names: list[str], items: list[str], where: str) -> None:
    modules = [
        {"at": at, "name": name, "part": "guarded", "inputs": items, "outputs": items} for at, name in enumerate(names)
    ]
    flow = flow_of(modules, {f"samples_skipped{{module={where}}}": 1.0, f"warnings{{module={names[0]}}}": 1.0}, {})
    svg = flow_svg_file({where: flow}, 1)
    assert {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(svg.partition("\n")[2]).iter()} <= {
        "svg", "title", "style", "rect", "g", "text", "path",
    }  # fmt: skip
    assert_needs_nothing(svg, whole=False)
    assert_needs_nothing(flow_page({where: flow}, 1))
    for line in mermaid(flow).splitlines()[2:]:
        assert re.fullmatch(MERMAID, line), line


MERMAID = (
    r'  (m\d+\["[^"<>\[\]{}|`]*(<br/>[^"<>\[\]{}|`]*)*"\]:::\w+'
    r'|m\d+ -(\.-)?(->|\.->)\|"[^"<>\[\]{}|`]*"\| m\d+'
    r'|x\d+\(\["[^"<>\[\]{}|`]*<br/>[^"<>\[\]{}|`]*"\]\):::left_out'
    r"|m\d+ -\.-> x\d+|classDef .*)"
)


def test_a_hostile_name_is_readable_in_the_picture() -> None:
    modules = [module(0, "Collect", "", "x"), {**module(1, "M", "x", "y"), "name": HOSTILE}]
    svg = flow_svg(flow_of(modules, {}, {}), HOSTILE)
    texts = [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]
    assert any(text.startswith('\\ufffe\\uffff<img src=x onerror="alert(1)">') for text in texts)
    assert "\u202e" not in svg


def test_colours_are_told_in_words_too() -> None:
    flow = flow_of(CHAIN, COUNTERS, {})
    page = assert_needs_nothing(flow_page({"training": flow}, 4))
    for words in ("validated", "guarded", "as it was", "2 left out", "media", "7 found, 5 made", "4 failed", "run 4"):
        assert words in page.text
    for node in flow.nodes:
        assert node.name in page.text


def test_dark_and_light_have_the_same_classes() -> None:
    svg = flow_svg(flow_of(CHAIN, COUNTERS, {}), "x")
    light, dark = re.search(
        r"<style>(.*)@media \(prefers-color-scheme: dark\) \{(.*)\}\n</style>", svg, re.DOTALL
    ).groups()
    for name in ("validated", "guarded", "asitwas", "leftout", "paper", "label", "name", "trouble"):
        assert f".{name}" in light and f".{name}" in dark


def test_a_long_definition_is_drawn_at_once_and_stays_narrow() -> None:
    modules = [module(0, "ValidatedCollectPaths", "", "image_path concept")]
    for at in range(1, 46):
        reads = f"image_path item{max(0, at - 3)} item{at - 1}"
        modules.append(module(at, f"Module{at}", reads, f"item{at}", "guarded"))
    svg = flow_svg(flow_of(modules, {}, {}), "x")
    width, height = map(int, re.search(r'width="(\d+)" height="(\d+)"', svg).groups())
    assert width < 3000 and height < 6000


def test_the_flow_of_a_run_is_read_from_its_database(tmp_path: Any) -> None:
    with RunDatabase(tmp_path / "runs.sqlite") as database, database.start_run("train") as run:
        run.state("pipeline training", CHAIN)
        run.counters(COUNTERS)
    reader = RunDatabase.open_readonly(tmp_path / "runs.sqlite")
    flows = flows_of(reader.states(1), reader.counters_of(1))
    assert flows == {"training": flow_of(CHAIN, COUNTERS, {})}


def test_a_record_that_is_damaged_still_makes_a_picture() -> None:
    twice = [*CHAIN, {**CHAIN[3], "name": "Again"}]
    counters: dict[str, Any] = {**COUNTERS, "Scale.calls": float("inf"), "Scale.seconds": float("nan"), "x": None}
    flows = flows_of({f"{STATE_PREFIX}training": twice, "breakers": ["Scale"]}, counters)
    assert [node.name for node in flows["training"].nodes] == [module["name"] for module in CHAIN]
    assert all(text for text in (flow_page(flows, 1), mermaid(flows["training"]), flow_svg(flows["training"], "data")))
