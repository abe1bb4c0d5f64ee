"""Proves the images of a kernel while it is still being dumped, and says what has been proved of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from properties.proofs.judges import Judges
from properties.proofs.judging import Judgement
from properties.prover.verdicts import Outcome
from spec.errors import BadInputError
from spec.worlds import Function

__all__ = ["Proof", "Prover", "count", "exceptions", "outcome_of", "statement"]

CLEARED = (
    "By whole words all is kept but the upper half of the only argument on the stack, where it has at most 4 bytes: "
    "programs, and a function that the image calls, get it cleared (clean_stack_garbage()):"
)


@dataclass(frozen=True, slots=True)
class Proof:
    """What came of one image. label: of the programs that it runs. path: of its file."""

    function: Function
    label: str
    path: Path
    judgement: Judgement


@dataclass(frozen=True, slots=True)
class _Waiting:
    function: Function
    label: str
    path: Path
    text: str
    judged: Future[Judgement]


class Prover:
    """Proves what the kernel builds while it builds more. State: the images, in the order in which they came."""

    def __init__(self) -> None:
        self._judges = Judges()
        self._entries: list[_Waiting] = []

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, function: Function, label: str, path: Path, document: Mapping[str, Any]) -> None:
        """Have an image proved, as the kernel has just built it; its file may be older."""
        text = json.dumps(document)
        self._entries.append(_Waiting(function, label, path, text, self._judges.submit(text, str(path))))

    def proofs(self, progress: Callable[[int], None]) -> list[Proof]:
        """What came of every image; the file of one that is not proved is written anew. progress: told how many."""
        found: list[Proof] = []
        for entry in self._entries:
            judgement = entry.judged.result()
            if judgement.outcome != "proved":
                _write(entry)
            found.append(Proof(entry.function, entry.label, entry.path, judgement))
            progress(len(found))
        return found

    def close(self) -> None:
        """End the processes."""
        self._judges.close()


def _write(entry: _Waiting) -> None:
    try:
        entry.path.write_text(entry.text + "\n", encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"cannot be written: {error.strerror}", str(entry.path)) from error


def outcome_of(proofs: Iterable[Proof]) -> Outcome:
    """The worst outcome."""
    found = {proof.judgement.outcome for proof in proofs}
    return next((outcome for outcome in ("refuted", "undecided") if outcome in found), "proved")


def statement(subject: str, ways: int, proofs: Sequence[Proof], refused: Mapping[str, int]) -> Iterator[str]:
    """What has been proved, in sentences.

    subject: which functions were taken. ways: of attaching. refused: as predicted, by step and errno.
    """
    outcomes = Counter(proof.judgement.outcome for proof in proofs)
    told = [f"{number:,} {outcome}" for outcome, number in sorted(outcomes.items())] or ["none"]
    refusals = ", ".join(f"{number:,} {refusal}" for refusal, number in sorted(refused.items()))
    yield f"{subject}, each with programs attached in {count(ways, 'way')}."
    yield f"Images: {', '.join(told)}; {sum(refused.values()):,} refused by the kernel as predicted{_wrap(refusals)}."
    proved = [proof for proof in proofs if proof.judgement.outcome == "proved"]
    detaching = sum(proof.judgement.detaching for proof in proved)
    words = sum(proof.judgement.words.outcome == "proved" for proof in proved)
    yield f"Of those proved, {detaching:,} are proved as they are while programs are detached as well."
    yield f"By whole words, not only the bytes that an argument has: {words:,} proved{_tell_cleared(proved)}."


def _wrap(text: str) -> str:
    return f" ({text})" if text else ""


def _tell_cleared(proofs: Iterable[Proof]) -> str:
    number = sum(proof.judgement.words.cleared is not None for proof in proofs)
    return f", {number:,} but for an argument whose upper half the kernel clears" if number else ""


def exceptions(proofs: Sequence[Proof]) -> Iterator[str]:
    """What is not proved, and where whole words are not kept, one a line with the reason."""
    for proof in proofs:
        judgement = proof.judgement
        if judgement.outcome != "proved":
            yield f"{proof.function.name} {proof.label}: {judgement.told} ({proof.path})"
        elif judgement.words.told:
            yield f"{proof.function.name} {proof.label}: by whole words: {judgement.words.told}"
    lines = list(
        dict.fromkeys(_describe_argument(proof) for proof in proofs if proof.judgement.words.cleared is not None)
    )
    if lines:
        yield CLEARED
        yield from sorted(lines)


def _describe_argument(proof: Proof) -> str:
    place = proof.judgement.words.cleared
    assert place is not None
    assert proof.function.prototype is not None
    kind = proof.function.prototype.arguments[place]
    return f"  {proof.function.name}: argument {place} ({kind.name}, {count(kind.size, 'byte')})"


def count(number: int, noun: str) -> str:
    """`1 way`, `3 ways`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
