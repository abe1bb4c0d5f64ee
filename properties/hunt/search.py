"""The search for a divergence: rounds of examples until the time is up or something is found, which is then shrunk.

A small world is searched by the machines' sequences, a population by plans of wildcard attaches. Beside the synthetic
world some rounds are in the large one, where what counts, sorts or looks up functions has many of them.

Most flaws show soon, where few things meet often, and such examples cost least; so a search begins with them alone.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import cycle
from typing import NoReturn

import hypothesis
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from properties.hunt.findings import Found
from properties.hunt.machines import STEPS, LockstepMachine, generating, machine_for
from properties.hunt.shrink import shrink_finding
from properties.hunt.strategies import plans
from properties.lockstep.coverage import Tally
from properties.lockstep.divergence import Divergence
from properties.lockstep.journal import Journal
from properties.lockstep.lockstep import Lockstep, Witness
from properties.lockstep.runners import Reference, reference
from spec.operations import Operation
from spec.seeds import Step
from spec.semantics import Semantics
from spec.system import SystemFactory
from spec.worlds import World, large, synthetic

__all__ = ["Search", "WildcardSearch", "beside", "search", "search_in_turn"]

# From the eleventh example of a run on Hypothesis mutates; rounds of new examples find flaws in half the steps. Of ten
# that it is to make, one would be as simple as can be behind its first choices.
ROUND = 9
LARGE_ROUNDS = 4
"""Behind the narrow beginning, one round in so many is in the large world."""

NARROW_OPERATIONS = 1_500
"""Until a search has had so many, its examples are narrow and in the small world."""

INTERLEAVED_ROUNDS = 3
"""One round in so many interleaves operations with tasks, of systems that do; the others are what they are without."""

SHORT_ROUNDS = 4
"""These rounds have examples of a quarter of the length, and are as many in one.

What tasks meet needs few operations, and is found by as many; but a kernel shows it sooner again in few.
"""

# The first example of a round is always the simplest one.
WILDCARD_ROUND = 4
PLAN_LENGTH = 12

SETTLED = 2
"""At the end of one example in so many it is looked what is left over, which takes a kernel as long as five steps."""


class _StopError(BaseException):
    """Leaves a Hypothesis run at once: the time is up, or there is a finding.

    No Exception, so that Hypothesis lets it pass.
    """


class Search:
    """Rounds of sequences for one setting; the n-th round has the n-th derived seed.

    operations: after so many the last example is undone, and then no more are made. large: the world of some rounds.
    before: how many operations others have had in this setting; by default so many that nothing begins narrow.
    rounds_before: how many rounds, where one search alone is too short for one that interleaves. tasks: all do.
    able: the places of systems that have tasks which stand in calls; known from the first example on.

    State: how many rounds, examples and seconds so far, the tally, and the finding that ended the last round.
    """

    def __init__(
        self,
        world: World,
        semantics: Semantics,
        factories: Sequence[SystemFactory],
        random_seed: int,
        *,
        journal: Journal | None = None,
        model: Callable[[World, Semantics], Reference] = reference,
        witness: Witness | None = None,
        operations: float = math.inf,
        large: World | None = None,
        before: float = math.inf,
        rounds_before: int = 0,
        tasks: bool = False,
    ) -> None:
        self.large = large
        self.before = before
        self._rounds_before, self._tasks = rounds_before, tasks
        self.world, self.semantics, self.factories, self.model = world, semantics, tuple(factories), model
        self.journal, self.witness = journal, witness
        self.random_seed = random_seed
        self.tally = Tally(semantics)
        self.examples = self.rounds = self._sequential = 0
        self.able: tuple[int, ...] = ()
        self._seconds = 0.0
        self._stopped = self._passes_over = False
        self._deadline = math.inf
        self._finding: tuple[Divergence, Lockstep] | None = None
        self._operations = operations

    @property
    def calls(self) -> int:
        """Functions called among the operations."""
        return self.tally.outcomes["call", "observed"]

    def round(self, deadline: float, shrink_seconds: float) -> Found | None:
        """One round of examples, left at the deadline, a time.monotonic(); a finding is shrunk within its own."""
        started = time.monotonic()
        self._deadline = deadline
        self.rounds += 1
        self._stopped = False
        try:
            self.take_examples()
        except (_StopError, Flaky):
            # An example left in the middle may look to Hypothesis as if it had changed its mind.
            if not self._stopped:
                raise
        self._seconds += time.monotonic() - started
        return self._shrink(time.monotonic() + shrink_seconds) if self._finding else None

    def take_examples(self) -> None:
        """Let the machine take the sequences of a round."""
        turn = self._rounds_before + self.rounds
        self._passes_over = turn > 1 or 0 < self.before < math.inf
        if (self._tasks or turn % INTERLEAVED_ROUNDS == 0) and self._finds_able():
            number = turn if self._tasks else turn // INTERLEAVED_ROUNDS
            name = f"{self.semantics.name} interleaved"
            for part in range(number * SHORT_ROUNDS, (number + 1) * SHORT_ROUNDS):
                self._take_round(self._interleaved_machine, name, part, STEPS // SHORT_ROUNDS)
                self._passes_over = True
        else:
            self._sequential += 1
            self._take_round(self._choose_machine(), self.semantics.name, self._sequential, STEPS)

    def _take_round(self, machine: type[LockstepMachine], name: str, number: int, steps: int) -> None:
        round_seed = _derive_seed(self.random_seed, name, number)
        run_state_machine_as_test(hypothesis.seed(round_seed)(machine), settings=generating(ROUND, steps))

    def _finds_able(self) -> bool:
        if not self.examples:
            lockstep = Lockstep(self.world, self.semantics, self.factories, model=self.model)
            self.able = lockstep.able
            lockstep.close()
        return bool(self.able)

    def _choose_machine(self) -> type[LockstepMachine]:
        if self.before + self.tally.steps < NARROW_OPERATIONS:
            return self._narrow_machine
        if self.large is not None and (self._sequential + self.random_seed) % LARGE_ROUNDS == 0:
            return self._large_machine
        return self._machine

    def pass_over_simplest(self, machine: LockstepMachine) -> None:
        """Leave the first example of a round, which is always the simplest one, where an earlier round has had it."""
        if self._passes_over:
            self._passes_over, machine.failed = False, True
            self.examples -= 1
            hypothesis.reject()

    def check_time(self) -> None:
        """Leave the run if its deadline is over, or its operations are done."""
        if time.monotonic() >= self._deadline or self.tally.steps >= self._operations:
            self._stop()

    def keep(self, divergence: Divergence, lockstep: Lockstep) -> None:
        """Remember a finding and leave the run."""
        self._finding = divergence, lockstep
        self._stop()

    def _stop(self) -> NoReturn:
        self._stopped = True
        raise _StopError

    @cached_property
    def _machine(self) -> type[LockstepMachine]:
        return self._watch(self.world)

    @cached_property
    def _narrow_machine(self) -> type[LockstepMachine]:
        return self._watch(self.world, all_wide=False)

    @cached_property
    def _large_machine(self) -> type[LockstepMachine]:
        assert self.large is not None
        return self._watch(self.large, self.large.name, all_wide=True)

    @cached_property
    def _interleaved_machine(self) -> type[LockstepMachine]:
        return self._watch(self.world, able=self.able)

    def _watch(
        self,
        world: World,
        journal_world: str | None = None,
        *,
        all_wide: bool | None = None,
        able: tuple[int, ...] = (),
    ) -> type[LockstepMachine]:
        """The machine of this setting, which stops when the time is up or something is found.

        able: the systems that it has alone, as it interleaves operations with tasks.
        """
        search = self
        places = able or tuple(range(len(self.factories)))
        machine = machine_for(
            world,
            self.semantics,
            [self.factories[place] for place in places],
            self.tally,
            journal=self.journal,
            journal_world=journal_world,
            model=self.model,
            witness=self.witness,
            all_wide=all_wide,
            interleaved=bool(able),
        )

        class Watched(machine):  # type: ignore[misc, valid-type]
            def __init__(self) -> None:
                super().__init__()
                search.examples += 1
                self.settles = search.examples % SETTLED == 0
                search.able = able or self.lockstep.able

            def execute(self, operations: tuple[Operation, ...]) -> None:
                search.check_time()
                if operations:
                    # Hypothesis takes an example that nothing was drawn for as the only one that there is.
                    search.pass_over_simplest(self)
                super().execute(operations)

            def report(self, divergences: tuple[Divergence, ...]) -> None:
                if divergences:
                    self.failed = True
                    place = divergences[0].place
                    search.keep(replace(divergences[0], place=places[place] if place >= 0 else place), self.lockstep)

        return Watched

    def _shrink(self, deadline: float) -> Found:
        assert self._finding is not None
        shrunk = shrink_finding(*self._finding, self.factories, deadline, self.model)
        return Found(
            shrunk.seed,
            shrunk.divergence,
            self.tally.steps,
            self.examples,
            self._seconds,
            self.random_seed,
            shrunk.original,
        )


class WildcardSearch(Search):
    """Rounds of plans of wildcard attaches that overlap and go in any order; a round is never left for the time."""

    def take_examples(self) -> None:
        """Take the plans of a round, each in lockstep and undone."""

        @hypothesis.seed(self.random_seed + self.examples)
        @generating(WILDCARD_ROUND)
        @hypothesis.given(plan=plans(self.world, self.semantics, PLAN_LENGTH))
        def follow(plan: tuple[Operation, ...]) -> None:
            self._follow(plan)

        follow()

    def _follow(self, plan: Sequence[Operation]) -> None:
        self.examples += 1
        lockstep = Lockstep(self.world, self.semantics, self.factories, model=self.model, tally=self.tally)
        found = lockstep.run(map(Step, plan)) or lockstep.undo()
        found += lockstep.close()
        if found:
            self.keep(found[0], lockstep)


def search(
    world: World,
    semantics: Semantics,
    factories: Sequence[SystemFactory],
    budget: float,
    random_seed: int = 0,
    *,
    model: Callable[[World, Semantics], Reference] = reference,
) -> Found | None:
    """Search one setting for at most `budget` seconds, and as long again for shrinking; None if nothing was found."""
    searching = Search(world, semantics, factories, random_seed, model=model, large=beside(world), before=0)
    return search_in_turn([searching], budget)


def beside(world: World) -> World | None:
    """The large world that is searched beside the synthetic one; None beside others."""
    return large() if world.name == synthetic().name else None


def search_in_turn(
    searches: Sequence[Search],
    budget: float,
    tell: Callable[[], None] = lambda: None,
) -> Found | None:
    """Rounds of each search in turn, until the budget ends or one finds something; `tell` is called after each."""
    deadline = time.monotonic() + budget
    for each in cycle(searches):
        if time.monotonic() >= deadline:
            return None
        if found := each.round(deadline, budget):
            return found
        tell()
    return None


def _derive_seed(random_seed: int, semantics: str, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{random_seed} {semantics} {number}".encode()).digest()[:8])
