"""Prints verdicts: a counterexample with its values, and the machine code around the instruction at fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from properties.proofs.architecture import Architecture
from properties.proofs.goal import Goal
from properties.proofs.image import Image
from properties.proofs.verdicts import Counterexample, Verdict

__all__ = ["counterexample_lines", "summary"]

AROUND = 6
"""Instructions shown before and after one that matters."""

LONGEST = 15


def summary(verdict: Verdict) -> str:
    """A verdict in one line."""
    if verdict.outcome == "proved":
        times = sum(verdict.obligations.values())
        solved = f", {verdict.figures.asked} by z3" if verdict.figures.asked else ""
        return f"proved, {len(verdict.obligations)} obligations in {times} places{solved}"
    if verdict.counterexample is not None:
        return f"refuted: {verdict.counterexample.obligation}"
    return f"undecided: {verdict.reason}"


def counterexample_lines(found: Counterexample, image: Image, goal: Goal, architecture: Architecture) -> Iterator[str]:
    """What is wrong, under which values, and where."""
    if found.got is not None and found.expected is not None:
        yield f"it is {found.got:#x}, and must be {found.expected:#x}"
    yield "where"
    width = max((len(name) for name in found.values), default=0)
    for name, value in sorted(found.values.items()):
        yield f"  {name:{width}}  {value:#x}"
    yield "in"
    yield from (f"  {line}" for line in _listing(found, image, _names(goal), architecture))


def _names(goal: Goal) -> dict[int, str]:
    names = {address: symbol for symbol, address in goal.helpers.items()}
    for run in (*goal.fentry, *goal.fmod_ret, *goal.fexit):
        names[goal.programs[run.program].code] = f"program of {run.place}"
    return names | {goal.body: "the body"}


def _listing(
    found: Counterexample, image: Image, names: Mapping[int, str], architecture: Architecture
) -> Iterator[str]:
    """The instructions executed around those that matter, each once, in the order of addresses."""
    marks = {found.at: "<- here"}
    if found.culprit is not None:
        marks[found.culprit] = "<- at fault" if found.culprit != found.at else "<- here, at fault"
    executed = sorted(set(found.path))
    shown = _around(executed, marks)
    disassembler = architecture.disassembler()
    skipped = False
    for at in executed:
        if at not in shown:
            skipped = True
            continue
        if skipped:
            yield "..."
        skipped = False
        yield _line(at, image, names, disassembler, marks.get(at, ""))


def _around(executed: list[int], marks: Mapping[int, str]) -> set[int]:
    shown: set[int] = set()
    for mark in marks:
        if mark in executed:
            place = executed.index(mark)
            shown.update(executed[max(place - AROUND, 0) : place + AROUND + 1])
    return shown


def _line(at: int, image: Image, names: Mapping[int, str], disassembler: object, mark: str) -> str:
    start = at - image.address
    code = image.code[start : start + LONGEST]
    found = next(disassembler.disasm_lite(code, at, 1), None)  # type: ignore[attr-defined]
    if found is None:
        return f"+{start:#06x}  {code[:1].hex():20}  (no instruction)  {mark}".rstrip()
    _, size, mnemonic, operands = found
    named = names.get(int(operands, 16), "") if operands.startswith("0x") else ""
    text = f"{mnemonic} {operands}" + (f" ({named})" if named else "")
    return f"+{start:#06x}  {code[:size].hex():20}  {text:44}  {mark}".rstrip()
