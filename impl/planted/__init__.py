"""Planted bugs: historical ones, and breaches of one rule, each a small override of `batched`.

The harness is believed because it finds them. Each is a factory, so `--system impl.planted.ftrace:tramp_not_restored`
names one. Nothing here may import model or properties.
"""

from __future__ import annotations

from impl.planted import direct, ftrace, graph, images, ipmodify, links, programs
from impl.planted.planting import Planted

__all__ = ["PLANTED", "Planted"]

PLANTED: tuple[Planted, ...] = tuple(
    bug
    for module in (ftrace, direct, graph, ipmodify, links, programs, images)
    for bug in vars(module).values()
    if isinstance(bug, Planted)
)
