"""explore --exhaustive: every sequence of a small world, as a count by hand has it, and the shortest that diverges."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import product
from pathlib import Path

import pytest

from properties.__main__ import main
from properties.hunt.exhaustive import START, Exhaustion, edges
from properties.lockstep.lockstep import Lockstep
from properties.systems.naming import resolve
from spec.alphabet import INTERLEAVED, alphabet
from spec.operations import Call, Finish, GracePeriod, Operation
from spec.operations import Step as TaskStep
from spec.seeds import Step, parse_seed, read_seed
from spec.semantics import PRESETS
from spec.worlds import synthetic

PLANTED = "impl.planted.ftrace:tramp_not_restored"
DEPTH = 2


def parsed(lines: tuple[str, ...], semantics: str) -> list[Operation]:
    """Lines of a seed, as far as the semantics have them."""
    text = "\n".join(("world synthetic", f"semantics {semantics}", "---", *lines))
    known = alphabet(PRESETS[semantics]) | INTERLEAVED
    return [step.operation for step in parse_seed(text).steps if type(step.operation) in known]


def after(sequence: tuple[Operation, ...], semantics: str) -> Hashable | None:
    """The model's value after a sequence; None if a call in it is not lawful, or a step is of no task."""
    lockstep = Lockstep(synthetic(), PRESETS[semantics], ())
    for operation in (*parsed(START, semantics), *sequence):
        if isinstance(operation, Call) and not lockstep.inventory.may_call(operation.function):
            return None
        if isinstance(operation, TaskStep | Finish) and operation.task not in lockstep.inventory.tasks:
            return None
        if isinstance(operation, GracePeriod) and not lockstep.inventory.tasks:
            return None
        lockstep.step(Step(operation))
    return lockstep.value()


@pytest.mark.parametrize(
    ("semantics", "tasks"), [("linux-6.1", 0), ("linux-6.1", 1), ("linux-7.3", 0), ("linux-7.3", 2)]
)
def test_states_and_transitions_are_all(semantics: str, tasks: int) -> None:
    """Every sequence, one by one and from the start, leads to these states, over these edges; with tasks too."""
    known = parsed(edges(tasks), semantics)
    reached = {sequence: after(sequence, semantics) for n in range(DEPTH + 1) for sequence in product(known, repeat=n)}
    states = set(reached.values()) - {None}
    taken = {
        (reached[sequence[:-1]], sequence[-1])
        for sequence, value in reached.items()
        if sequence and value is not None and reached[sequence[:-1]] is not None
    }
    done = Exhaustion(PRESETS[semantics], [resolve("batched", 10)], DEPTH, tasks=tasks).search()

    assert done.divergence is None
    assert (len(states), len(taken)) == (done.states, done.transitions)


def test_the_shortest_sequence_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a planted bug: no shorter one diverges, and the seed that is written does."""
    command = ["explore", "--exhaustive", "--depth", "9", "--semantics", "linux-6.12", "--system", PLANTED]
    status = main([*command, "--save", str(tmp_path)])
    printed = capsys.readouterr().out
    [path] = tmp_path.glob("*.seed")
    depth = int(printed.partition("at depth ")[2].partition(",")[0])
    less = Exhaustion(PRESETS["linux-6.12"], [resolve(PLANTED, 10)], depth - 1).search()

    assert 1 == status
    assert less.divergence is None
    assert len(read_seed(path).steps) <= len(START) + depth
    assert 1 == main(["replay", str(path), "--system", PLANTED])


def test_a_world_with_tasks_takes_systems_that_have_them(capsys: pytest.CaptureFixture[str]) -> None:
    """By default those that are emulated; with another it is bad input, and not a world without tasks."""
    command = ["explore", "--exhaustive", "--depth", "1", "--semantics", "linux-7.3"]

    assert 0 == main([*command, "--tasks", "1"])
    assert 0 == main(command)

    with_task, without = (line.partition(" transitions")[0] for line in capsys.readouterr().out.strip().split("\n"))

    assert with_task != without
    assert 2 == main([*command, "--tasks", "1", "--system", "batched:generic"])
    assert "does not support 'task': it runs every call to its end" in capsys.readouterr().err


def test_another_world_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Bad input, in a sentence."""
    assert 2 == main(["explore", "--exhaustive", "--world", "linux-6.12"])
    assert "its small world is part of synthetic, and not of linux-6.12" in capsys.readouterr().err
