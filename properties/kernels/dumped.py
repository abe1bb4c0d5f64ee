"""Dumps a kernel's trampolines: each as a file, compared with what the spec predicts, and proved meanwhile."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from impl.linux.instruments.dumping import Answer, Attaching, Dumper
from properties.kernels.shapes import Answers, label, matching, population, predicted, representatives, shape
from properties.proofs.populations import ImageProof, Prover, count, statement
from spec.errors import BadInputError
from spec.images import ImageFile, print_image_file, read_image_file
from spec.semantics import Semantics
from spec.worlds import Function

__all__ = ["DumpTally", "KernelDump", "file_name", "keep"]

# The number of functions that have their programs at the same time.
AT_ONCE = 64


@dataclass(slots=True)
class DumpTally:
    """The results of one way of attaching.

    refused: by step and errno; foreseen: those that the spec says. surprises: a sentence for each.
    """

    attaching: Attaching
    tried: int = 0
    images: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    foreseen: Counter[str] = field(default_factory=Counter)
    surprises: list[str] = field(default_factory=list)

    def add(self, function: Function, answer: Answer, expected: Answers) -> None:
        """Count what the kernel did, and compare it with what the spec says."""
        self.tried += 1
        self.images += answer.image is not None
        self.refused.update(_first_refusal(answer))
        did = answer.loads, answer.attaches
        if answer.trouble:
            self.surprises.append(f"{self._name(function)}: {answer.trouble}")
        elif did != expected:
            self.surprises.append(f"{self._name(function)}: {self._spell(did)}; the spec says: {self._spell(expected)}")
        else:
            self.foreseen.update(_first_refusal(answer))

    def _name(self, function: Function) -> str:
        return f"{function.name} {label(self.attaching)}"

    def _spell(self, answers: Answers) -> str:
        loads = (f"load {kind} {_errno(load)}" for kind, load in zip(self.attaching.kinds, answers[0], strict=True))
        pairs = zip(self.attaching.kinds, answers[1], strict=True)
        return ", ".join((*loads, *(f"attach {kind} {_errno(attach)}" for kind, attach in pairs if attach is not None)))


def _errno(name: str) -> str:
    return f"-{name}" if name else "0"


def _first_refusal(answer: Answer) -> list[str]:
    steps = [*(("load", name) for name in answer.loads), *(("attach", name) for name in answer.attaches)]
    return [f"{step} -{name}" for step, name in steps if name][:1]


class KernelDump:
    """One dump of a kernel. State: what became of the files, the images' proofs if they are proved, and the times."""

    def __init__(
        self,
        dumper: Dumper,
        semantics: Semantics,
        directory: Path,
        console: Console,
        prover: Prover | None,
        *,
        keeps: bool,
    ) -> None:
        self.files: Counter[str] = Counter()
        self.proofs: list[ImageProof] | None = None
        self._seconds = 0.0, 0.0
        self._dumper = dumper
        self._semantics = semantics
        self._world = population(dumper.population(), dumper.name)
        self._directory = directory
        self._console = console
        self._prover = prover
        self._keeps = keeps
        self._pattern: str | None = None

    def all(self, attachings: Sequence[Attaching], pattern: str | None) -> list[DumpTally]:
        """Dump the functions of a pattern, or one of each shape, in every way of attaching."""
        self._pattern = pattern
        chosen = [
            matching(self._world, pattern)
            if pattern is not None
            else representatives(self._world, attaching, self._dumper.is_unique)
            for attaching in attachings
        ]
        self._console.print(f"{self._world.name}: BTF names {len(self._list_described()):,} traceable functions")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, disable=not self._console.is_terminal) as progress:
            began = time.monotonic()
            tallies = [
                self._one(attaching, functions, progress)
                for attaching, functions in zip(attachings, chosen, strict=True)
            ]
            dumped = time.monotonic()
            if self._prover is not None:
                task = progress.add_task("proofs", total=len(self._prover))
                self.proofs = self._prover.proofs(lambda done: progress.update(task, completed=done))
            self._seconds = dumped - began, time.monotonic() - dumped
        return tallies

    def statement(self, tallies: Sequence[DumpTally]) -> Iterator[str]:
        """Sentences that say what was proved, and how long it took."""
        proofs = self.proofs or []
        refused = sum((tally.foreseen for tally in tallies), Counter[str]())
        surprises = sum(len(tally.surprises) for tally in tallies)
        yield from statement(self._subject(tallies), len(tallies), proofs, refused)
        if surprises:
            yield f"Not as predicted: {count(surprises, 'answer')}."
        processor = sum(proof.judgement.seconds for proof in proofs)
        dumping, after = self._seconds
        yield (
            f"Dumped in {dumping:.1f} s; proved beside it in {processor:.1f} s of the processors, "
            f"the last {after:.1f} s after the last image."
        )

    def _subject(self, tallies: Sequence[DumpTally]) -> str:
        """Which functions were taken, in words."""
        if self._pattern is not None:
            return f"{self._world.name}: {count(tallies[0].tried, 'function')} matching {self._pattern}"
        named = self._list_described()
        shapes = len({shape(function) for function in named})
        return (
            f"{self._world.name}: all {count(shapes, 'shape')} of arguments and return value "
            f"that {count(len(named), 'function')} have"
        )

    def _list_described(self) -> list[Function]:
        return [function for function in self._world.functions if function.btf_id is not None]

    def _one(self, attaching: Attaching, functions: Sequence[Function], progress: Progress) -> DumpTally:
        task = progress.add_task(label(attaching), total=len(functions))
        tally = DumpTally(attaching)
        for start in range(0, len(functions), AT_ONCE):
            some = functions[start : start + AT_ONCE]
            for function, answer in zip(some, self._dumper.answers(some, attaching), strict=True):
                tally.add(function, answer, predicted(function, attaching, self._semantics))
                if answer.image:
                    self._take(function, attaching, answer.image)
            progress.update(task, completed=tally.tried)
        if not self._console.is_terminal:
            self._console.print(f"{label(attaching)}: {tally.images:,} images of {tally.tried:,} functions")
        return tally

    def _take(self, function: Function, attaching: Attaching, image: ImageFile) -> None:
        """Keep one image as a file, have it proved, or both."""
        path = self._directory / file_name(self._world.name, function, attaching)
        if self._keeps:
            self.files[keep(path, image)] += 1
        if self._prover is not None:
            self._prover.add(function, label(attaching), path, image)


def file_name(system: str, function: Function, attaching: Attaching) -> str:
    """`linux-6.12.FUNCTION.fentry1_fexit1.cookie.json`."""
    return f"{system}.{function.name}.{label(attaching)}.json"


def keep(path: Path, image: ImageFile) -> str:
    """Write an image file as a whole, or leave the one that is there: `written`, `replaced` or `kept`."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        exists = path.exists()
        if exists and _is_dump_of(path, image):
            return "kept"
        try:
            scratch.write_text(print_image_file(image), encoding="utf-8")
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        raise BadInputError(f"cannot be written: {error.strerror}", str(path)) from error
    return "replaced" if exists else "written"


def _is_dump_of(path: Path, image: ImageFile) -> bool:
    """Whether a file is a dump of the same subject; it is not if it is no image file."""
    try:
        return read_image_file(path).subject == image.subject
    except BadInputError:
        return False
