"""Loading BPF programs, and what a function must be to become a target (PROG-1 to PROG-4)."""

from __future__ import annotations

from dataclasses import replace

from model.faults import Faults
from model.rules import Refused, cite
from model.state import Program, State
from spec.abi import SLOT_BYTES
from spec.worlds import Function

__all__ = ["acceptable", "check_multi_target", "check_target", "load"]

READS_RETURN = frozenset({"fexit", "fmod_ret", "fsession"})
RETURNS_ZERO = frozenset({"fentry", "fexit", "fsession"})
NEVER_MULTI = frozenset({"fmod_ret", "freplace"})
PROPOSAL_SLOTS = 6


def load(state: State, program: Program, _faults: Faults) -> State:
    """bpf_prog_load: what is loaded is the operation itself."""
    if program.prog in state.programs:
        raise Refused("EEXIST", "NAME-1")
    _check_load(state, program)
    if program.target is not None:
        cite("PROG-2")
        check_target(state, program, program.target)
    return replace(state, programs={**state.programs, program.prog: program})


def _check_load(state: State, program: Program) -> None:
    """PROG-1."""
    facts = state.semantics
    kinds = {"fmod_ret": facts.fmod_ret, "freplace": facts.freplace, "fsession": facts.fsession}
    bad_multi = not facts.tracing_multi or program.kind in NEVER_MULTI or program.target is not None
    if (
        not kinds.get(program.kind, True)
        or (program.multi and bad_multi)
        or (program.sleepable and program.kind == "freplace")
        or (program.returns and program.kind in RETURNS_ZERO)
    ):
        raise Refused("EINVAL", "PROG-1")
    cite("PROG-1")


def check_target(state: State, program: Program, name: str) -> None:
    """PROG-3, in the order of a single attach; Refused unless the program may be attached to the function."""
    function = _named_by_btf(state, name)
    if program.kind == "freplace" and "freplace" not in function.attributes:
        raise Refused("EINVAL", "PROG-3")
    _check_prototype(state, program, function)
    if program.sleepable:
        if "sleepable" not in function.attributes:
            raise Refused("EINVAL", "PROG-3")
    elif program.kind == "fmod_ret" and "fmod_ret" not in function.attributes:
        raise Refused("EINVAL", "PROG-3")
    _check_denied(state, program, function)
    cite("PROG-3")


def check_multi_target(state: State, program: Program, name: str) -> None:
    """LINK-7: PROG-3 in the order of a batch."""
    cite("LINK-7")
    function = _named_by_btf(state, name)
    _check_denied(state, program, function)
    _check_prototype(state, program, function)
    if program.sleepable and "sleepable" not in function.attributes:
        raise Refused("EINVAL", "LINK-7")


def acceptable(state: State, program: Program, name: str) -> bool:
    """Whether a glob stands for this function (LINK-6)."""
    try:
        check_multi_target(state, program, name)
    except Refused:
        return False
    return True


def _named_by_btf(state: State, name: str) -> Function:
    function = state.loaded(name)
    if function is None or function.btf_id is None:
        raise Refused("EINVAL", "PROG-3")
    return function


def _check_prototype(state: State, program: Program, function: Function) -> None:
    prototype = function.prototype
    cite("ARG-4")
    if prototype is None or not prototype.describable:
        raise Refused("EINVAL", "PROG-3")
    if prototype.has_union and not state.semantics.union_arguments:
        raise Refused("EINVAL", "PROG-3")
    if state.semantics.parts_limit is not None and len(prototype.slots) > PROPOSAL_SLOTS:
        raise Refused("EINVAL", "PROG-4")
    wide = prototype.returns.size > SLOT_BYTES and program.kind in READS_RETURN
    if wide and state.semantics.wide_return_refused:
        raise Refused("EOPNOTSUPP", "PROG-3")


def _check_denied(state: State, program: Program, function: Function) -> None:
    noreturn = "noreturn" in function.attributes and program.kind in READS_RETURN
    if (noreturn and state.semantics.noreturn_refused) or (
        "deny" in function.attributes and program.kind != "freplace"
    ):
        raise Refused("EINVAL", "PROG-3")
