"""Offsets, in bytes, in the data that the kernel's routines read and that `loading` and `tables` fill."""

from __future__ import annotations

__all__ = ["Globals", "OpsObject", "ProgramObject", "SavedRegisters"]


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


class SavedRegisters:
    """Offsets in what a caller saves; behind them the return addresses into the function, and of the function."""

    DIRECT, FLAGS, SPARE, IP, PARENT = 0, 128, 136, 144, 152
