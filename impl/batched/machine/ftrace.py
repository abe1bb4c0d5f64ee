"""ftrace as code: the callers, the list of ops, and what ops call. Texts by name, callees first."""

from __future__ import annotations

from functools import cache
from typing import Final

from impl.batched.jit.assembler import assemble
from impl.batched.machine import addresses as at
from impl.batched.machine import records
from impl.batched.machine.statements import POP_SAVED, PUSH_SAVED, SAVED, index_of, record
from impl.batched.machine.structs import Globals, OpsObject, SavedRegisters

__all__ = ["FTRACE", "ops_caller"]

CALLER_HOLES: Final = (0x1122334455667701, 0x1122334455667702)
"""What stands for the address of the ops, and of its function, in the text of a caller."""


def caller(*, regs: bool) -> str:
    """ftrace_caller, or ftrace_regs_caller: saves registers, calls the function of an ops, and goes where that said.

    Only the latter saves what C preserves as well. A direct call's address with bit 0 set is jumped to from the site.
    """
    order = "rax rcx rdx rbx rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split()
    kept = [regs or name not in SAVED for name in order]
    pairs = list(zip(order, kept, strict=True))
    push = [f"push {name}" if saved else "sub rsp, 8" for name, saved in pairs]
    pop = [f"pop {name}" if saved else "lea rsp, [rsp + 8]" for name, saved in reversed(pairs)]
    ops, function = CALLER_HOLES
    return f"""
        push 0
        pushfq
        cld
        {"; ".join(push)}
        push 0
        mov rdi, [rsp + {SavedRegisters.IP}]
        sub rdi, 5
        mov rsi, [rsp + {SavedRegisters.PARENT}]
        movabs rdx, {ops:#x}
        mov rcx, rsp
        movabs rax, {function:#x}
        call rax
        mov rax, [rsp]
        test rax, rax
        jz restore
        test al, 1
        jnz jumped
        mov [rsp + {SavedRegisters.SPARE}], rax
        lea rsp, [rsp + 8]
        {"; ".join(pop)}
        popfq
        ret
    jumped:
        and rax, -2
        mov [rsp + {SavedRegisters.IP}], rax
    restore:
        lea rsp, [rsp + 8]
        {"; ".join(pop)}
        popfq
        lea rsp, [rsp + 8]
        ret
    """


FTRACE: Final = {
    "call_ops_func": f"mov rax, [rdx + {OpsObject.NUMBER}]; {record(records.OPS, 'rax')}; jmp {{leave_void}}",
    "call_direct_funcs": f"{index_of('rax')}; mov rdx, {at.DIRECT_FUNCTIONS}; mov rax, [rdx + 8*rax]; mov [rcx], rax; "
    "jmp {leave_void}",
    "klp_ftrace_handler": f"""
        {index_of("rax")}
        shl rax, 4
        add rax, {at.PATCHED}
        mov [rcx + {SavedRegisters.IP}], rax
        jmp {{leave_void}}
    """,
    "ftrace_ops_list_func": f"""
        {PUSH_SAVED}
        mov r12, rdi
        mov r13, rsi
        mov r14, rcx
        {index_of("r15")}
        mov rbx, {at.GLOBALS + Globals.OPS_LIST}
    next:
        mov rdx, [rbx]
        test rdx, rdx
        jz done
        mov rcx, [rdx + {OpsObject.COVERAGE}]
        cmp byte ptr [rcx + r15], 0
        je skip
        mov rdi, r12
        mov rsi, r13
        mov rcx, r14
        call [rdx + {OpsObject.FUNC}]
    skip:
        add rbx, 8
        jmp next
    done:
        {POP_SAVED}
        jmp {{leave_void}}
    """,
}


@cache
def _caller_code(*, regs: bool) -> bytes:
    return assemble(caller(regs=regs), at.ROUTINES)


def ops_caller(*, regs: bool, ops: int, function: int) -> bytes:
    """A caller's code that calls this function with this ops; it may lie anywhere."""
    code = _caller_code(regs=regs)
    for hole, value in zip(CALLER_HOLES, (ops, function), strict=True):
        code = code.replace(hole.to_bytes(8, "little"), value.to_bytes(8, "little"))
    return code
