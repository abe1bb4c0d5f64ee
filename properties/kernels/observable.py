"""The rules that a real kernel in the emulator cannot confirm, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from properties.kernels.evidence import Evidence
from properties.lockstep.coverage import lacking, rule_ids
from spec.semantics import Semantics

__all__ = ["NOT_OBSERVABLE", "Knowledge", "Standing", "knowledge", "reachable", "standing"]

_HARNESS = "the harness answers in the kernel's stead"
_WAITS = "a wait: grace periods are short here, the cost table counts them"
_COSTS = "a cost: the cost table counts grace periods"

_REASONS: Mapping[str, str] = {
    " ".join(rule for rule in rule_ids() if rule.startswith("NAME-")): _HARNESS,
    "DIRECT-4 DIRECT-13 OPS-8": _WAITS,
    "COST-1 COST-2 COST-3 COST-4 COST-5 COST-6 COST-8": _COSTS,
    "COST-7": "images built are not seen; those alive are the entries that the sites show (SITE-5)",
    "FAIL-4": "Debian builds its kernels without fault injection; `faults` asks one that has it",
    "FILTER-11": "the laboratories have no such function: one that is overridden",
    "GLOB-4": "the kernel numbers all its records, of which the world has few",
    "IPMODIFY-3 LINK-11 PROG-4": "no kernel has it: of the proposal of 2021 alone",
    "TASK-10": "when a kernel frees is its own affair, and is not looked at while a task stands",
    "LINK-5 TRACE-6": "kernel functions take no extension (freplace)",
}
NOT_OBSERVABLE: Mapping[str, str] = {rule: reason for rules, reason in _REASONS.items() for rule in rules.split()}
"""The reason by rule. Where a rule has parts, it stands here only if no part of it can be seen."""


class Knowledge(Enum):
    """What is known of a rule on a kernel; the values are the table's words."""

    CONFIRMED = "confirmed"
    NEVER = "never reached"
    NOT_OBSERVABLE = "not observable"
    LACKING = "not in this kernel"


@dataclass(frozen=True, slots=True)
class Standing:
    """A rule on a kernel. steps: those that confirmed it. reason: why it cannot be observed."""

    state: Knowledge
    steps: int = 0
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.state.value} {self.steps:,}" if self.steps else self.state.value


def standing(evidence: Evidence) -> dict[str, Standing]:
    """What is known of every rule, in the order of spec/README.md."""
    absent = lacking(evidence.semantics)
    return {rule: _judge(rule, evidence.rules.get(rule, 0), rule in absent) for rule in rule_ids()}


def reachable(semantics: Semantics) -> frozenset[str]:
    """The rules that runs on a kernel of these semantics can confirm."""
    return frozenset(rule_ids()) - NOT_OBSERVABLE.keys() - lacking(semantics)


def _judge(rule: str, steps: int, absent: bool) -> Standing:
    state = knowledge(rule, confirmed=steps > 0, absent=absent)
    counted = steps if state is Knowledge.CONFIRMED else 0
    return Standing(state, counted, NOT_OBSERVABLE.get(rule, ""))


def knowledge(rule: str, *, confirmed: bool, absent: bool) -> Knowledge:
    """What is known of a rule that was confirmed, or not, on a kernel that has it, or not."""
    if rule in NOT_OBSERVABLE:
        return Knowledge.NOT_OBSERVABLE
    if absent:
        return Knowledge.LACKING
    return Knowledge.CONFIRMED if confirmed else Knowledge.NEVER
