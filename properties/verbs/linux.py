"""The verb `linux`: runs real kernels against the model, and shows the rules that each of them confirmed."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from impl import linux
from impl.linux.guest import packages
from impl.linux.guest.configuration import fragment
from properties.kernels import cost
from properties.kernels.checks import Job, Random, debian, job_checks
from properties.kernels.confirmed import known
from properties.kernels.conformance import RANDOM_SEED
from properties.kernels.cost_rows import Costs
from properties.kernels.coverage import write_coverage
from properties.kernels.needs import require_tools
from properties.kernels.tables import as_json, rule_table, summary_table
from properties.report import show
from properties.report.results import Check, CheckResult, Finished, exit_status, summary
from properties.report.running import run_checks
from properties.systems.kernels import laboratory_of, without_own
from properties.systems.naming import KERNELS, OWN_KERNEL, own_files, semantics_named
from properties.verbs.options import seconds
from properties.verbs.own_kernel import tell_nearest
from properties.verbs.publishing import publish_run
from spec.errors import BadInputError

__all__ = ["add_arguments", "run"]

TITLE = "massattach linux"
ALL = "all"
OPERATIONS = 1500
BUDGET = 300.0
BETWEEN_LINES = 10.0
DETAILS = """
A kernel that is not in the cache is fetched from the Debian mirrors of this machine's apt. Of a kernel of your own the
functions are our modules' alone; without --semantics the preset that shares most features, found by trying, is taken.

Exit status: 0 every kernel agrees with the model and confirms what it did before, 1 one does not, 2 one could not run
or the input is bad.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `linux`."""
    parser.epilog = DETAILS
    option = parser.add_argument
    option("--kernel", action="append", choices=(*KERNELS, ALL), help="Debian's; may be repeated (default: all)")
    option("--bzimage", type=Path, metavar="FILE", help="a kernel of your own: a bzImage, or a vmlinux")
    option("--system", type=_own, dest="own", metavar="bzimage:FILE[,MODULES]", help="the same in one word")
    option("--modules", type=Path, metavar="DIR", help="its lib/modules/RELEASE, if it needs modules to boot")
    option("--semantics", choices=KERNELS, help="whose rules the kernel of your own follows")
    option("--operations", type=_count, default=OPERATIONS, metavar="N", help="random ones (default: %(default)d)")
    option(
        "--budget",
        type=seconds,
        default=BUDGET,
        metavar="SECONDS",
        help="for the random operations of a kernel, and again for shrinking what a check finds (default: %(default)g)",
    )
    option("--random-seed", type=int, default=RANDOM_SEED, metavar="N", help="of random runs (default: %(default)d)")
    option("--save", type=Path, default=Path("build/seeds"), metavar="DIR", help="for findings (default: %(default)s)")
    option("--cost", action="store_true", help="count what attaching to many functions costs, too: some minutes")
    option(
        "--coverage",
        type=Path,
        metavar="FILE",
        help="note which blocks of the kernel's own code each run executes, and write them as JSON",
    )
    option(
        "--config",
        nargs="?",
        const="plain",
        choices=("plain", "debug"),
        help="print a fragment that configures a kernel that will do, or one with sanitizers and faults, and no more",
    )
    option("--fetch", action="store_true", help="fetch the kernels into the cache, and do nothing else")
    option(
        "--junit",
        type=Path,
        default=Path("build/linux.xml"),
        metavar="FILE",
        help="JUnit XML; the text report goes beside it as .txt, and JSON as .json (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the checks and return 0, 1 or 2 (`exit_status`)."""
    if arguments.config:
        print(fragment(debug=arguments.config == "debug"), end="")
        return 0
    if arguments.own:
        arguments.bzimage, arguments.modules = arguments.own
    _check_options(arguments)
    names = _choose(arguments)
    if arguments.fetch:
        return _fetch(names)
    require_tools()
    console = show.Screen(width=show.log_width())
    random = Random(arguments.operations, arguments.budget, arguments.random_seed, arguments.save)
    jobs = [_make_job(arguments, console)] if arguments.bzimage else [debian(name) for name in names]
    progress = _Progress(console)
    for job in jobs:
        job.covers = arguments.coverage is not None
        job.tell = progress
    checks = [check for job in jobs for check in job_checks(job, random)]
    costs = _Costs(names, console)
    if arguments.cost:
        checks.append(Check("grace periods are counted as the model counts them", costs.measure))
    done = run_checks(checks, console)
    _report(jobs, done, costs, arguments.junit, console)
    if arguments.coverage:
        write_coverage({job.name: known for job in jobs if (known := job.coverage)}, arguments.coverage)
        show.print_line(console, f"What each run executed: {arguments.coverage}")
    return exit_status(done)


@dataclass(slots=True)
class _Progress:
    """Prints what is being done: the first line at once, and later ones so many seconds apart. State: the next time."""

    console: Console
    due: float = 0.0

    def __call__(self, line: str) -> None:
        if time.monotonic() >= self.due:
            show.print_line(self.console, line)
            self.due = time.monotonic() + BETWEEN_LINES


@dataclass(slots=True)
class _Costs:
    """Measures what attaching costs on these kernels. State: the costs, once they were measured."""

    kernels: Sequence[str]
    console: Console
    measured: Costs | None = None

    def measure(self) -> CheckResult:
        linux.close()
        self.measured = cost.run(self.kernels, self.console)
        rows, details = len(self.measured.rows), "\n".join(self.measured.details)
        return CheckResult(self.measured.verdict, rows, "ways", detail=details)


def _check_options(arguments: argparse.Namespace) -> None:
    """BadInputError if options of a kernel of the user's and options of Debian's kernels are mixed."""
    if arguments.coverage and arguments.fetch:
        raise BadInputError("--coverage notes what runs execute, and --fetch makes none: leave one out")
    if arguments.bzimage is None:
        given = [f"--{name}" for name in ("modules", "semantics") if getattr(arguments, name) is not None]
        if given:
            raise BadInputError(f"{' and '.join(given)} belong to a kernel of your own: write --bzimage FILE, too")
        return
    given = [f"--{name}" for name in ("kernel", "cost", "fetch") if getattr(arguments, name)]
    if given:
        raise BadInputError(f"{' and '.join(given)} are for Debian's kernels: leave --bzimage out")


def _choose(arguments: argparse.Namespace) -> tuple[str, ...]:
    chosen = arguments.kernel or [ALL]
    return KERNELS if ALL in chosen else tuple(dict.fromkeys(chosen))


def _fetch(names: Sequence[str]) -> int:
    for name in names:
        print(f"{name}: release {packages.fetch(name).release} is in the cache")
    return 0


def _make_job(arguments: argparse.Namespace, console: Console) -> Job:
    """The job of the user's own kernel; a line says whose rules it follows."""
    tell = partial(show.print_line, console)
    kernel = linux.own(arguments.bzimage, arguments.modules)
    if arguments.semantics:
        semantics = semantics_named(arguments.semantics)
        tell(f"{kernel.name}, release {kernel.release}: semantics {semantics.name}, as was said")
    else:
        semantics = tell_nearest(kernel, tell)
    return Job(kernel.name, lambda: kernel, semantics, without_own(laboratory_of(semantics)), known()[semantics.name])


def _report(jobs: Sequence[Job], done: Sequence[Finished], costs: _Costs, junit: Path, console: Console) -> None:
    """Print tables and summary, and write everything into three files."""
    evidences = [evidence for job in jobs if (evidence := job.evidence)]
    console.print(show.rich_table(show.table(done, TITLE)))
    short = summary_table(evidences)
    console.print(show.rich_table(short))
    wide = [_text_of(costs.measured)] if costs.measured else []
    for line in (*wide, summary(done)):
        show.print_line(console, line)
    text, data = junit.with_suffix(".txt"), junit.with_suffix(".json")
    notes = [f"{evidence.kernel}: left out in {line}" for evidence in evidences for line in evidence.left]
    show.write_reports(done, junit, text, title=TITLE, notes=[*notes, *wide], tables=[short, rule_table(evidences)])
    document = {**as_json(evidences), "costs": costs.measured.json() if costs.measured else []}
    show.print_line(console, f"Reports: {text}, {data} and {junit}")
    publish_run(TITLE, done, data, console, notes=notes, document=document)


def _text_of(costs: Costs) -> str:
    """The table of costs, which is wider than a log's lines are, and a line for each row that does not hold."""
    return show.text_of(costs.table(), show.LOG_WIDTH + 60) + "".join(f"{line}\n" for line in costs.details)


def _own(text: str) -> tuple[Path, Path | None]:
    if not text.startswith(OWN_KERNEL):
        raise argparse.ArgumentTypeError(f"'{text}' is no kernel of your own: write {OWN_KERNEL}FILE, or --kernel")
    return own_files(text)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is no number of operations: write 0 or more")
    return int(text)
