"""The verb `dump`: writes and proves trampolines of a running kernel, and compares its refusals with the spec."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from impl.linux.guest.guest import boot
from impl.linux.guest.packages import fetch
from impl.linux.instruments.dumping import Answer, Attaching, Dumper
from properties.kernels.shapes import (
    Answers,
    label,
    matching,
    parse_programs,
    population,
    predicted,
    representatives,
    shape,
)
from properties.proofs.populations import ImageProof, Prover, count, exceptions, outcome_of, statement
from properties.report.show import LOG_WIDTH
from properties.systems.naming import KERNELS, semantics_named
from spec.errors import BadInputError
from spec.images import ImageFile, print_image_file, read_image_file
from spec.semantics import Semantics
from spec.worlds import Function

__all__ = ["DumpTally", "add_arguments", "file_name", "keep", "run", "table"]

DETAILS = """
Without --functions one function is taken for each distinct shape of arguments and return value. A file that DIR has
already of the same release, function and programs is kept.

With --prove each image is proved while the next ones are dumped, as it is and as it is while programs are detached. The
bytes that an argument has decide; where whole words differ, that is told. Without DIR the images are gone at the end,
unless one is not proved.

Exit status: 0 the kernel accepted and refused what the spec says, and all images are proved; 1 it did not, or one is
refuted; 2 bad input; 3 one is undecided.
"""
DEFAULT_PROGRAMS = ("fentry=1", "fexit=1", "fentry=1,fexit=1")
NOT_AS_PREDICTED = 1
STATUS = {"proved": 0, "refuted": 1, "undecided": 3}
# The number of functions that have their programs at the same time.
AT_ONCE = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `dump`."""
    parser.epilog = DETAILS
    parser.add_argument(
        "directory",
        type=Path,
        nargs="?",
        metavar="DIR",
        help="where the image files go; made if it is missing. Only --prove does without",
    )
    parser.add_argument("--system", required=True, choices=KERNELS, help="the kernel; its semantics predict")
    parser.add_argument("--functions", metavar="GLOB", help="take all functions that match, as ftrace's filters match")
    parser.add_argument(
        "--programs",
        action="append",
        metavar="KIND=N,...",
        help=f"attach so many programs of these kinds, in this order; may be repeated "
        f"(default: {'; '.join(DEFAULT_PROGRAMS)})",
    )
    parser.add_argument("--cookie", action="store_true", help="give every link a cookie")
    parser.add_argument("--ip", action="store_true", help="let every program ask for the function's address")
    parser.add_argument("--sleepable", action="store_true", help="load sleepable programs")
    parser.add_argument(
        "--session-cookie", action="store_true", help="let every fsession program ask for its session cookie"
    )
    parser.add_argument("--prove", action="store_true", help="prove the images")


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


def run(arguments: argparse.Namespace) -> int:
    """The exit status, after everything was printed; see DETAILS."""
    if arguments.directory is None and not arguments.prove:
        raise BadInputError("DIR: write where the image files go, or --prove")
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else LOG_WIDTH)
    options = arguments.cookie, arguments.ip, arguments.sleepable, arguments.session_cookie
    attachings = [
        Attaching(parse_programs(text), *options) for text in dict.fromkeys(arguments.programs or DEFAULT_PROGRAMS)
    ]
    with ExitStack() as stack:
        directory = stack.enter_context(_directory(arguments.directory))
        kernel = fetch(arguments.system)
        prover = stack.enter_context(closing(Prover())) if arguments.prove else None
        guest = stack.enter_context(closing(boot(kernel)))
        dumper = Dumper(guest, kernel.name)
        dump = _Dump(dumper, arguments.system, directory, console, prover, keeps=arguments.directory is not None)
        tallies = dump.all(attachings, arguments.functions)
        _tell(console, f"{kernel.name}, release {kernel.release}", dump, tallies)
        if arguments.directory is not None:
            console.print(f"{directory}: {_summarize(dump.files)}", soft_wrap=True)
        return _status(tallies, dump.proofs)


@contextmanager
def _directory(given: Path | None) -> Iterator[Path]:
    """Where image files go. If no directory is given, it is a new one, which is removed if it is empty at the end."""
    if given is not None:
        make_directory(given)
        yield given
        return
    made = Path(tempfile.mkdtemp(prefix="massattach-"))
    try:
        yield made
    finally:
        if not any(made.iterdir()):
            made.rmdir()


def _tell(console: Console, title: str, dump: _Dump, tallies: Sequence[DumpTally]) -> None:
    console.print(table(title, tallies, dump.proofs))
    for surprise in (surprise for tally in tallies for surprise in tally.surprises):
        console.print(f"not as predicted: {surprise}", soft_wrap=True)
    if dump.proofs is not None:
        for line in (*exceptions(dump.proofs), *dump.statement(tallies)):
            console.print(line, soft_wrap=True)


def _status(tallies: Iterable[DumpTally], proofs: Sequence[ImageProof] | None) -> int:
    if any(tally.surprises for tally in tallies):
        return NOT_AS_PREDICTED
    return STATUS[outcome_of(proofs or ())]


class _Dump:
    """One run of the verb. State: what became of the files, the images' proofs if they are proved, and the times."""

    def __init__(
        self,
        dumper: Dumper,
        system: str,
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
        self._semantics: Semantics = semantics_named(system)
        self._world = population(dumper.population(), system)
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


def make_directory(path: Path) -> None:
    """Make a directory if it is missing; BadInputError if that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(f"is no directory for images: {error.strerror}", str(path)) from error


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


def table(title: str, tallies: Sequence[DumpTally], proofs: Sequence[ImageProof] | None = None) -> Table:
    """One row for each way of attaching, one column for each refusal that occurred, and for proofs if there are any."""
    refusals = sorted({refusal for tally in tallies for refusal in tally.refused})
    rows = Table(title=title, title_justify="left")
    rows.add_column("programs", no_wrap=True)
    proving = ("proved", "while detaching", "whole words") if proofs is not None else ()
    for heading in ("functions", "images", *refusals, "not as predicted", *proving):
        rows.add_column(heading, justify="right")
    for tally in tallies:
        numbers = [tally.tried, tally.images, *(tally.refused[refusal] for refusal in refusals), len(tally.surprises)]
        if proofs is not None:
            numbers += _count_proved(proof for proof in proofs if proof.label == label(tally.attaching))
        rows.add_row(label(tally.attaching), *(f"{number:,}" for number in numbers))
    return rows


def _count_proved(proofs: Iterable[ImageProof]) -> list[int]:
    """How many are proved, how many of them while programs are detached, and how many by whole words."""
    judgements = [proof.judgement for proof in proofs]
    proved = [judgement for judgement in judgements if judgement.outcome == "proved"]
    words = sum(judgement.words.outcome == "proved" for judgement in judgements)
    return [len(proved), sum(judgement.detaching for judgement in proved), words]


def _summarize(files: Mapping[str, int]) -> str:
    """What became of the files, in words."""
    return ", ".join(_describe_files(files)) or "no image files"


def _describe_files(files: Mapping[str, int]) -> Iterator[str]:
    words = {
        "written": "written",
        "replaced": "that were something else replaced",
        "kept": "kept that were there already",
    }
    for name, told in words.items():
        if files[name]:
            yield f"{files[name]:,} image file{'s' if files[name] != 1 else ''} {told}"
