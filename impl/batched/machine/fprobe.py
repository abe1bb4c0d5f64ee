"""Fprobes as code (KPROBE-7 to KPROBE-9): handlers at entry, the returns that rethook hooks, and their programs."""

from __future__ import annotations

from typing import Final

from impl.batched.machine import addresses as at
from impl.batched.machine import records
from impl.batched.machine.statements import ARGUMENTS, POP_SAVED, PUSH_SAVED, index_of
from impl.batched.machine.structs import Globals, OpsObject, ProbeObject, SavedRegisters

__all__ = ["FPROBE"]

_WORDS: Final = 8 * len(ARGUMENTS)
_RECORD_BYTES: Final = 8 * (4 + len(ARGUMENTS))

FPROBE: Final = {
    # run_probes(probes, function's index, six words): the programs of a list that are on the function.
    "run_probes": f"""
        {PUSH_SAVED}
        mov rbx, rdi
        mov r12, rsi
        mov r13, rdx
    each:
        mov r14, [rbx]
        test r14, r14
        jz done
        mov rax, [r14 + {ProbeObject.TIMES}]
        movzx r15d, byte ptr [rax + r12]
    again:
        test r15d, r15d
        jz following
        mov r11, {at.GLOBALS}
        mov r10, [r11 + {Globals.TRACE}]
        mov qword ptr [r10], {records.PROBE}
        mov rax, [r14 + {ProbeObject.PROGRAM}]
        mov [r10 + 8], rax
        mov [r10 + 16], r12
        mov rax, [r14 + {ProbeObject.COOKIES}]
        mov rax, [rax + 8*r12]
        mov [r10 + 24], rax
        {"; ".join(f"mov rax, [r13 + {8 * n}]; mov [r10 + {32 + 8 * n}], rax" for n in range(len(ARGUMENTS)))}
        add r10, {_RECORD_BYTES}
        mov [r11 + {Globals.TRACE}], r10
        dec r15d
        jmp again
    following:
        add rbx, 8
        jmp each
    done:
        {POP_SAVED}
        jmp {{leave_void}}
    """,
    "fprobe_handler": f"""
        {index_of("rsi")}
        mov rdi, [rdx + {OpsObject.PROBES}]
        sub rsp, {_WORDS}
        {
        "; ".join(
            f"mov rax, [rcx + {SavedRegisters.OF[name]}]; mov [rsp + {8 * n}], rax" for n, name in enumerate(ARGUMENTS)
        )
    }
        mov rdx, rsp
        call {{run_probes}}
        add rsp, {_WORDS}
        jmp {{leave_void}}
    """,
    "rethook_trampoline_handler": f"""
        mov r11, {at.GLOBALS}
        dec qword ptr [r11 + {Globals.HOOKS}]
        imul rcx, [r11 + {Globals.HOOKS}], {Globals.FRAME_BYTES}
        add rcx, {at.GLOBALS + Globals.HOOK_FRAMES}
        push qword ptr [rcx]
        mov rsi, [rcx + 8]
        mov rdi, [rcx + 16]
        sub rsp, {_WORDS}
        mov [rsp], rax
        mov rdx, rsp
        call {{run_probes}}
        add rsp, {_WORDS}
        pop rax
        jmp {{leave}}
    """,
    "arch_rethook_trampoline": """
        sub rsp, 8
        push rax
        push rdx
        call {rethook_trampoline_handler}
        mov [rsp + 16], rax
        pop rdx
        pop rax
        ret
    """,
    "rethook_hook": f"""
        {index_of("rsi")}
        mov r11, {at.GLOBALS}
        imul r8, [r11 + {Globals.HOOKS}], {Globals.FRAME_BYTES}
        add r8, {at.GLOBALS + Globals.HOOK_FRAMES}
        mov rax, [rcx + {SavedRegisters.PARENT}]
        mov [r8], rax
        mov [r8 + 8], rsi
        mov rax, [rdx + {OpsObject.PROBES}]
        mov [r8 + 16], rax
        inc qword ptr [r11 + {Globals.HOOKS}]
        mov rax, {{arch_rethook_trampoline}}
        mov [rcx + {SavedRegisters.PARENT}], rax
        jmp {{leave_void}}
    """,
}
