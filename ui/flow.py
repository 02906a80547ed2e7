"""The data flow of a pipeline as plain data: which module gives what to which, how much, and what was left out."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from wan_fixes.health.metrics import by_label, total
from wan_fixes.health.numbers import many, short_time_text
from wan_fixes.health.run_records import STATE_PREFIX
from wan_fixes.ui.words import line

PARTS: Final = ("validated", "guarded", "as it was")
"""What became of a module: replaced by one of ours, wrapped in a guard, or left alone."""

_SETTINGS: Final = (
    "concept",
    "settings",
)  # items that hold settings: a module reads fields of theirs, by a dotted name
_CACHE: Final = "ValidatedDiskCache"
_MOST_NAMES: Final = 2  # items that a label names, before it counts the others
_MERMAID_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_ .,:()%/+-]")  # all else by number: any pipe takes ASCII


@dataclass(frozen=True, slots=True)
class FlowNode:
    """One module. What is counted is counted by the module's name, for all modules of that name together.

    Attributes
    ----------
    part:
        One of `PARTS`.
    reads, gives:
        The items of the data flow.
    settings:
        Fields of the concept and of the settings that it reads.
    alike:
        How many modules have its name.
    items, seconds, longest_seconds:
        Work done; 0 where it is not measured (nor is it where the module is as it was).
    share:
        Its part of the time of all modules, 0 to 1.
    left_out, failures, warnings:
        Samples that it had left out, that failed in it, and that it warned of.
    is_off:
        Whether its circuit breaker has it switched off.
    """

    at: int
    name: str
    part: str
    reads: tuple[str, ...]
    gives: tuple[str, ...]
    settings: tuple[str, ...]
    alike: int
    items: int
    seconds: float
    longest_seconds: float
    share: float
    left_out: int
    failures: int
    warnings: int
    is_off: bool
    facts: str = ""
    """What else is known of it, in words."""

    @property
    def work(self) -> str:
        """Items, time and share of time in words; "" where nothing was measured."""
        if not self.items:
            return ""
        alike = f" in {self.alike} modules" if self.alike > 1 else ""
        share = f" · {self.share:.0%}" if self.share >= 0.005 else ""
        return f"{many(self.items, 'item')}{alike} · {short_time_text(self.seconds)}{share}"

    @property
    def trouble(self) -> str:
        """What went wrong in it, in words; "" where nothing did."""
        counts = ((self.left_out, "left out"), (self.failures, "failed"), (self.warnings, "with a warning"))
        words = [f"{count:,} {what}" for count, what in counts if count]
        together = f" in {self.alike} modules" if words and self.alike > 1 else ""
        return " · ".join(["switched off", *words] if self.is_off else words) + together


@dataclass(frozen=True, slots=True)
class FlowEdge:
    """Items that one module gives to another.

    Attributes
    ----------
    is_fallback:
        They are asked for only where a nearer module has nothing.
    is_settings:
        They are fields of settings, drawn where a module reads nothing else.
    """

    source: int
    target: int
    items: tuple[str, ...]
    is_fallback: bool = False
    is_settings: bool = False

    @property
    def label(self) -> str:
        """The items, folded when there are many."""
        more = len(self.items) - _MOST_NAMES
        return ", ".join(self.items[:_MOST_NAMES]) + (f" +{more}" if more > 0 else "")


@dataclass(frozen=True, slots=True)
class Flow:
    """The modules of one pipeline in order, and what goes from one to another."""

    nodes: tuple[FlowNode, ...]
    edges: tuple[FlowEdge, ...]
    elsewhere: tuple[tuple[str, int], ...]
    """Samples left out by what is no module of the pipeline ("media": reading files), and how many."""

    @property
    def collector(self) -> int | None:
        """The module that lists the files, of which those left out elsewhere are missing; None where there is none."""
        return next((node.at for node in self.nodes if node.name.endswith("CollectPaths")), None)


def flows_of(states: Mapping[str, Any], counters: Mapping[str, float]) -> dict[str, Flow]:
    """The pipelines of a run by what they are of ("training", "validation"), from what was recorded of it."""
    recorded = states.get("breakers")
    breakers = recorded if isinstance(recorded, Mapping) else {}
    found = {
        name.removeprefix(STATE_PREFIX): flow_of(modules, counters, breakers)
        for name, modules in states.items()
        if name.startswith(STATE_PREFIX) and isinstance(modules, list)
    }
    return {what: flow for what, flow in found.items() if flow.nodes}


def flow_of(modules: Sequence[Mapping[str, Any]], counters: Mapping[str, float], breakers: Mapping[str, str]) -> Flow:
    """The flow of one pipeline.

    Parameters
    ----------
    modules:
        As `wan_fixes.pipeline.structure.structure_of` describes them. What is damaged among them is passed over,
        and so is a second one of the same place.
    """
    counters = {name: count for name, count in counters.items() if _is_finite(count)}
    sound: list[Mapping[str, Any]] = []
    places: set[int] = set()
    for module in filter(_is_sound, modules):
        if module["at"] not in places:
            places.add(module["at"])
            sound.append(module)
    names = Counter(module["name"] for module in sound)
    all_seconds = sum(counters.get(f"{name}.seconds", 0.0) for name in names)
    left_out = by_module(counters, "samples_skipped")
    failures, warnings = by_module(counters, "module_failures"), by_module(counters, "warnings")
    nodes = []
    for module in sound:
        name = module["name"]
        seconds = counters.get(f"{name}.seconds", 0.0)
        nodes.append(
            FlowNode(
                at=module["at"],
                name=name,
                part=module["part"],
                reads=tuple(item for item in module["inputs"] if not _is_setting(item)),
                gives=tuple(module["outputs"]),
                settings=tuple(item for item in module["inputs"] if _is_setting(item)),
                alike=names[name],
                items=round(counters.get(f"{name}.calls", 0)),
                seconds=seconds,
                longest_seconds=counters.get(f"{name}.max_seconds", 0.0),
                share=seconds / all_seconds if all_seconds > 0 else 0.0,
                left_out=left_out.get(name, 0),
                failures=failures.get(name, 0),
                warnings=warnings.get(name, 0),
                is_off=breakers.get(name, "closed") != "closed",
                facts=_cache_facts(counters) if name == _CACHE else "",
            )
        )
    elsewhere = tuple((module, count) for module, count in left_out.items() if module not in names)
    return Flow(tuple(nodes), tuple(_edges(sound)), elsewhere)


def by_module(counters: Mapping[str, float], name: str) -> dict[str, int]:
    """A counter that has the label ``module``, by module, the most first."""
    found = {module: round(count) for module, count in by_label(counters, name, "module").items() if count}
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


def mermaid(flow: Flow) -> str:
    """The flow as a mermaid flowchart, which GitHub draws. Texts are escaped."""
    lines = ["%% made by wan flow", "flowchart TD"]
    for node in flow.nodes:
        words = [node.name, " · ".join(filter(None, [node.part, node.work])), node.facts, node.trouble]
        label = "<br/>".join(_mermaid_text(text) for text in words if text)
        lines.append(f'  m{node.at}["{label}"]:::{_MERMAID_CLASSES[node.part]}')
    for edge in flow.edges:
        arrow = "-.->" if edge.is_fallback or edge.is_settings else "-->"
        lines.append(f'  m{edge.source} {arrow}|"{_mermaid_text(edge.label)}"| m{edge.target}')
    for number, (module, count) in enumerate(flow.elsewhere):
        lines.append(f'  x{number}(["{count:,} left out<br/>{_mermaid_text(module)}"]):::left_out')
        if flow.collector is not None:
            lines.append(f"  m{flow.collector} -.-> x{number}")
    lines += [
        "  classDef validated fill:#d8f0df,stroke:#1b6e3c,color:#123",
        "  classDef guarded fill:#dbe7fb,stroke:#2f5fb3,color:#123",
        "  classDef as_it_was fill:#eeeeee,stroke:#777777,color:#123",
        "  classDef left_out fill:#fbdcd9,stroke:#b3261e,color:#123",
    ]
    return "\n".join(lines) + "\n"


_MERMAID_CLASSES: Final = {"validated": "validated", "guarded": "guarded", "as it was": "as_it_was"}


def _mermaid_text(text: str) -> str:
    return _MERMAID_UNSAFE.sub(lambda found: f"#{ord(found[0])};", line(text))


def _is_sound(module: Any) -> bool:
    """Whether it is what `structure_of` describes: a database can be damaged, or of another version."""
    return (
        isinstance(module, Mapping)
        and isinstance(module.get("at"), int)
        and isinstance(module.get("name"), str)
        and module.get("part") in PARTS
        and all(
            isinstance(module.get(names), list) and all(isinstance(name, str) for name in module[names])
            for names in ("inputs", "outputs")
        )
    )


def _is_finite(count: Any) -> bool:
    return isinstance(count, (int, float)) and math.isfinite(count)


def _is_setting(item: str) -> bool:
    root, dot, _ = item.partition(".")
    return bool(dot) and root in _SETTINGS


def _cache_facts(counters: Mapping[str, float]) -> str:
    hits, misses = (round(total(counters, name)) for name in ("cache_hits", "cache_misses"))
    return f"{hits:,} found, {misses:,} made" if hits or misses else ""


def _edges(modules: Sequence[Mapping[str, Any]]) -> Iterator[FlowEdge]:
    for place, module in enumerate(modules):
        nearest: dict[int, list[str]] = {}
        further: dict[int, list[str]] = {}
        settings: dict[int, list[str]] = {}
        for item in module["inputs"]:
            for number, source in enumerate(_givers(modules, place, item)):
                group = settings if _is_setting(item) else further if number else nearest
                group.setdefault(source, []).append(item)
        if not nearest:  # else they would hide the flow: most modules read some of the concept's settings
            yield from (_edge(modules, source, place, items, is_settings=True) for source, items in settings.items())
        yield from (_edge(modules, source, place, items) for source, items in nearest.items())
        for source, items in further.items():
            yield _edge(modules, source, place, items, is_fallback=True)


def _edge(modules: Sequence[Mapping[str, Any]], source: int, target: int, items: list[str], **kind: bool) -> FlowEdge:
    return FlowEdge(modules[source]["at"], modules[target]["at"], tuple(dict.fromkeys(items)), **kind)


def _givers(modules: Sequence[Mapping[str, Any]], before: int, name: str) -> Iterator[int]:
    """Places of the modules that may have given an item, as `wan_fixes.pipeline.upstream.producers` finds them."""
    item = name.partition(".")[0]
    for place in range(before - 1, -1, -1):
        if item in modules[place]["outputs"]:
            yield place
            if item in (read.partition(".")[0] for read in modules[place]["inputs"]):
                return
