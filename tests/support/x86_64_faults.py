"""Faults planted in x86-64 images that are laid out as Linux's are, each with the obligation that must fall."""

from __future__ import annotations

from properties.prover.goal import Goal, Program
from properties.prover.machine import NO_FAULT, NO_LOAD, NO_STALE, NO_STORE, ONLY_GENERAL, STACK_POINTER
from tests.support.prove_images import (
    BODY,
    HELPERS,
    IM,
    Edit,
    both,
    cut_behind,
    goal_of,
    goes_to,
    jump_at_the_end,
    long,
    of_kinds,
    put_in,
    sized,
    without_rex,
)

__all__ = ["BROKEN", "SHARING"]

FENTRY = goal_of(long(2), *of_kinds("fentry"))
ENTRY = goal_of(long(8), *of_kinds("fentry", cookies=True), func_ip=True)
ALL = goal_of(long(8), *of_kinds("fentry", "fmod_ret", "fexit"))
SESSION = goal_of(long(1), Program("fsession", 0, session_cookie=True), Program("fsession", 0, session_cookie=True))
SHARING = goal_of(long(1), *of_kinds("fexit"), shares_ipmodify=True)
NARROW = goal_of(sized([1, 4], 2), *of_kinds("fexit"))
RETURN_THUNK = 0xFFFFFFFF82000010
THUNK = goal_of(long(2), *of_kinds("fentry"), return_thunks=frozenset({RETURN_THUNK}))
JUMPED = goal_of(long(2), *of_kinds("fentry"), site="jmp")
SLEEPY = goal_of(long(2), Program("fentry", 0, sleepable=None), some_sleep=True)
COUNTED = goal_of(long(2), *of_kinds("fentry"), counters={"__x86_call_depth": 0x1000})
# lea rsp, [rsp + 0x10]; lea rsp, [rsp - 0x10]
RAISE, LOWER = "488d642410", "488d6424f0"
# mov r8, [rsp]; mov r9, [rsp + 8]; and back
TAKE_ALONG, PUT_BACK = "4c8b04244c8b4c2408", "4c8904244c894c2408"
# sar qword ptr gs:[0x1000], 5
COUNT = "6548c13c250010000005"
BODY_BYTES = (BODY % (1 << 32)).to_bytes(4, "little").hex()
CODE = ALL.programs[0].code
STORE_RDI, LOAD_RDI = "4889bd", "488bbd"
LEA_RDI, LEA_RSI, LEA_RDX = "488dbd", "488db5", "488d95"

# (goal, edit, the obligation that must fall)
BROKEN: dict[str, tuple[Goal, Edit, str]] = {
    "std before a call": (FENTRY, put_in(LEA_RDI, "+fd"), "fentry 1: program: df is clear"),
    "frame of odd size": (FENTRY, put_in("4881ec", "4881ec51000000"), "fentry 1: enter: the stack pointer is aligned"),
    "jmp for call": (FENTRY, goes_to(CODE, None, "e9"), "fentry 1: program: it is called by a call"),
    "nothing behind a call": (ALL, cut_behind("e8"), "tramp_enter: it returns into the image"),
    "another program": (
        FENTRY,
        goes_to(CODE, CODE + 0x40),
        f"fentry 1: program: the program at {CODE:#x} is reached",
    ),
    "enter not called": (
        FENTRY,
        put_in("e8", "90"),
        "fentry 1: enter: __bpf_prog_enter_recur is reached",
    ),
    "program called always": (
        FENTRY,
        put_in("4885c0", "31c0"),
        f"fentry 1: program: the program at {CODE:#x} is reached",
    ),
    "program never skipped": (FENTRY, put_in("4885c0", "0c01"), "fentry 1: exit: __bpf_prog_exit_recur is reached"),
    "another im": (
        ALL,
        put_in(f"48bf{IM.to_bytes(8, 'little').hex()}", "48bf" + "11" * 8),
        "tramp_enter: its image is passed",
    ),
    "another im at the end": (
        ALL,
        put_in(f"48bf{IM.to_bytes(8, 'little').hex()}", "48bf" + "11" * 8, 1),
        "tramp_exit: its image is passed",
    ),
    "no prog at enter": (FENTRY, put_in("48bf0050", "31ff"), "fentry 1: enter: its program is passed"),
    "no prog at exit": (FENTRY, put_in("48bf0050", "31ff", 1), "fentry 1: exit: its program is passed"),
    "run context above": (FENTRY, put_in(LEA_RSI, "488d7508"), "fentry 1: enter: the run context is in the frame"),
    "run context below": (FENTRY, put_in(LEA_RSI, "488d7424f8"), "fentry 1: enter: the run context is in the frame"),
    "start time lost": (FENTRY, put_in("4889de", "31f6"), "fentry 1: exit: what enter returned is passed"),
    "start time kept in rcx": (
        FENTRY,
        both(put_in("4889c3", "4889c1"), put_in("4889de", "4889ce")),
        "fentry 1: exit: what enter returned is passed",
    ),
    "another run context": (FENTRY, put_in(LEA_RDX, "488d55f0"), "fentry 1: exit: the same run context is passed"),
    "saved run context lost": (
        FENTRY,
        put_in(LEA_RDX, f"+48c785{(8 - 48).to_bytes(4, 'little', signed=True).hex()}00000000"),
        "fentry 1: exit: the saved run context is intact",
    ),
    "context above": (FENTRY, put_in(LEA_RDI, "488d7d00"), "fentry 1: the context is in the frame"),
    "context below": (FENTRY, put_in(LEA_RDI, "488d3c24"), "fentry 1: the context is in the frame"),
    "context elsewhere": (FENTRY, put_in(LEA_RDI, "488d7de8"), "fentry 1: ctx[0] is argument 0"),
    "argument not saved": (ENTRY, put_in("488995", ""), "fentry 1: ctx[2] is written"),
    "half an argument saved": (ENTRY, without_rex("488995"), "fentry 1: ctx[2] is written"),
    "number of slots not saved": (FENTRY, put_in("488985e8", ""), "fentry 1: ctx[-1] is written"),
    "ip not saved": (ENTRY, put_in("488985b0", ""), "fentry 1: ctx[-2] is written"),
    "cookie not saved": (FENTRY, put_in("4889bdd0", ""), "fentry 1: the run context's cookie is written"),
    "run context dead for a moment": (
        FENTRY,
        put_in(LEA_RDX, f"+{RAISE}{LOWER}"),
        "fentry 1: exit: the saved run context is written",
    ),
    "saved run context left to interrupts on one of two paths": (
        FENTRY,
        put_in(LEA_RDX, f"+4885db7410{TAKE_ALONG}{RAISE}eb0c{RAISE}{LOWER}eb0e{LOWER}{PUT_BACK}"),
        "fentry 1: exit: the saved run context is written",
    ),
    "arguments swapped": (ENTRY, put_in("4889b5", "488995c8ffffff"), "fentry 1: ctx[1] is argument 1"),
    "stack argument one too far": (ENTRY, put_in("488b8520", "488b8528000000"), NO_LOAD),
    "stack argument taken twice": (ENTRY, put_in("488b8520", "488b8518000000"), "fentry 1: ctx[7] is argument 7"),
    "wrong number of slots": (ENTRY, put_in("48b8", "b809000000"), "fentry 1: ctx[-1] is the number of slots"),
    "wrong ip": (ENTRY, put_in("48b8", "31c0", 1), "fentry 1: ctx[-2] is the function's address"),
    "no cookie": (ENTRY, put_in("48bf0077", "31ff"), "fentry 1: the run context has its cookie"),
    "return slot not cleared": (ALL, put_in("488985f8", ""), "fmod_ret 1: ctx[8] is written"),
    "fmod_ret's result not saved": (
        ALL,
        put_in("488985f8", "", 1),
        "fexit 1: enter: __bpf_prog_enter_recur is reached",
    ),
    "result tested in 32 bits": (
        ALL,
        put_in("48837df800", "837df800"),
        "fexit 1: enter: __bpf_prog_enter_recur is reached",
    ),
    "result not saved": (ALL, put_in("488985f8", "", 2), "fexit 1: ctx[8] is the return slot"),
    "argument lost before the original": (ALL, put_in("488b95", ""), "argument 2 (rdx) reaches the original"),
    "stack argument misplaced": (
        ALL,
        put_in("4889842408", "4889842410000000"),
        "stack argument 1 is written",
    ),
    "another stack argument": (ALL, put_in("4889842408", "4889bc2408000000"), "stack argument 1 reaches the original"),
    "rbx not saved": (FENTRY, put_in("48899d", ""), NO_STALE),
    "rbp lost before a call": (
        FENTRY,
        put_in("e8", "+31ed", 1),
        "fentry 1: program: the frame pointer is in the frame",
    ),
    "rbp at the bottom": (
        FENTRY,
        both(put_in("4881ec", "4881ec70000000"), put_in("e8", "+488d6c2408", 1)),
        "fentry 1: program: the frame record's return address is written",
    ),
    "a record with an address alone": (
        FENTRY,
        both(put_in("4881ec", "4881ec70000000"), put_in("e8", "+488b45084889442418488d6c2410", 1)),
        "fentry 1: program: the frame record's link is written",
    ),
    "rbp at the run context": (
        FENTRY,
        put_in("e8", "+4889e5", 1),
        "fentry 1: program: the frame record returns to the body",
    ),
    "rbp at the run context, where the site jumps": (
        JUMPED,
        put_in("e8", "+4889e5", 1),
        "fentry 1: program: the frame record returns to the caller",
    ),
    "the chain cut": (
        FENTRY,
        put_in("e8", "+48c7450000000000", 1),
        "fentry 1: program: the chain of frames leads to the caller's",
    ),
    "r12 used": (FENTRY, put_in("c9", "+4531e4"), "r12 is restored"),
    "rbp lost": (FENTRY, put_in("c9", "4889ec5d31ed"), "rbp is restored"),
    "a word too many popped": (FENTRY, put_in("c3", "4883c408c3"), "leave: the body is reached"),
    "jmp for ret": (FENTRY, put_in("c3", "59ffe1"), "the image is left by a return"),
    "ret for jmp": (JUMPED, put_in("e9", f"68{BODY_BYTES}c3"), "the image is left by a jump"),
    "a return thunk below the frame": (
        THUNK,
        jump_at_the_end("4883ec08e9", RETURN_THUNK),
        "the address that a return thunk returns to is written",
    ),
    "nobody sleeps": (
        SLEEPY,
        both(
            goes_to(HELPERS["__bpf_prog_enter_sleepable_recur"], HELPERS["__bpf_prog_enter_recur"]),
            goes_to(HELPERS["__bpf_prog_exit_sleepable_recur"], HELPERS["__bpf_prog_exit_recur"]),
        ),
        "some program is entered as one that may sleep",
    ),
    "a call counted twice": (
        COUNTED,
        put_in("e8", f"+{COUNT}{COUNT}{COUNT}"),
        "fentry 1: enter: __x86_call_depth counts a call once at most",
    ),
    "a call counted at the end": (
        COUNTED,
        put_in("c9", f"+{COUNT}"),
        "__x86_call_depth counts no call that is not made",
    ),
    "ret 8": (ALL, put_in("c3", "c20800"), "rsp is restored"),
    "argument not restored": (FENTRY, put_in("488bb5", ""), "argument 1 (rsi) is restored"),
    "result lost": (ALL, put_in("488b85f8", ""), "the caller gets the return value"),
    "a narrow result lost": (NARROW, put_in("488b85f8", "31c0"), "the caller gets the return value"),
    "body entered": (ALL, put_in("4883c408", ""), "leave: the caller is reached"),
    "global variable read": (FENTRY, put_in("c9", "+488b042500001000"), NO_LOAD),
    "pointer followed": (FENTRY, put_in("c9", "+488b07"), NO_LOAD),
    "below the stack pointer read": (FENTRY, put_in("c9", "+488b4424f8"), NO_LOAD),
    "pointer written through": (FENTRY, put_in("4889c3", "+488907"), NO_STORE),
    "pointer written through before there is a frame": (FENTRY, put_in("55", "+488907"), NO_STORE),
    "global variable written before there is a frame": (FENTRY, put_in("55", "+48890425000010ff"), NO_STORE),
    "return address written": (FENTRY, put_in("c9", "+48c7450800000000"), NO_STORE),
    "below the stack pointer written": (FENTRY, put_in("c9", "+48894424f8"), NO_STORE),
    "stack pointer gone": (FENTRY, put_in("c9", "+4889c4"), STACK_POINTER),
    "stack pointer far down": (FENTRY, put_in("4881ec", "4881ec00100000"), STACK_POINTER),
    "endless loop": (FENTRY, put_in("c9", "ebfe"), "the image is left within 225 instructions"),
    "SSE written": (FENTRY, put_in("c9", "+660f76c0"), ONLY_GENERAL),
    "interrupts disabled": (FENTRY, put_in("c9", "+fa"), ONLY_GENERAL),
    "undefined": (FENTRY, put_in("c9", "+0f0b"), NO_FAULT),
    "a session's cookie is not cleared": (
        SESSION,
        put_in("488985d8", ""),
        "fsession 1 at entry: its session cookie is written",
    ),
    "a session's cookie is lost": (
        SESSION,
        put_in(LOAD_RDI, "+48c785d8ffffff00000000"),
        "fsession 1 at return: its session cookie is what it left",
    ),
    "a cookie for two sessions": (
        SESSION,
        put_in("48b80102", "b801030000"),
        "fsession 2 at entry: its session cookie is its own",
    ),
    "another cookie at return": (
        SESSION,
        put_in("48b80103", "48b80104000000000080", 1),
        "fsession 1 at return: its session cookie stays",
    ),
    "a cookie below the frame": (
        SESSION,
        put_in("48b80103", "b801ff0000"),
        "fsession 1 at entry: its session cookie is in the frame",
    ),
    "phase not told": (
        SESSION,
        put_in("48b801", "b801000000", 5),
        "fsession 2 at return: ctx[-1] tells entry from return",
    ),
}
