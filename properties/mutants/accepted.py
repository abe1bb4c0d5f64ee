"""Survivors that are accepted, each with the reason why no run could see it.

accepted.json has them by function, the code around them and what was changed, so that they stay what they are in
another build of the same code; and rules, for changes that can be seen nowhere, such as a lock that is not taken.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, Literal

from impl.linux.architectures import Change
from impl.linux.instruments.mutants import Mutant
from spec.reading import load

__all__ = ["FILE", "Accepted", "AcceptedFile", "AcceptingRule", "reason_for"]

FILE: Final = Path(__file__).with_name("accepted.json")
MOST_BYTES: Final = 4 << 20

Reason = Literal["equivalent", "not in the alphabet", "concurrency only", "sanitizer only", "error path or cost only"]


@dataclass(frozen=True, slots=True)
class Accepted:
    """One mutant, in whatever kernel has the same code there. why: what it would take to see it, or why nothing can."""

    function: str
    code: str
    change: Change
    reason: Reason
    why: str


@dataclass(frozen=True, slots=True)
class AcceptingRule:
    """Mutants of any function that a glob matches. Patterns match as a whole.

    target: of the callee; text: of the instruction; before: of those right before it in its block, with semicolons
    between them; here and behind: of something that is called in its block, and in the one behind it.
    """

    changes: tuple[Change, ...]
    reason: Reason
    why: str
    function: str = "*"
    target: str = ""
    text: str = ""
    before: str = ""
    here: str = ""
    behind: str = ""


@dataclass(frozen=True, slots=True)
class AcceptedFile:
    """The content of accepted.json."""

    rules: tuple[AcceptingRule, ...]
    mutants: tuple[Accepted, ...]

    def reason_for(self, mutant: Mutant) -> str:
        """Why a survivor is accepted; empty if it is not."""
        known = (each for each in self.mutants if _is_same(each, mutant))
        ruled = (rule for rule in self.rules if _matches(rule, mutant))
        found: Accepted | AcceptingRule | None = next(known, None) or next(ruled, None)
        return found.reason if found else ""


def reason_for(mutant: Mutant) -> str:
    """Why a survivor is accepted; empty if it is not."""
    return load(FILE, AcceptedFile, MOST_BYTES).reason_for(mutant)


def _is_same(each: Accepted, mutant: Mutant) -> bool:
    return (each.function, each.code, each.change) == (mutant.stem, mutant.code, mutant.change)


def _matches(rule: AcceptingRule, mutant: Mutant) -> bool:
    return (
        mutant.change in rule.changes
        and fnmatchcase(mutant.stem, rule.function)
        and (not rule.target or re.fullmatch(rule.target, mutant.target) is not None)
        and (not rule.text or re.fullmatch(rule.text, mutant.text) is not None)
        and (not rule.before or re.fullmatch(rule.before, "; ".join(mutant.before)) is not None)
        and _is_called(rule.here, mutant.near[:1])
        and _is_called(rule.behind, mutant.near[2:])
    )


def _is_called(pattern: str, near: Sequence[tuple[str, ...]]) -> bool:
    return not pattern or any(re.fullmatch(pattern, callee) for callees in near for callee in callees)
