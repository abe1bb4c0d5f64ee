"""Running a kernel against the model: what counts as confirmed, what is left out, and the files and tables of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest

from properties.hunt.search import Search
from properties.kernels import confirmed
from properties.kernels.confirmed import Compared, compare
from properties.kernels.conformance import Conforming, fixed_runs
from properties.kernels.directed import linux_directed
from properties.kernels.evidence import Collected, Difference, Evidence
from properties.kernels.nearest import chosen
from properties.kernels.observable import NOT_OBSERVABLE, Knowledge, reachable, standing
from properties.kernels.tables import as_json, reasons_table, rule_table, summary_table
from properties.lockstep.coverage import lacking, rule_ids
from properties.lockstep.lockstep import Lockstep
from properties.lockstep.supported import UnsupportedError
from properties.report.show import text_of
from properties.runs.corpus import FixedRun
from properties.systems.kernels import laboratory_of, like_a_kernel, made_for, setting_of, without_own
from properties.systems.naming import KERNELS, resolve
from spec import populations
from spec.errors import BadInputError
from spec.operations import Livepatch, Operation
from spec.outcomes import Errno, Outcome
from spec.seeds import Step, parse_operation, parse_seed, print_seed
from spec.semantics import PRESETS
from spec.worlds import synthetic
from tests.support import lockstep_fakes as fakes

NEWEST = PRESETS["linux-7.3"]


class Declines(fakes.Honest):
    """Does what the model does, but no livepatch."""

    def declines(self, operation: Operation) -> str:
        """Why not."""
        return "patches nothing" if isinstance(operation, Livepatch) else ""


class AnswersForKlp(fakes.Honest):
    """Does what the model does, and says that a second livepatch was its host's to refuse."""

    def apply(self, operation: Operation) -> Outcome:
        """As the model, and by whom."""
        outcome = super().apply(operation)
        refused = isinstance(operation, Livepatch) and isinstance(outcome, Errno)
        return replace(outcome, harness="IPMODIFY-7") if refused else outcome


@dataclass
class SomeKernel:
    """What a kernel is called, where none is booted."""

    name: str = "linux-7.3"
    release: str = "7.3.4"


def evidence(**values: object) -> Evidence:
    given: dict[str, object] = {
        "kernel": "linux-7.3",
        "release": "7.3.4",
        "semantics": NEWEST,
        "rules": {"OPS-1": 3, "COST-1": 7},
        "outcomes": {("ftrace_ops", "0"): 3, ("call", "observed"): 2},
        "declined": {"patches nothing": 2},
        "left": ("a, line 4: patches nothing",),
        "differences": (),
        "runs": 2,
        "examples": 1,
        "seconds": 1.0,
    }
    return Evidence(**(given | values))  # type: ignore[arg-type]


def take(lines: str, factory: object = Declines) -> Collected:
    collected = Collected(NEWEST)
    lockstep = Lockstep(synthetic(), NEWEST, [factory], tally=collected.tally, witness=collected)
    for line in lines.split("; "):
        operation = parse_operation(line)
        if not lockstep.declined(operation):
            lockstep.step(Step(operation))
    return collected


def test_a_rule_is_confirmed_by_the_steps_on_which_the_kernel_agreed() -> None:
    """Operations and calls confirm what the model cites; a step that diverges confirms nothing."""
    lines = "ftrace_ops o1; ftrace_set_filter_ip o1 foo1; register_ftrace_function o1; call foo1 1"
    agreeing, diverging = take(lines), take(lines, fakes.WrongOutcome)

    assert {"OPS-1", "FILTER-5", "OPS-6", "SITE-3", "TRACE-1"} <= agreeing.rules.keys()
    assert 1 == agreeing.rules["OPS-1"] == diverging.rules["OPS-1"]
    assert "OPS-6" not in diverging.rules


def test_what_the_harness_answers_confirms_nothing() -> None:
    """Neither the border's answers nor those that a system's host gives in its place; they are reached all the same."""
    collected = take("ftrace_ops o1; ftrace_ops o1; ftrace_free_filter o7; update_ftrace_direct_add o1 foo1=T foo1=U")
    by_host = take("livepatch foo2; livepatch foo2; unlivepatch foo2", AnswersForKlp)

    assert {"OPS-1": 1} == collected.rules
    assert {"NAME-1": 1, "NAME-2": 1, "DIRECT-10": 1}.items() <= collected.tally.rules.items()
    assert 1 == by_host.rules["IPMODIFY-7"]
    assert {("livepatch", "0"): 1, ("livepatch", "-EBUSY"): 1, ("unlivepatch", "0"): 1} == by_host.tally.outcomes


def test_what_a_fixed_run_meets_is_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seed of a finding has the steps that it needs, and no others; `tell` has the run before it begins."""
    text = "world synthetic\nsemantics linux-7.3\n---\nftrace_ops o1\nftrace_ops o2\nftrace_set_filter_ip o2 bar1\n"
    run = FixedRun("long", synthetic(), parse_seed(text + "register_ftrace_function o2\ncall foo1 1\ncall bar1 1\n"))
    monkeypatch.setattr(Conforming, "prepare", lambda *_: fakes.WrongOutcome)
    conforming = Conforming(SomeKernel(), NEWEST, synthetic())  # type: ignore[arg-type]
    told: list[str] = []
    conforming.fixed([run], told.append)

    (found,) = conforming.evidence.differences
    assert ["long"] == told
    assert "ftrace_ops o1\nregister_ftrace_function o1\n" == print_seed(found.seed).partition("---\n")[2]


def test_a_step_that_is_declined_is_counted_by_its_reason() -> None:
    """The kernel is not given it, and lockstep refuses it where nobody asked before."""
    collected = take("livepatch foo1; call foo1 1")

    assert {"patches nothing": 1} == collected.reasons
    assert {("call", "observed"): 1} == collected.tally.outcomes
    with pytest.raises(UnsupportedError, match="the system honest patches nothing"):
        Lockstep(synthetic(), NEWEST, [Declines]).step(Step(parse_operation("livepatch foo1")))


def test_random_runs_end_after_so_many_operations() -> None:
    """The count is exact but for the last example, which is undone; and a random seed repeats it all."""
    tallies = []
    for _ in range(2):
        search = Search(synthetic(), NEWEST, [Declines], 1, operations=100)
        while search.tally.steps < 100:
            assert search.round(float("inf"), 1) is None
        tallies.append(search.tally.outcomes)

    assert tallies[0] == tallies[1]
    assert 100 <= tallies[0].total() < 160


@pytest.mark.parametrize("name", KERNELS)
def test_the_laboratory_runs_reach_what_they_are_for(name: str) -> None:
    """The model and `batched` meet every expectation of a directed run in a laboratory."""
    semantics = PRESETS[name]
    for run in linux_directed(semantics, laboratory_of(semantics)):
        lockstep = Lockstep(run.world, semantics, [resolve("batched")])

        assert () == (lockstep.run(run.seed.steps) or lockstep.undo()) + lockstep.close(), run.name


@pytest.mark.parametrize("name", KERNELS)
def test_fixed_runs_come_world_by_world(name: str) -> None:
    """A world is never gone back to, and no name comes twice."""
    runs = list(fixed_runs(PRESETS[name], laboratory_of(PRESETS[name])))
    worlds = [run.world.name for run in runs]

    assert sorted(set(worlds), key=worlds.index) == [w for at, w in enumerate(worlds) if not at or worlds[at - 1] != w]
    assert len({run.name for run in runs}) == len(runs)
    assert {"synthetic", laboratory_of(PRESETS[name]).name} <= set(worlds)


def test_a_kernel_without_fmod_ret_sets_has_no_marks() -> None:
    """In 6.1 a module cannot mark its functions, so there the small world has none, and seeds expect nothing of it."""
    old, new = (like_a_kernel(synthetic(), PRESETS[name]) for name in ("linux-6.1", "linux-6.12"))

    assert {frozenset({"freplace"})} == {function.attributes for function in old.functions}
    assert {"fmod_ret", "sleepable", "freplace"} == new.by_name["foo1"].attributes
    for name, expecting in (("linux-6.1", False), ("linux-6.12", True)):
        runs: list[FixedRun] = list(fixed_runs(PRESETS[name], laboratory_of(PRESETS[name])))
        steps = [step for run in runs if run.world.name == "synthetic" for step in run.seed.steps]

        assert expecting is any(step.expected for step in steps)


def test_a_kernel_of_ones_own_expects_nothing_of_the_laboratory() -> None:
    """Without the functions that a certain kernel has, the laboratory's runs are judged by the model alone."""
    lab = without_own(laboratory_of(NEWEST))
    runs = [run for run in fixed_runs(NEWEST, lab) if run.world is lab]

    assert runs
    assert not any(step.expected for run in runs for step in run.seed.steps)
    assert "bpf_fentry_test1" not in lab.by_name
    assert "gives_pair" in lab.by_name


def test_a_kernels_name_brings_world_and_semantics() -> None:
    """One kernel among the systems decides; two have different rules."""
    assert ("laboratory-6.12", "linux-6.12") == setting_of(["batched", "linux-6.12"], str)
    assert ("laboratory-7.3", "linux-7.3") == setting_of(["bzimage:b"], {"bzimage:b": "linux-7.3"}.__getitem__)
    assert setting_of(["batched"], str) is None
    with pytest.raises(BadInputError, match=r"linux-6\.1 and linux-7\.3 differ in their rules: give one kernel"):
        setting_of(["linux-6.1", "linux-7.3"], str)
    world = synthetic()
    assert made_for(["batched"], world, PRESETS["linux-6.1"]) is world
    assert made_for(["linux-6.1"], world, PRESETS["linux-6.1"]) is not world
    population = populations.load("linux-7.3")
    modules = {f.module for f in (*population.functions, *population.others)}
    given = made_for(["linux-7.3"], population, NEWEST)
    assert modules > {f.module for f in (*given.functions, *given.others)} == {None}
    own = made_for(["bzimage:b"], laboratory_of(NEWEST), NEWEST)
    assert ("laboratory-7.3", False) == (own.name, "bpf_fentry_test1" in own.by_name)


@pytest.mark.parametrize(
    ("facts", "name", "differing"),
    [
        ({"cookies": True, "tracing_multi": True, "single_direct": False}, "linux-7.3", ()),
        ({"cookies": True, "tracing_multi": False, "single_direct": True, "graph_users": False}, "linux-6.1", ()),
        ({"cookies": False, "tracing_multi": False, "graph_users": True}, "linux-6.12", ("cookies",)),
        ({}, "linux-7.3", ()),
    ],
)
def test_the_nearest_semantics(facts: dict[str, bool], name: str, differing: tuple[str, ...]) -> None:
    """The preset that differs in the fewest facts is taken, of several the newest; never is a version asked for."""
    found = chosen(facts)

    assert (name, differing) == (found.semantics.name, found.differing)
    shared = f"{len(facts) - len(differing)} of {len(facts)} probed features are as there"
    assert str(found).startswith(shared)


def test_each_rule_stands_somehow() -> None:
    """Confirmed with its steps, never reached, not observable with a reason, or not in this kernel."""
    stands = standing(evidence())

    assert tuple(stands) == rule_ids()
    assert "confirmed 3" == str(stands["OPS-1"])
    assert Knowledge.NEVER is stands["OPS-4"].state
    assert (Knowledge.NOT_OBSERVABLE, NOT_OBSERVABLE["COST-1"]) == (stands["COST-1"].state, stands["COST-1"].reason)
    assert {Knowledge.LACKING} == {stands[rule].state for rule in lacking(NEWEST) - NOT_OBSERVABLE.keys()}


def test_every_reason_belongs_to_a_rule() -> None:
    """What cannot be observed are rules that there are, each with a reason."""
    assert NOT_OBSERVABLE.keys() <= set(rule_ids())
    assert all(NOT_OBSERVABLE.values())


def test_the_tables() -> None:
    """All rules in one table, the counts and what was never reached in another, reasons by frequency in a third."""
    seen = [evidence(), evidence(kernel="mine", rules={})]
    whole, short = text_of(rule_table(seen), 160), text_of(summary_table(seen), 160)
    row = next(line for line in whole.splitlines() if " OPS-1 " in line)

    assert ["OPS-1", "confirmed 3", "never reached"] == [cell.strip() for cell in row.split("│")[1:4]]
    assert all(f" {rule} " in whole for rule in rule_ids())
    assert "7.3.4" in short
    assert "OPS-4" in short
    reasons = text_of(reasons_table(evidence(declined={"is slow": 1, "patches nothing": 1000})), 160)
    assert reasons.index("1,000 │ patches nothing") < reasons.index("1 │ is slow")


def test_the_json_report_says_what_the_tables_say() -> None:
    """It can be written, and holds each rule and each kernel."""
    document = json.loads(json.dumps(as_json([evidence()])))

    assert {"state": "confirmed", "steps": 3, "reason": ""} == document["rules"]["OPS-1"]["linux-7.3"]
    assert {"ftrace_ops": {"0": 3}, "call": {"observed": 2}} == document["kernels"]["linux-7.3"]["outcomes"]
    assert 5 == document["kernels"]["linux-7.3"]["steps"]


def test_a_difference_shows_its_seed() -> None:
    """A finding is told with the run that met it, both sides, and a seed to replay."""
    search = Search(synthetic(), NEWEST, [fakes.WrongOutcome], 1)
    found = search.round(float("inf"), 20)
    assert found is not None
    told = str(Difference("a run", found.divergence, found.seed))

    assert told.startswith("a run: honest diverges in outcome at step 2: register_ftrace_function o1\n")
    assert told.endswith("---\nftrace_ops o1\nregister_ftrace_function o1\n")


def test_what_is_lost_and_what_is_new() -> None:
    """A rule of the file that was not confirmed is lost; one that is confirmed and not there is new."""
    compared = compare(evidence(), ("OPS-2", "OPS-4"))

    assert Compared(("OPS-2", "OPS-4"), ("OPS-1",)) == compared
    assert "not confirmed any more: OPS-2, OPS-4; new, to be added to confirmed.json: OPS-1" == str(compared)
    assert "" == str(compare(evidence(), ("OPS-1",)))


def test_the_file_of_confirmed_rules() -> None:
    """It lists for each kernel rules that exist and that a run could confirm, in order, in its one form."""
    known = confirmed.known()

    assert KERNELS == tuple(known)
    assert confirmed.FILE.read_text() == confirmed.text(known)
    for name, rules in known.items():
        assert tuple(rule for rule in rule_ids() if rule in rules) == rules
        assert set() == set(rules) - reachable(PRESETS[name])
        assert len(rules) > 60, name
