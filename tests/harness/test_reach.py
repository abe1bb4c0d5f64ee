"""A search that never gets anywhere proves nothing: the fixed runs reach everything, and the random ones nearly so."""

from __future__ import annotations

import pytest
from hypothesis import Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from rich.console import Console

from impl.batched import per_function
from properties.hunt.machines import machine_for
from properties.lockstep.coverage import Tally
from properties.report.show import rich_table
from properties.runs.reach import reach
from spec.answers import answers
from spec.semantics import PRESETS, Semantics
from spec.system import SystemFactory
from spec.worlds import synthetic

LEAST_ROUNDS = 7
ROUND = 10
"""Examples. Later ones of a run are mutants of earlier ones, which reach less."""


@pytest.mark.parametrize("semantics", PRESETS.values(), ids=list(PRESETS))
def test_fixed_runs_reach_every_answer_and_every_rule(
    semantics: Semantics, factories: list[SystemFactory], capsys: pytest.CaptureFixture[str]
) -> None:
    """Directed runs, sweep and seeds leave no operation, errno or rule of the preset at zero, and nothing diverges."""
    reached = reach(semantics, factories)
    with capsys.disabled():
        Console(width=140).print(rich_table(reached.tally.table()))

    assert str(reached) == ""
    assert reached.holds


@pytest.mark.parametrize("semantics", PRESETS.values(), ids=list(PRESETS))
def test_random_sequences_agree(semantics: Semantics, factories: list[SystemFactory]) -> None:
    """Random sequences at every sharing level agree with the model, are undone, and reach most of the answers."""
    tally = Tally(semantics)
    machine = machine_for(synthetic(), semantics, factories, tally)
    profile = settings(machine.TestCase.settings, max_examples=ROUND, phases=(Phase.generate, Phase.shrink))
    for number in range(max(LEAST_ROUNDS, settings().max_examples // (2 * ROUND))):
        run_state_machine_as_test(seed(number)(machine), settings=profile)
    possible = answers(semantics, synthetic())
    reached = [answer for verb, each in possible.items() for answer in each if tally.outcomes[verb, answer]]

    assert len(reached) > 0.5 * sum(map(len, possible.values()))
    assert tally.verbs_at_zero() == ()


def test_what_is_not_reached_is_told() -> None:
    """Without runs, everything is named."""
    semantics = PRESETS["linux-6.1"]
    tally = Tally(semantics)

    assert {"OPS-1", "DIRECT-2"} <= set(tally.rules_at_zero())
    assert "ftrace_ops" in tally.verbs_at_zero()
    assert reach(semantics, [per_function]).runs > 100
