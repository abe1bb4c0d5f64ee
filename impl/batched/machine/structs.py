"""Offsets, in bytes, in the data that the kernel's routines read and that `loading` and `tables` fill."""

from __future__ import annotations

from typing import ClassVar

__all__ = ["Globals", "OpsObject", "ProbeObject", "ProgramObject", "SavedRegisters"]


class Globals:
    """Offsets in the page at GLOBALS. FLAGS: two words a graph slot; USERS, OPS, FRAMES, HOOK_FRAMES: tables.

    HOOKS: how many returns rethook has hooked.
    """

    TRACE, CURRENT, CALLING, DEPTH, IN_FLIGHT, SLOT0_RETURNS, USER_COUNT, HOOKS = range(0, 64, 8)
    FLAGS = 0x100
    USERS = 0x200
    FRAMES = 0x1000
    OPS_LIST = 0x4000
    HOOK_FRAMES = 0x8000
    SIZE = 0xB000
    USER_BYTES, FRAME_BYTES = 56, 24
    MOST_FRAMES = 500
    MOST_OPS = 2000
    NEVER_OPENED = (1 << 64) - 1


class OpsObject:
    """Offsets in a struct ftrace_ops."""

    FUNC, NUMBER, COVERAGE, PROBES = 0, 8, 16, 24
    SIZE = 32


class ProbeObject:
    """Offsets in what a list of fprobes points to: how often it runs for each function, its program, its cookies."""

    TIMES, PROGRAM, COOKIES = 0, 8, 16


class ProgramObject:
    """Offsets in a struct bpf_prog, and the bits of its flags. HELPERS: where its helpers are, in their order."""

    ACTIVE, NUMBER, FLAGS, RETURNS, CALLS, CALLEE, HELPERS = range(0, 56, 8)
    SIZE = 128
    HAS_SLOT, FUNC_IP, SESSION, SLEEPABLE, GUARDED = 1, 2, 4, 8, 16


class SavedRegisters:
    """Offsets in what a caller saves; behind them the return addresses into the function, and of the function."""

    DIRECT, FLAGS, SPARE, IP, PARENT = 0, 128, 136, 144, 152
    OF: ClassVar = {"rdi": 72, "rsi": 80, "rdx": 104, "rcx": 112, "r8": 64, "r9": 56}
