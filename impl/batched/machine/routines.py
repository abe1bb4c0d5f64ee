"""The kernel proper as code: ftrace's callers and list, the graph tracer, enter and exit of programs, the helpers.

Each routine is assembler text of our own that does what the kernel's function of its name does, as far as a trace shows
it. Routines that stand for C functions clobber every register that C may.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Final, NamedTuple

from impl.batched.jit.inlines import BPF_CTX, HELPERS, assembled, inline, offered
from impl.batched.machine import addresses as at
from impl.batched.machine import records
from impl.batched.machine.assembler import assemble
from spec.semantics import PRESETS, Semantics

__all__ = ["HELPERS", "Globals", "OpsObject", "ProgramObject", "Routines", "helper_name", "ops_caller", "routines"]

KINDS: Final = ("fentry", "fexit", "fmod_ret", "fsession")
JUNK: Final = 0x6B6B6B6B6B6B6B6B
"""What is left in registers that a C function need not preserve."""

ARGUMENTS: Final = "rdi rsi rdx rcx r8 r9".split()
SAVED: Final = "rbx rbp r12 r13 r14 r15".split()
VOLATILE: Final = "rcx rdx rsi rdi r8 r9 r10 r11".split()
STACK_WORDS: Final = 12
"""More than any prototype has on the stack."""


class Globals:
    """Offsets in the page at GLOBALS. FLAGS: two words a graph slot; USERS, OPS, FRAMES: tables."""

    TRACE, CURRENT, CALLING, DEPTH, IN_FLIGHT, SLOT0_RETURNS, USER_COUNT = range(0, 56, 8)
    FLAGS = 0x100
    USERS = 0x200
    FRAMES = 0x1000
    OPS_LIST = 0x4000
    SIZE = 0x8000
    USER_BYTES, FRAME_BYTES = 48, 24
    MOST_FRAMES = 500
    MOST_OPS = 2000
    NEVER_OPENED = (1 << 64) - 1


class OpsObject:
    """Offsets in a struct ftrace_ops."""

    FUNC, NUMBER, COVERAGE = 0, 8, 16
    SIZE = 32


class ProgramObject:
    """Offsets in a struct bpf_prog, and the bits of its flags. HELPERS: where its helpers are, in their order."""

    ACTIVE, NUMBER, FLAGS, RETURNS, CALLS, CALLEE, HELPERS = range(0, 56, 8)
    SIZE = 128
    HAS_SLOT, FUNC_IP, SESSION, SLEEPABLE = 1, 2, 4, 8


class Registers:
    """Offsets in what a caller saves; behind them the return addresses into the function, and of the function."""

    DIRECT, FLAGS, SPARE, IP, PARENT = 0, 128, 136, 144, 152


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
        mov rdi, [rsp + {Registers.IP}]
        sub rdi, 5
        mov rsi, [rsp + {Registers.PARENT}]
        movabs rdx, {ops:#x}
        mov rcx, rsp
        movabs rax, {function:#x}
        call rax
        mov rax, [rsp]
        test rax, rax
        jz restore
        test al, 1
        jnz jumped
        mov [rsp + {Registers.SPARE}], rax
        lea rsp, [rsp + 8]
        {"; ".join(pop)}
        popfq
        ret
    jumped:
        and rax, -2
        mov [rsp + {Registers.IP}], rax
    restore:
        lea rsp, [rsp + 8]
        {"; ".join(pop)}
        popfq
        lea rsp, [rsp + 8]
        ret
    """


def _index(register: str, address: str = "rdi") -> str:
    """The index of the function that an address of its entry belongs to."""
    return f"mov {register}, {address}; sub {register}, {at.TEXT}; shr {register}, 4"


def _record(tag: int, *words: str) -> str:
    """Appends a record; r11 and r10 are lost."""
    stores = [f"mov r11, {at.GLOBALS}", f"mov r10, [r11 + {Globals.TRACE}]", f"mov qword ptr [r10], {tag}"]
    stores += [f"mov qword ptr [r10 + {8 * place}], {word}" for place, word in enumerate(words, 1)]
    return "; ".join([*stores, f"add r10, {8 + 8 * len(words)}", f"mov [r11 + {Globals.TRACE}], r10"])


def _users(body: str) -> str:
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


PUSH_SAVED: Final = "; ".join(f"push {name}" for name in SAVED)
POP_SAVED: Final = "; ".join(f"pop {name}" for name in reversed(SAVED))


def _frame(register: str) -> str:
    """The shadow stack's frame at the depth in r13."""
    return f"imul {register}, r13, {Globals.FRAME_BYTES}; add {register}, {at.GLOBALS + Globals.FRAMES}"


def _texts() -> dict[str, str]:
    """Each routine's text, callees first; `{name}` is the address of one before."""
    return _BASICS | _FTRACE | _GRAPH | _BPF | {"program": _PROGRAM, "calls": _CALLS}


_BASICS: Final = {
    # What a C function leaves behind, its result aside; and what one without a result does.
    "leave": "; ".join(f"movabs {name}, {JUNK + place}" for place, name in enumerate(VOLATILE)) + "; ret",
    "leave_void": f"movabs rax, {JUNK + 0x100}; jmp {{leave}}",
    "lookup": f"{_index('rdx')}; and edx, {0x1FFFFF}; mov rax, {at.SLOT_COUNTS}; movzx eax, byte ptr [rax + rdx]; "
    "jmp {leave}",
    "lookup_ip": f"{_index('rax')}; and eax, {0x1FFFFF}; shl rax, 4; add rax, {at.TEXT}; jmp {{leave}}",
    "nothing": "xor eax, eax; ret",
    "record_direct": f"""
        push r10
        push r11
        pushfq
        {_record(records.DIRECT, "rax")}
        popfq
        pop r11
        pop r10
        ret
    """,
}

_FTRACE: Final = {
    "call_ops_func": f"mov rax, [rdx + {OpsObject.NUMBER}]; {_record(records.OPS, 'rax')}; jmp {{leave_void}}",
    "call_direct_funcs": f"{_index('rax')}; mov rdx, {at.DIRECT_FUNCTIONS}; mov rax, [rdx + 8*rax]; mov [rcx], rax; "
    "jmp {leave_void}",
    "klp_ftrace_handler": f"{_index('rax')}; shl rax, 4; add rax, {at.PATCHED}; mov [rcx + {Registers.IP}], rax; "
    "jmp {leave_void}",
    "ftrace_ops_list_func": f"""
        {PUSH_SAVED}
        mov r12, rdi
        mov r13, rsi
        mov r14, rcx
        {_index("r15")}
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

_GRAPH: Final = {
    "ftrace_return_to_handler": f"""
        {PUSH_SAVED}
        mov r11, {at.GLOBALS}
        mov r13, [r11 + {Globals.DEPTH}]
        dec r13
        mov [r11 + {Globals.DEPTH}], r13
        {_frame("rax")}
        push qword ptr [rax]
        mov rbx, [rax + 8]
        mov r14, [rax + 16]
        {
        _users(f'''
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
            {_record(records.GRAPH_RETURN, "rax", "rbx", "r13")}
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
        {_index("rbx")}
        mov r11, {at.GLOBALS}
        mov r13, [r11 + {Globals.DEPTH}]
        cmp r13, {Globals.MOST_FRAMES}
        jae out
        xor r14d, r14d
        {
        _users(f'''
            mov rax, [rbp + 16]
            test rax, rax
            jz passes
            cmp byte ptr [rax + rbx], 0
            je next
        passes:
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
            {_record(records.GRAPH_ENTRY, "rax", "rbx", "r13")}
        ''')
    }
        test r14, r14
        jz out
        {_frame("rax")}
        mov rcx, [r12 + {Registers.PARENT}]
        mov [rax], rcx
        mov [rax + 8], rbx
        mov [rax + 16], r14
        mov r11, {at.GLOBALS}
        inc qword ptr [r11 + {Globals.DEPTH}]
        mov rax, {{return_to_handler}}
        mov [r12 + {Registers.PARENT}], rax
    out:
        {POP_SAVED}
        jmp {{leave_void}}
    """,
}


def _enter(*, sleepable: bool) -> str:
    """__bpf_prog_enter_recur(prog, run_ctx): 0 if the program runs already; the wrong one for a program traps."""
    return f"""
        test byte ptr [rdi + {ProgramObject.FLAGS}], {ProgramObject.SLEEPABLE}
        {"jnz" if sleepable else "jz"} right
        ud2
    right:
        mov r11, {at.GLOBALS}
        mov rax, [r11 + {Globals.CURRENT}]
        mov [rsi + 8], rax
        mov [r11 + {Globals.CURRENT}], rsi
        inc qword ptr [rdi + {ProgramObject.ACTIVE}]
        xor eax, eax
        cmp qword ptr [rdi + {ProgramObject.ACTIVE}], 1
        jne busy
        mov rax, {JUNK + 0x200}
    busy:
        jmp {{leave}}
    """


def _exit(*, sleepable: bool) -> str:
    """__bpf_prog_exit_recur(prog, start, run_ctx): start is what enter returned, or this traps."""
    return f"""
        test byte ptr [rdi + {ProgramObject.FLAGS}], {ProgramObject.SLEEPABLE}
        {"jnz" if sleepable else "jz"} right
    wrong:
        ud2
    right:
        mov r11, {at.GLOBALS}
        cmp [r11 + {Globals.CURRENT}], rdx
        jne wrong
        xor eax, eax
        cmp qword ptr [rdi + {ProgramObject.ACTIVE}], 1
        jne busy
        mov rax, {JUNK + 0x200}
    busy:
        cmp rax, rsi
        jne wrong
        dec qword ptr [rdi + {ProgramObject.ACTIVE}]
        mov rax, [rdx + 8]
        mov [r11 + {Globals.CURRENT}], rax
        jmp {{leave_void}}
    """


_BPF: Final = {
    "__bpf_tramp_enter": f"inc qword ptr [rdi]; mov r11, {at.GLOBALS}; inc qword ptr [r11 + {Globals.IN_FLIGHT}]; "
    "jmp {leave_void}",
    "__bpf_tramp_exit": f"dec qword ptr [rdi]; mov r11, {at.GLOBALS}; dec qword ptr [r11 + {Globals.IN_FLIGHT}]; "
    "jmp {leave_void}",
    "__bpf_prog_enter_recur": _enter(sleepable=False),
    "__bpf_prog_enter_sleepable_recur": _enter(sleepable=True),
    "__bpf_prog_exit_recur": _exit(sleepable=False),
    "__bpf_prog_exit_sleepable_recur": _exit(sleepable=True),
}


def _ask(helper: str) -> str:
    """Calls a helper, as the program's kernel and kind have it."""
    return f"call [r12 + {ProgramObject.HELPERS + 8 * HELPERS.index(helper)}]"


_PROGRAM: Final = f"""
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
        {_record(records.CALL, "r14")}
        {"; ".join(["push 0"] * STACK_WORDS)}
        {"; ".join(f"xor {name}, {name}" for name in ARGUMENTS)}
        call r13
        add rsp, {8 * STACK_WORDS}
        {_record(records.RETURN, "rax")}
        mov qword ptr [r11 + {Globals.CALLING}], 0
    done:
        mov rax, [r12 + {ProgramObject.RETURNS}]
        lea rsp, [rbp - 40]
        pop r15; pop r14; pop r13; pop r12; pop rbx
        pop rbp
        jmp {{leave}}
"""


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


class Routines(NamedTuple):
    """code: the bytes from ROUTINES on. address: of each routine by name."""

    code: bytes
    address: dict[str, int]


@cache
def routines() -> Routines:
    """All routines, assembled once."""
    code, address = b"", {}
    for name, text in _texts().items():
        address[name] = at.ROUTINES + len(code)
        code += assemble(text.format(**address), address[name])
        code += b"\xcc" * (-len(code) % 16)
    for name, helper in _helpers():
        address[name] = at.ROUTINES + len(code)
        code += helper
        code += b"\xcc" * (-len(code) % 16)
    for name, regs in (("ftrace_caller", False), ("ftrace_regs_caller", True)):
        address[name] = at.ROUTINES + len(code)
        code += ops_caller(regs=regs, ops=0, function=address["ftrace_ops_list_func"])
        code += b"\xcc" * (-len(code) % 16)
    return Routines(code, address)


def helper_name(helper: str, kind: str, semantics: Semantics) -> str:
    """The routine that a helper is for programs of a kind; kernels with sessions have others."""
    return f"{helper} of {kind}" + ", beside sessions" * semantics.fsession


def _helpers() -> Iterator[tuple[str, bytes]]:
    """Every helper as every kind has it: the code that inlines.py says, and that is proved."""
    symbols = {BPF_CTX: at.GLOBALS + Globals.CURRENT}
    for semantics in {preset.fsession: preset for preset in PRESETS.values()}.values():
        for helper, kind in product(HELPERS, KINDS):
            if offered(helper, semantics, kind):
                yield helper_name(helper, kind, semantics), assembled(inline(helper, semantics, kind), symbols)


@cache
def _caller_code(*, regs: bool) -> bytes:
    return assemble(caller(regs=regs), at.ROUTINES)


def ops_caller(*, regs: bool, ops: int, function: int) -> bytes:
    """A caller's code that calls this function with this ops; it may lie anywhere."""
    code = _caller_code(regs=regs)
    for hole, value in zip(CALLER_HOLES, (ops, function), strict=True):
        code = code.replace(hole.to_bytes(8, "little"), value.to_bytes(8, "little"))
    return code
