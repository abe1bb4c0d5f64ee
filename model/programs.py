"""Loading BPF programs, and what a function must be to become a target (PROG-1 to PROG-4, LINK-7)."""

from __future__ import annotations

from dataclasses import replace

from model import lsm, parts
from model.endings import Refused
from model.rules import cite
from model.state import Program, State
from spec.abi import SLOT_BYTES
from spec.operations import KPROBES, LSM
from spec.prototypes import Prototype
from spec.semantics import Semantics
from spec.worlds import Function

__all__ = ["bpf_prog_load", "check_attach_target", "check_multi_target", "refuse_multi_target"]

READS_RETURN = frozenset({"fexit", "fmod_ret", "fsession"})
RETURNS_ZERO = frozenset({"fentry", "fexit", "fsession"})
NEVER_MULTI = frozenset({"fmod_ret", "lsm", "freplace"})


Refusal = tuple[str, ...]
"""Why a function cannot be a target: the errno, then the rules; empty if it can."""

ACCEPTED: Refusal = ()
NO_TARGET: Refusal = ("EINVAL", "PROG-3")
NOT_DESCRIBABLE: Refusal = ("EINVAL", "ARG-4", "PROG-3")
NO_SYMBOL: Refusal = ("ENOENT", "PROG-7")


def bpf_prog_load(state: State, program: Program) -> State:
    """PROG-1, PROG-2: what is loaded is the operation itself."""
    if not _may_load(state.semantics, program):
        raise Refused(state, "EINVAL", "PROG-1")
    cite("PROG-1")
    if program.target is not None:
        cite("PROG-2")
        check_attach_target(state, program, program.target)
    elif program.kind == LSM and program.func_ip:
        raise Refused(state, "ENOTSUPP", "LSM-1")
    if program.kind == LSM:
        cite("LSM-1")
    return replace(state, programs={**state.programs, program.prog: program})


def _may_load(facts: Semantics, program: Program) -> bool:
    """PROG-1, in order."""
    if program.kind in KPROBES:
        cite("KPROBE-1")
        return not program.multi and program.target is None
    kinds = {"fmod_ret": facts.fmod_ret, "lsm": facts.lsm, "freplace": facts.freplace, "fsession": facts.fsession}
    if not kinds.get(program.kind, True):
        return False
    if program.multi and not facts.tracing_multi:
        return False
    if program.multi and (program.kind in NEVER_MULTI or program.target is not None):
        return False
    if program.sleepable and program.kind == "freplace":
        return False
    return not program.returns or program.kind not in RETURNS_ZERO


def check_attach_target(state: State, program: Program, name: str) -> None:
    """PROG-3 (bpf_check_attach_target): Refused unless the program may be loaded for the function."""
    if refusal := _refuse_target(state, program, name):
        raise Refused(state, *refusal)
    function = state.named(name)
    cite("ARG-4", "PROG-3", *(("PROG-7",) if function and function.lookup else ()))


def check_multi_target(state: State, program: Program, name: str, btf: str | None) -> None:
    """LINK-7 (bpf_check_attach_btf_id_multi): Refused unless a batch may attach the program, of a BTF, there."""
    cite("LINK-7")
    if refusal := refuse_multi_target(state, program, name, btf):
        raise Refused(state, *refusal)
    cite("ARG-4")


def _refuse_target(state: State, program: Program, name: str) -> Refusal:
    """PROG-3, in its order."""
    function = state.named(name)
    if function is None or (program.kind == "freplace" and "freplace" not in function.attributes):
        return NO_TARGET
    if refusal := _refuse_prototype(state.semantics, program, function.prototype):
        return refusal
    if function.lookup == "no_symbol":
        return NO_SYMBOL
    if program.kind == LSM:
        return lsm.refuse_hook(state.semantics, program, function)
    if program.sleepable and "sleepable" not in function.attributes:
        return NO_TARGET
    if not program.sleepable and program.kind == "fmod_ret" and "fmod_ret" not in function.attributes:
        return NO_TARGET
    return _refuse_denied(state.semantics, program, function)


def refuse_multi_target(state: State, program: Program, name: str, btf: str | None) -> Refusal:
    """LINK-7: why a batch cannot attach the program, which is for the BTF of a module or vmlinux, to the function."""
    function = state.named(name)
    if function is None:
        return NO_TARGET
    # A module's BTF goes on behind vmlinux's: an id of the latter means the same there, one of another module not.
    if function.module not in {btf, None}:
        return "EINVAL", "LINK-17"
    if refusal := _refuse_denied(state.semantics, program, function):
        return refusal
    if refusal := _refuse_prototype(state.semantics, program, function.prototype):
        return refusal
    if function.module != btf or state.lookup(function):
        return "ENOENT", "LINK-17" if function.module != btf else "LINK-7"
    if program.sleepable and "sleepable" not in function.attributes:
        return "EINVAL", "LINK-7"
    return ACCEPTED


def _refuse_prototype(facts: Semantics, program: Program, prototype: Prototype | None) -> Refusal:
    if prototype is None or not prototype.describable:
        return NOT_DESCRIBABLE
    if prototype.has_union and not facts.union_arguments:
        return NOT_DESCRIBABLE
    if facts.has_parts and not parts.takes(prototype):
        return "EINVAL", "PROG-4"
    # Since Linux kernel commit c48796aa6c39 ("bpf: Reject >8 byte return values on return-reading trampoline paths")
    # (in 6.12.117): the slot for the return value has 8 bytes.
    if prototype.returns.size > SLOT_BYTES and program.kind in READS_RETURN and facts.wide_return_refused:
        return "EOPNOTSUPP", "PROG-3"
    return ACCEPTED


def _refuse_denied(facts: Semantics, program: Program, function: Function) -> Refusal:
    if "deny" in function.attributes and program.kind != "freplace":
        return NO_TARGET
    # Since Linux kernel commit cfe816d469dc ("bpf: Reject attaching fexit/fmod_ret to __noreturn functions") (in
    # 6.12.117): an image that waits for such a function's return is never freed.
    if "noreturn" in function.attributes and program.kind in READS_RETURN and facts.noreturn_refused:
        return NO_TARGET
    return ACCEPTED
