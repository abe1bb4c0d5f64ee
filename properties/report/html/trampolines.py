"""Pictures of trampolines laid out: functions on the left, what their sites call on the right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import mean
from typing import Final

from properties.report.pictures import CalledTarget, CallingFunction, Picture

__all__ = ["Chip", "Edge", "ImageDrawing", "ImageNode", "lay_out"]

LETTER: Final = 7.3
"""The width of a letter of the pictures' font, which is monospaced, 12 pixels high."""

MARGIN: Final = 8
ROW, ROW_GAP, WIDEST_GAP = 28, 8, 44
GAP: Final = 56
BOX_GAP: Final = 14
HEAD, SERVES, CHIP, CHIP_GAP = 24, 15, 22, 4
CHIPS_A_ROW: Final = 2
LONGEST: Final = 28
MOST_CALLERS, MOST_CALLEES, MOST_CHIPS = 40, 40, 48


@dataclass(frozen=True, slots=True)
class Chip:
    """A program in an image, and where it is drawn."""

    text: str
    kind: str
    x: float
    y: float
    width: float


@dataclass(frozen=True, slots=True)
class ImageNode:
    """A box. classes: of its style; notes: smaller lines under the text."""

    text: str
    note: str
    classes: str
    x: float
    y: float
    width: float
    height: float
    chips: tuple[Chip, ...] = ()


@dataclass(frozen=True, slots=True)
class Edge:
    """A call, from right of a function to left of what it calls. dashed: it goes through ftrace_caller."""

    path: str
    tip: str
    dashed: bool
    changed: bool


@dataclass(frozen=True, slots=True)
class ImageDrawing:
    """A picture that is laid out. text: what it shows, in words."""

    title: str
    text: str
    width: float
    height: float
    nodes: tuple[ImageNode, ...]
    edges: tuple[Edge, ...]


def lay_out(picture: Picture, title: str, before: Picture | None = None) -> ImageDrawing:
    """Place everything. What differs from the picture before is marked."""
    callers = picture.callers[:MOST_CALLERS]
    callees = _order(callers, picture.callees)
    changed, fresh = _find_changes(picture, before)
    left = max([len(_name(caller)) for caller in callers] + [4]) * LETTER + 20
    boxes = [_measure(picture.callees[place]) for place in callees]
    right = max((width for width, _ in boxes), default=0.0)
    callee_height = sum(height for _, height in boxes) + BOX_GAP * max(0, len(boxes) - 1)
    gap = _spread(len(callers), callee_height)
    caller_height = len(callers) * (ROW + gap) - gap if callers else 0.0
    height = max(caller_height, callee_height, ROW)
    tops = [MARGIN + (height - caller_height) / 2 + (ROW + gap) * row for row in range(len(callers))]
    starts = accumulate((box[1] + BOX_GAP for box in boxes), initial=MARGIN + (height - callee_height) / 2)
    at = {place: (top, box[1]) for place, top, box in zip(callees, starts, boxes, strict=False)}
    x = MARGIN + left + GAP
    nodes = [
        ImageNode(
            _name(caller),
            "",
            _classes("caller", caller.callee is None and "nop", caller.name in changed and "changed"),
            MARGIN,
            top,
            left,
            ROW,
        )
        for caller, top in zip(callers, tops, strict=True)
    ]
    nodes += [_draw_callee(picture.callees[place], x, at[place], right, fresh) for place in callees]
    edges = _draw_edges(callers, tops, at, (MARGIN + left, x), changed)
    width = x + right + MARGIN if callees else MARGIN + left + MARGIN
    return ImageDrawing(title, _describe(picture), width, height + 2 * MARGIN, tuple(nodes), tuple(edges))


def _spread(callers: int, height: float) -> float:
    """The gap between functions: wider where what they call needs more room than they do."""
    return min(WIDEST_GAP, max(ROW_GAP, (height - callers * ROW) / max(1, callers - 1)))


def _name(caller: CallingFunction) -> str:
    more = f" ×{caller.count:,}" if caller.count > 1 else ""
    return _shorten(caller.name, LONGEST - len(more)) + more


def _shorten(text: str, most: int = LONGEST) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _classes(*names: str | bool) -> str:
    return " ".join(name for name in names if isinstance(name, str))


def _find_changes(picture: Picture, before: Picture | None) -> tuple[frozenset[str], frozenset[str]]:
    """The functions that call something else than before, and the names of what nobody called before."""
    if before is None:
        return frozenset(), frozenset()
    called = {caller.name: _called(caller, before) for caller in before.callers}
    changed = {caller.name for caller in picture.callers if called.get(caller.name) != _called(caller, picture)}
    return frozenset(changed), frozenset(c.name for c in picture.callees) - {c.name for c in before.callees}


def _called(caller: CallingFunction, picture: Picture) -> tuple[CalledTarget | None, str]:
    return None if caller.callee is None else picture.callees[caller.callee], caller.site


def _order(callers: Sequence[CallingFunction], callees: Sequence[CalledTarget]) -> list[int]:
    """The places of what is called, so that calls cross little: by the middle of those that call it."""
    rows: dict[int, list[float]] = {}
    for row, caller in enumerate(callers):
        for place, weight in ((caller.callee, 0.0), (caller.behind, 0.5)):
            if place is not None:
                rows.setdefault(place, []).append(row + weight)
    last = float(len(callers))
    return sorted(range(len(callees)), key=lambda place: mean(rows.get(place, [last])))[:MOST_CALLEES]


def _measure(callee: CalledTarget) -> tuple[float, float]:
    """Width and height of a box."""
    chips = _chips(callee)
    widths = [_chip_width(text) for text, _ in chips]
    rows = [widths[start : start + CHIPS_A_ROW] for start in range(0, len(widths), CHIPS_A_ROW)]
    inner = max([sum(row) + CHIP_GAP * (len(row) - 1) for row in rows], default=0.0)
    head = len(_shorten(callee.name)) * LETTER
    serves = len(_shorten(callee.serves, 36)) * LETTER * 0.84
    return max(inner, head, serves) + 20, _head(callee) + len(rows) * (CHIP + CHIP_GAP) + (4 if rows else 0)


def _head(callee: CalledTarget) -> int:
    return HEAD + (SERVES if callee.serves else 4)


def _chips(callee: CalledTarget) -> list[tuple[str, str]]:
    """Text and kind of each program."""
    split = [(program.partition(":")[2] or program, program.partition(":")[0]) for program in callee.programs]
    chips = [(f"{kind} {_shorten(name, 14)}", kind) for name, kind in split[:MOST_CHIPS]]
    more = len(callee.programs) - MOST_CHIPS
    return [*chips, (f"and {more:,} more", "more")] if more > 0 else chips


def _chip_width(text: str) -> float:
    return len(text) * LETTER * 0.92 + 14


def _draw_callee(
    callee: CalledTarget, x: float, at: tuple[float, float], width: float, fresh: frozenset[str]
) -> ImageNode:
    top, height = at
    chips, across, down = [], x + 10, top + _head(callee)
    for number, (text, kind) in enumerate(_chips(callee)):
        if number and number % CHIPS_A_ROW == 0:
            across, down = x + 10, down + CHIP + CHIP_GAP
        known = kind if kind in {"fentry", "fexit", "fmod_ret", "fsession"} else "other"
        chips.append(Chip(text, known, across, down, _chip_width(text)))
        across += chips[-1].width + CHIP_GAP
    classes = _classes("callee", callee.kind, callee.name in fresh and "fresh")
    return ImageNode(_shorten(callee.name), _shorten(callee.serves, 36), classes, x, top, width, height, tuple(chips))


def _draw_edges(
    callers: Sequence[CallingFunction],
    tops: Sequence[float],
    at: dict[int, tuple[float, float]],
    between: tuple[float, float],
    changed: frozenset[str],
) -> Iterator[Edge]:
    """The calls. Where several arrive, they arrive one beneath the other."""
    calls = [
        (top + ROW / 2 + (5 if dashed else 0), place, dashed, caller.name in changed)
        for caller, top in zip(callers, tops, strict=True)
        for place, dashed in ((caller.callee, False), (caller.behind, True))
        if place is not None and place in at
    ]
    arrivals = {place: sum(call[1] == place for call in calls) for place in at}
    arrived = dict.fromkeys(at, 0)
    for start, place, dashed, is_changed in calls:
        top, height = at[place]
        arrived[place] += 1
        end = top + height * arrived[place] / (arrivals[place] + 1)
        yield _draw_edge(between, start, end, dashed=dashed, changed=is_changed)


def _draw_edge(between: tuple[float, float], start: float, end: float, *, dashed: bool, changed: bool) -> Edge:
    left, right = between
    middle, tip = (left + right) / 2, right - 7
    path = f"M{left:.1f} {start:.1f}C{middle:.1f} {start:.1f} {middle:.1f} {end:.1f} {tip:.1f} {end:.1f}"
    return Edge(path, f"{right:.1f},{end:.1f} {tip:.1f},{end - 4:.1f} {tip:.1f},{end + 4:.1f}", dashed, changed)


def _describe(picture: Picture) -> str:
    """The picture in words."""
    told = [_tell(caller, picture) for caller in picture.callers[:MOST_CALLERS]]
    more = len(picture.callers) - MOST_CALLERS
    return "; ".join([*told, *([f"and {more:,} more"] if more > 0 else [])]) or "no function"


def _tell(caller: CallingFunction, picture: Picture) -> str:
    if caller.callee is None:
        return f"{_name(caller)} is a nop"
    behind = "" if caller.behind is None else f", which goes on to {_tell_callee(picture.callees[caller.behind])}"
    return f"{_name(caller)} calls {_tell_callee(picture.callees[caller.callee])}{behind}"


def _tell_callee(callee: CalledTarget) -> str:
    programs = ", ".join(text for text, _ in _chips(callee))
    return f"{_shorten(callee.name)} ({programs})" if programs else _shorten(callee.name)
