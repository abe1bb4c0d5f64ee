"""Prints verdicts: a counterexample with its values, and the machine code around the instruction at fault."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from properties.prover.architecture import Architecture
from properties.prover.explaining import origin
from properties.prover.goal import Goal
from properties.prover.image import Image, Patch
from properties.prover.steps import PATCHED
from properties.prover.tools import disassembler
from properties.prover.verdicts import Counterexample, Figures, Verdict

__all__ = ["counterexample_lines", "summary"]

AROUND = 6
"""Instructions shown before and after one that matters."""

ADDRESS = re.compile("(.*, )?#(0x[0-9a-f]+)|(0x[0-9a-f]+)")
LONGEST = 15
UNLISTED = 8
"""How many bytes are shown where there is no instruction."""


def summary(verdict: Verdict) -> str:
    """A verdict in one line."""
    if verdict.outcome == "proved":
        figures, times = verdict.figures, sum(verdict.obligations.values())
        solved = f", {figures.asked} by z3" if figures.asked else ""
        return f"proved, {len(verdict.obligations)} obligations in {times} places{solved}{_tell_jumps(figures)}"
    if verdict.counterexample is not None:
        return f"refuted: {verdict.counterexample.obligation}"
    return f"undecided: {verdict.reason}"


def _tell_jumps(figures: Figures) -> str:
    if not figures.places:
        return ""
    jumps = "1 jump" if figures.places == 1 else f"any of {figures.places} jumps"
    return f", from each of {figures.stands} instructions, with {jumps} put in at any time"


def counterexample_lines(found: Counterexample, image: Image, goal: Goal, architecture: Architecture) -> Iterator[str]:
    """What is wrong, under which values, and where."""
    if found.got is not None and found.expected is not None:
        got, expected = (_show_value(value, found, goal, architecture) for value in (found.got, found.expected))
        yield f"it is {got}, and must be {expected}"
    if found.stands is not None:
        yield f"as a task stands at +{found.stands - image.address:#06x} while the kernel patches"
        yield from (f"  {_show_patch(patch, image)}" for patch in found.patches)
    values = {name: value for name, value in found.values.items() if not name.startswith(PATCHED)}
    if values:
        yield "where"
    width = max((len(name) for name in values), default=0)
    for name, value in sorted(values.items()):
        yield f"  {name:{width}}  {value:#x}"
    yield "in"
    executed = image.patched(found.patches, architecture)
    yield from (f"  {line}" for line in _list_instructions(found, executed, _name_addresses(goal), architecture))


def _show_patch(patch: Patch, image: Image) -> str:
    name = patch.name.removeprefix(PATCHED)
    return f"+{patch.at - image.address:#06x}  {name}, to +{patch.target - image.address:#06x}"


def _show_value(value: int, found: Counterexample, goal: Goal, architecture: Architecture) -> str:
    named = origin(value, found, goal, architecture)
    return f"{value:#x} ({named})" if named else f"{value:#x}"


def _name_addresses(goal: Goal) -> dict[int, str]:
    names = {address: symbol for symbol, address in goal.helpers.items()}
    for run in (*goal.fentry, *goal.fmod_ret, *goal.fexit):
        names[goal.programs[run.program].code] = f"program of {run.place}"
    return names | {goal.body: "the body"}


def _list_instructions(
    found: Counterexample, image: Image, names: Mapping[int, str], architecture: Architecture
) -> Iterator[str]:
    """Lists the instructions executed around those that matter, each once, in the order of addresses."""
    marks = {found.at: "<- here"}
    if found.culprit is not None:
        marks[found.culprit] = "<- at fault" if found.culprit != found.at else "<- here, at fault"
    executed = sorted(set(found.path))
    shown = _select_around(executed, marks)
    following = dict(pairwise(found.path))
    decoder = disassembler(architecture)
    skipped = False
    for at in executed:
        if at not in shown:
            skipped = True
            continue
        if skipped:
            yield "..."
        skipped = False
        place = _Executed(at, following.get(at), architecture.is_jump)
        yield _show_line(place, image, names, decoder, marks.get(at, ""))


def _select_around(executed: list[int], marks: Mapping[int, str]) -> set[int]:
    shown: set[int] = set()
    for mark in marks:
        if mark in executed:
            place = executed.index(mark)
            shown.update(executed[max(place - AROUND, 0) : place + AROUND + 1])
    return shown


@dataclass(frozen=True, slots=True)
class _Executed:
    """An instruction's address, that of the one executed after it in the image, and which mnemonics jump."""

    at: int
    following: int | None
    jumps: Callable[[str], bool]


def _show_line(place: _Executed, image: Image, names: Mapping[int, str], decoder: Any, mark: str) -> str:
    start = place.at - image.address
    found = next(decoder.disasm_lite(image.code[start : start + LONGEST], place.at, 1), None)
    if found is None:
        size, text = _guess_size(place), "(no instruction)"
    else:
        _, size, mnemonic, operands = found
        text = f"{mnemonic} {_show_operands(operands, image, names)}".rstrip()
        if place.jumps(mnemonic) and place.following not in {None, place.at + size}:
            text += ", taken"
    code = image.code[start : start + size].hex()
    return f"+{start:#06x}  {code:20}  {text:44}  {mark}".rstrip()


def _guess_size(place: _Executed) -> int:
    """Guesses the size of an instruction that the disassembler does not know: up to the next one executed."""
    following = place.following if place.following is not None else place.at
    return following - place.at if 0 < following - place.at <= LONGEST else UNLISTED


def _show_operands(operands: str, image: Image, names: Mapping[int, str]) -> str:
    """Shows operands: a target in the image as an offset, like those of the lines, any other with its name."""
    match = ADDRESS.fullmatch(operands)
    if not match:
        return operands
    target = int(match[2] or match[3], 16)
    if image.holds(target):
        return f"{match[1] or ''}+{target - image.address:#06x}"
    return f"{operands} ({names[target]})" if target in names else operands
