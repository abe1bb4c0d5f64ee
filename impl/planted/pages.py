"""Bugs that only a world of several modules, and of more functions than a page has records, shows."""

from __future__ import annotations

from typing import Any, Final
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from impl.batched.cost import Bill
from impl.batched.functions import Functions, Indices
from impl.batched.machine.tables import Tables
from impl.batched.state import Link, Ops, Program, State
from impl.batched.targets import Targets
from impl.planted.planting import LARGE, Original, planted
from spec import operations as op

PAGE: Final = 256
PAGES: Final = 4 * PAGE


@planted(
    "filters.select",
    rule="FILTER-6",
    origin="range",
    semantics="linux-6.12",
    world=LARGE,
    minimal="""
    ftrace_ops o1
    register_ftrace_function o1
    ftrace_set_filter o1 many240
    """,
)
def first_record_of_a_page(original: Original, state: State, pattern: str) -> Indices:
    """A glob passes over the first record of every page but the first."""
    found: Indices = original(state, pattern)
    return np.delete(found, np.flatnonzero((found % PAGE == 0) & (found > 0)))


@planted(
    "functions.Functions.record",
    rule="GLOB-4",
    origin="range",
    semantics="linux-6.1",
    world=LARGE,
    minimal="""
    ftrace_ops o1
    ftrace_set_filter o1 300
    register_ftrace_function o1
    """,
)
def record_number_of_one_page(original: Original, functions: Functions, number: int, *rest: Any) -> Indices:
    """A record's number is one within the first page."""
    found: Indices = original(functions, (number - 1) % PAGE + 1 if number else 0, *rest)
    return found


@planted(
    "cost.Bill.patch",
    rule="COST-2",
    origin="range",
    semantics="linux-6.12",
    world=LARGE,
    minimal="""
    ftrace_ops o1
    register_ftrace_function o1
    """,
)
def all_in_one_round(original: Original, bill: Bill, sites: int) -> None:
    """However many sites there are, they are patched in one round."""
    rounds = bill.rounds
    original(bill, sites)
    bill.rounds = rounds + (sites > 0)


@planted(
    "machine.tables.Tables._put_mask",
    rule="TRACE-1",
    origin="range",
    semantics="linux-6.12",
    world=LARGE,
    minimal="""
    ftrace_ops o1
    register_ftrace_function o1
    ftrace_ops o2
    register_ftrace_function o2
    call many1014 1 2 3 4 5 6 7
    """,
)
def hashes_of_four_pages(original: Original, tables: Tables, mask: NDArray[np.bool_]) -> int:
    """ftrace_ops_list_func() finds no record beyond the fourth page in a hash."""
    found: int = original(tables, np.where(np.arange(len(mask)) < PAGES, mask, False))
    return found


@planted(
    "links._enter",
    rule="LINK-18",
    origin="range",
    semantics="linux-7.3",
    world=LARGE,
    minimal="""
    bpf_prog_load p1 fentry
    bpf_raw_tracepoint_open l1 p1 many1014
    """,
)
def link_of_four_pages(original: Original, state: State, link: str, program: Program, where: Indices) -> None:
    """A link does not remember functions beyond the fourth page, and leaves them attached."""
    original(state, link, program, where)
    functions = state.links[link].functions
    state.links[link] = Link(program, functions[functions < PAGES])


@planted(
    "links.resolve",
    rule="LINK-15",
    origin="range",
    semantics="linux-7.3",
    world=LARGE,
    minimal="""
    bpf_prog_load p1 fentry multi
    bpf_link_create l1 p1 foo1:1 many1:2
    """,
)
def ids_of_ten_bits(original: Original, state: State, *rest: Any) -> Targets:
    """Ten bits of the BTF ids decide the order in which cookies go to functions."""
    where, cookies = original(state, *rest)
    ranks = state.functions.named.rank[where]
    if len(cookies) > 1:
        cookies = cookies.copy()
        cookies[np.argsort(ranks, kind="stable")] = cookies[np.argsort(ranks % 1024, kind="stable")]
    return Targets(where, cookies)


@planted(
    op.DeleteModule,
    rule="MODULE-5",
    origin="range",
    semantics="linux-6.12",
    world=LARGE,
    minimal="""
    ftrace_ops o1
    ftrace_set_filter_ip o1 many1320
    delete_module mod2
    init_module mod2
    register_ftrace_function o1
    """,
)
def second_module_in_filters(original: Original, state: State, operation: op.DeleteModule) -> None:
    """Only of the first module are sites taken out of filters."""
    if operation.module == next(iter(state.functions.modules)):
        original(state, operation)
        return
    with patch.object(Ops, "keep_addresses", lambda *_: None):
        original(state, operation)
