"""The kernel proper as code: each routine acts like the kernel's function of its name, as far as traces show it.

The text is our own. Routines that stand for C functions clobber every register that C may.
"""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple

from impl.batched.jit.assembler import assemble
from impl.batched.machine import addresses as at
from impl.batched.machine import records
from impl.batched.machine.bpf import BPF, PROGRAM, helpers
from impl.batched.machine.fgraph import GRAPH
from impl.batched.machine.fprobe import FPROBE
from impl.batched.machine.ftrace import FTRACE, ops_caller
from impl.batched.machine.statements import ARGUMENTS, JUNK, POP_SAVED, PUSH_SAVED, VOLATILE, index_of, record

__all__ = ["Routines", "routines"]

_BASICS: Final = {
    # What a C function leaves behind, its result aside; and what one without a result does.
    "leave": "; ".join(f"movabs {name}, {JUNK + place}" for place, name in enumerate(VOLATILE)) + "; ret",
    "leave_void": f"movabs rax, {JUNK + 0x100}; jmp {{leave}}",
    "lookup": f"{index_of('rdx')}; and edx, {0x1FFFFF}; mov rax, {at.SLOT_COUNTS}; movzx eax, byte ptr [rax + rdx]; "
    "jmp {leave}",
    "lookup_ip": f"{index_of('rax')}; and eax, {0x1FFFFF}; shl rax, 4; add rax, {at.TEXT}; jmp {{leave}}",
    "nothing": "xor eax, eax; ret",
    "record_direct": f"""
        push r10
        push r11
        pushfq
        {record(records.DIRECT, "rax")}
        popfq
        pop r11
        pop r10
        ret
    """,
}

# calls(vectors, count, results, function, stack words): a call for each vector of six registers and stack words.
_CALLS: Final = f"""
        {PUSH_SAVED}
        mov rbx, rdi
        mov r12, rsi
        mov r13, rdx
        mov r14, rcx
        mov r15, r8
    next:
        test r12, r12
        jz done
        mov rbp, rsp
        mov rcx, r15
    stacked:
        test rcx, rcx
        jz ready
        push qword ptr [rbx + 8*rcx + {8 * len(ARGUMENTS) - 8}]
        dec rcx
        jmp stacked
    ready:
        {"; ".join(f"mov {name}, [rbx + {8 * place}]" for place, name in enumerate(ARGUMENTS))}
        call r14
        mov rsp, rbp
        mov [r13], rax
        add r13, 8
        lea rbx, [rbx + 8*r15 + {8 * len(ARGUMENTS)}]
        dec r12
        jmp next
    done:
        {POP_SAVED}
        ret
"""


TEXTS: Final = _BASICS | FTRACE | FPROBE | GRAPH | BPF | {"program": PROGRAM, "calls": _CALLS}
"""Each routine's text, callees first; `{name}` is the address of one before."""


class Routines(NamedTuple):
    """code: the bytes from ROUTINES on. address: of each routine by name."""

    code: bytes
    address: dict[str, int]


@cache
def routines() -> Routines:
    """All routines, assembled once."""
    code, address = b"", dict[str, int]()

    def place(name: str, routine: bytes) -> None:
        nonlocal code
        address[name] = at.ROUTINES + len(code)
        code += routine + b"\xcc" * (-len(routine) % 16)

    for name, text in TEXTS.items():
        place(name, assemble(text.format(**address), at.ROUTINES + len(code)))
    for name, helper in helpers():
        place(name, helper)
    for name, regs in (("ftrace_caller", False), ("ftrace_regs_caller", True)):
        place(name, ops_caller(regs=regs, ops=0, function=address["ftrace_ops_list_func"]))
    return Routines(code, address)
