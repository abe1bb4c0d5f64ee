"""Faults planted in arm64 images of the generator, each with the obligation that must fall."""

from __future__ import annotations

from typing import Any

from properties.prover.machine import ALIGNED, NO_FAULT, NO_LOAD, NO_STALE, NO_STORE, ONLY_GENERAL, STACK_POINTER
from tests.support.arm64_images import Edit, both, coded, in_text, put, symbol
from tests.support.prove_images import long, sized

__all__ = ["BROKEN", "ENTRY"]

ENTRY = (long(2), ("fentry",), {"cookies": True, "func_ip": True})
ALL = (long(9), ("fentry", "fmod_ret", "fexit"), {})
SESSION = (long(1), ("fsession", "fsession"), {})
SHARED = (long(1), ("fexit",), {"orig_stack": True})
GENERIC = (long(3), ("fexit",), {"generic": True})
NARROW = (sized([1, 4], 2), ("fexit",), {})
Case = tuple[Any, tuple[str, ...], dict[str, Any]]
CALL = "blr x10"
PROGRAM = "fentry 1: program: the program at 0xffff800040008000 is reached"

# (images, edit, the obligation that must fall)
BROKEN: dict[str, tuple[Case, Edit, str]] = {
    "frame of odd size": (ENTRY, in_text("sub sp", "#0x40", "#0x48"), ALIGNED),
    "frame 16 bytes smaller": (
        ENTRY,
        in_text("sub sp", "#0x40", "#0x30"),
        "fentry 1: enter: the frame record returns to the body",
    ),
    "no second record": (
        ENTRY,
        put("stp x29, x30", "stp x29, x9, [sp, #-0x10]!"),
        "fentry 1: enter: the frame record returns to the body",
    ),
    "lr not saved": (
        ENTRY,
        put("stp x29, x30", "stp x29, xzr, [sp, #-0x10]!"),
        "fentry 1: enter: the frame record returns to the body",
    ),
    "the caller's record without its address": (
        ENTRY,
        put("stp x29, x9", "stp x29, xzr, [sp, #-0x10]!"),
        "fentry 1: enter: the frame record returns to the caller",
    ),
    "x29 lost before a call": (
        ENTRY,
        put(CALL, "+mov x29, xzr"),
        "fentry 1: enter: the frame pointer is in the frame",
    ),
    "x29 at the bottom": (
        ENTRY,
        both(in_text("sub sp", "#0x40", "#0x80"), put(CALL, "+add x29, sp, #0x48")),
        "fentry 1: enter: the frame record's return address is written",
    ),
    "a record with an address alone": (
        ENTRY,
        both(
            in_text("sub sp", "#0x40", "#0x80"),
            put(CALL, "+ldr x11, [x29, #8]\nstr x11, [sp, #0x58]\nadd x29, sp, #0x50"),
        ),
        "fentry 1: enter: the frame record's link is written",
    ),
    "the chain cut": (
        ENTRY,
        put(CALL, "+str xzr, [x29, #0x10]"),
        "fentry 1: enter: the chain of frames leads to the caller's",
    ),
    "number of slots not saved": (ENTRY, put("str x10, [sp, #0x28]", "nop"), "fentry 1: ctx[-1] is written"),
    "ip not saved": (ENTRY, put("str x10, [sp, #0x20]", "nop"), "fentry 1: ctx[-2] is written"),
    "cookie not saved": (ENTRY, put("str x10, [sp, #0x8]", "nop"), "fentry 1: the run context's cookie is written"),
    "run context dead for a moment": (
        ENTRY,
        put("add x2", "+add sp, sp, #0x20\nsub sp, sp, #0x20"),
        "fentry 1: exit: the saved run context is written",
    ),
    "the original's argument dead for a moment": (
        ALL,
        put("ldr x10, [x29, #0x8]", "+add sp, sp, #0x10\nsub sp, sp, #0x10"),
        "stack argument 0 is written",
    ),
    "another stack argument": (
        ALL,
        put("str x10, [sp, #0x0]", "str x29, [sp, #0x0]"),
        "stack argument 0 reaches the original",
    ),
    "jump for call": (ENTRY, put(CALL, "br x10"), "fentry 1: enter: it returns into the image"),
    "return for call": (ENTRY, put(CALL, "ret x10"), "fentry 1: enter: it returns into the image"),
    "call of another register": (ENTRY, put(CALL, "blr x11"), "fentry 1: enter: __bpf_prog_enter_recur is reached"),
    "another program": (ENTRY, symbol("code 0", "prog 0"), PROGRAM),
    "enter not called": (ENTRY, put(CALL, "nop"), "fentry 1: enter: __bpf_prog_enter_recur is reached"),
    "program called always": (ENTRY, put("cbz x0", "nop"), "fentry 1: exit: __bpf_prog_exit_recur is reached"),
    "program never called": (ENTRY, put("cbz x0", "+mov x0, xzr"), PROGRAM),
    "cbnz for cbz": (ENTRY, coded("cbz x0", "000000b5"), "fentry 1: exit: __bpf_prog_exit_recur is reached"),
    "half a register tested": (ENTRY, coded("cbz x0", "00000034"), PROGRAM),
    "another register tested": (ENTRY, coded("cbz x0", "010000b4"), "fentry 1: exit: __bpf_prog_exit_recur is reached"),
    "no im": (ALL, symbol("im", "prog 0"), "tramp_enter: its image is passed"),
    "another im at the end": (ALL, symbol("im", "prog 0", 1), "tramp_exit: its image is passed"),
    "no prog at enter": (ENTRY, symbol("prog 0", "cookie 0"), "fentry 1: enter: its program is passed"),
    "no prog at exit": (ENTRY, symbol("prog 0", "cookie 0", 1), "fentry 1: exit: its program is passed"),
    "prog in the wrong register": (ENTRY, in_text("movz x0", "x0,", "x1,"), "fentry 1: enter: its program is passed"),
    "run context above": (
        ENTRY,
        in_text("add x1", "#0x8", "#0x60"),
        "fentry 1: enter: the run context is in the frame",
    ),
    "run context below": (ENTRY, put("add x1", "sub x1, sp, #8"), "fentry 1: enter: the run context is in the frame"),
    "run context not passed": (ENTRY, put("add x1", "nop"), "fentry 1: enter: the run context is in the frame"),
    "start time lost": (ENTRY, put("mov x1, x19", "mov x1, xzr"), "fentry 1: exit: what enter returned is passed"),
    "half a start time": (ENTRY, put("mov x1, x19", "mov w1, w19"), "fentry 1: exit: what enter returned is passed"),
    "start time kept in x11": (
        ENTRY,
        both(put("mov x19, x0", "mov x11, x0"), put("mov x1, x19", "mov x1, x11")),
        "fentry 1: exit: what enter returned is passed",
    ),
    "another run context": (
        ENTRY,
        in_text("add x2", "#0x8", "#0x10"),
        "fentry 1: exit: the same run context is passed",
    ),
    "saved run context lost": (
        ENTRY,
        put("add x2", "+str xzr, [sp, #0x10]"),
        "fentry 1: exit: the saved run context is intact",
    ),
    "context above": (ENTRY, in_text("add x0", "#0x30", "#0x58"), "fentry 1: the context is in the frame"),
    "context elsewhere": (ENTRY, in_text("add x0", "#0x30", "#0x28"), "fentry 1: ctx[0] is argument 0"),
    "argument not saved": (ENTRY, put("str x1,", "nop"), "fentry 1: ctx[1] is written"),
    "half an argument saved": (ENTRY, in_text("str x1,", "x1", "w1"), "fentry 1: ctx[1] is written"),
    "arguments swapped": (
        ENTRY,
        both(in_text("str x0", "x0", "x2"), in_text("str x1,", "x1", "x0")),
        "fentry 1: ctx[0] is argument 0",
    ),
    "an argument clobbered before it is saved": (
        ENTRY,
        put("str x0", "+mov x1, x10"),
        "fentry 1: ctx[1] is argument 1",
    ),
    "stack argument one too far": (ALL, in_text("ldr x10, [x29, #0x20]", "#0x20", "#0x28"), NO_LOAD),
    "the caller's record for a stack argument": (
        ALL,
        in_text("ldr x10, [x29, #0x20]", "#0x20", "#0x18"),
        "fentry 1: ctx[8] is argument 8",
    ),
    "wrong number of slots": (
        ENTRY,
        in_text("movz x10, #0x2", "#0x2", "#0x3"),
        "fentry 1: ctx[-1] is the number of slots",
    ),
    "wrong ip": (ENTRY, symbol("function", "prog 0"), "fentry 1: ctx[-2] is the function's address"),
    "no cookie": (ENTRY, put("str x10, [sp, #0x8]", "str xzr, [sp, #0x8]"), "fentry 1: the run context has its cookie"),
    "return slot not cleared": (ALL, put("str xzr, [sp, #0x78]", "nop"), "fmod_ret 1: ctx[9] is written"),
    "fmod_ret's result not saved": (
        ALL,
        put("str x0, [sp, #0x78]", "nop"),
        "fexit 1: enter: __bpf_prog_enter_recur is reached",
    ),
    "result tested in 32 bits": (
        ALL,
        in_text("ldr x10, [sp, #0x78]", "x10", "w10"),
        "fexit 1: enter: __bpf_prog_enter_recur is reached",
    ),
    "result not saved": (ALL, put("str x0, [sp, #0x78]", "nop", 1), "fexit 1: ctx[9] is the return slot"),
    "argument lost before the original": (ALL, put("ldr x2", "nop"), "argument 2 (x2) reaches the original"),
    "stack argument misplaced": (
        ALL,
        in_text("str x10, [sp, #0x0]", "#0x0", "#0x8"),
        "stack argument 0 is written",
    ),
    "the caller called for the original": (
        ALL,
        in_text("ldr x10, [x29, #0x8]", "#0x8", "#0x18"),
        "original: the original is reached",
    ),
    "the original's way back too short": (
        ALL,
        coded("adr x30", "3e000010"),
        "fexit 1: enter: __bpf_prog_enter_recur is reached",
    ),
    "the original's way back not set": (
        ALL,
        put("adr x30", "nop"),
        "original: it returns into the image",
    ),
    "the original by address": (
        SHARED,
        put("ldr x10, [x29, #0x8]", "movz x10, #0x456c"),
        "original: the original is reached",
    ),
    "x19 not saved": (ENTRY, put("str x19", "nop"), NO_STALE),
    "x19 not restored": (ENTRY, put("ldr x19", "nop"), "x19 is restored"),
    "x20 used unsaved": (ENTRY, put("mov sp", "+mov x20, x0"), "x20 is restored"),
    "x18 written": (ENTRY, put("mov sp", "+add x18, x18, #8"), "x18 is restored"),
    "x29 lost": (ENTRY, put("ret x10", "+mov x29, x9"), "x29 is restored"),
    "a record not popped": (ENTRY, put("ldp x29, x9", "nop"), "sp is restored"),
    "the frame not undone": (ENTRY, put("mov sp, x29", "nop"), NO_STALE),
    "popped before it is read": (
        ENTRY,
        put("ldp x29, x9", "add sp, sp, #0x10\nldp x29, x9, [sp, #-0x10]"),
        NO_LOAD,
    ),
    "lr not the caller's": (ENTRY, put("mov x30, x9", "nop"), "x30 is restored"),
    "to the caller with the body's due": (ENTRY, put("ret x10", "ret"), "leave: the body is reached"),
    "to the body with the caller's due": (ALL, put("mov x30, x9", "nop"), "leave: the caller is reached"),
    "argument not restored": (ENTRY, put("ldr x1", "nop"), "argument 1 (x1) is restored"),
    "result lost": (ALL, put("ldr x0, [sp, #0x78]", "nop"), "the caller gets the return value"),
    "a narrow result lost": (NARROW, put("ldr x0", "mov x0, xzr", 1), "the caller gets the return value"),
    "pointer followed": (ENTRY, put("mov sp", "+ldr x10, [x0]"), NO_LOAD),
    "text read": (ENTRY, put("mov sp", "+.word 0x5800000a"), NO_LOAD),
    "below the stack pointer read": (ENTRY, put("mov sp", "+ldr x10, [sp, #-8]"), NO_LOAD),
    "pointer written through": (ENTRY, put("str x0", "+str x1, [x0]"), NO_STORE),
    "the caller's frame written": (ENTRY, put("mov sp", "+str xzr, [x29, #0x20]"), NO_STORE),
    "below the stack pointer written": (ENTRY, put("mov sp", "+str xzr, [sp, #-8]"), NO_STORE),
    "stack pointer gone": (ENTRY, put("mov sp, x29", "mov sp, x0"), STACK_POINTER),
    "stack pointer far down": (ENTRY, put("mov sp, x29", "+sub sp, sp, #0xfe0"), STACK_POINTER),
    "endless loop": (ENTRY, put("mov sp", "+.word 0x14000000"), "the image is left within 308 instructions"),
    "vector register written": (ENTRY, put("mov sp", "+fmov d0, x0"), ONLY_GENERAL),
    "undefined": (ENTRY, put("mov sp", "+.word 0"), NO_FAULT),
    "a session's cookie is not cleared": (
        SESSION,
        put("str xzr, [sp, #0x20]", "nop"),
        "fsession 2 at entry: its session cookie is written",
    ),
    "a session's cookie is lost": (
        SESSION,
        put("str x10, [sp, #0x28]", "+str xzr, [sp, #0x20]", 3),
        "fsession 2 at return: its session cookie is what it left",
    ),
    "phase not told": (
        SESSION,
        put("movk x10, #0x8000", "nop", 1),
        "fsession 1 at return: ctx[-1] tells entry from return",
    ),
    "a cookie for two sessions": (
        SESSION,
        in_text("movz x10, #0x201", "#0x201", "#0x301"),
        "fsession 2 at entry: its session cookie is its own",
    ),
    "another cookie at return": (
        SESSION,
        in_text("movz x10, #0x301", "#0x301", "#0x401", 1),
        "fsession 1 at return: its session cookie stays",
    ),
    "a cookie below the frame": (
        SESSION,
        in_text("movz x10, #0x301", "#0x301", "#0xff01"),
        "fsession 1 at entry: its session cookie is in the frame",
    ),
    "generic: asked of the caller": (
        GENERIC,
        in_text("ldr x0, [x29, #0x8]", "#0x8", "#0x18"),
        "lookup: the return address into the function is passed",
    ),
    "generic: always the last slot": (
        GENERIC,
        put("str x0, [x11", "str x0, [sp, #0x68]"),
        "fexit 1: ctx[0] is the return slot",
    ),
    "generic: unscaled": (GENERIC, put("str x0, [x11", "str x0, [x11, x10]"), "fexit 1: ctx[0] is argument 0"),
    "generic: one slot off": (GENERIC, put("str x0, [x11", "+add x11, x11, #8"), "fexit 1: ctx[0] is the return slot"),
    "generic: the count lost": (GENERIC, put("str x0", "nop", 1), NO_STALE),
}
