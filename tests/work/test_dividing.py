"""Checks that are divided: each takes the units that it wants, and one that is lost lets its check fall alone."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from itertools import count

from rich.console import Console

from properties.report.dividing import Divided, run_divided, sole
from properties.report.results import CheckResult, CheckVerdict, Finished
from properties.work.crew import Crew
from properties.work.units import Done, Outcome
from tests.support.work_units import Double, Failing


def added(outcomes: Sequence[Outcome]) -> CheckResult:
    """Holds, for the sum of what came; the cases are the units."""
    values = [outcome.value for outcome in outcomes if isinstance(outcome, Done)]
    detail = str(sum(value.number for value in values))
    verdict = CheckVerdict.HOLDS if len(values) == len(outcomes) else CheckVerdict.FELL
    return CheckResult(verdict, len(outcomes), "units", detail=detail)


def divided(*checks: Divided, jobs: int = 2) -> list[Finished]:
    with Crew.here(jobs) as crew:
        return run_divided(checks, crew, Console(file=StringIO()))


def test_checks_are_done_in_their_order() -> None:
    """However their units come back, each check has its own, and the results stand in the order of the checks."""
    first = Divided("first", [Double(1, 1.0)], added)
    second = Divided("second", [Double(number) for number in range(9)], added)
    done = divided(first, second)

    assert ["first", "second"] == [finished.name for finished in done]
    assert ["2", "72"] == [finished.result.detail for finished in done]
    assert [1, 9] == [finished.result.cases for finished in done]
    assert done[0].seconds >= 1.0


def test_an_endless_check_takes_its_time() -> None:
    """Units are taken until they have worked for so many seconds in all, whoever does them."""
    for jobs in (1, 2):
        endless = Divided("endless", (Double(number, 0.2) for number in count()), added, seconds=1.0)
        (done,) = divided(endless, jobs=jobs)

        assert 4 <= done.result.cases <= 6
        assert 0.9 < done.seconds < 2.0


def test_a_lost_unit_is_its_checks() -> None:
    """A check whose only unit is lost was not run, one with others says so itself; no more of its units are taken."""
    dying = Divided("dying", [Failing("exits")], sole)
    raising = Divided("raising", [Failing("raises"), *(Double(number) for number in range(50))], added)
    good = Divided("good", [Double(4)], added)
    done = divided(dying, raising, good)

    assert [CheckVerdict.NOT_RUN, CheckVerdict.FELL, CheckVerdict.HOLDS] == [each.result.verdict for each in done]
    assert "its process ended with status 7" in done[0].result.detail
    assert done[1].result.cases < 10
