"""The functions that a bpf_link_create names, directly or by globs, with their cookies (LINK-6)."""

from __future__ import annotations

from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from impl.batched.faults import Refused
from impl.batched.functions import Indices
from impl.batched.programs import verdicts
from impl.batched.state import Program, State
from spec.globs import META, is_glob

__all__ = ["Targets", "resolve", "words"]


class Targets(NamedTuple):
    """where: indices, -1 for a name that the world does not have. cookies: one for each, or one for all."""

    where: Indices
    cookies: NDArray[np.uint64]


def words(cookies: list[int | None]) -> NDArray[np.uint64]:
    """Cookies as the 64-bit words that programs see; none is 0."""
    return np.array([(cookie or 0) % (1 << 64) for cookie in cookies], np.uint64)


def resolve(state: State, program: Program, targets: tuple[tuple[str, int | None], ...]) -> Targets:
    """Every FUNC, with globs replaced by the functions that they match; -EINVAL for a glob that matches none."""
    names = list(map(itemgetter(0), targets))
    cookies = list(map(itemgetter(1), targets))
    without = cookies.count(None) == len(cookies)
    if not (without or state.facts.cookies):
        raise Refused("EINVAL")
    given = words([None] if without else cookies)
    globs = _find_globs(names)
    if not globs:
        return Targets(state.functions.indices(names), given)
    found = [_expand(state, program, names[place]) for place in globs]
    for place in reversed(globs):
        del names[place]
    where = np.concatenate([state.functions.indices(names), *found]) if names else np.concatenate(found)
    if without:
        return Targets(where, given)
    repeated = [np.full(len(each), given[place]) for place, each in zip(globs, found, strict=True)]
    return Targets(where, np.concatenate([np.delete(given, globs), *repeated]))


def _find_globs(names: list[str]) -> list[int]:
    """Finds the places of globs; mostly there are none, which one search in all names together shows."""
    text = "".join(names)
    if not any(letter in text for letter in META):
        return []
    return [place for place, name in enumerate(names) if is_glob(name)]


def _expand(state: State, program: Program, glob: str) -> Indices:
    found = state.functions.matching(glob, state.sites.loaded)
    found = np.compress(verdicts(state, program)[found] == 0, found)
    if not len(found):
        raise Refused("EINVAL")
    return found
