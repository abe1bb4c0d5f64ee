"""What would reach those blocks of the kernel's code that no operation of the alphabet does.

Functions and callees are named, never addresses, so that the reasons hold for other builds and releases. What leads to
nothing but such blocks, and what only such blocks lead to, is out of reach for the same reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Final

from impl.linux.instruments.code import Block, CodeFunction

__all__ = ["obstacles"]

_WARNS: Final = "a WARN or a BUG"

_CALLS: Final[Mapping[str, str]] = {
    "__ubsan_handle_*": "what UBSAN finds",
    "refcount_warn_saturate __list_*_valid_or_report ftrace_bug _printk __warn_printk": _WARNS,
    "preempt_schedule_*thunk": "preemption at that instant",
    "__stack_chk_fail": "a smashed stack",
}
"""By patterns of what a block calls, in whatever function."""

_FUNCTIONS: Final[Mapping[str, str]] = {}
"""By patterns of functions without their suffixes, or of FUNCTION>CALLEE for the blocks that call something."""

_NO_MEMORY: Final = "an allocation that fails"


def obstacles(function: CodeFunction, executed: Collection[int]) -> dict[int, str]:
    """What would reach blocks that were not executed, in words that follow `by`, by their starts."""
    missing = {block.start: block for block in function.blocks if block.start not in executed}
    found = {start: reason for start, block in missing.items() if (reason := _judge(function, block))}
    while spread := dict(_spread(function, missing, found)):
        found |= spread
    return found


def _judge(function: CodeFunction, block: Block) -> str:
    stem = function.name.partition(".")[0]
    names = (stem, *(f"{stem}>{call}" for call in block.calls))
    reason = next(filter(None, (_look_up(_FUNCTIONS, name) for name in names)), "")
    reason = reason or next(filter(None, (_look_up(_CALLS, call) for call in block.calls)), "")
    return reason or (_WARNS if block.traps else _NO_MEMORY if "ENOMEM" in block.errnos else "")


def _look_up(reasons: Mapping[str, str], name: str) -> str:
    return next((why for names, why in reasons.items() for each in names.split() if fnmatchcase(name, each)), "")


def _spread(
    function: CodeFunction, missing: Mapping[int, Block], found: Mapping[int, str]
) -> Iterator[tuple[int, str]]:
    """Blocks that come only behind blocks out of reach, or lead only to such blocks."""
    before: dict[int, list[int]] = {}
    for block in function.blocks:
        for start in block.behind:
            before.setdefault(start, []).append(block.start)
    for start, block in missing.items():
        if start not in found:
            for around in (before.get(start, []), block.behind):
                if around and all(each in found for each in around):
                    yield start, found[around[0]]
                    break
