"""The rules that the fixed runs of each kernel have confirmed: none of them may be lost again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from properties.kernels.evidence import Evidence
from properties.kernels.observable import reachable

__all__ = ["FILE", "Compared", "compare", "confirmed", "known", "text"]

FILE = Path(__file__).with_name("confirmed.json")


@dataclass(frozen=True, slots=True)
class Compared:
    """What differs from the file. lost: rules in it that were not confirmed; new: confirmed rules that it lacks."""

    lost: tuple[str, ...]
    new: tuple[str, ...]

    def __str__(self) -> str:
        parts = {"not confirmed any more": self.lost, f"new, to be added to {FILE.name}": self.new}
        return "; ".join(f"{what}: {', '.join(rules)}" for what, rules in parts.items() if rules)


def known() -> dict[str, tuple[str, ...]]:
    """The rules that the fixed runs of a kernel confirm, by the name of its semantics."""
    return {name: tuple(rules) for name, rules in json.loads(FILE.read_text(encoding="utf-8")).items()}


def confirmed(evidence: Evidence) -> tuple[str, ...]:
    """The rules that were confirmed, without those that cannot be observed."""
    able = reachable(evidence.semantics)
    return tuple(rule for rule in evidence.confirmed if rule in able)


def compare(evidence: Evidence, before: tuple[str, ...]) -> Compared:
    """Compare the rules that were confirmed with those that were confirmed before."""
    now = confirmed(evidence)
    return Compared(tuple(r for r in before if r not in now), tuple(r for r in now if r not in before))


def text(evidences: dict[str, tuple[str, ...]]) -> str:
    """The text of the file, which has a line for each kernel."""
    lines = (f"  {json.dumps(name)}: {json.dumps(list(rules))}" for name, rules in evidences.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"
