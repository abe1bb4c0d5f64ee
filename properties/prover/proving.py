"""prove(image, goal): the one way in. A verdict is proved, refuted by an execution, or undecided; never a guess."""

from __future__ import annotations

from properties.prover.architecture import Architecture
from properties.prover.claims import Claimant, claim_of
from properties.prover.confirm import confirm
from properties.prover.decider import RefutedError
from properties.prover.executor import Executor, UndecidedError
from properties.prover.goal import Goal
from properties.prover.image import Image
from properties.prover.terms import forget
from properties.prover.verdicts import Counterexample, Figures, Outcome, Verdict
from properties.prover.x86_64 import X86_64
from properties.prover.z3_backend import UnknownError

__all__ = ["prove"]


def prove(
    image: Image, goal: Goal | Claimant, *, thorough: bool = False, architecture: Architecture = X86_64
) -> Verdict:
    """Proves that an image meets a goal, on every path and for all values.

    thorough: z3 decides every obligation, those that are plain as well. A counterexample is executed before it is
    believed; one that does not show what it should is a bug of the prover, and the verdict is undecided. Where an
    instruction without a model is reached, an execution may still refute, but nothing can prove.
    """
    forget()
    executor = Executor(image, claim_of(image, goal, architecture), architecture, thorough=thorough)
    try:
        executor.run()
    except RefutedError as error:
        return _refute(executor, error, confirm(image, goal, architecture, executor.bindings, error.model))
    except UndecidedError as error:
        executed = None
        if error.model is not None:
            executed = confirm(image, goal, architecture, executor.bindings, error.model, suspect=executor.at)
        if isinstance(executed, Counterexample):
            return _conclude("refuted", executor, executed)
        return _conclude("undecided", executor, reason=str(error))
    except UnknownError as error:
        return _conclude("undecided", executor, reason=str(error))
    return _conclude("proved", executor)


def _refute(executor: Executor, error: RefutedError, executed: Counterexample | str) -> Verdict:
    if isinstance(executed, Counterexample) and executed.obligation == error.obligation:
        return _conclude("refuted", executor, executed)
    instead = executed if isinstance(executed, str) else f"'{executed.obligation}' is broken"
    reason = (
        f"a bug of the prover: '{error.obligation}' should not hold at {executor.at:#x}, but in execution {instead}"
    )
    return _conclude("undecided", executor, reason=reason)


def _conclude(
    outcome: Outcome, executor: Executor, counterexample: Counterexample | None = None, reason: str | None = None
) -> Verdict:
    decider = executor.decider
    figures = Figures(
        decider.plain,
        decider.solver.asked,
        executor.left,
        executor.instructions,
        len(executor.stands),
        len(executor.stands & executor.places),
    )
    return Verdict(outcome, dict(decider.obligations), figures, executor.bindings, counterexample, reason)
