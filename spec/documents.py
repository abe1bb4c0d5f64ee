"""The rules of README.md and the defects of DEFECTS.md, which stand beside this file, as values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ["Defect", "Rule", "defects", "rules"]

HERE: Final = Path(__file__).parent
HEADING_OR_RULE: Final = re.compile(
    r"^## (?P<heading>.+)|^- \*\*(?P<id>[A-Z]+-\d+)\*\* (?P<text>.+) \[(?P<source>[^\[\]]+)\]$"
)
DEFECT: Final = re.compile(r"^- \*\*(DEFECT-\d+)\*\* \((.+?)\) ((?:.+\n?)(?: {2}.+\n?)*)", re.MULTILINE)
SEED: Final = re.compile(r"\s*Seed:\s+`([a-z0-9.-]+)`\.")


@dataclass(frozen=True, slots=True)
class Rule:
    """A numbered rule. heading: the section that it stands in; source: commits and files of the kernel, or Harness."""

    id: str
    heading: str
    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Defect:
    """What a kernel does that no rule wants. kernels: as the document has them; seed: the name of one that shows it."""

    id: str
    kernels: str
    text: str
    seed: str | None


@cache
def rules() -> tuple[Rule, ...]:
    """Every rule, in the document's order."""
    found, heading = [], ""
    for line in (HERE / "README.md").read_text(encoding="utf-8").split("\n"):
        if match := HEADING_OR_RULE.match(line):
            if match["heading"]:
                heading = match["heading"]
            else:
                found.append(Rule(match["id"], heading, match["text"], match["source"]))
    return tuple(found)


@cache
def defects() -> tuple[Defect, ...]:
    """Every defect, in the document's order."""
    text = (HERE / "DEFECTS.md").read_text(encoding="utf-8")
    return tuple(_make_defect(*match.groups()) for match in DEFECT.finditer(text))


def _make_defect(number: str, kernels: str, text: str) -> Defect:
    seed = SEED.search(text)
    return Defect(number, kernels, " ".join(SEED.sub("", text).split()), seed[1] if seed else None)
