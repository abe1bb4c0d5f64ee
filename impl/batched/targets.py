"""The functions that a bpf_link_create names, directly or by globs, with their cookies (LINK-6)."""

from __future__ import annotations

from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from impl.batched.btf import VMLINUX
from impl.batched.faults import Refused
from impl.batched.functions import Indices
from impl.batched.programs import verdicts
from impl.batched.state import Program, State
from spec.globs import META, Pattern, link_pattern

__all__ = ["Targets", "find_btf", "resolve", "words"]

PATTERN_LETTERS = META | {"("}


class Targets(NamedTuple):
    """where: indices, -1 for a name that the world does not have. cookies: one for each, or one for all."""

    where: Indices
    cookies: NDArray[np.uint64]


def words(cookies: list[int | None]) -> NDArray[np.uint64]:
    """Cookies as the 64-bit words that programs see; none is 0."""
    return np.array([(cookie or 0) % (1 << 64) for cookie in cookies], np.uint64)


def find_btf(state: State, program: Program, first: str) -> int:
    """The module, or VMLINUX, whose BTF a multi program is for: the first function's that it is linked to (LINK-17)."""
    if program.btf is not None:
        return program.btf
    functions, pattern = state.functions, link_pattern(first)
    if pattern:
        return VMLINUX if pattern.module is None else functions.modules.get(pattern.module, len(functions.modules))
    index = functions.name_index(first)
    if index < 0 or functions.named.rank[index] < 0 or not state.present[functions.named.module[index]]:
        return VMLINUX
    return int(functions.named.module[index])


def resolve(state: State, program: Program, btf: int, targets: tuple[tuple[str, int | None], ...]) -> Targets:
    """Every FUNC, with patterns replaced by what they stand for; -EINVAL for one that stands for nothing (LINK-6)."""
    names = list(map(itemgetter(0), targets))
    cookies = list(map(itemgetter(1), targets))
    without = cookies.count(None) == len(cookies)
    if not (without or state.facts.cookies):
        raise Refused("EINVAL")
    given = words([None] if without else cookies)
    patterns = _find_patterns(names)
    if not patterns:
        return Targets(state.functions.name_indices(names), given)
    globs = list(patterns)
    found = [_expand(state, program, btf, pattern) for pattern in patterns.values()]
    for place in reversed(globs):
        del names[place]
    where = np.concatenate([state.functions.name_indices(names), *found]) if names else np.concatenate(found)
    if without:
        return Targets(where, given)
    repeated = [np.full(len(each), given[place]) for place, each in zip(globs, found, strict=True)]
    return Targets(where, np.concatenate([np.delete(given, globs), *repeated]))


def _find_patterns(names: list[str]) -> dict[int, Pattern]:
    """Finds the places of patterns; mostly there are none, which one search in all names together shows."""
    text = "".join(names)
    if not any(letter in text for letter in PATTERN_LETTERS):
        return {}
    return {place: pattern for place, name in enumerate(names) if (pattern := link_pattern(name))}


def _expand(state: State, program: Program, btf: int, pattern: Pattern) -> Indices:
    named = state.functions.named
    found: Indices = named.matching(pattern)
    there = state.traced if pattern.how else state.present
    found = found[(state.present & there)[named.module[found]]]
    if pattern.how == "attachable":
        found = found[verdicts(state, program, btf)[found] == 0]
    if not len(found):
        raise Refused("EINVAL")
    return found
