"""Bugs of fprobes: what their shared ops and their user of the graph tracer cover, and what programs see."""

from __future__ import annotations

from typing import Any

import numpy as np

from impl.batched.functions import Mask
from impl.batched.machine.tables import Tables
from impl.batched.state import Kprobe, State
from impl.planted.planting import Original, planted


@planted(
    "kprobes._mask",
    rule="KPROBE-6",
    origin="rule",
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load k1 kprobe
    bpf_link_create j1 k1 foo1
    bpf_link_create j2 k1 foo2
    bpf_link_detach j1
    """,
)
def shared_fprobes_never_shrink(original: Original, state: State, kprobes: list[Kprobe]) -> Mask:
    """The function of a link that goes stays covered while another link does not."""
    mask: Mask = original(state, kprobes)
    known = [each.filter_hash for each in state.ops_list if getattr(each, "name", "") == "fprobe"] if kprobes else []
    for before in known:
        mask |= before
    return mask


@planted(
    "kprobes._list_addresses",
    rule="KPROBE-10",
    origin="rule",
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load k1 kprobe
    bpf_link_create j1 k1 foo2:1 foo1*:2
    """,
)
def cookies_follow_the_order_of_addresses(original: Original, state: State, targets: Any) -> Any:
    """Addresses are sorted, and the cookies are left in the order in which they were given."""
    where, cookies = original(state, targets)
    return np.sort(where), cookies


@planted(
    "machine.tables.Tables._put_probes",
    rule="KPROBE-7",
    origin="rule",
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load k1 kretprobe
    bpf_prog_load k2 kretprobe
    bpf_link_create j1 k1 foo1
    bpf_link_create j2 k2 foo1
    call foo1 0
    """,
)
def oldest_fprobe_runs_first(original: Original, tables: Tables, kprobes: list[Kprobe]) -> int:
    """The programs of shared fprobes run in the order of attaching."""
    place: int = original(tables, kprobes[::-1])
    return place


@planted(
    "kprobes._first_site",
    rule="KPROBE-3",
    origin="rule",
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load k1 kprobe
    delete_module mod1
    bpf_link_create j1 k1 bar1
    """,
)
def symbols_of_gone_modules_found(original: Original, state: State, text: str) -> int:
    """A symbol is found although its module is not loaded."""
    found: int = original(state, text)
    return found if found >= 0 else state.functions.index(text)
