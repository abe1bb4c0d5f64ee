"""The verb `campaign`: the work of another verb on many machines, as long as it takes, and as often as it is begun."""

from __future__ import annotations

import argparse
import importlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console

from properties.hunt.exploring import Explored, explore
from properties.hunt.units import SearchUnit
from properties.report.grid import Column, Grid, Line
from properties.report.results import CheckResult, CheckVerdict, Finished
from properties.report.show import Screen, print_line, rich_table
from properties.report.writing import make_directory, write_whole
from properties.verbs import explore as explore_verb
from properties.verbs.options import add_crew_options, join_or_start, seconds
from properties.verbs.publishing import publish_run
from properties.work.remembering import Remembering
from spec.errors import BadInputError
from spec.reading import encode, load
from spec.seeds import print_seed

__all__ = ["TAKES_A_VERB", "add_arguments", "run"]

TAKES_A_VERB: Final = True
VERBS: Final = ("explore", "prove", "verify")
MOST_BYTES: Final = 1 << 20
TITLE, RECORD = "massattach campaign", "campaign.json"
DETAILS = """
VERB is explore, prove or verify, with its own options. Of explore every finding of the budget is kept, not only the
first; of prove and verify no unit is done twice. What units gave is in DIR/units, findings are in DIR/seeds, one file
for each shrunk seed. The same command goes on where the last one was ended, however that was.

Without --scheduler a cluster of dask is started here, with a process for each processor; with it the workers of that
cluster do the work: see docs/campaign.md.

Exit status: that of VERB.
"""


@dataclass(frozen=True, slots=True)
class Begun:
    """What DIR/begun.json says: the verb and its options, and the random seed where none was given."""

    words: tuple[str, ...]
    random_seed: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `campaign`."""
    parser.epilog = DETAILS
    option = parser.add_argument
    option("--budget", type=seconds, default=3600.0, metavar="SECONDS", help="to explore for (default: %(default)g)")
    directory = "where units and findings are kept (default: %(default)s)"
    option("--save", type=Path, default=Path("build/campaign"), metavar="DIR", help=directory)
    add_crew_options(parser)
    option("verb", choices=VERBS, metavar="VERB", help="whose work it is")
    option("words", nargs=argparse.REMAINDER, metavar="...", help="its options")


def run(arguments: argparse.Namespace) -> int:
    """Do the verb's work; its exit status."""
    console = Screen(highlight=False)
    module = importlib.import_module(f"properties.verbs.{arguments.verb}")
    parser = argparse.ArgumentParser(prog=f"python -m properties campaign {arguments.verb}")
    module.add_arguments(parser)
    given = parser.parse_args(arguments.words)
    begun = _begin(arguments.save, (arguments.verb, *arguments.words))
    with Remembering(join_or_start(arguments, partial(print_line, console)), arguments.save / "units") as crew:
        if arguments.verb == "explore":
            status = _explore(given, arguments, begun, crew, console)
        else:
            given.crew = crew
            status = module.run(given)
    told = f"{crew.kept:,} units were done, {crew.known:,} were known; they are in {arguments.save}"
    print_line(console, told)
    return status


def _begin(directory: Path, words: tuple[str, ...]) -> Begun:
    """Write down what the campaign is, or read it if it has begun before; BadInputError if that was another one."""
    path = directory / "begun.json"
    if path.exists():
        begun = load(path, Begun, MOST_BYTES)
        if begun.words != words:
            raise BadInputError(f"has the campaign '{' '.join(begun.words)}': give it another --save", str(directory))
        return begun
    begun = Begun(words, secrets.randbelow(1 << 32))
    make_directory(directory)
    write_whole(encode(begun), path)
    return begun


def _explore(
    given: argparse.Namespace, arguments: argparse.Namespace, begun: Begun, crew: Remembering, console: Console
) -> int:
    """Explore for the whole budget, and keep every finding."""
    given.random_seed = begun.random_seed if given.random_seed is None else given.random_seed
    given.save = arguments.save / "seeds"
    settings = explore_verb.list_settings(given)
    print_line(console, f"campaign: world {given.world}, random seed {given.random_seed}, {arguments.budget:g} s")
    with explore_verb.telling(console) as tell:
        explored = explore(settings, crew, arguments.budget, tell, stops=False)
    for tally in explored.tallies.values():
        console.print(rich_table(tally.table()))
    places = explore_verb.save_all(explored, given)
    if places:
        console.print(rich_table(_tabulate(explored, places)))
    for number, lost in sorted(explored.lost.items()):
        if not lost.journal:
            print_line(console, f"unit {number} was lost: {lost.told}")
    print_line(console, f"{len(set(places.values()))} findings in {explored.steps:,} operations")
    publish_run(TITLE, _list_finished(explored, settings, arguments.budget), arguments.save / RECORD, console)
    return explore_verb.FOUND if places else explore_verb.FAILED if explored.lost else 0


def _list_finished(explored: Explored, settings: Sequence[SearchUnit], seconds: float) -> list[Finished]:
    """The searches of each semantics as a property, for the report."""
    units = {unit.semantics: unit for unit in settings}
    return [
        Finished(f"random sequences agree: {unit.world}, {name}", _result(explored, name), seconds)
        for name, unit in units.items()
    ]


def _result(explored: Explored, semantics: str) -> CheckResult:
    tally = explored.tallies[semantics]
    found = [finding.found for finding in explored.findings.values()]
    own = {print_seed(one.seed): one for one in found if one.seed.semantics == semantics}
    verdict = CheckVerdict.FELL if own else CheckVerdict.HOLDS if tally.steps else CheckVerdict.NOT_RUN
    detail = "\n\n".join(f"{one.divergence}\n\n{text}" for text, one in own.items())
    told = tuple(one.divergence.told(one.seed) for one in own.values())
    steps = tally.steps
    return CheckResult(verdict, steps, "operations", {}, steps, 0, detail, tally.table(), differences=told)


def _tabulate(explored: Explored, places: dict[int, Path]) -> Grid:
    """One line for each shrunk seed, with how often it was found and what it shows."""
    columns = (
        Column("seed", wrap="fold"),
        Column("found", right=True),
        Column("first unit", right=True),
        Column("shows"),
    )
    return Grid("findings", columns, tuple(_line(explored, places, path) for path in dict.fromkeys(places.values())))


def _line(explored: Explored, places: dict[int, Path], path: Path) -> Line:
    numbers = [number for number, other in places.items() if other == path]
    first = numbers[0]
    finding = explored.findings.get(first)
    shows = str(finding.divergence).partition("\n")[0] if finding else explored.lost[first].told.partition("\n")[0]
    return Line((path.name, str(len(numbers)), str(first), shows))
