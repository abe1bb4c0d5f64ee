"""Proves the images of a kernel while it is still being dumped, and says what has been proved of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from properties.proofs.judging import Judgement, JudgeUnit, Words
from properties.proofs.telling import explain
from properties.prover.verdicts import Outcome as Proved
from properties.work.crew import Crew, Errand
from properties.work.units import Done, Outcome
from spec.errors import BadInputError
from spec.images import ImageFile, print_image_file
from spec.worlds import Function

__all__ = ["ImageProof", "Prover", "count", "exceptions", "outcome_of", "statement"]

BATCH = 32
"""Images of one unit."""

SECONDS = 300.0
"""The limit for a unit, and for an image alone, which usually takes milliseconds: several times what z3 may take."""

CLEARED = (
    "By whole words all is kept but the upper half of the only argument on the stack, where it has at most 4 bytes: "
    "programs, and a function that the image calls, get it cleared (clean_stack_garbage()):"
)


@dataclass(frozen=True, slots=True)
class ImageProof:
    """The judgement of one image. label: names the programs that it runs. path: where its file is, or would be."""

    function: Function
    label: str
    path: Path
    judgement: Judgement


@dataclass(frozen=True, slots=True)
class _Entry:
    function: Function
    label: str
    path: Path
    text: str


class Prover:
    """Has images proved by a crew while the kernel builds more. State: those handed out, and those yet to be."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._tasks: list[tuple[Errand[JudgeUnit], list[_Entry]]] = []
        self._waiting: list[_Entry] = []

    def __len__(self) -> int:
        return sum(len(entries) for _, entries in self._tasks) + len(self._waiting)

    def add(self, function: Function, label: str, path: Path, image: ImageFile) -> None:
        """Have an image proved that the kernel has just built; the file at the path may be an older one."""
        self._waiting.append(_Entry(function, label, path, print_image_file(image)))
        if len(self._waiting) == BATCH:
            self._hand_out()

    def proofs(self, progress: Callable[[int], None]) -> list[ImageProof]:
        """The proofs of all images, when they are done. If one is not proved, its file is written anew.

        progress: is called with the number of those done.
        """
        if self._waiting:
            self._hand_out()
        found: list[ImageProof] = []
        for task, entries in self._tasks:
            for entry, judgement in zip(entries, self._judge(task.result(), entries), strict=True):
                if judgement.outcome != "proved":
                    _write(entry)
                found.append(ImageProof(entry.function, entry.label, entry.path, judgement))
            progress(len(found))
        return found

    def _hand_out(self) -> None:
        self._tasks.append((self._submit(self._waiting), self._waiting))
        self._waiting = []

    def _submit(self, entries: Iterable[_Entry]) -> Errand[JudgeUnit]:
        return self._crew.submit(JudgeUnit(tuple((entry.text, str(entry.path)) for entry in entries)), SECONDS)

    def _judge(self, outcome: Outcome, entries: Sequence[_Entry]) -> Iterator[Judgement]:
        """The judgements of a unit. Where it is lost, each image is judged alone, and those lost then are undecided."""
        if isinstance(outcome, Done):
            yield from outcome.value
        elif len(entries) == 1:
            told = f"undecided: {explain(outcome, SECONDS)}"
            words = Words("undecided", told=told)
            yield Judgement(str(entries[0].path), "", "undecided", told, detaching=False, words=words, seconds=0.0)
        else:
            for entry in entries:
                yield from self._judge(self._submit([entry]).result(), [entry])


def _write(entry: _Entry) -> None:
    try:
        entry.path.write_text(entry.text, encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"cannot be written: {error.strerror}", str(entry.path)) from error


def outcome_of(proofs: Iterable[ImageProof]) -> Proved:
    """The worst outcome."""
    found = {proof.judgement.outcome for proof in proofs}
    return next((outcome for outcome in ("refuted", "undecided") if outcome in found), "proved")


def statement(subject: str, ways: int, proofs: Sequence[ImageProof], refused: Mapping[str, int]) -> Iterator[str]:
    """What has been proved, in sentences.

    subject: which functions were taken. ways: of attaching. refused: as predicted, by step and errno.
    """
    outcomes = Counter(proof.judgement.outcome for proof in proofs)
    told = [f"{number:,} {outcome}" for outcome, number in sorted(outcomes.items())] or ["none"]
    refusals = ", ".join(f"{number:,} {refusal}" for refusal, number in sorted(refused.items()))
    yield f"{subject}, each with programs attached in {count(ways, 'way')}."
    yield f"Images: {', '.join(told)}; {sum(refused.values()):,} refused by the kernel as predicted{_among(refusals)}."
    proved = [proof for proof in proofs if proof.judgement.outcome == "proved"]
    detaching = sum(proof.judgement.detaching for proof in proved)
    words = sum(proof.judgement.words.outcome == "proved" for proof in proved)
    yield f"Of those proved, {detaching:,} are proved as they are while programs are detached as well."
    yield f"By whole words, not only the bytes that an argument has: {words:,} proved{_count_cleared(proved)}."


def _among(text: str) -> str:
    return f" ({text})" if text else ""


def _count_cleared(proofs: Iterable[ImageProof]) -> str:
    number = sum(proof.judgement.words.cleared is not None for proof in proofs)
    return f", {number:,} but for an argument whose upper half the kernel clears" if number else ""


def exceptions(proofs: Sequence[ImageProof]) -> Iterator[str]:
    """Lines that name each image that is not proved, or does not keep whole words, with the reason."""
    for proof in proofs:
        judgement = proof.judgement
        if judgement.outcome != "proved":
            yield f"{proof.function.name} {proof.label}: {judgement.told} ({proof.path})"
        elif judgement.words.told:
            yield f"{proof.function.name} {proof.label}: by whole words: {judgement.words.told}"
    lines = list(dict.fromkeys(_name_argument(proof) for proof in proofs if proof.judgement.words.cleared is not None))
    if lines:
        yield CLEARED
        yield from sorted(lines)


def _name_argument(proof: ImageProof) -> str:
    place = proof.judgement.words.cleared
    assert place is not None
    assert proof.function.prototype is not None
    kind = proof.function.prototype.arguments[place]
    return f"  {proof.function.name}: argument {place} ({kind.name}, {count(kind.size, 'byte')})"


def count(number: int, noun: str) -> str:
    """`1 way`, `3 ways`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
