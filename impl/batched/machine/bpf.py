"""BPF as code: entering and leaving images and programs, the helpers, and the body that all programs share."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Final

from impl.batched.jit.inlines import BPF_CTX, HELPERS, assembled, inline, offered
from impl.batched.jit.plan import gate
from impl.batched.machine import addresses as at
from impl.batched.machine import records
from impl.batched.machine.statements import ARGUMENTS, JUNK, record
from impl.batched.machine.structs import Globals, ProgramObject
from spec.semantics import PRESETS, Semantics

__all__ = ["BPF", "HELPERS", "PROGRAM", "helper_name", "helpers"]

KINDS: Final = ("fentry", "fexit", "fmod_ret", "lsm", "fsession")
STACK_WORDS: Final = 12
"""More than any prototype has on the stack."""


def _check(*, sleepable: bool, guarded: bool) -> str:
    """The helper is the one for the program in rdi, or this traps."""
    return f"""
        test byte ptr [rdi + {ProgramObject.FLAGS}], {ProgramObject.SLEEPABLE}
        {"jz" if sleepable else "jnz"} wrong
        test byte ptr [rdi + {ProgramObject.FLAGS}], {ProgramObject.GUARDED}
        {"jnz" if guarded else "jz"} right
    wrong:
        ud2
    right:
        mov r11, {at.GLOBALS}
    """


GUARD: Final = f"""
        inc qword ptr [rdi + {ProgramObject.ACTIVE}]
        cmp qword ptr [rdi + {ProgramObject.ACTIVE}], 1
        jne busy
"""
BUSY: Final = f"""
    busy:
        mov rdx, [rdi + {ProgramObject.NUMBER}]
        {record(records.MISSED, "rdx")}
        xor eax, eax
        jmp {{leave}}
"""


def _enter(*, sleepable: bool, guarded: bool) -> str:
    """__bpf_prog_enter_recur(prog, run_ctx): 0 if the program runs already. Without a guard it is entered even so."""
    return f"""
        {_check(sleepable=sleepable, guarded=guarded)}
        mov rax, [r11 + {Globals.CURRENT}]
        mov [rsi + 8], rax
        mov [r11 + {Globals.CURRENT}], rsi
        {GUARD if guarded else ""}
        mov rax, {JUNK + 0x200}
        jmp {{leave}}
        {BUSY if guarded else ""}
    """


RELEASE: Final = f"""
        xor eax, eax
        cmp qword ptr [rdi + {ProgramObject.ACTIVE}], 1
        jne busy
        mov rax, {JUNK + 0x200}
    busy:
        cmp rax, rsi
        jne wrong
        dec qword ptr [rdi + {ProgramObject.ACTIVE}]
"""
RELEASE_UNGUARDED: Final = f"""
        mov rax, {JUNK + 0x200}
        cmp rax, rsi
        jne wrong
"""


def _exit(*, sleepable: bool, guarded: bool) -> str:
    """__bpf_prog_exit_recur(prog, start, run_ctx): start is what enter returned, or this traps."""
    return f"""
        {_check(sleepable=sleepable, guarded=guarded)}
        cmp [r11 + {Globals.CURRENT}], rdx
        jne wrong
        {RELEASE if guarded else RELEASE_UNGUARDED}
        mov rax, [rdx + 8]
        mov [r11 + {Globals.CURRENT}], rax
        jmp {{leave_void}}
    """


BPF: Final = {
    "__bpf_tramp_enter": f"inc qword ptr [rdi]; mov r11, {at.GLOBALS}; inc qword ptr [r11 + {Globals.IN_FLIGHT}]; "
    "jmp {leave_void}",
    "__bpf_tramp_exit": f"dec qword ptr [rdi]; mov r11, {at.GLOBALS}; dec qword ptr [r11 + {Globals.IN_FLIGHT}]; "
    "jmp {leave_void}",
} | {
    f"__bpf_prog_{step}{gate(sleepable=sleepable, guarded=guarded)}": make(sleepable=sleepable, guarded=guarded)
    for step, make in (("enter", _enter), ("exit", _exit))
    for sleepable, guarded in product((False, True), repeat=2)
}


def _ask(helper: str) -> str:
    """Calls a helper through the program's table, which depends on its kernel and kind."""
    return f"call [r12 + {ProgramObject.HELPERS + 8 * HELPERS.index(helper)}]"


PROGRAM: Final = f"""
        push rbp
        mov rbp, rsp
        push rbx; push r12; push r13; push r14; push r15
        sub rsp, 24
        mov rbx, rdi
        mov r12, rsi
        mov r11, {at.GLOBALS}
        mov r13, [r11 + {Globals.TRACE}]
        mov qword ptr [r13], {records.PROGRAM}
        mov rax, [r12 + {ProgramObject.NUMBER}]
        mov [r13 + 8], rax
        {_ask("bpf_get_attach_cookie")}
        mov [r13 + 16], rax
        mov qword ptr [r13 + 24], 0
        test byte ptr [r12 + {ProgramObject.FLAGS}], {ProgramObject.FUNC_IP}
        jz no_ip
        mov rdi, rbx
        {_ask("bpf_get_func_ip")}
        mov [r13 + 24], rax
    no_ip:
        mov rdi, rbx
        {_ask("bpf_get_func_arg_cnt")}
        mov [r13 + 32], rax
        mov r14d, {records.MOST_ARGUMENTS}
        cmp rax, r14
        cmovb r14, rax
        mov qword ptr [r13 + 48], 0
        mov rdi, rbx
        lea rsi, [r13 + 48]
        {_ask("bpf_get_func_ret")}
        mov [r13 + 40], rax
        mov qword ptr [r13 + 56], 0
        mov qword ptr [r13 + 64], 0
        test byte ptr [r12 + {ProgramObject.FLAGS}], {ProgramObject.SESSION}
        jz no_session
        mov rdi, rbx
        {_ask("bpf_session_is_return")}
        mov [r13 + 56], rax
        mov rdi, rbx
        {_ask("bpf_session_cookie")}
        mov rcx, [rax]
        mov [r13 + 64], rcx
        cmp qword ptr [r13 + 56], 0
        jne no_session
        mov rcx, [r12 + {ProgramObject.NUMBER}]
        mov [rax], rcx
    no_session:
        lea r15, [r13 + {8 * records.PROGRAM_WORDS}]
        mov qword ptr [rbp - 64], 0
    argument:
        mov qword ptr [r15 + 8], 0
        mov rdi, rbx
        mov rsi, [rbp - 64]
        lea rdx, [r15 + 8]
        {_ask("bpf_get_func_arg")}
        mov [r15], rax
        add r15, 16
        inc qword ptr [rbp - 64]
        cmp [rbp - 64], r14
        jbe argument
        mov rcx, r14
        test byte ptr [r12 + {ProgramObject.FLAGS}], {ProgramObject.HAS_SLOT}
        jz copy
        inc rcx
    copy:
        xor edx, edx
    each:
        cmp rdx, rcx
        jae recorded
        mov rax, [rbx + 8*rdx]
        mov [r15], rax
        add r15, 8
        inc rdx
        jmp each
    recorded:
        mov r11, {at.GLOBALS}
        mov [r11 + {Globals.TRACE}], r15
        mov r13, [r12 + {ProgramObject.CALLS}]
        test r13, r13
        jz done
        cmp qword ptr [r11 + {Globals.CALLING}], 0
        jne done
        mov r14, [r12 + {ProgramObject.CALLEE}]
        mov rdx, {at.LOADED}
        cmp byte ptr [rdx + r14], 0
        je done
        mov qword ptr [r11 + {Globals.CALLING}], 1
        {record(records.CALL, "r14")}
        {"; ".join(["push 0"] * STACK_WORDS)}
        {"; ".join(f"xor {name}, {name}" for name in ARGUMENTS)}
        call r13
        add rsp, {8 * STACK_WORDS}
        {record(records.RETURN, "rax")}
        mov qword ptr [r11 + {Globals.CALLING}], 0
    done:
        mov rax, [r12 + {ProgramObject.RETURNS}]
        lea rsp, [rbp - 40]
        pop r15; pop r14; pop r13; pop r12; pop rbx
        pop rbp
        jmp {{leave}}
"""


def helper_name(helper: str, kind: str, semantics: Semantics) -> str:
    """The routine that a helper is for programs of a kind; kernels with sessions have others."""
    return f"{helper} of {kind}" + ", beside sessions" * semantics.fsession


def helpers() -> Iterator[tuple[str, bytes]]:
    """Every helper for every kind that has it: the code of inlines.py, which is proved."""
    symbols = {BPF_CTX: at.GLOBALS + Globals.CURRENT}
    for semantics in {preset.fsession: preset for preset in PRESETS.values()}.values():
        for helper, kind in product(HELPERS, KINDS):
            if offered(helper, semantics, kind):
                yield helper_name(helper, kind, semantics), assembled(inline(helper, semantics, kind), symbols)
