"""The function graph tracer as code (GRAPH-4 to GRAPH-8): its users' callbacks, and the shadow stack of a task."""

from __future__ import annotations

from typing import Final

from impl.batched.machine import addresses as at
from impl.batched.machine import records
from impl.batched.machine.statements import POP_SAVED, PUSH_SAVED, index_of, record
from impl.batched.machine.structs import Globals, SavedRegisters

__all__ = ["GRAPH"]

PROBES: Final = 48
"""Of a user, its list of fprobes (machine.fprobe)."""


def _loop(body: str) -> str:
    """A loop over the graph tracer's users: r15 the number, rbp the user, rdx its flags; r13 depth, rbx index."""
    return f"""
        mov rbp, {at.GLOBALS + Globals.USERS}
        xor r15d, r15d
    user:
        mov r11, {at.GLOBALS}
        cmp r15, [r11 + {Globals.USER_COUNT}]
        jae done
        mov rdx, [rbp]
        shl rdx, 4
        lea rdx, [rdx + r11 + {Globals.FLAGS}]
        {body}
    next:
        inc r15
        add rbp, {Globals.USER_BYTES}
        jmp user
    done:
    """


def _find_frame(register: str) -> str:
    """The shadow stack's frame at the depth in r13."""
    return f"imul {register}, r13, {Globals.FRAME_BYTES}; add {register}, {at.GLOBALS + Globals.FRAMES}"


GRAPH: Final = {
    "ftrace_return_to_handler": f"""
        {PUSH_SAVED}
        mov r12, rax
        mov r11, {at.GLOBALS}
        mov r13, [r11 + {Globals.DEPTH}]
        dec r13
        mov [r11 + {Globals.DEPTH}], r13
        {_find_frame("rax")}
        push qword ptr [rax]
        mov rbx, [rax + 8]
        mov r14, [rax + 16]
        {
        _loop(f'''
            cmp qword ptr [rbp + {PROBES}], 0
            je plain
            bt r14, r15
            jnc next
            sub rsp, 48
            mov [rsp], r12
            mov rdi, [rbp + {PROBES}]
            mov rsi, rbx
            mov rdx, rsp
            call {{run_probes}}
            add rsp, 48
            jmp next
        plain:
            bt r14, r15
            jc took
            cmp qword ptr [rbp], 0
            jne next
            cmp qword ptr [r11 + {Globals.USER_COUNT}], 1
            jbe next
        took:
            cmp [rdx], r13
            jne still
            mov qword ptr [rdx], -1
        still:
            cmp qword ptr [rdx + 8], 0
            je heard
            mov qword ptr [rdx + 8], 0
            jmp next
        heard:
            bt r14, r15
            jc tell
            cmp qword ptr [r11 + {Globals.SLOT0_RETURNS}], 0
            je next
        tell:
            mov rax, [rbp + 8]
            {record(records.GRAPH_RETURN, "rax", "rbx", "r13")}
        ''')
    }
        pop rax
        {POP_SAVED}
        jmp {{leave}}
    """,
    "return_to_handler": """
        sub rsp, 8
        push rax
        push rdx
        call {ftrace_return_to_handler}
        mov [rsp + 16], rax
        pop rdx
        pop rax
        ret
    """,
    "ftrace_graph_func": f"""
        {PUSH_SAVED}
        mov r12, rcx
        {index_of("rbx")}
        mov r11, {at.GLOBALS}
        mov r13, [r11 + {Globals.DEPTH}]
        cmp r13, {Globals.MOST_FRAMES}
        jae out
        xor r14d, r14d
        {
        _loop(f'''
            mov rax, [rbp + 16]
            test rax, rax
            jz passes
            cmp byte ptr [rax + rbx], 0
            je next
        passes:
            cmp qword ptr [rbp + {PROBES}], 0
            je ordinary
            bts r14, r15
            jmp next
        ordinary:
            cmp qword ptr [rdx + 8], 0
            jne next
            mov rax, [rbp + 32]
            test rax, rax
            jz loud
            cmp byte ptr [rax + rbx], 0
            je loud
            mov qword ptr [rdx + 8], 1
            bts r14, r15
            jmp next
        loud:
            mov rax, [rbp + 24]
            test rax, rax
            jz open
            cmp qword ptr [rdx], -1
            jne open
            cmp byte ptr [rax + rbx], 0
            je next
            mov rax, r13
            and rax, 3
            mov [rdx], rax
        open:
            mov rax, [rbp + 40]
            test rax, rax
            jz take
            cmp r13, rax
            jae next
        take:
            bts r14, r15
            mov rax, [rbp + 8]
            {record(records.GRAPH_ENTRY, "rax", "rbx", "r13")}
        ''')
    }
        test r14, r14
        jz out
        {_find_frame("rax")}
        mov rcx, [r12 + {SavedRegisters.PARENT}]
        mov [rax], rcx
        mov [rax + 8], rbx
        mov [rax + 16], r14
        mov r11, {at.GLOBALS}
        inc qword ptr [r11 + {Globals.DEPTH}]
        mov rax, {{return_to_handler}}
        mov [r12 + {SavedRegisters.PARENT}], rax
    out:
        {POP_SAVED}
        jmp {{leave_void}}
    """,
}
