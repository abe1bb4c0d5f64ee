"""The machines run every concept, find what is planted, shrink it, and the directed runs reach what they are for."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from impl import batched
from properties.hunt.machines import LockstepMachine, machine_for
from properties.hunt.strategies import argument_words, mutated, operations, presets, prototypes, worlds
from properties.lockstep.coverage import Tally, lacking, rule_ids
from properties.lockstep.divergence import DivergenceError
from properties.lockstep.lockstep import Lockstep
from properties.runs.corpus import FixedRun, seeds
from properties.runs.directed import directed
from spec.alphabet import alphabet
from spec.operations import Call, FtraceOps, Operation
from spec.seeds import Step, parse_operation, print_operation
from spec.semantics import PRESETS, Semantics
from spec.worlds import World, synthetic
from tests.support import lockstep_fakes as fakes

LEVELS = [batched.per_function, batched.per_shape, batched.generic]
RUNS = [(facts, run) for facts in PRESETS.values() for run in (*directed(facts), *seeds(facts))]


def machine_rounds(machine: type[LockstepMachine], rounds: int) -> None:
    for number in range(rounds):
        machine_run(machine, Phase.generate, examples=10, random_seed=number)


def machine_run(
    machine: type[LockstepMachine],
    *phases: Phase,
    examples: int = 150,
    steps: int = 40,
    random_seed: int = 1,
) -> None:
    limits = settings(
        max_examples=examples,
        stateful_step_count=steps,
        phases=phases or tuple(Phase),
        database=None,
        deadline=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seed(random_seed)(machine), settings=limits)


OF_TASKS = re.compile(r"TASK-\d+|NAME-1[3-7]|POKE-4")
"""Rules that only the machine of schedules reaches."""


@pytest.mark.parametrize("semantics", PRESETS.values(), ids=list(PRESETS))
def test_machines_run_all_that_the_semantics_have(semantics: Semantics) -> None:
    """The model against itself never diverges, can always be undone, and every operation succeeds at some time."""
    tally = Tally(semantics)
    machine_rounds(machine_for(synthetic(), semantics, [fakes.Honest], tally), 14)

    assert tally.verbs_at_zero() == ()
    # No function of the small world has an empty body (TRACE-7).
    assert len([rule for rule in tally.rules_at_zero() if not OF_TASKS.fullmatch(rule) and rule != "TRACE-7"]) < 20
    assert tally.steps > 2000


def test_a_machine_draws_only_what_the_systems_support() -> None:
    """A system that has two operations is driven with these, and calls are left out too."""

    class Small(fakes.Honest):
        def __init__(self, world: World, semantics: Semantics) -> None:
            super().__init__(world, semantics)
            self.supports = frozenset({FtraceOps, type(parse_operation("register_ftrace_function o1"))})

    tally = Tally(PRESETS["linux-6.12"])
    machine_rounds(machine_for(synthetic(), tally.semantics, [Small], tally), 2)

    assert {verb for verb, _ in tally.outcomes} <= {"ftrace_ops", "register_ftrace_function"}


@pytest.mark.slow
def test_hypothesis_shrinks_a_machine() -> None:
    """A machine's failing example ends at the planted flaw, after few steps."""
    seen: list[list[Step]] = []

    class Watched(machine_for(synthetic(), PRESETS["linux-6.12"], [fakes.WrongOutcome])):
        def teardown(self) -> None:
            super().teardown()
            if self.failed:
                seen.append(list(self.lockstep.history))

    with pytest.raises(DivergenceError, match="honest diverges in outcome") as caught:
        machine_run(Watched, steps=10)

    assert "register_ftrace_function" in caught.value.divergence.step
    assert 6 >= len(seen[-1])


@given(data=st.data(), semantics=presets())
def test_operations_are_seed_lines(data: st.DataObject, semantics: Semantics) -> None:
    """Whatever is drawn is in the alphabet, can be printed and parsed back, and can be taken as a step."""
    supports = alphabet(semantics)
    lockstep = Lockstep(synthetic(), semantics, [])
    for _ in range(6):
        operation: Operation = data.draw(operations(lockstep.inventory, semantics, supports))

        assert type(operation) in supports
        assert operation == parse_operation(print_operation(operation))
        if not isinstance(operation, Call) or lockstep.inventory.may_call(operation.function):
            assert lockstep.step(Step(operation)).divergences == ()


@given(world=worlds(), data=st.data())
def test_random_worlds_agree(world: World, data: st.DataObject) -> None:
    """In worlds of random prototypes and attributes every sharing level agrees with the model, calls included."""
    semantics = data.draw(presets())
    lockstep = Lockstep(world, semantics, LEVELS)
    for _ in range(8):
        operation = data.draw(operations(lockstep.inventory, semantics, alphabet(semantics)))
        if not isinstance(operation, Call) or lockstep.inventory.may_call(operation.function):
            assert lockstep.step(Step(operation)).divergences == ()
    for function in world.functions:
        if lockstep.inventory.may_call(function.name):
            count = len(function.prototype.slots) if function.prototype else 0
            words = data.draw(st.lists(argument_words(), min_size=count, max_size=count))
            assert lockstep.step(Step(Call(function.name, tuple(words)))).divergences == ()


@given(world=worlds())
def test_random_worlds_are_worlds(world: World) -> None:
    """Names are unique, and callees exist."""
    assert len(world.functions) == len(world.by_name)
    assert all(callee.function in world.by_name for function in world.functions for callee in function.callees)


@given(prototype=prototypes(), word=argument_words())
def test_prototypes_have_slots(prototype: object, word: int) -> None:
    """Any word can be given to any prototype."""
    words = prototype.words((word,) * len(prototype.slots))

    assert all(0 <= given < 1 << (8 * slot.size) for given, slot in zip(words, prototype.slots, strict=True))


@given(text=mutated("world synthetic\nsemantics linux-6.1\n---\nftrace_ops o1\n"))
def test_mutated_texts_are_texts(text: str) -> None:
    """A mutated text can be written to a file."""
    assert text == text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogatepass")


@pytest.mark.parametrize(("semantics", "run"), RUNS, ids=[f"{one.name}-{run.name}" for one, run in RUNS])
def test_directed_runs_reach_what_they_are_for(semantics: Semantics, run: FixedRun) -> None:
    """Every expectation of a directed run, or of a seed of the corpus, holds, and it can be undone."""
    lockstep = Lockstep(run.world, semantics, [])

    assert lockstep.run(run.seed.steps) == ()
    assert lockstep.undo() == ()


@pytest.mark.parametrize("semantics", PRESETS.values(), ids=list(PRESETS))
def test_rules_that_a_preset_lacks_are_rules(semantics: Semantics) -> None:
    """The table of exemptions names existing rules, and each preset has at least three quarters of all."""
    assert lacking(semantics) <= set(rule_ids())
    assert 4 * len(lacking(semantics)) < len(rule_ids())


def test_a_tally_adds_runs_up() -> None:
    """Counts of two runs add up, and what neither did is told."""
    first = Tally(PRESETS["linux-6.1"])
    first.count(FtraceOps("o1"), "0")
    first.add_rules({"OPS-1": 1})
    first.count(FtraceOps("o1"), "-EEXIST")
    first.add_rules({"OPS-1": 2, "NAME-1": 1})

    assert (2, 3, 1) == (first.steps, first.rules["OPS-1"], first.rules["NAME-1"])
    assert "ftrace_ops" not in first.verbs_at_zero()
    assert "register_ftrace_direct" in first.verbs_at_zero()
    assert "update_ftrace_direct_add" not in first.verbs_at_zero()
    assert {"OPS-1", "DIRECT-10"}.isdisjoint(first.rules_at_zero())


@pytest.mark.slow
def test_random_search_reaches_the_limit() -> None:
    """Filling a function to its limit is part of the random search."""
    tally = Tally(PRESETS["linux-6.12"])
    machine_rounds(machine_for(synthetic(), tally.semantics, [], tally), 40)

    assert tally.outcomes["bpf_raw_tracepoint_open", "-E2BIG"] > 0
