"""Bugs in sharing images, and in the cost of attaching and detaching."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from impl.batched.functions import Functions, Indices
from impl.batched.sets import ProgramSets
from impl.batched.state import State
from impl.planted.planting import Original, planted


@planted(
    "sets.ProgramSets.detach",
    rule="COST-7",
    semantics="linux-7.3",
    sharing="per_shape",
    minimal="""
    bpf_prog_load p1 fentry multi
    bpf_prog_load p2 fexit
    bpf_link_create l1 p1 foo1 outer
    bpf_raw_tracepoint_open l2 p2 foo1
    bpf_link_detach l2
    """,
)
def images_not_merged_back(original: Original, sets: ProgramSets, indices: Indices, program: int) -> None:
    """Functions that have equal programs again after a detach keep images of their own."""

    def find(prints: NDArray[np.uint64]) -> Any:
        return np.full(len(prints), -1, np.intp)

    with patch.object(sets, "_find", find):
        original(sets, indices, program)


@planted(
    "functions.Functions.groups",
    rule="COST-7",
    semantics="linux-7.3",
    sharing="per_shape",
    minimal="""
    bpf_prog_load p1 fentry multi
    bpf_link_create l1 p1 foo1 foo2
    """,
)
def shapes_share_an_image(_original: Original, functions: Functions, _level: str) -> NDArray[np.int32]:
    """One image serves functions of different shapes."""
    return np.zeros(functions.count + 1, np.int32)


@planted(
    "links._count_waits",
    rule="COST-5",
    semantics="proposal-2021",
    minimal="""
    bpf_prog_load p1 fentry multi
    bpf_link_create l1 p1 foo1 outer
    bpf_link_detach l1
    """,
)
def waits_for_each_function(_original: Original, _state: State, lost: Indices) -> int:
    """Detaching a batch waits for every function by itself."""
    return len(lost)
