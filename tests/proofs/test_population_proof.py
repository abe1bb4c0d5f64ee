"""The proof of a kernel's images beside its dump: what is judged of an image, what is counted, and what is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import properties.proofs
from properties.proofs import populations as population_proof
from properties.proofs.judging import Judgement, Words, cleared, judge
from properties.proofs.populations import ImageProof, Prover, exceptions, outcome_of, statement
from properties.work.crew import Crew
from spec.errors import BadInputError
from spec.images import parse_image_file, read_image_file
from spec.prototypes import Prototype, Type
from spec.worlds import CHAR, INT, LONG, PAIR, Function

FOLDER = Path(properties.proofs.__file__).parent / "images"
FEXIT = "linux-6.12.bpf_fentry_test1.fexit1.ip"
CLEANED = "linux-6.12.HUF_fillDTableX2ForWeight.fentry1_fexit1"
RETURNS = Type("int", "INT", 4)


def text(name: str, old: str = "", new: str = "") -> str:
    """An image file's text, with some bytes of its image exchanged for others."""
    whole = json.loads((FOLDER / f"{name}.json").read_text())
    assert old in whole["image_hex"]
    whole["image_hex"] = whole["image_hex"].replace(old, new, 1)
    return json.dumps(whole)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json"))[::7], ids=lambda path: path.stem)
def test_images_of_running_kernels(path: Path) -> None:
    """All are proved by bytes; by whole words as well, or but for one argument's upper half."""
    found = judge(path.read_text(), path.name)

    assert ("proved", "") == (found.outcome, found.told)
    assert found.words.outcome == "proved" or found.words.cleared is not None
    assert found.seconds > 0


def test_one_argument_is_cleared() -> None:
    """That this is all that differs is proved: where another word is cut as well, that is told."""
    # mov rcx, [rbp - 0x28] becomes mov ecx, [rbp - 0x28]: argument 3 has 4 bytes.
    whole, cut = judge(text(CLEANED), "x.json"), judge(text(CLEANED, "488b4dd8", "408b4dd8"), "x.json")

    assert ("proved", Words("refuted", 6)) == (whole.outcome, whole.words)
    assert ("proved", "refuted", None) == (cut.outcome, cut.words.outcome, cut.words.cleared)
    assert "refuted: fentry 1: ctx[6] is argument 6" == cut.words.told


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((LONG,) * 6, None),
        ((*(LONG,) * 6, INT), 6),
        ((*(LONG,) * 6, CHAR), 6),
        ((*(LONG,) * 6, LONG), None),
        ((*(LONG,) * 6, INT, INT), None),
        ((*(LONG,) * 5, PAIR, INT), None),
    ],
)
def test_which_argument_the_kernel_clears(arguments: tuple[Type, ...], expected: int | None) -> None:
    """The only one on the stack, if it has at most 4 bytes."""
    assert expected == cleared(Prototype(arguments, RETURNS))


def test_what_is_wrong_is_told() -> None:
    """A refuted image, one without a place to patch, and bad input."""
    refuted = judge(text(FEXIT, "c9", "90"), "x.json")
    unpatched = judge(text(FEXIT, "0f1f440000", "0f1f440001"), "x.json")

    assert "refuted" == refuted.outcome
    assert refuted.told.startswith("refuted: ")
    assert "undecided" == unpatched.outcome
    assert unpatched.told.startswith("while programs are detached: undecided: the place")
    with pytest.raises(BadInputError, match="x.json: kernel: is missing"):
        judge("{}", "x.json")


@pytest.fixture
def prover() -> Iterator[Prover]:
    with Crew.here(2) as crew:
        yield Prover(crew)


def function(name: str) -> Function:
    return Function(name, Prototype((*(LONG,) * 6, INT), RETURNS), 1)


def test_images_are_proved_in_other_processes(prover: Prover, tmp_path: Path) -> None:
    """In the order in which they came; what is not proved stays as a file, and what cannot be judged is undecided."""
    good, bad = (parse_image_file(text(FEXIT, *change), "x.json") for change in (("c9", "c9"), ("c9", "90")))
    images = [good, bad, replace(good, programs=())]
    paths = [tmp_path / f"{number}.json" for number in range(3)]
    paths[1].write_text("an older image, which is proved")
    for path, image in zip(paths, images, strict=True):
        prover.add(function(path.stem), "fexit1", path, image)
    counted: list[int] = []
    found = prover.proofs(counted.append)

    assert 3 == len(prover)
    assert [3] == counted
    assert ["proved", "refuted", "undecided"] == [proof.judgement.outcome for proof in found]
    assert "the prover failed: " in found[2].judgement.told
    assert paths[1:] == sorted(tmp_path.iterdir())
    assert bad == read_image_file(paths[1])


def proof(name: str, outcome: Any = "proved", told: str = "", words: Words | None = None) -> ImageProof:
    judgement = Judgement(f"{name}.json", name, outcome, told, True, words or Words("proved"), 0.5)
    return ImageProof(function(name), "fexit1", Path(f"{name}.json"), judgement)


PROOFS = [
    proof("good"),
    proof("cleaned", words=Words("refuted", 6)),
    proof("cleaned", words=Words("refuted", 6)),
    proof("cut", words=Words("refuted", told="refuted: ctx[0] is argument 0")),
    proof("slow", "undecided", "undecided: z3 has used up its budget"),
    proof("bad", "refuted", "refuted: rbx is restored"),
]


def test_the_statement() -> None:
    """It counts images by verdict, refusals by step and errno, and what else holds of the proved ones."""
    told = list(statement("all 3 shapes", 2, PROOFS, {"attach -ENOTSUPP": 1200, "load -EINVAL": 34}))

    assert "all 3 shapes, each with programs attached in 2 ways." == told[0]
    assert "Images: 4 proved, 1 refuted, 1 undecided" == told[1].partition("; ")[0]
    assert told[1].endswith("; 1,234 refused by the kernel as predicted (1,200 attach -ENOTSUPP, 34 load -EINVAL).")
    assert "Of those proved, 4 are proved as they are while programs are detached as well." == told[2]
    assert told[3].endswith(": 1 proved, 2 but for an argument whose upper half the kernel clears.")


def test_no_images() -> None:
    """A kernel that refuses everything has none, and that is said."""
    assert "Images: none; 1 refused by the kernel as predicted (1 load -EINVAL)." in list(
        statement("1 function", 1, [], {"load -EINVAL": 1})
    )


def test_exceptions() -> None:
    """One a line, with the reason and the file; functions of which an argument is cleared once each."""
    assert [
        "cut fexit1: by whole words: refuted: ctx[0] is argument 0",
        "slow fexit1: undecided: z3 has used up its budget (slow.json)",
        "bad fexit1: refuted: rbx is restored (bad.json)",
        population_proof.CLEARED,
        "  cleaned: argument 6 (int, 4 bytes)",
    ] == list(exceptions(PROOFS))


def test_the_worst_outcome() -> None:
    """Refuted before undecided before proved; nothing is proved as well."""
    assert ["refuted", "undecided", "proved", "proved"] == [
        outcome_of(some) for some in (PROOFS, PROOFS[:5], PROOFS[:4], [])
    ]
