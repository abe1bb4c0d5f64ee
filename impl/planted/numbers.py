"""Bugs that few examples have enough of something to show: ops, graph users, programs, links, images, trampolines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from impl.batched.cost import Ledger
from impl.batched.direct_functions import DirectFunctions
from impl.batched.faults import Refused
from impl.batched.functions import Indices
from impl.batched.machine.structs import Globals
from impl.batched.machine.tables import Tables
from impl.batched.sites import FIRST_OPS, Sites
from impl.batched.state import GraphUser, Ops, Program, State
from impl.batched.trampolines import Trampolines
from impl.planted.planting import Original, planted
from spec import operations as op
from spec.costs import Cost

BYTE: Final = 256


def _many(count: int, *lines: str) -> str:
    """These lines for each number from 1, which stands where they have #."""
    return "\n".join(line.replace("#", str(number)) for number in range(1, count + 1) for line in lines)


OPS: Final = "ftrace_ops o#", "ftrace_set_filter_ip o# foo1", "register_ftrace_function o#"
COOKIES: Final = "\nbpf_link_detach l1\n".join(
    f"bpf_link_create l1 p1 {' '.join(f'foo{n}:{1 + first + n}' for n in range(13))}" for first in range(0, 13 * 20, 13)
)
"""A program gets 260 cookies, 13 at a time."""

ALL: Final = "bpf_link_create l# p# foo?".replace("foo?", " ".join(f"foo{n}" for n in range(13)))
IMAGES: Final = f"{_many(2, 'bpf_prog_load p# fentry multi', ALL)}\n" + "\n".join(
    ("bpf_link_detach l2", ALL.replace("#", "2"))[n % 2] for n in range(18)
)
"""260 images, 13 at a time."""

USERS: Final = ("register_ftrace_graph g# filter=foo1",)


@planted(
    "machine.tables.Tables._list_ops",
    rule="TRACE-1",
    origin="range",
    semantics="linux-6.12",
    minimal=f"{_many(4, *OPS)}\ncall foo1 1",
)
def fourth_ops_unheard(original: Original, tables: Tables, direct: Any) -> None:
    """ftrace_ops_list_func() ends after the three newest ops."""
    plain = [entry for entry in tables.state.ops_list if isinstance(entry, Ops)]
    kept = [entry for entry in tables.state.ops_list if entry not in plain[3:]]
    with patch.object(tables.state, "ops_list", kept):
        original(tables, direct)


@planted(
    "sites.Sites.join",
    rule="SITE-1",
    origin="range",
    semantics="linux-6.12",
    minimal=_many(8, *OPS),
)
def count_in_three_bits(original: Original, sites: Sites, where: Indices, code: int, **options: Any) -> None:
    """A site counts up to seven ops, and with the eighth none."""
    original(sites, where, code, **options)
    sites.count[where] %= 8


@planted(
    op.FtraceOps,
    rule="SITE-1",
    origin="range",
    semantics="linux-7.3",
    minimal=f"{_many(6, 'ftrace_ops o#')}\nftrace_ops o7 save_regs\nregister_ftrace_function o7",
)
def flags_of_the_seventh_ops(original: Original, state: State, operation: op.FtraceOps) -> None:
    """From the seventh ops on that is declared, its flags are lost."""
    late = state.next_code >= FIRST_OPS + 6
    original(state, replace(operation, save_regs=False) if late else operation)


@planted(
    "graph._join",
    rule="GRAPH-2",
    origin="range",
    semantics="linux-6.12",
    minimal=f"{_many(3, *USERS)}\nregister_ftrace_graph g4 filter=foo2",
)
def fourth_user_uncovered(original: Original, state: State, user: GraphUser) -> Any:
    """A user joins graph_ops without its hashes where there are three already."""
    joined = original(state, user)
    if len(state.graph.users) < 3:
        return joined
    return replace(joined, filter_hash=state.graph.filter_hash, notrace_hash=state.graph.notrace_hash)


@planted(
    op.RegisterFtraceGraph,
    rule="GRAPH-3",
    origin="range",
    semantics="linux-6.12",
    minimal=_many(16, *USERS),
)
def fifteen_graph_users(original: Original, state: State, operation: op.RegisterFtraceGraph) -> None:
    """The last slot is never given away."""
    original(state, operation)
    if not state.graph.free:
        raise Refused("ENOSPC")


@planted(
    "machine.tables.Tables._list_users",
    rule="GRAPH-5",
    origin="range",
    semantics="linux-7.3",
    minimal=f"{_many(9, *USERS)}\ncall foo1 1",
)
def ninth_user_told_as_the_first(original: Original, tables: Tables) -> None:
    """Three bits of a slot's number say whose entry and return it is."""
    original(tables)
    for number, user in enumerate(tables.state.graph.users):
        place = (Globals.USERS + Globals.USER_BYTES * number) // 8
        tables.globals.u64[place + 1] = user.slot % 8


@planted(
    "machine.images.code_address",
    rule="TRAMP-1",
    origin="range",
    semantics="linux-6.12",
    minimal=f"{_many(48, 'bpf_prog_load p# fentry')}\nbpf_raw_tracepoint_open l1 p48 foo1\ncall foo1 1",
)
def forty_eighth_program(original: Original, number: int) -> int:
    """Images know the code of 47 programs, and go on with the first."""
    found: int = original(number - 47 if number > 47 else number)
    return found


@planted(
    "links._check_linking",
    rule="LINK-3",
    origin="range",
    semantics="linux-6.12",
    minimal="bpf_prog_load p1 fentry\n"
    f"{_many(8, 'bpf_raw_tracepoint_open l# p1 foo#')}\nbpf_raw_tracepoint_open l9 p1 foo1",
)
def program_in_eight_trampolines(original: Original, state: State, program: Program, where: Indices) -> Any:
    """Once a program is in eight trampolines, none of them is asked whether it has it."""
    asked = program.links < 8
    return original(state, program if asked else replace(program, links=0), where)


@planted(
    "trampolines.Trampolines.nodes",
    rule="IMAGE-1",
    origin="range",
    semantics="linux-6.12",
    minimal="bpf_prog_load p1 fentry\n"
    f"{_many(9, 'bpf_raw_tracepoint_open l# p1 foo# cookie=#')}\ncall foo9 1 2 3 4 5 6 7 8 9",
)
def ninth_cookie_of_a_program(
    original: Original, trampolines: Trampolines, program: int, lists: tuple[int, ...], cookies: NDArray[np.uint64]
) -> Any:
    """A program has eight cookies; with more of them a new one is 0."""
    known = trampolines._nodes.get((program, lists))  # noqa: SLF001 a bug has no manners
    full = known is not None and len(known[0]) >= 8
    found = original(trampolines, program, lists, cookies)
    if known is not None and full:
        trampolines.cookies[found[~np.isin(cookies, known[0])]] = 0
    return found


@planted(
    "trampolines.Trampolines._remember",
    rule="LINK-15",
    origin="range",
    semantics="linux-7.3",
    minimal=f"bpf_prog_load p1 fentry multi\n{COOKIES}",
)
def cookies_numbered_by_a_byte(
    original: Original, trampolines: Trampolines, nodes: NDArray[np.int32], cookies: NDArray[np.uint64]
) -> None:
    """The 257th cookie takes the first one's place."""
    original(trampolines, nodes, cookies)
    late = nodes >= BYTE
    trampolines.cookies[nodes[late]] = trampolines.cookies[nodes[late] % BYTE]


@planted(
    "cost.Ledger.total",
    rule="COST-7",
    origin="range",
    semantics="linux-7.3",
    minimal=IMAGES,
)
def images_counted_by_a_byte(original: Original, ledger: Ledger, alive: int) -> Cost:
    """The count of images built begins anew behind 255."""
    found: Cost = original(ledger, alive)
    return replace(found, images_built=found.images_built % BYTE)


@planted(
    "machine.images.Images._make_recipe",
    rule="TRAMP-5",
    origin="range",
    semantics="linux-6.12",
    minimal="bpf_prog_load p1 fentry func_ip\n"
    f"{_many(BYTE, 'bpf_raw_tracepoint_open l# p1 foo1', 'bpf_link_detach l#')}\n"
    "bpf_raw_tracepoint_open l1 p1 foo1\ncall foo1 1",
)
def func_ip_of_the_257th_image(original: Original, images: Any, state: State, *rest: Any) -> Any:
    """From the 257th image on none keeps the function's address."""
    recipe = original(images, state, *rest)
    return recipe._replace(func_ip=False) if state.ledger.built > BYTE else recipe


@planted(
    "direct_functions.DirectFunctions.number",
    rule="DIRECT-9",
    origin="range",
    semantics="linux-6.12",
    minimal="""
    ftrace_ops o1
    ftrace_set_filter_ip o1 foo1
    register_ftrace_direct_multi o1 T1
    modify_ftrace_direct_multi o1 T2
    modify_ftrace_direct_multi o1 T3
    modify_ftrace_direct_multi o1 T4
    """,
)
def fourth_direct_trampoline(original: Original, direct: DirectFunctions, tramp: str) -> int:
    """The fourth address that is ever called directly is taken for the first."""
    found: int = original(direct, tramp)
    return found if found < 4 else 1


@planted(
    op.FtraceSetFilterIps,
    rule="FILTER-5",
    origin="range",
    semantics="linux-6.12",
    minimal=f"ftrace_ops o1\nregister_ftrace_function o1\n"
    f"ftrace_set_filter_ips o1 {' '.join(f'foo{n}' for n in range(9))}",
)
def eight_addresses_at_once(original: Original, state: State, operation: op.FtraceSetFilterIps) -> None:
    """ftrace_set_filter_ips() reads eight addresses."""
    original(state, replace(operation, functions=operation.functions[:8]))


@planted(
    "direct._read_pairs",
    rule="DIRECT-10",
    origin="range",
    semantics="linux-7.3",
    minimal=f"ftrace_ops o1\nupdate_ftrace_direct_add o1 {' '.join(f'foo{n}=T1' for n in range(8))} foo8=T2",
)
def eight_direct_calls_at_once(original: Original, state: State, pairs: tuple[tuple[str, str], ...]) -> Any:
    """The ninth pair of a hash, and those behind it, take the first one's address."""
    tramp = pairs[0][1]
    return original(
        state, tuple((function, tramp) if n > 7 else (function, to) for n, (function, to) in enumerate(pairs))
    )
