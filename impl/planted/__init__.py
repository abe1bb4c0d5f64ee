"""Planted bugs: historical ones, and breaches of one rule, each a small override of `batched`.

Some take tasks that stand in the middle of a call (`tasks`), or calls in the middle of patching (`poking`). Some are
behind a range: only few values (`words`), many of one thing (`numbers`) or a large world (`pages`) show them.

The harness is believed because it finds them. Each is a factory, so `--system impl.planted.ftrace:tramp_not_restored`
names one. Nothing here may import model or properties.
"""

from __future__ import annotations

from collections.abc import Mapping

from impl.planted import (
    direct,
    ftrace,
    graph,
    hooks,
    images,
    ipmodify,
    kprobes,
    links,
    numbers,
    pages,
    poking,
    programs,
    tasks,
    waiting,
    words,
)
from impl.planted.planting import Planted

__all__ = ["PLANTED", "SYSTEMS", "Planted"]

_PLACES: Mapping[str, Planted] = {
    f"{module.__name__}:{name}": bug
    for module in (
        *(ftrace, direct, graph, hooks, ipmodify, kprobes, links, programs, images, tasks, words, numbers, pages),
        *(poking, waiting),
    )
    for name, bug in vars(module).items()
    if isinstance(bug, Planted)
}
PLANTED: tuple[Planted, ...] = tuple(_PLACES.values())
SYSTEMS: Mapping[str, str] = {bug.name: place for place, bug in _PLACES.items()}
"""What `--system` calls each, by its name."""
