"""The lines of enabled_functions, one for each site that is not a nop (SITE-*, t_show())."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from impl.batched.direct_functions import BPF
from impl.batched.sites import CALLER, DIRECT, GRAPH, KLP, REGS_CALLER
from impl.batched.state import Ops, State
from spec.sites import Site

__all__ = ["EnabledFunctions"]

COMMON: Final = {
    CALLER: "ftrace_caller",
    REGS_CALLER: "ftrace_regs_caller",
    GRAPH: "ops:graph_ops",
    KLP: "ops:klp_ops",
}


class _Line(NamedTuple):
    """The values that decide a line, now and later.

    entry: 0 where the site has no direct ops. content: the fingerprint of what its image is made of, 0 without one; a
    class's number would do for one reading only, since a class that dies leaves it to another.
    """

    covering: int
    regs: bool
    ipmodify: bool
    direct: bool
    code: int
    entry: int
    content: int


class EnabledFunctions:
    """The file. Equal lines are one object, in one reading and in the next."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._lines: dict[tuple[Any, ...], Site] = {}

    def read(self) -> Mapping[str, Site]:
        """Every site that is not a plain nop."""
        state, sites = self._state, self._state.sites
        where = np.flatnonzero(sites.count) if not sites.off else np.empty(0, np.intp)
        if not len(where):
            return {}
        direct = sites.direct[where]
        entries = np.where(direct, state.direct.entry[where], 0)
        images = np.where(entries == BPF, state.trampolines.images(where), 0)
        regs, contents = sites.shows_regs(where), state.trampolines.sets.fingerprints[images]
        columns = (sites.count[where], regs, sites.ipmodify[where], direct, sites.codes[where], entries, contents)
        names = _name_trampolines(state)
        known, self._lines = self._lines, {}
        shown = {}
        for index, image, *line in zip(*(each.tolist() for each in (where, images, *columns)), strict=True):
            key = tuple(line)
            site = self._lines.get(key) or known.get(key) or _make_site(state, names, _Line(*key), image)
            shown[state.functions.all[index].name] = self._lines[key] = site
        return shown


def _name_trampolines(state: State) -> dict[int, str]:
    """Names an ops' own trampoline, by code, for sites that it alone covers."""
    named = {entry.code: f"ops:{entry.name}" for entry in state.ops_list if isinstance(entry, Ops)}
    return {**COMMON, **named}


def _make_site(state: State, names: dict[int, str], line: _Line, image: int) -> Site:
    """One line of enabled_functions; two ops or more are called through a common caller (SITE-4)."""
    shown = _show_entry(state, line.entry, image) if line.direct else None
    code = line.code if line.covering == 1 else REGS_CALLER if line.regs else CALLER
    target = shown if shown is not None and code == DIRECT else names[code]
    return Site(line.covering, line.regs, line.ipmodify, line.direct, target, shown)


def _show_entry(state: State, entry: int, image: int) -> str:
    """A raw trampoline by name, BPF's by the programs of its image in running order (SITE-5)."""
    if entry != BPF:
        return f"direct:{state.direct.names[entry]}"
    sets = state.trampolines.sets
    nodes = [node for each in sets.content(image) for node in each]
    programs = (state.program_numbered[int(sets.node_program[node])] for node in nodes)
    return "trampoline:" + ",".join(f"{program.kind}:{program.name}" for program in programs)
