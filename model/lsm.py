"""Programs of LSM's hooks: what they may be attached to and return, and where they run (LSM-*)."""

from __future__ import annotations

from model.rules import cite
from model.state import Program
from spec.operations import LSM
from spec.semantics import Semantics
from spec.worlds import Function

__all__ = ["list_of", "refuse_hook"]

MAX_ERRNO = 4095
HALF = 1 << 31


def refuse_hook(facts: Semantics, program: Program, function: Function) -> tuple[str, ...]:
    """LSM-1 to LSM-3: why the verifier refuses the program on this function, as an errno and a rule, if it does."""
    cite("LSM-2")
    # bpf_lsm_verify_prog(): the function is one of bpf_lsm_hooks, and none of bpf_lsm_disabled_hooks.
    if not {"lsm", *(["lsm_sleepable"] if program.sleepable else [])} <= function.attributes:
        return "EINVAL", "LSM-2"
    # check_get_func_ip() refuses every program that is neither of tracing nor of kprobes.
    if program.func_ip:
        return "ENOTSUPP", "LSM-1"
    return ("EINVAL", "LSM-3") if facts.lsm_return_checked and not _may_return(program, function) else ()


def _may_return(program: Program, function: Function) -> bool:
    """LSM-3: bpf_lsm_get_retval_range(), by the low half of R0."""
    if _is_void(function):
        return True
    cite("LSM-3")
    low = (program.returns or 0) % (2 * HALF)
    value = low - 2 * HALF if low >= HALF else low
    return 0 <= value <= 1 if "lsm_bool" in function.attributes else -MAX_ERRNO <= value <= 0


def list_of(program: Program, function: Function | None) -> str:
    """LSM-4: the kind in whose list the program stands on a function (bpf_attach_type_to_tramp())."""
    if program.kind != LSM or function is None:
        return program.kind
    cite("LSM-4")
    return "fexit" if _is_void(function) else "fmod_ret"


def _is_void(function: Function) -> bool:
    return function.prototype is not None and function.prototype.returns.kind == "VOID"
