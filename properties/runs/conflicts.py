"""Directed runs in which one function of many belongs to somebody else: the operation fails, and leaves no trace.

Each function is that one in its turn, so that it stands in every place: first, last, and deep in a chain of a hash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from properties.runs.hundreds import WIDE
from spec.semantics import Semantics

__all__ = ["CONFLICTS", "CONFLICTS_OF_MANY"]

TAKEN: Final = (*range(7, WIDE, 43), WIDE)
"""Numbers of functions that are taken, one at a time. A quarter of so many stand behind another in a chain."""

Lines = Iterator[str]


def _ipmodify_rolls_back(_: Semantics) -> Lines:
    """An IPMODIFY user that cannot come, or whose filter cannot change, has every function as it had it (FILTER-8)."""
    functions = {"foo1": "1", "foo2": "1 2", "foo3": "1 2 3"}
    yield "ftrace_ops o1 ipmodify"
    yield f"ftrace_set_filter_ips o1 {' '.join(functions)} -> 0"
    for taken in functions:
        yield f"livepatch {taken} -> 0"
        yield "register_ftrace_function o1 -> -EBUSY"
        for other, arguments in functions.items():
            if other != taken:
                yield f"livepatch {other} -> 0"
                yield f"call {other} {arguments}"
                yield f"unlivepatch {other} -> 0"
        yield f"unlivepatch {taken} -> 0"
    yield "ftrace_set_filter_ips o1 foo1 foo2 reset -> 0"
    yield "register_ftrace_function o1 -> 0"
    yield "livepatch foo3 -> 0"
    yield "ftrace_set_filter_ips o1 foo0 foo2 foo3 reset -> -EBUSY"
    yield "livepatch foo0 -> 0"
    for function in ("foo1", "foo2"):
        yield f"livepatch {function} -> -EBUSY"
    yield "unregister_ftrace_function o1 -> 0"


def _direct_call_is_taken(s: Semantics) -> Lines:
    """A direct ops cannot come to hundreds of functions if one of them has an entry (DIRECT-6, DIRECT-10)."""
    every = " ".join(f"wide{number}" for number in range(1, WIDE + 1))
    yield "ftrace_ops one"
    yield "ftrace_ops all"
    yield f"ftrace_set_filter_ips all {every} -> 0"
    if s.hash_direct:
        yield "ftrace_ops hash"
    for number in TAKEN:
        yield f"ftrace_set_filter_ip one wide{number} reset -> 0"
        yield "register_ftrace_direct_multi one T1 -> 0"
        yield "register_ftrace_direct_multi all T2 -> -EBUSY"
        if s.hash_direct:
            yield f"update_ftrace_direct_add hash {' '.join(f'wide{n}=T2' for n in range(1, WIDE + 1))} -> -EINVAL"
        yield "unregister_ftrace_direct_multi one T1 -> 0"
    yield "register_ftrace_direct_multi all T2 -> 0"
    for number in TAKEN:
        yield f"call wide{number} 1"
    yield "unregister_ftrace_direct_multi all T2 -> 0"


def _hash_has_another_address(s: Semantics) -> Lines:
    """Entries of hundreds of functions cannot go or change if one has another address (DIRECT-11, DIRECT-12)."""
    if not s.hash_direct:
        return
    numbers = range(1, WIDE + 1)
    yield "ftrace_ops hash"
    yield f"update_ftrace_direct_add hash {' '.join(f'wide{n}=T1' for n in numbers)} -> 0"
    for number in TAKEN:
        yield f"update_ftrace_direct_del hash {' '.join(f'wide{n}=T{1 + (n == number)}' for n in numbers)} -> -EINVAL"
    yield f"update_ftrace_direct_mod hash {' '.join(f'wide{n}=T{1 + n % 2}' for n in numbers)} -> 0"
    for number in TAKEN:
        yield f"call wide{number} 1"
    yield f"update_ftrace_direct_del hash {' '.join(f'wide{n}=T{1 + n % 2}' for n in numbers[::2])} -> 0"
    for number in TAKEN:
        yield f"site wide{number}"
        yield f"update_ftrace_direct_mod hash wide{number}=T3"


CONFLICTS: Final[tuple[Callable[[Semantics], Lines], ...]] = (_ipmodify_rolls_back,)
CONFLICTS_OF_MANY: Final[tuple[Callable[[Semantics], Lines], ...]] = (_direct_call_is_taken, _hash_has_another_address)
