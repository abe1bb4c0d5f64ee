"""Lines GLOB:mod:MODULE of filter files, which wait for their modules (FILTER-12, FILTER-13, MODULE-7)."""

from __future__ import annotations

from model.endings import Refused
from model.filters import match_functions
from model.rules import cite
from model.state import FL_MOD, Lines, State
from spec.globs import FilterLine

__all__ = ["cache_mod", "flagged", "process_mod_list"]


def cache_mod(state: State, lines: Lines, line: FilterLine, *rules: str) -> Lines:
    """FILTER-12: a line that selects nothing waits for its module; or with ! takes such lines back.

    Words are compared as they were written; `*` takes back every line that waits for the module.
    """
    module = line.awaits
    gone = {one for one in lines if line.removes and one[1] == module and line.glob in {"*", one[0]}}
    if not gone if line.removes else module in state.modules:
        raise Refused(state, "EINVAL", "FILTER-12", *rules)
    cite("FILTER-12")
    return tuple(one for one in lines if one not in gone) if line.removes else (*lines, (line.glob, module))


def flagged(hash_: frozenset[str], lines: Lines) -> frozenset[str]:
    """FILTER-13: a filter hash, which is not empty while a line for it waits."""
    if lines:
        cite("FILTER-13")
    return hash_ | {FL_MOD} if lines else hash_ - {FL_MOD}


def process_mod_list(state: State, hash_: frozenset[str], lines: Lines, module: str) -> tuple[frozenset[str], Lines]:
    """MODULE-7: a hash once a module has come, and the lines that go on waiting."""
    cite("MODULE-7")
    for glob, wanted in lines:
        if wanted == module:
            hash_ |= match_functions(state, glob, module)
    return hash_, tuple(line for line in lines if line[1] != module)
