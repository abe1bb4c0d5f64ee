"""The places that a kernel patches: as it noted them, which the file tells, or as they are found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from properties.proofs.image_files import parse_image, read_image
from properties.proofs.judging import DETACHING, NO_PLACE, judge, variants
from properties.prover.detaching import while_detaching
from properties.prover.goal import Goal
from properties.prover.image import Image, Patch
from properties.prover.steps import RETURNED_EARLY
from properties.prover.x86_64 import X86_64
from spec.errors import BadInputError
from tests.support.prove_images import NOP, Trampoline, file_of, goal_of, long, of_kinds

GOAL = goal_of(long(7), *of_kinds("fentry", "fmod_ret", "fsession", "fexit"))
SHARED = goal_of(long(2), *of_kinds("fexit", "fexit"), shares_ipmodify=True)
NOTED = sorted((Path(__file__).parents[1] / "support/images").glob("linux-*.json"))
OTHER_NOPS = bytes.fromhex("66900f1f00")


def found(goal: Goal, *, skips: bool) -> tuple[Image, tuple[Patch, ...]]:
    """An image, and the places of it that are found by their nops."""
    image = Trampoline(goal, skips=skips).image()
    patched = while_detaching(image, goal, X86_64)
    assert patched is not None
    return image, patched[0].patches


def entries(goal: Goal, image: Image, patches: Sequence[Patch], *, skips: bool) -> list[dict[str, Any]]:
    """The places as the kernel notes them."""
    runs = (*goal.fentry, *goal.fmod_ret, *goal.fexit)
    noted = [{"off": patch.at - image.address, "target": f"{patch.target:#x}"} for patch in patches]
    if skips:
        for entry, run in zip(noted, runs, strict=True):
            entry["pointer"] = f"{goal.programs[run.program].pointer:#x}"
    return noted


def text(goal: Goal, image: Image, noted: object) -> str:
    """A file with what the kernel noted."""
    fields = json.loads(file_of(goal, image))
    pointers = {program.code: program.pointer for program in goal.programs}
    for program in fields["programs"]:
        program["pointer"] = f"{pointers[int(program['symbol_address'], 16)]:#x}"
    return json.dumps(fields | {"patches": noted})


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("goal", [GOAL, SHARED], ids=["all kinds", "original by the stack"])
def test_what_is_noted_is_what_is_found(goal: Goal, skips: bool) -> None:
    """With the kernel's notes, and without them, the same places are patched, under the same names: proved."""
    image, patches = found(goal, skips=skips)
    told = text(goal, image, entries(goal, image, patches, skips=skips))
    (_, detaching) = variants(parse_image(told, "x.json"))

    assert DETACHING == detaching.name
    assert patches == detaching.image.patches
    assert "proved" == detaching.prove().outcome
    assert ("proved", True) == ((judged := judge(told, "x.json")).outcome, judged.detaching)


@pytest.mark.parametrize("path", NOTED, ids=lambda path: path.stem)
def test_what_running_kernels_note(path: Path) -> None:
    """6.1 and 6.12 one place, 7.3 one for each program; they are where they are looked for."""
    dump = read_image(path)
    (_, detaching) = variants(dump)
    patched = while_detaching(dump.image, dump.goal, X86_64)

    assert dump.noted is not None
    assert (3 if dump.kernel.startswith("7") else 1) == len(dump.noted)
    assert patched == (detaching.image, detaching.goal)
    assert "proved" == detaching.prove().outcome


@pytest.mark.parametrize("skips", [False, True])
def test_a_note_that_is_wrong_is_refuted(skips: bool) -> None:
    """A jump that goes 10 bytes beyond, or 1 too few; a place that is a byte off."""
    image, patches = found(GOAL, skips=skips)
    noted = entries(GOAL, image, patches, skips=skips)
    target = int(noted[-1]["target"], 16)
    for wrong in ({"target": f"{target + 10:#x}"}, {"target": f"{target - 1:#x}"}, {"off": noted[-1]["off"] - 1}):
        judged = judge(text(GOAL, image, [*noted[:-1], noted[-1] | wrong]), "x.json")

        assert "refuted" == judged.outcome
        assert judged.told.startswith(f"{DETACHING}: refuted: ")


def test_notes_that_do_not_fit_the_programs_are_undecided() -> None:
    """One of a run is missing, two are exchanged, there is one of nobody; or none behind the original."""
    image, patches = found(GOAL, skips=True)
    noted = entries(GOAL, image, patches, skips=True)
    first, second, *rest = noted
    exchanged = [first | {"pointer": second["pointer"]}, second | {"pointer": first["pointer"]}, *rest]
    for wrong in (noted[1:], exchanged, [{"off": first["off"], "target": first["target"]}, second, *rest], []):
        judged = judge(text(GOAL, image, wrong), "x.json")

        assert "undecided" == judged.outcome
        assert judged.told.startswith(f"{DETACHING}: undecided: {NO_PLACE}: ")


def test_nothing_is_patched_where_nothing_is_noted() -> None:
    """Kernels without skips do not patch images that do not call the original, and note nothing."""
    goal = goal_of(long(2), *of_kinds("fentry", "fentry"))

    assert 1 == len(variants(parse_image(text(goal, Trampoline(goal).image(), []), "x.json")))


@pytest.mark.parametrize(
    ("noted", "mistake"),
    [
        ([{"off": 100_000, "target": "0xffffffffc0010020"}], "patches[0].off: must be in the image, with the 5 bytes"),
        ([{"off": 9, "target": "0x0"}], "patches[0].target: must be in the image"),
        ([{"off": at, "target": "0xffffffffc0010020"} for at in (9, 13)], "patches[1].off: must not be in another"),
        ([{"off": -1, "target": "0x0"}], "patches[0].off"),
        ("all", "patches"),
    ],
)
def test_notes_that_are_none(noted: object, mistake: str) -> None:
    """A place that is not in the image, or in another one, is bad input."""
    with pytest.raises(BadInputError) as told:
        parse_image(text(GOAL, Trampoline(GOAL).image(), noted), "x.json")

    assert f"x.json: {mistake}" in str(told.value)


@pytest.mark.parametrize("number", range(5))
def test_a_program_without_its_nop_is_undecided(number: int) -> None:
    """Where the nop before one program is another, and others have theirs, the kernel's place is not known."""
    image = Trampoline(GOAL, skips=True).image()
    pieces = image.code.split(NOP)
    assert len(pieces) == 6
    code = NOP.join(pieces[: number + 1]) + OTHER_NOPS + NOP.join(pieces[number + 1 :])
    judged = judge(file_of(GOAL, Image(image.address, code, image.used)), "x.json")

    assert "undecided" == judged.outcome
    assert judged.told.endswith(f"{NO_PLACE}: some programs have a nop before them, and others have none")


def test_the_nop_behind_the_original_is_no_skip() -> None:
    """It is the last before the first fexit program as well, and is named for what it is."""
    goal = goal_of(long(2), *of_kinds("fentry", "fexit"))
    _, patches = found(goal, skips=False)

    assert [RETURNED_EARLY] == [patch.name for patch in patches]
