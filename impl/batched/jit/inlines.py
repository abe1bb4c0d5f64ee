"""Helpers that a program asks about its call, as instructions: what a kernel's verifier puts in place of the call.

In the assembler of x86-64, after do_misc_fixups() and its JIT: R0 is rax, R1 to R3 are rdi, rsi and rdx. What no
verifier inlines (bpf_get_attach_cookie, and all helpers of an lsm program) is the function of kernel/trace/bpf_trace.c.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from impl.batched.jit.assembler import assemble
from spec.errors import BadInputError
from spec.semantics import Semantics

__all__ = ["BPF_CTX", "HELPERS", "SESSION_HELPERS", "UNTOUCHED", "Inline", "asking", "assembled", "inline", "offered"]

SESSION_HELPERS: Final = ("bpf_session_is_return", "bpf_session_cookie")
HELPERS: Final = (
    "bpf_get_func_ip",
    "bpf_get_func_arg",
    "bpf_get_func_arg_cnt",
    "bpf_get_func_ret",
    "bpf_get_attach_cookie",
    *SESSION_HELPERS,
)
BPF_CTX: Final = "bpf_ctx"
"""The symbol of the running task's pointer to its run context, which __bpf_prog_enter_recur() sets."""

UNTOUCHED: Final = 0x55
"""What asking() puts where a helper is to store."""

RETURN_SEEN: Final = frozenset({"fexit", "fmod_ret", "fsession"})
"""Kinds whose context has the return slot; an lsm program is not asked for its kind."""

FUNCTION_IP, META = "[rdi - 0x10]", "[rdi - 8]"
COUNT_MASK: Final = 0xFF
COOKIE_INDEX: Final = 8
IS_RETURN: Final = 63


@dataclass(frozen=True, slots=True)
class Inline:
    """Statements that leave a helper's result in rax, as one kernel has them. symbols: whose addresses they take."""

    helper: str
    statements: tuple[str, ...]
    symbols: tuple[str, ...] = ()


def offered(helper: str, semantics: Semantics, kind: str) -> bool:
    """Whether a kernel has a helper for programs of a kind."""
    if kind == "fsession" and not semantics.fsession:
        return False
    if helper in SESSION_HELPERS:
        return kind == "fsession"
    return not (helper == "bpf_get_func_ip" and kind == "lsm")


def inline(helper: str, semantics: Semantics, kind: str) -> Inline:
    """The code of a helper in programs of a kind; BadInputError where the kernel does not offer it to them.

    Since v7.0 ("bpf: add fsession support") ctx[-1] has more than the number of slots, which is masked.
    """
    if helper not in HELPERS:
        raise BadInputError(f"{helper!r} is no helper of the context: write one of {', '.join(HELPERS)}")
    if not offered(helper, semantics, kind):
        raise BadInputError(f"{semantics.name} does not offer {helper} to {kind} programs: ask for another kind")
    return _MAKERS[helper](semantics, kind)


def _load_count(semantics: Semantics) -> tuple[str, ...]:
    load = f"mov rax, {META}"
    return (load, f"and rax, {COUNT_MASK:#x}") if semantics.fsession else (load,)


def _make_func_ip(_: Semantics, __: str) -> Inline:
    return Inline("bpf_get_func_ip", (f"mov rax, {FUNCTION_IP}",))


def _make_func_arg(semantics: Semantics, kind: str) -> Inline:
    """The comparison is of 32 bits, what follows of 64: without the function's cast the index must have no more."""
    cast = ("mov esi, esi",) if kind == "lsm" else ()
    statements = (
        *_load_count(semantics),
        *cast,
        "cmp esi, eax",
        "jae beyond",
        "shl rsi, 3",
        "add rsi, rdi",
        "mov rax, [rsi]",
        "mov [rdx], rax",
        "xor eax, eax",
        "jmp done",
        f"beyond: mov rax, {-errno.EINVAL:#x}",
        "done:",
    )
    return Inline("bpf_get_func_arg", statements)


def _make_func_arg_cnt(semantics: Semantics, _: str) -> Inline:
    return Inline("bpf_get_func_arg_cnt", _load_count(semantics))


def _make_func_ret(semantics: Semantics, kind: str) -> Inline:
    """Of an lsm program's attach type the function does not ask."""
    if kind not in RETURN_SEEN | {"lsm"}:
        return Inline("bpf_get_func_ret", (f"mov rax, {-errno.EOPNOTSUPP:#x}",))
    read = ("shl rax, 3", "add rax, rdi", "mov rdx, [rax]", "mov [rsi], rdx", "xor eax, eax")
    return Inline("bpf_get_func_ret", (*_load_count(semantics), *read))


def _make_attach_cookie(_: Semantics, __: str) -> Inline:
    """The cookie is the first word of the run context."""
    statements = (f"movabs rax, {{{BPF_CTX}}}", "mov rax, [rax]", "mov rax, [rax]")
    return Inline("bpf_get_attach_cookie", statements, (BPF_CTX,))


def _make_session_is_return(_: Semantics, __: str) -> Inline:
    return Inline("bpf_session_is_return", (f"mov rax, {META}", f"shr rax, {IS_RETURN:#x}", "and rax, 1"))


def _make_session_cookie(_: Semantics, __: str) -> Inline:
    index = (f"mov rax, {META}", f"shr rax, {COOKIE_INDEX}", f"and rax, {COUNT_MASK:#x}")
    return Inline("bpf_session_cookie", (*index, "shl rax, 3", "sub rax, rdi", "neg rax"))


_MAKERS: Final = {
    "bpf_get_func_ip": _make_func_ip,
    "bpf_get_func_arg": _make_func_arg,
    "bpf_get_func_arg_cnt": _make_func_arg_cnt,
    "bpf_get_func_ret": _make_func_ret,
    "bpf_get_attach_cookie": _make_attach_cookie,
    "bpf_session_is_return": _make_session_is_return,
    "bpf_session_cookie": _make_session_cookie,
}


def assembled(code: Inline, symbols: Mapping[str, int] | None = None, *, function: bool = True) -> bytes:
    """The machine code. function: it ends in a ret, and is called; otherwise it stands within a program.

    BadInputError if the address of a symbol is missing.
    """
    known = symbols or {}
    missing = [name for name in code.symbols if name not in known]
    if missing:
        raise BadInputError(f"{code.helper} needs the address of {', '.join(missing)}")
    text = _write_text(code, known)
    return assemble(f"{text}\nret" if function else text, 0)


def asking(code: Inline, symbols: Mapping[str, int], index: int, at: int, program: int) -> bytes:
    """The machine code, at an address, of a program that asks a helper first, and goes on at the address `program`.

    There rax has the helper's result, and rcx what it has stored, or UNTOUCHED; a helper with an index is asked for it.
    """
    out = {"bpf_get_func_arg": "rdx", "bpf_get_func_ret": "rsi"}.get(code.helper)
    before = [f"push {UNTOUCHED:#x}", f"mov esi, {index:#x}", *([f"mov {out}, rsp"] if out else [])]
    text = "\n".join([*before, _write_text(code, symbols), "pop rcx", f"jmp {program:#x}"])
    return assemble(text, at)


def _write_text(code: Inline, symbols: Mapping[str, int]) -> str:
    named = {name: f"{symbols[name]:#x}" for name in code.symbols}
    return "\n".join(statement.format_map(named) for statement in code.statements)
