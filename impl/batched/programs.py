"""Loading programs, and which functions accept them (PROG-*)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from impl.batched.btf import ATTRIBUTES, NO_SYMBOL, VMLINUX, Mask
from impl.batched.faults import Refused
from impl.batched.lsm import verify
from impl.batched.state import Program, State
from spec import operations as op

__all__ = ["CALLING", "EXTENSION", "REFUSALS", "load", "refuse_target", "verdicts"]

EXTENSION: Final = "freplace"
REFUSALS: Final = ("", "EINVAL", "EOPNOTSUPP", "ENOENT")
INVALID: Final = 1
NOT_SUPPORTED: Final = 2
NOT_THERE: Final = 3
PARTS_SLOTS: Final = 6
RETURN_READERS: Final = frozenset({"fexit", "fmod_ret", "fsession"})
CALLING: Final = RETURN_READERS | {op.LSM}
"""Kinds whose images call the original (IMAGE-3)."""

OBSERVERS: Final = frozenset({"fentry", "fexit", "fsession"})
WORD: Final = 1 << 64


def load(state: State, operation: op.BpfProgLoad) -> None:
    """BPF_PROG_LOAD (PROG-1, PROG-2)."""
    if _is_malformed(state, operation):
        raise Refused("EINVAL")
    program = Program(
        operation.prog,
        len(state.programs) + 1,
        operation.kind,
        state.functions.name_index(operation.target) if operation.target is not None else -1,
        multi=operation.multi,
        sleepable=operation.sleepable,
        func_ip=operation.func_ip,
        returns=(operation.returns or 0) % WORD,
        calls=operation.calls,
    )
    if operation.target is not None:
        refuse_target(state, program, program.target)
    elif program.kind == op.LSM and program.func_ip:
        raise Refused("ENOTSUPP")
    state.programs[operation.prog] = state.program_numbered[program.number] = program


def _is_malformed(state: State, operation: op.BpfProgLoad) -> bool:
    facts, kind = state.facts, operation.kind
    if kind in op.KPROBES:
        return operation.multi or operation.target is not None
    kinds = {"fmod_ret": facts.fmod_ret, "lsm": facts.lsm, "freplace": facts.freplace, "fsession": facts.fsession}
    if not kinds.get(kind, True):
        return True
    if operation.multi:
        refused = not facts.tracing_multi or kind in {"fmod_ret", "lsm", "freplace"}
        if refused or operation.target is not None:
            return True
    if operation.sleepable and kind == "freplace":
        return True
    return bool(operation.returns) and kind in OBSERVERS


def refuse_target(state: State, program: Program, index: int) -> None:
    """One function, -1 for one that is unknown, in the single order (PROG-3)."""
    if index < 0 or not state.present[state.functions.named.module[index]]:
        raise Refused("EINVAL")
    verdict = verdicts(state, program)[index]
    if verdict:
        raise Refused(REFUSALS[verdict])
    if program.kind == op.LSM:
        verify(state, program, index)


def verdicts(state: State, program: Program, btf: int = VMLINUX) -> NDArray[np.uint8]:
    """For every function, there or not, which of REFUSALS answers the program (PROG-3, PROG-4, PROG-7, LINK-7).

    btf: the module whose BTF a multi program is for, or VMLINUX.
    """
    named = state.functions.named
    key = (state.facts, program.kind, program.sleepable, program.multi, btf, state.traced.tobytes())
    if key not in named.verdicts:
        wrong, codes = zip(*_list_checks(state, program, btf), strict=True)
        named.verdicts[key] = np.select(wrong, codes).astype(np.uint8)
    return named.verdicts[key]


def _list_checks(state: State, program: Program, btf: int) -> list[tuple[Mask, int]]:
    """Lists the checks of a function in their order; adjacent checks with one answer are merged."""
    named, facts, kind = state.functions.named, state.facts, program.kind
    no = np.zeros(len(named.rank), np.bool_)

    def having(attribute: str) -> Mask:
        return (named.attributes & ATTRIBUTES[attribute]) > 0

    reads_return = kind in RETURN_READERS
    noreturn = having("noreturn") if reads_return and facts.noreturn_refused else no
    denied = having("deny") if kind not in {"freplace", op.LSM} else no
    wide = named.wide if reads_return and facts.wide_return_refused else no
    sleeping = ~having("lsm_sleepable" if kind == op.LSM else "sleepable") if program.sleepable else no
    fixed = ~having("fmod_ret") if kind == "fmod_ret" and not program.sleepable else no
    if kind == op.LSM:
        fixed = ~having("lsm")
    unnamed = named.rank < 0
    if kind == "freplace":
        unnamed = unnamed | ~having("freplace")
    undescribed = ~named.describable
    if not facts.union_arguments:
        undescribed = undescribed | named.has_union
    if facts.has_parts:
        undescribed = undescribed | (named.slots > PARTS_SLOTS)
    last = noreturn | denied
    if not program.multi:
        gone = named.lookup == NO_SYMBOL
        return [
            (unnamed | undescribed, INVALID),
            (wide, NOT_SUPPORTED),
            (gone, NOT_THERE),
            (sleeping | fixed | last, INVALID),
        ]
    elsewhere = named.module != btf
    return [
        (unnamed | (elsewhere & (named.module != VMLINUX)) | last | undescribed, INVALID),
        (wide, NOT_SUPPORTED),
        (elsewhere | (named.lookup > 0) | ~state.traced[named.module], NOT_THERE),
        (sleeping, INVALID),
    ]
