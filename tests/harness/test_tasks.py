"""Tasks that stand in the middle of a call: seeds, search, lifetimes, and who need not support them."""

from __future__ import annotations

import re

import pytest

import model
from impl import batched
from impl.batched import Batched
from impl.batched.machine import addresses as at
from impl.batched.machine.poke import INT3
from impl.planted import tasks as bugs
from properties.hunt.search import INTERLEAVED_ROUNDS, Search
from properties.lockstep.lockstep import Lockstep
from properties.lockstep.supported import UnsupportedError
from properties.runs.corpus import TASKS, FixedRun, interleaved
from spec.alphabet import INTERLEAVED
from spec.operations import STOPS, STOPS_AT_PROGRAMS, Await, Finish, Task
from spec.operations import Step as TaskStep
from spec.seeds import Step, parse_operation, print_operation
from spec.semantics import PRESETS
from spec.worlds import synthetic

RUNS = [(facts.name, run) for facts in PRESETS.values() for run in interleaved(facts)]
ENDLESS = 1e12
ALONE = [batched.per_function]


def lines(*texts: str) -> list[Step]:
    return [Step(parse_operation(text)) for text in texts]


def lockstep(semantics: str, *systems: object) -> Lockstep:
    return Lockstep(synthetic(), PRESETS[semantics], systems or ALONE)  # type: ignore[arg-type]


@pytest.mark.parametrize(("semantics", "run"), RUNS, ids=[f"{name} {run.name}" for name, run in RUNS])
def test_a_seed_of_tasks_agrees(semantics: str, run: FixedRun) -> None:
    """Model, expectations and `batched` agree at every step, and everything can be undone."""
    going = lockstep(semantics)

    assert () == going.run(run.seed.steps)
    assert () == going.undo()
    assert () == going.close()


def test_there_are_seeds_of_every_preset() -> None:
    """Each stands for what a table of running kernels has; each preset has those that hold everywhere."""
    everywhere = len(list((TASKS / "every").glob("*.seed")))

    assert everywhere >= 6
    assert {name for name, _ in RUNS} == set(PRESETS)
    assert {f"linux-{kernel}" for kernel in ("6.1", "6.12", "7.3")} <= {
        run.seed.semantics for _, run in RUNS if (TASKS / f"{run.name}.seed").is_file()
    }


@pytest.mark.parametrize("semantics", PRESETS)
def test_random_schedules_agree(semantics: str) -> None:
    """Operations and schedules that are drawn together agree with the model, and reach what tasks are for."""
    search = Search(synthetic(), PRESETS[semantics], ALONE, 1)
    search.able = (0,)
    search.rounds = INTERLEAVED_ROUNDS - 1
    found = [search.round(ENDLESS, 60.0)]
    for _ in range(2):
        search.rounds += INTERLEAVED_ROUNDS - 1
        found.append(search.round(ENDLESS, 60.0))
    reached = {rule for rule, count in search.tally.rules.items() if count}

    assert [None] * 3 == found
    assert search.tally.outcomes["task", "0"] > 20
    assert {"TASK-1", "TASK-2", "TASK-3", "TASK-8", "TASK-9"} <= reached
    assert ("TASK-4" in reached) == PRESETS[semantics].skips_detached


def test_sequential_rounds_are_what_they_are_without_tasks() -> None:
    """One round in three interleaves, and the others draw what they draw for systems that have no tasks."""

    def histories(*, interleaves: bool, rounds: int) -> list[tuple[str, ...]]:
        search = Search(synthetic(), PRESETS["linux-7.3"], ALONE if interleaves else [batched.per_shape], 1)
        seen: list[tuple[str, ...]] = []
        for _ in range(rounds):
            search.round(ENDLESS, 60.0)
            seen.append(tuple(sorted(f"{verb} {count}" for (verb, _), count in search.tally.outcomes.items())))
        return seen

    alone = INTERLEAVED_ROUNDS - 1
    with_tasks, without = histories(interleaves=True, rounds=alone + 1), histories(interleaves=False, rounds=alone)

    assert with_tasks[:alone] == without
    assert any(line.startswith("task ") for line in with_tasks[alone])
    assert not any(line.startswith("task ") for each in without for line in each)


@pytest.mark.parametrize("point", [*STOPS, *(f"{place}:p{number}" for place in STOPS_AT_PROGRAMS for number in (1, 2))])
@pytest.mark.parametrize("semantics", PRESETS)
@pytest.mark.parametrize("function", ["foo1 1", "foo7 1 2 3 4 5 6 7", "outer 1"])
def test_a_task_stops_where_the_model_says(semantics: str, point: str, function: str) -> None:
    """At every point of every kind of image, whatever lies on the stack; and then its call ends as others do."""
    name = function.split(maxsplit=1)[0]
    if name == "foo7" and PRESETS[semantics].max_slots < 7:
        name, function = "foo2", "foo2 1 2"
    setups = (
        (),
        ("bpf_prog_load p1 fentry", f"bpf_raw_tracepoint_open l1 p1 {name}"),
        (
            "bpf_prog_load p1 fentry sleepable calls=foo2",
            "bpf_prog_load p2 fexit func_ip",
            f"bpf_raw_tracepoint_open l1 p1 {name}",
            f"bpf_raw_tracepoint_open l2 p2 {name}",
        ),
        (
            f"bpf_prog_load p1 fexit calls={name}",
            f"bpf_raw_tracepoint_open l1 p1 {name}",
            "ftrace_ops o1",
            f"ftrace_set_filter_ip o1 {name}",
            "register_ftrace_function o1",
            "register_ftrace_graph g1",
        ),
    )
    for setup in setups:
        going = lockstep(semantics)
        steps = [f"task t1 {function}", f"step t1 to={point}", f"step t1 to={point}", f"call {function}", "finish t1"]

        assert () == going.run(lines(*setup, *steps))
        assert () == going.undo()
        assert () == going.close()


def observed(going: Lockstep, *texts: str) -> list[str]:
    taken = [going.step(step) for step in lines(*texts)]
    assert [()] * len(taken) == [each.divergences for each in taken]
    return [each.observed for each in taken]


def test_images_and_programs_go_when_nothing_can_reach_them() -> None:
    """Behind the last of their grace periods they are traps, and not before; names may be used again."""
    made: list[Batched] = []

    def factory(*setting: object) -> Batched:
        made.append(batched.per_function(*setting))  # type: ignore[arg-type]
        return made[0]

    going = lockstep("linux-7.3", factory)
    observed(going, "bpf_prog_load p1 fexit", "bpf_raw_tracepoint_open l1 p1 foo1", "call foo1 1", "task t1 foo1 1")
    text = made[0].text
    image, size = text.image(made[0].state.site("foo1"))
    programs = next(region for region in made[0].kernel.regions if region.address == at.PROGRAMS)

    def is_freed(code: bytes) -> bool:
        return set(code) == {INT3}

    def image_and_program() -> tuple[bool, bool]:
        return is_freed(text.images.read(image, size)), is_freed(programs.read(at.PROGRAMS + 32, 32))

    observed(going, "step t1 to=body how=sleep", "bpf_link_detach l1", "grace_period rcu_tasks")
    assert (False, False) == image_and_program()
    observed(going, "grace_period rcu", "grace_period rcu_tasks")
    assert (False, True) == image_and_program()
    assert ["exit", "-EBUSY"] == observed(going, "step t1 to=exit", "grace_period rcu_tasks")
    assert (False, True) == image_and_program()
    assert ["body =1"] == observed(going, "finish t1")
    assert (True, True) == image_and_program()
    assert "body fexit:p1 =1" == observed(going, "bpf_raw_tracepoint_open l1 p1 foo1", "call foo1 1")[-1]
    assert () == going.undo()
    assert () == going.close()


def test_who_runs_calls_to_their_end_says_so() -> None:
    """A system without tasks supports none of their operations, and a seed of them is bad input for it."""
    going = lockstep("linux-7.3", batched.per_shape)

    assert {Await} == INTERLEAVED & going.supports
    with pytest.raises(UnsupportedError, match="does not support 'task': it runs every call to its end"):
        going.step(Step(Task("t1", "foo1", (1,))))


def test_what_does_not_exist_is_absent() -> None:
    """Steps of tasks that are not there disturb nobody, so that a shrunk schedule is lawful whatever it lost."""
    going = lockstep("linux-7.3")

    assert ["absent", "absent", "-EBADF"] == observed(
        going, print_operation(TaskStep("t1", to="body")), print_operation(Finish("t1")), "await bpf_link_detach l1"
    )


@pytest.mark.parametrize("semantics", PRESETS)
def test_a_call_is_a_task_that_is_stopped_nowhere(semantics: str) -> None:
    """The model has one semantics of both."""
    system = model.system(synthetic(), PRESETS[semantics])
    for line in ("bpf_prog_load p1 fexit", "bpf_raw_tracepoint_open l1 p1 outer", "task t1 outer 1"):
        system.apply(parse_operation(line))
    for point in STOPS:
        system.step(TaskStep("t1", to=point))

    assert system.finish(Finish("t1")) == system.call("outer", (1,))


FOUND = (
    bugs.program_freed_on_the_way,
    bugs.image_freed_under_a_sleeper,
    bugs.put_image_runs_fexit,
    bugs.living_image_runs_what_has_left,
)


@pytest.mark.slow
@pytest.mark.parametrize("bug", FOUND, ids=lambda bug: bug.name)
def test_search_finds_what_only_tasks_show(bug: bugs.Planted) -> None:  # type: ignore[name-defined]
    """Within some rounds; the shrunk seed has a schedule, and is about as short as the shortest that is known."""
    search = Search(synthetic(), PRESETS[bug.semantics], [bug], 1)
    search.able = (0,)
    found = None
    while found is None and search.rounds < 160:
        search.rounds += INTERLEAVED_ROUNDS - 1
        found = search.round(ENDLESS, 60.0)

    assert found is not None
    assert len(found.seed.steps) <= len(bug.minimal) + 1
    assert {"task"} <= {step.operation.verb for step in found.seed.steps}
    assert re.search(r"crash|trace", found.divergence.aspect)
