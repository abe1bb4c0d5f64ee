"""The verb `dump`: writes and proves trampolines of a running kernel, and compares its refusals with the spec."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from impl.linux.guest.guest import boot
from impl.linux.guest.packages import Kernel, fetch, from_files
from impl.linux.instruments.dumping import Attaching, Dumper
from properties.kernels.dumped import DumpTally, KernelDump
from properties.kernels.shapes import label, parse_programs
from properties.proofs.populations import ImageProof, Prover, exceptions, outcome_of
from properties.report.show import LOG_WIDTH, Screen
from properties.report.writing import make_directory
from properties.systems.naming import KERNELS, OWN_KERNEL, own_files, semantics_named
from properties.verbs.options import add_crew_options, crew_of
from properties.verbs.own_kernel import add_own_kernel, tell_nearest
from spec.errors import BadInputError
from spec.semantics import Semantics

NICE = 10
"""How far proofs stand back: a guest has time limits."""

__all__ = ["add_arguments", "run", "table"]

DETAILS = """
Without --functions one function is taken for each distinct shape of arguments and return value. A file that DIR has
already of the same release, function and programs is kept.

With --prove each image is proved while the next ones are dumped, as it is and as it is while programs are detached. The
bytes that an argument has decide; where whole words differ, that is told. Without DIR the images are gone at the end,
unless one is not proved.

Exit status: 0 the kernel accepted and refused what the spec says, and all images are proved; 1 it did not, or one is
refuted; 2 bad input; 3 one is undecided.
"""
KNOWN = f"{', '.join(KERNELS)} or {OWN_KERNEL}FILE[,MODULES]"
DEFAULT_PROGRAMS = ("fentry=1", "fexit=1", "fentry=1,fexit=1")
NOT_AS_PREDICTED = 1
STATUS = {"proved": 0, "refuted": 1, "undecided": 3}


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
    system = parser.add_mutually_exclusive_group(required=True)
    system.add_argument("--system", metavar="S", help=f"the kernel, whose semantics predict: {KNOWN}")
    add_own_kernel(system, "store")
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
    add_crew_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """The exit status, after everything was printed; see DETAILS."""
    if arguments.directory is None and not arguments.prove:
        raise BadInputError("DIR: write where the image files go, or --prove")
    console = Screen(highlight=False, markup=False, width=None if sys.stdout.isatty() else LOG_WIDTH)
    options = arguments.cookie, arguments.ip, arguments.sleepable, arguments.session_cookie
    attachings = [
        Attaching(parse_programs(text), *options) for text in dict.fromkeys(arguments.programs or DEFAULT_PROGRAMS)
    ]
    with ExitStack() as stack:
        kernel, semantics = _kernel(arguments.system)
        directory = stack.enter_context(_directory(arguments.directory))
        prover = Prover(stack.enter_context(crew_of(arguments, NICE))) if arguments.prove else None
        guest = stack.enter_context(closing(boot(kernel)))
        dumper = Dumper(guest, kernel.name)
        dump = KernelDump(dumper, semantics, directory, console, prover, keeps=arguments.directory is not None)
        tallies = dump.all(attachings, arguments.functions)
        _tell(console, f"{kernel.name}, release {kernel.release}", dump, tallies)
        if arguments.directory is not None:
            console.print(f"{directory}: {_summarize(dump.files)}", soft_wrap=True)
        return _status(tallies, dump.proofs)


def _kernel(system: str) -> tuple[Kernel, Semantics]:
    """A kernel, and whose rules it follows: those nearest to it, if it is the user's own."""
    if system in KERNELS:
        return fetch(system), semantics_named(system)
    if not system.startswith(OWN_KERNEL):
        raise BadInputError(f"--system {system}: write {KNOWN}")
    kernel = from_files(*own_files(system))
    return kernel, tell_nearest(kernel)


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


def _tell(console: Console, title: str, dump: KernelDump, tallies: Sequence[DumpTally]) -> None:
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
