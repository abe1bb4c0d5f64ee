"""What attaching costs: counting grace periods, what the model predicts, the table; and ten functions for real."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from impl.linux.host.apt import Package, required
from impl.linux.instruments import bpftrace, measure
from impl.linux.instruments.grace import Reading, Waits, completed, parse_waits
from impl.linux.instruments.measure import Bench, Measured, Phase
from properties.kernels.cost import Case, cases, client_case, cold, predict
from properties.kernels.cost_rows import Costs, Prediction, Row, periods
from properties.report.results import CheckVerdict
from properties.report.show import text_of
from spec import populations
from spec.errors import BadInputError
from spec.semantics import PRESETS
from tests.support.stations import KERNELS, kernel_or_skip

HEADER = "# tracer: function\n#\n# entries-in-buffer/entries-written: {kept}/{written}   #P:1\n#\n"
DETACHED = {"rcu_tasks": 10, "rcu_tasks_rude": 10}


def trace(*events: str, lost: int = 0) -> str:
    lines = [f"            init-1       [000] .....     3.{place:06}: {event}" for place, event in enumerate(events)]
    return HEADER.format(kept=len(events), written=len(events) + lost) + "\n".join(lines)


def measured(detach: Waits, *, seconds: float = 1.0, attached: frozenset[str] = frozenset({"f"})) -> Measured:
    return Measured(Phase(seconds, Waits()), Phase(2 * seconds, detach), attached, frozenset(), {})


def row(outcome: Measured | None, *, what: str = "links", group: str = "", trouble: str = "") -> Row:
    expected = Prediction({}, {"rcu_tasks": 1}, frozenset({"f"}))
    return Row("linux-6.1", what, 1, outcome, expected, group, trouble=trouble)


WAITED = Waits({"rcu_tasks": 1}, {"rcu_tasks": 1}, {"rcu_tasks ftrace_shutdown": 1})


@pytest.mark.parametrize(
    ("before", "after", "count"),
    [
        (0, 0, 0),
        (0, 4, 1),
        (4, 24, 5),
        (0, 5, 1),
        (1, 4, 0),
        (1, 8, 1),
        (1, 1, 0),
        (2, 13, 2),
        ((1 << 64) - 4, 0, 1),
        ((1 << 64) - 12, 8, 5),
        ((1 << 64) - 3, 0, 0),
        ((1 << 64) - 3, 4, 1),
    ],
)
def test_only_grace_periods_that_began_and_ended_between_two_readings_count(
    before: int, after: int, count: int
) -> None:
    """One that was under way at the first reading does not count, nor one that still is; numbers may wrap."""
    assert count == completed(before, after)


def test_a_wait_is_a_call_that_blocks() -> None:
    """A call of RCU tasks counts with the wait that follows it; 7.3's rude one does nothing, and is no wait."""
    blocking = trace(
        "synchronize_rcu_tasks_rude <-ftrace_shutdown",
        "__wait_rcu_gp <-synchronize_rcu_tasks_rude",
        "synchronize_rcu_tasks <-ftrace_shutdown",
        "__wait_rcu_gp <-synchronize_rcu_tasks",
    )
    empty = trace(
        "synchronize_rcu_tasks_rude <-ftrace_shutdown",
        "synchronize_rcu_tasks <-ftrace_shutdown",
        "__wait_rcu_gp <-synchronize_rcu_tasks",
    )

    assert {("rcu_tasks_rude", "ftrace_shutdown"): 1, ("rcu_tasks", "ftrace_shutdown"): 1} == parse_waits(blocking)
    assert {("rcu_tasks", "ftrace_shutdown"): 1} == parse_waits(empty)


def test_an_expedited_wait_inside_a_wait_is_the_same_one() -> None:
    """synchronize_rcu() that goes on to synchronize_rcu_expedited() waits once; alone the latter is a wait, too."""
    text = trace(
        "synchronize_rcu <-ftrace_trampoline_free",
        "synchronize_rcu_expedited <-synchronize_rcu",
        "synchronize_rcu_expedited <-maybe_wait_bpf_programs",
    )

    assert {("rcu", "ftrace_trampoline_free"): 1, ("rcu", "maybe_wait_bpf_programs"): 1} == parse_waits(text)


def test_tasks_are_read_apart() -> None:
    """What another task does in between does not part a call from its wait."""
    text = trace("synchronize_rcu_tasks <-ftrace_shutdown", "__wait_rcu_gp <-synchronize_rcu_tasks")
    first, second = text.splitlines()[-2:]
    mixed = text.replace(first, f"{first}\n{first.replace('init-1 ', 'bpftrace-70 ')}") + "\n"
    mixed += second.replace("init-1 ", "bpftrace-70 ")

    assert {("rcu_tasks", "ftrace_shutdown"): 2} == parse_waits(mixed)


def test_lost_calls_are_an_error() -> None:
    """A buffer that overflowed says nothing of how many waits there were."""
    with pytest.raises(BadInputError, match="did not hold all calls"):
        parse_waits(trace("synchronize_rcu <-a", lost=1))


def test_two_readings_make_waits() -> None:
    """Waits come from the trace, what elapsed from the numbers; more waits than elapsed are impossible."""
    text = trace("synchronize_rcu <-a", "synchronize_rcu_tasks <-b", "__wait_rcu_gp <-synchronize_rcu_tasks")
    start = Reading({"rcu": (4, 0), "rcu_tasks": (1,)}, "")
    waits = Reading({"rcu": (12, 4), "rcu_tasks": (4,)}, text).since(start)

    assert Waits({"rcu": 1, "rcu_tasks": 1}, {"rcu": 3}, {"rcu a": 1, "rcu_tasks b": 1}) == waits
    assert ("rcu_tasks",) == waits.impossible


def test_dependencies_are_followed_once_and_virtual_ones_left_out() -> None:
    """What a package needs is all that its dependencies need."""
    names = {"a": ("b", "virtual"), "b": ("c", "a"), "c": (), "d": ()}
    packages_by_name = {name: Package(name, "1", depends) for name, depends in names.items()}

    assert ["a", "b", "c"] == [package.name for package in required(packages_by_name, "a")]


@pytest.mark.parametrize(
    ("kernel", "attach", "detach"),
    [("linux-6.1", {"rcu_tasks": 1}, DETACHED), ("linux-6.12", {}, DETACHED), ("linux-7.3", {}, {})],
)
def test_the_model_prices_links_one_by_one(kernel: str, attach: dict[str, int], detach: dict[str, int]) -> None:
    """Ten links wait for twenty grace periods where each trampoline has an ops, and for none in 7.3."""
    first = next(cases(populations.load(kernel), PRESETS[kernel], lambda _: True))
    assert first.steps is not None
    prediction = predict(first.functions, PRESETS[kernel], first.steps)

    assert (attach, detach, {}) == (prediction.attach, prediction.detach, prediction.refused)
    assert {function.symbol for function in first.functions} == prediction.attached


def test_functions_for_a_mass_attach_are_enough_and_idle() -> None:
    """7.3 has five thousand; none is what the agent, RCU or tracefs run through."""
    names = [function.symbol for function in cold(populations.load("linux-7.3"), lambda _: True)]

    assert len(names) > 5000
    assert len(names) == len(set(names))
    assert not [name for name in names if name.startswith(("vfs_", "rcu_read", "ftrace_", "__x64_", "virtio"))]
    assert not {"t_show", "m_show", "s_show"} & set(names)


def test_a_row_holds_where_kernel_and_model_agree() -> None:
    """The same grace periods, the same sites, nothing left."""
    assert CheckVerdict.HOLDS is row(measured(WAITED)).verdict


@pytest.mark.parametrize(
    ("outcome", "difference"),
    [
        (measured(Waits()), "detach waited for -, the model says 1 rcu_tasks"),
        (measured(Waits({"rcu_tasks": 1})), "more grace periods of rcu_tasks than there were"),
        (measured(WAITED, attached=frozenset()), "1 functions are not attached: f"),
        (measured(WAITED, attached=frozenset("fg")), "1 functions are attached against the model: g"),
        (replace(measured(WAITED), left=frozenset({"f"})), "1 functions stay attached"),
        (replace(measured(WAITED), refused={"fentry:f": "EINVAL"}), "refusals differ: fentry:f EINVAL"),
    ],
)
def test_a_row_tells_what_differs(outcome: Measured, difference: str) -> None:
    """Each kind of difference is a sentence, and the row falls."""
    fallen = row(outcome)

    assert CheckVerdict.FELL is fallen.verdict
    assert difference in str(fallen)


def test_a_client_may_leave_functions_out_by_itself() -> None:
    """Refusals of a client that chooses its functions are not compared; what is attached is."""
    outcome = replace(measured(WAITED), refused={"": "WARNING"})

    assert CheckVerdict.HOLDS is replace(row(outcome), chosen=True).verdict


def test_the_table_compares_with_the_first_row_of_a_group() -> None:
    """A batch that takes half a second is twice as fast as links one by one that take one."""
    one, batch = row(measured(WAITED), group="1"), row(measured(WAITED, seconds=0.25), group="1", what="batch")
    costs = Costs((one, batch), 1.0)

    assert CheckVerdict.HOLDS is costs.verdict
    assert "4x, 4x" in text_of(costs.table(), 180)
    assert "1 rcu_tasks" in text_of(costs.table(), 180)


def test_the_verdict_is_that_of_the_worst_row() -> None:
    """A row that fell counts before one that could not be measured."""
    good, fallen, absent = row(measured(WAITED)), row(measured(Waits())), row(None, trouble="no answer")

    assert CheckVerdict.FELL is Costs((good, absent, fallen), 1.0).verdict
    assert CheckVerdict.NOT_RUN is Costs((good, absent), 1.0).verdict
    assert CheckVerdict.NOT_RUN is Costs((), 0.0).verdict
    assert (str(absent), str(fallen)) == Costs((good, absent, fallen), 1.0).details


def test_rows_are_json() -> None:
    """Everything of a row is plain data."""
    rows = Costs((row(measured(WAITED)), row(None, trouble="no answer")), 1.0).json()

    assert rows == json.loads(json.dumps(rows))
    assert ["holds", "not run"] == [one["verdict"] for one in rows]


def test_periods_are_named_in_one_order() -> None:
    """Whatever the order of the counts; none at all is a dash."""
    assert "1 rcu, 2 rcu_tasks" == periods({"rcu_tasks": 2, "rcu": 1, "rcu_tasks_rude": 0})
    assert "-" == periods({})


@pytest.fixture(params=KERNELS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A guest of its own, since the grace periods of a station are tuned."""
    prepared = measure.prepare(kernel_or_skip(request.param))
    with closing(prepared.guest):
        yield prepared


def ten(bench: Bench) -> list[Case]:
    found = cases(populations.load(bench.kernel.name), PRESETS[bench.kernel.name], bench.has)
    return [case for case in found if case.group == "10"]


@pytest.mark.vm
def test_ten_functions_cost_what_the_model_says(bench: Bench) -> None:
    """In every way that a kernel has, attach and detach wait for the model's grace periods, and no site differs."""
    told = []
    for case in ten(bench):
        bench.fresh()
        semantics = PRESETS[bench.kernel.name]
        expected = predict(case.functions, semantics, case.steps) if case.steps else Prediction.nothing()
        done = Row(bench.kernel.name, case.what, len(case.functions), case.measure(bench), expected)
        told += [str(done)] if done.differences else []

    assert [] == told


@pytest.mark.vm
def test_a_wildcard_of_bpftrace_attaches_what_the_model_accepts() -> None:
    """Debian's bpftrace in 7.3: enabled_functions shows exactly the model's functions, and nothing after SIGINT."""
    world, semantics = populations.load("linux-7.3"), PRESETS["linux-7.3"]
    kernel = kernel_or_skip("linux-7.3")
    try:
        client = bpftrace.fetch("trixie", kernel.architecture)
    except BadInputError as error:
        pytest.skip(str(error))
    prepared = measure.prepare(kernel, memory=bpftrace.MEMORY, files=client.files)
    case = client_case(world, client, "vfs_*")
    assert case.steps is not None
    expected = predict((*case.functions, *case.steps.also), semantics, case.steps)
    with closing(prepared.guest):
        outcome = case.measure(prepared)

    assert len(outcome.attached) > 50
    assert () == Row("linux-7.3", case.what, len(case.functions), outcome, expected, chosen=True).differences
