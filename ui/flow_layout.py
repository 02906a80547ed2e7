"""Where the boxes and arrows of a flow lie: layers from top to bottom, few crossings, straight long arrows.

The steps are those of Sugiyama, Tagawa and Toda (1981): layers, dummies where an arrow passes a layer, an order in each
layer by the medians of the neighbours, then places. Between two layers of boxes lies one of labels, as in Graphviz.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

Point = tuple[float, float]

_APART: Final = 18.0  # pixels between what lies side by side
_BETWEEN: Final = 13.0  # between a layer and the next
_LABEL_HEIGHT: Final = 16.0
_LINE_WIDTH: Final = 6.0  # what an arrow takes where it passes a layer
_ORDER_ROUNDS: Final = 24
_PLACE_ROUNDS: Final = 60
_STRAIGHTNESS: Final = 4.0  # how much a line holds together, where a box next to it pulls with 1


@dataclass(frozen=True, slots=True)
class Box:
    """Something to place, with its size in pixels."""

    key: int
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Arrow:
    """From one box to another further down; with room for a label of that width."""

    source: int
    target: int
    label_width: float


@dataclass(frozen=True, slots=True)
class Layout:
    """Pixels from the top left corner.

    Attributes
    ----------
    boxes:
        The middle of each box.
    routes:
        Of each arrow, in the order given, the points that it passes, from the lower edge of its source to the upper
        edge of its target.
    labels:
        Of each arrow, the middle of its label.
    """

    width: float
    height: float
    boxes: Mapping[int, Point]
    routes: Sequence[Sequence[Point]]
    labels: Sequence[Point]


@dataclass(slots=True, eq=False)
class _Spot:
    """A box, or the place where an arrow passes a layer."""

    layer: int
    width: float
    height: float
    is_line: bool
    above: list[_Spot] = field(default_factory=list)
    below: list[_Spot] = field(default_factory=list)
    line: list[_Spot] = field(default_factory=list)
    """All the places of its arrow; empty for a box."""
    order: int = 0
    x: float = 0.0


def lay_out(boxes: Sequence[Box], arrows: Sequence[Arrow]) -> Layout:
    """Place boxes and arrows. Every arrow's source stands before its target in `boxes`."""
    layers = _layers([box.key for box in boxes], arrows)
    spots = {box.key: _Spot(2 * layers[box.key], box.width, box.height, is_line=False) for box in boxes}
    chains = [_chain(arrow, spots[arrow.source], spots[arrow.target]) for arrow in arrows]
    rows: list[list[_Spot]] = [[] for _ in range(1 + max((spot.layer for spot in spots.values()), default=0))]
    for spot in spots.values():
        rows[spot.layer].append(spot)
    for chain in chains:
        for spot in chain[1:-1]:
            rows[spot.layer].append(spot)
        for upper, lower in pairwise(chain):
            upper.below.append(lower)
            lower.above.append(upper)
    _put_in_order(rows)
    _place(rows)
    return _measured(rows, spots, chains)


def _layers(keys: Sequence[int], arrows: Sequence[Arrow]) -> dict[int, int]:
    """The layer of each box: below all its sources, and as near to its targets as makes its arrows shorter."""
    layers = dict.fromkeys(keys, 0)
    into: dict[int, list[int]] = {key: [] for key in keys}
    out: dict[int, list[int]] = {key: [] for key in keys}
    for arrow in arrows:
        into[arrow.target].append(arrow.source)
        out[arrow.source].append(arrow.target)
    for key in keys:
        layers[key] = max((layers[source] + 1 for source in into[key]), default=0)
    for _ in range(len(keys)):
        moved = False
        for key in reversed(keys):
            lowest = min((layers[target] for target in out[key]), default=0) - 1
            if lowest > layers[key] and len(out[key]) >= len(into[key]):
                layers[key], moved = lowest, True
        if not moved:
            break
    return layers


def _chain(arrow: Arrow, source: _Spot, target: _Spot) -> list[_Spot]:
    """The spots of an arrow, one in each layer from its source to its target; the one in the middle has the label."""
    between = range(source.layer + 1, target.layer)
    labelled = source.layer + (target.layer - source.layer) // 2
    labelled += 1 - labelled % 2
    line = [
        _Spot(layer, arrow.label_width if layer == labelled else _LINE_WIDTH, _LABEL_HEIGHT, is_line=True)
        for layer in between
    ]
    for spot in line:
        spot.line = line
    return [source, *line, target]


# In which order


def _put_in_order(rows: list[list[_Spot]]) -> None:
    """Change the order within the layers until few arrows cross."""
    for row in rows:
        _number(row)
    best, fewest = [list(row) for row in rows], _crossings(rows)
    for turn in range(_ORDER_ROUNDS):
        downwards = turn % 2 == 0
        for row in rows if downwards else reversed(rows):
            places = {id(spot): _median(spot.above if downwards else spot.below, spot.order) for spot in row}
            row.sort(key=lambda spot: places[id(spot)])
            _number(row)
        crossings = _crossings(rows)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
        if not fewest:
            break
    for row, ordered in zip(rows, best, strict=True):
        row[:] = ordered
        _number(row)


def _number(row: list[_Spot]) -> None:
    for order, spot in enumerate(row):
        spot.order = order


def _median(neighbours: list[_Spot], otherwise: int) -> float:
    orders = sorted(spot.order for spot in neighbours)
    if not orders:
        return otherwise
    middle = len(orders) // 2
    return orders[middle] if len(orders) % 2 else (orders[middle - 1] + orders[middle]) / 2


def _crossings(rows: list[list[_Spot]]) -> int:
    """How many pairs of lines between neighbouring layers cross."""
    count = 0
    for row in rows:
        ends: list[int] = []  # of the lines in the order of their beginnings
        for spot in row:
            targets = sorted(lower.order for lower in spot.below)
            count += sum(end > target for target in targets for end in ends)
            ends += targets
    return count


# At which place


def _place(rows: list[list[_Spot]]) -> None:
    """Draw what is connected together, and lines straight, with nothing overlapping."""
    for row in rows:
        _settle(row, [0.0] * len(row), [1.0] * len(row))
    for turn in range(_PLACE_ROUNDS):
        for row in rows if turn % 2 == 0 else reversed(rows):
            wanted, weights = [], []
            for spot in row:
                pulls = [(other.x, 1.0) for other in spot.above + spot.below if not (spot.is_line and other.is_line)]
                if len(spot.line) > 1:
                    pulls.append((sum(other.x for other in spot.line) / len(spot.line), _STRAIGHTNESS))
                weight = sum(pull for _, pull in pulls)
                wanted.append(sum(x * pull for x, pull in pulls) / weight if weight else spot.x)
                weights.append(weight or 0.1)
            _settle(row, wanted, weights)


def _settle(row: list[_Spot], wanted: list[float], weights: list[float]) -> None:
    """Put each as near to its wanted place as all can be without overlapping, in their order (least squares).

    Less the room that those on the left of it take, places only have to rise: pooling neighbours that don't is the
    best such sequence.
    """
    offsets = [0.0]
    for left, right in pairwise(row):
        offsets.append(offsets[-1] + (left.width + right.width) / 2 + _APART)
    pools: list[list[float]] = []  # mean, weight, how many
    for want, weight, offset in zip(wanted, weights, offsets, strict=False):
        pools.append([want - offset, weight, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            mean, weight, count = pools.pop()
            before = pools[-1]
            together = before[1] + weight
            pools[-1] = [(before[0] * before[1] + mean * weight) / together, together, before[2] + count]
    means = [mean for mean, _, count in pools for _ in range(int(count))]
    for spot, mean, offset in zip(row, means, offsets, strict=False):
        spot.x = mean + offset


def _measured(rows: list[list[_Spot]], spots: Mapping[int, _Spot], chains: list[list[_Spot]]) -> Layout:
    """Everything in pixels from the top left corner."""
    left = min((spot.x - spot.width / 2 for row in rows for spot in row), default=0.0)
    right = max((spot.x + spot.width / 2 for row in rows for spot in row), default=0.0)
    tops, heights, y = [], [], 0.0
    for row in rows:
        height = max((spot.height for spot in row if not spot.is_line or spot.layer % 2), default=0.0)
        tops.append(y)
        heights.append(height)
        y += height + _BETWEEN

    def middle(spot: _Spot) -> Point:
        return spot.x - left, tops[spot.layer] + heights[spot.layer] / 2

    routes, labels = [], []
    for chain in chains:
        source, *line, target = chain
        labelled = max(line, key=lambda spot: spot.width)
        points = [(source.x - left, middle(source)[1] + source.height / 2)]
        for spot in line:  # straight down through each layer
            points += [(spot.x - left, tops[spot.layer]), (spot.x - left, tops[spot.layer] + heights[spot.layer])]
        points.append((target.x - left, middle(target)[1] - target.height / 2))
        routes.append(points)
        labels.append(middle(labelled))
    return Layout(
        width=right - left,
        height=max(0.0, y - _BETWEEN),
        boxes={key: middle(spot) for key, spot in spots.items()},
        routes=routes,
        labels=labels,
    )
