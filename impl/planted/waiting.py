"""Bugs of filter lines that name a module, and wait for it."""

from __future__ import annotations

from dataclasses import replace

from impl.batched.functions import Functions, Mask
from impl.batched.state import GraphUser, Lines, State
from impl.planted.planting import Origin, Original, planted
from spec.globs import FilterLine, matcher


@planted(
    "state.GraphUser.with_filter",
    rule="FILTER-13",
    origin=Origin(0, "8c08f0d5c6fb", "ftrace: Have cached module filters be an active filter"),
    semantics="linux-7.3",
    minimal="""
    register_ftrace_graph g1 filter=foo1:mod:nowhere
    """,
)
def waiting_line_filters_nothing(original: Original, user: GraphUser, own: Mask, lines: Lines) -> GraphUser:
    """A filter that has nothing but a line for a module to come is empty, and covers everything until then."""
    changed: GraphUser = original(user, own, ())
    return replace(changed, mod_trace=lines)


@planted(
    "state.GraphUser.with_filter",
    rule="FILTER-13",
    origin=Origin(0, "0ce0638edf5e", "ftrace: Properly unset FTRACE_HASH_FL_MOD"),
    semantics="linux-7.3",
    minimal="""
    register_ftrace_graph g1 filter=foo1:mod:nowhere
    set_ftrace_filter g1 !*:mod:nowhere
    """,
)
def waiting_is_not_unset(original: Original, user: GraphUser, own: Mask, lines: Lines) -> GraphUser:
    """A filter for which no line waits any more goes on as if one did: if it is empty, it covers nothing."""
    changed: GraphUser = original(user, own, lines)
    if user.mod_trace and not lines:
        changed.filter_hash[-1] = True
    return changed


@planted(
    "graph.end_waiting",
    rule="MODULE-7",
    semantics="linux-7.3",
    minimal="""
    delete_module mod1
    register_ftrace_graph g1 filter=bar1:mod:mod1
    init_module mod1
    delete_module mod1
    init_module mod1
    """,
)
def line_waits_for_ever(
    original: Original, state: State, present: Mask, lines: Lines, module: str
) -> tuple[Mask, Lines]:
    """A line that has met its module waits for it again when it goes."""
    hash_, _ = original(state, present, lines, module)
    return hash_, lines


@planted(
    "graph.end_waiting",
    rule="MODULE-7",
    semantics="linux-7.3",
    minimal="""
    delete_module mod1
    register_ftrace_graph g1 filter=foo1:mod:nowhere
    init_module mod1
    """,
)
def any_module_ends_waiting(
    original: Original, state: State, present: Mask, lines: Lines, module: str
) -> tuple[Mask, Lines]:
    """Whatever module comes, no line waits any more."""
    hash_, _ = original(state, present, lines, module)
    return hash_, ()


@planted(
    "pending._keep",
    rule="FILTER-12",
    semantics="linux-7.3",
    minimal="""
    register_ftrace_graph g1 filter=foo1:mod:mod1
    """,
)
def waits_for_what_is_there(original: Original, state: State, lines: Lines, line: FilterLine) -> Lines:
    """A line that selects nothing waits, although its module is loaded, and answers 0."""
    if line.awaits in state.modules and not line.removes:
        return (*lines, (line.glob, line.awaits))
    kept: Lines = original(state, lines, line)
    return kept


@planted(
    "pending._keep",
    rule="FILTER-12",
    semantics="linux-7.3",
    minimal="""
    register_ftrace_graph g1 filter=foo1:mod:nowhere
    set_ftrace_filter g1 !foo*:mod:nowhere
    """,
)
def taken_back_by_pattern(original: Original, state: State, lines: Lines, line: FilterLine) -> Lines:
    """With ! a line takes back all that its glob matches, and not those alone that are written the same."""
    match = matcher(line.glob)
    left = tuple(one for one in lines if one[1] != line.awaits or not match(one[0]))
    if line.removes and len(left) < len(lines):
        return left
    kept: Lines = original(state, lines, line)
    return kept


@planted(
    "functions.Functions.within",
    rule="GLOB-7",
    semantics="linux-7.3",
    minimal="""
    register_ftrace_graph g1 filter=foo1:mod:!mod1
    """,
)
def excluded_module_is_wanted(original: Original, functions: Functions, module: str) -> Mask:
    """The ! before a module is not read: its functions are selected, and no others."""
    wanted: Mask = original(functions, module.removeprefix("!"))
    return wanted
