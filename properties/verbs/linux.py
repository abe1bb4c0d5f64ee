"""The verb `linux`: real kernels in a virtual machine against the model, then the rules that each of them confirmed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from impl import linux
from impl.linux.guest import packages
from properties.kernels import cost
from properties.kernels.checks import Job, Random, debian, job_checks
from properties.kernels.confirmed import known
from properties.kernels.conformance import RANDOM_SEED
from properties.kernels.nearest import nearest
from properties.kernels.needs import require_tools
from properties.report import report
from properties.report.cost_table import Costs
from properties.report.report import Check, CheckResult, Finished
from properties.report.rule_table import as_json, rule_table, summary_table
from properties.systems.kernels import laboratory_of, without_own
from properties.systems.naming import KERNELS, semantics_named
from properties.verbs.explore import seconds
from spec.errors import BadInputError

__all__ = ["SUMMARY", "add_arguments", "run"]

SUMMARY = "run real kernels against the model, and tell which rules each confirmed"
TITLE = "massattach linux"
ALL = "all"
OPERATIONS = 1500
BUDGET = 300.0
DETAILS = """
A kernel that is not in the cache is fetched from the Debian mirrors of this machine's apt. Of a kernel of your own the
functions are our modules' alone; without --semantics the preset that shares most features, found by trying, is taken.

Exit status: 0 every kernel agrees with the model and confirms what it did before, 1 one does not, 2 one could not run
or the input is bad.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `linux`."""
    parser.epilog = DETAILS
    option = parser.add_argument
    option("--kernel", action="append", choices=(*KERNELS, ALL), help="Debian's; may be repeated (default: all)")
    option("--bzimage", type=Path, metavar="FILE", help="a kernel of your own: a bzImage, or a vmlinux")
    option("--modules", type=Path, metavar="DIR", help="its lib/modules/RELEASE, if it needs modules to boot")
    option("--semantics", choices=KERNELS, help="whose rules the kernel of your own follows")
    option("--operations", type=_count, default=OPERATIONS, metavar="N", help="random ones (default: %(default)d)")
    option(
        "--budget",
        type=seconds,
        default=BUDGET,
        metavar="SECONDS",
        help="for the random operations of a kernel, and again for shrinking (default: %(default)g)",
    )
    option("--random-seed", type=int, default=RANDOM_SEED, metavar="N", help="of random runs (default: %(default)d)")
    option("--save", type=Path, default=Path("build/seeds"), metavar="DIR", help="for findings (default: %(default)s)")
    option("--cost", action="store_true", help="count what attaching to many functions costs, too: some minutes")
    option("--fetch", action="store_true", help="fetch the kernels into the cache, and do nothing else")
    option(
        "--junit",
        type=Path,
        default=Path("build/linux.xml"),
        metavar="FILE",
        help="JUnit XML; the text report goes beside it as .txt, and JSON as .json (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the checks and returns 0, 1 or 2 (`report.exit_status`)."""
    _consistent(arguments)
    names = _names(arguments)
    if arguments.fetch:
        return _fetch(names)
    require_tools()
    console = Console(width=None if sys.stdout.isatty() else report.LOG_WIDTH)
    random = Random(arguments.operations, arguments.budget, arguments.random_seed, arguments.save)
    jobs = [_own(arguments, console)] if arguments.bzimage else [debian(name) for name in names]
    checks = [check for job in jobs for check in job_checks(job, random)]
    costs = _Costs(names, console)
    if arguments.cost:
        checks.append(Check("grace periods are counted as the model counts them", costs.measure))
    done = report.run_checks(checks, console)
    _tell(jobs, done, costs, arguments.junit, console)
    return report.exit_status(done)


@dataclass(slots=True)
class _Costs:
    """What attaching costs on these kernels, once it was measured."""

    kernels: Sequence[str]
    console: Console
    measured: Costs | None = None

    def measure(self) -> CheckResult:
        linux.close()
        self.measured = cost.run(self.kernels, self.console)
        rows, details = len(self.measured.rows), "\n".join(self.measured.details)
        return CheckResult(self.measured.verdict, rows, "ways", detail=details)


def _consistent(arguments: argparse.Namespace) -> None:
    """Options of a kernel of one's own, and of Debian's, do not go together."""
    if arguments.bzimage is None:
        given = [f"--{name}" for name in ("modules", "semantics") if getattr(arguments, name) is not None]
        if given:
            raise BadInputError(f"{' and '.join(given)} belong to a kernel of your own: write --bzimage FILE, too")
        return
    given = [f"--{name}" for name in ("kernel", "cost", "fetch") if getattr(arguments, name)]
    if given:
        raise BadInputError(f"{' and '.join(given)} are for Debian's kernels: leave --bzimage out")


def _names(arguments: argparse.Namespace) -> tuple[str, ...]:
    chosen = arguments.kernel or [ALL]
    return KERNELS if ALL in chosen else tuple(dict.fromkeys(chosen))


def _fetch(names: Sequence[str]) -> int:
    for name in names:
        print(f"{name}: release {packages.fetch(name).release} is in the cache")
    return 0


def _own(arguments: argparse.Namespace, console: Console) -> Job:
    """A developer's kernel; whose rules it follows is told."""
    kernel = packages.from_files(arguments.bzimage, arguments.modules)
    if kernel.headers is None:
        how = "give the bzImage where it was built, or --modules lib/modules/RELEASE with its link `build`"
        raise BadInputError(f"where it was built, for modules to be compiled against, is not known: {how}", kernel.name)
    if arguments.semantics:
        semantics, why = semantics_named(arguments.semantics), "as was said"
    else:
        found = nearest(kernel)
        semantics, why = found.semantics, str(found)
    line = f"{kernel.name}, release {kernel.release}: semantics {semantics.name}, {why}"
    console.print(line, highlight=False, markup=False, soft_wrap=True)
    return Job(kernel.name, lambda: kernel, semantics, without_own(laboratory_of(semantics)), known()[semantics.name])


def _tell(jobs: Sequence[Job], done: Sequence[Finished], costs: _Costs, junit: Path, console: Console) -> None:
    """Tables and summary on the console, and everything in three files."""
    evidences = [evidence for job in jobs if (evidence := job.evidence)]
    console.print(report.table(done, TITLE))
    short = summary_table(evidences)
    console.print(short)
    # It is wider than a log's lines are.
    wide = [costs.measured.text()] if costs.measured else []
    for line in (*wide, report.summary(done)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    text, data = junit.with_suffix(".txt"), junit.with_suffix(".json")
    notes = [f"{evidence.kernel}: left out in {line}" for evidence in evidences for line in evidence.left]
    tables = [short, rule_table(evidences)]
    report.write_reports(done, junit, text, title=TITLE, notes=[*notes, *wide], tables=tables)
    document = {**as_json(evidences), "costs": costs.measured.json() if costs.measured else []}
    data.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    console.print(f"Reports: {text}, {data} and {junit}", highlight=False, markup=False, soft_wrap=True)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is no number of operations: write 0 or more")
    return int(text)
