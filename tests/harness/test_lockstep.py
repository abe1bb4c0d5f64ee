"""Lockstep finds each kind of difference and names it; journal, inventory and undoing."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from properties.hunt.shrink import shrink_finding
from properties.lockstep.divergence import ASPECTS, Divergence
from properties.lockstep.journal import Journal
from properties.lockstep.lockstep import Lockstep
from properties.lockstep.supported import UnsupportedError
from spec import operations as op
from spec.inventory import Inventory
from spec.seeds import Seed, Step, parse_seed, print_operation, print_seed, read_seed
from spec.semantics import PRESETS
from spec.worlds import synthetic
from tests.support import lockstep_fakes as fakes

ATTACHED = ("bpf_prog_load p1 fentry", "bpf_raw_tracepoint_open l1 p1 foo1")
DETACHED = (*ATTACHED, "bpf_link_detach l1")
MISSED = ("bpf_prog_load p1 fentry calls=foo1", "bpf_raw_tracepoint_open l1 p1 foo1")
TRACED = ("ftrace_ops o1", "ftrace_set_filter_ip o1 foo1", "register_ftrace_function o1")


def steps(*lines: str) -> tuple[Step, ...]:
    return parse_seed("\n".join(["world synthetic", "semantics linux-7.3", "---", *lines])).steps


def lockstep(*factories: object, semantics: str = "linux-7.3", **options: object) -> Lockstep:
    return Lockstep(synthetic(), PRESETS[semantics], factories, **options)


def diverge(factory: object, *lines: str, **options: object) -> Divergence:
    found = lockstep(factory, **options).run(steps(*lines))

    assert len(found) == 1

    return found[0]


def inventory(*lines: str, semantics: str = "linux-7.3") -> Inventory:
    run = lockstep(semantics=semantics)
    run.run(steps(*lines))
    return run.inventory


def test_an_honest_system_agrees() -> None:
    """A system that does what the model does has no divergence, and is still there at the end."""
    run = lockstep(fakes.Honest)

    assert run.run(steps(*TRACED, *ATTACHED, "call foo1 1", "site foo1")) == ()
    assert run.undo() == ()
    assert run.names == ("honest",)
    assert run.close() == ()


@pytest.mark.parametrize(
    ("factory", "aspect", "lines", "expected", "observed"),
    [
        (fakes.WrongOutcome, "outcome", TRACED, "0", "-ENOMEM"),
        (fakes.Warns, "outcome", TRACED, "0", "0 WARN"),
        (fakes.WrongSites, "sites", TRACED, "foo1 (1) ops:o1", "foo1 nop"),
        (fakes.WrongTrace, "trace", (*TRACED, "call foo1 7"), "ops:o1 body =7", "body =7"),
        (fakes.WrongCost, "cost", TRACED, "poke_rounds 1", "poke_rounds 2"),
        (fakes.LeaksImages, "images", DETACHED, "0 images alive (per_function)", "1 images alive"),
        (fakes.LosesMisses, "cost", (*MISSED, "call foo1 1"), "missed p1=1", "missed none"),
        (fakes.Raises, "crash", DETACHED, "no crash", "ZeroDivisionError: no link can be detached"),
    ],
)
def test_each_aspect(factory: object, aspect: str, lines: tuple[str, ...], expected: str, observed: str) -> None:
    """A difference is found at its step, in its aspect, with what both sides say."""
    found = diverge(factory, *lines)

    assert aspect in ASPECTS
    assert (aspect, lines[-1], len(lines) - 1) == (found.aspect, found.step, found.index)
    assert (expected, observed) == (found.expected, found.observed)
    assert (factory.name, 0) == (found.system, found.place)


def test_what_is_not_seen_is_not_compared() -> None:
    """At a stop a system that says that nobody can look is asked for no site, and later it is again."""
    stops = ("ftrace_ops o1", "ftrace_set_filter_ip o1 foo1", "poke register_ftrace_function o1")

    assert "sites" == diverge(fakes.Hides, *stops).aspect
    assert () == lockstep(fakes.Veils).run(steps(*stops, "call foo1 1", "await poke register_ftrace_function o1"))


def test_what_is_not_seen_is_not_confirmed() -> None:
    """At such a stop a witness hears of the rules of stops alone."""
    heard: dict[object, list[tuple[str, ...]]] = {}
    for factory in (fakes.Honest, fakes.Veils):
        listens = Mock()
        lockstep(factory, witness=listens).run(
            steps("bpf_prog_load p1 fentry", "poke bpf_raw_tracepoint_open l1 p1 foo1")
        )
        heard[factory] = [call.args[2] for call in listens.agreed.call_args_list]

    assert {"POKE-1", "POKE-2"} == set(heard[fakes.Veils][-1]) < set(heard[fakes.Honest][-1])


def test_a_divergence_reads_as_a_message() -> None:
    """The text names system, aspect, line, step, both sides and the rules."""
    text = str(diverge(fakes.WrongOutcome, *TRACED))
    first, *rest = text.split("\n")

    assert "honest diverges in outcome at line 6: register_ftrace_function o1" == first
    assert ["  the model says: 0", "  honest says: -ENOMEM"] == rest[:2]
    assert "OPS-6" in text


def test_a_hidden_difference_of_traces_is_shown_in_full() -> None:
    """Where the short text of two traces is the same, the events are shown with all that programs saw."""
    found = diverge(fakes.WrongContext, *ATTACHED, "call foo1 1")

    assert "arg_cnt=1" in found.expected
    assert "arg_cnt=9" in found.observed


def test_a_system_that_does_not_start_has_crashed() -> None:
    """An exception of the factory is told at the first step."""
    found = lockstep(fakes.DoesNotStart).run(steps("ftrace_ops o1"))

    assert [("crash", "OSError: nothing for synthetic and linux-7.3")] == [(one.aspect, one.observed) for one in found]


def test_a_system_that_cannot_be_closed_has_crashed() -> None:
    """An exception of close is a divergence too."""
    run = lockstep(fakes.CannotClose)
    run.run(steps("ftrace_ops o1"))

    assert ["crash"] == [one.aspect for one in run.close()]


def test_others_go_on_without_the_one_that_diverged() -> None:
    """A system that diverged takes no further step; the others do."""
    run = lockstep(fakes.WrongOutcome, fakes.Honest)
    found = run.run(steps(*TRACED))

    assert [0] == [one.place for one in found]
    assert run.run(steps("call foo1 1")) == ()
    assert ("honest",) == run.names


def test_sharing_levels_are_compared_with_their_own_image_count() -> None:
    """images_alive of a system named by its level is that of the level, and it may build fewer."""
    attach_all = ("bpf_prog_load p1 fentry multi", "bpf_link_create l1 p1 foo1 outer")

    assert lockstep(fakes.Sharing).run(steps(*attach_all)) == ()
    assert "images" == diverge(type("Other", (fakes.Sharing,), {"name": "plain"}), *attach_all).aspect


def test_missed_runs_are_compared_with_who_counts_them() -> None:
    """A system that does not say what it counts may know nothing of them."""
    assert () == lockstep(fakes.KnowsNoMisses).run(steps(*MISSED, "call foo1 1"))


@pytest.mark.parametrize(
    ("line", "who"),
    [
        ("register_ftrace_function o1 -> -EBUSY", ["model", "honest"]),
        ("register_ftrace_function o1 -> 0", []),
    ],
)
def test_expectations_are_compared_with_both(line: str, who: list[str]) -> None:
    """What a step expects is held against the model and against every system."""
    found = lockstep(fakes.Honest).run(steps(*TRACED[:2], line))

    assert who == [one.system for one in found]
    assert {"expectation"} >= {one.aspect for one in found}


@pytest.mark.parametrize(
    ("line", "agrees"),
    [
        ("call foo1 1 -> body =1", True),
        ("call foo1 1 -> direct:T1 body =1", True),
        ("call foo1 1 -> direct:T2 body =1", False),
        ("call outer 1 -> body foo1[ body =1 ]  foo2[ body =2 ] =3", True),
        ("call foo1 1 -> body =2", False),
        ("site foo1 -> direct:T1", True),
        ("site foo1 -> nop", False),
        ("site foo2 -> nop", True),
    ],
)
def test_expected_traces_and_targets(line: str, *, agrees: bool) -> None:
    """A trace that names no direct event is compared without them, word by word; a site by its target."""
    run = lockstep(fakes.Honest)
    run.run(steps("ftrace_ops o1", "ftrace_set_filter_ip o1 foo1", "register_ftrace_direct_multi o1 T1"))

    assert agrees == (run.run(steps(line)) == ())


@pytest.mark.parametrize(
    ("line", "semantics", "mistake"),
    [
        ("register_ftrace_direct foo1 T1", "linux-7.3", "'register_ftrace_direct' does not exist in the semantics"),
        ("poke register_ftrace_direct foo1 T1", "linux-7.3", "'register_ftrace_direct' does not exist in the"),
        ("task t1 foo1", "linux-7.3", "'task': foo1 takes 1 words"),
        ("task t1 nowhere", "linux-7.3", "'task': the world synthetic has no function 'nowhere'"),
        ("step t1 3", "linux-7.3", "'step': only points mean the same everywhere: write to=POINT"),
        ("call nowhere", "linux-7.3", "'call': the world synthetic has no function 'nowhere'"),
        ("site nowhere", "linux-7.3", "'site': the world synthetic has no function 'nowhere'"),
        ("call foo2 1", "linux-7.3", "'call': foo2 takes 2 words"),
        ("call split 1 2 3", "linux-7.3", "'call': split takes 4 words"),
    ],
)
def test_bad_steps_are_refused(line: str, semantics: str, mistake: str) -> None:
    """A step that makes no sense here is bad input, and nothing is executed."""
    run = lockstep(fakes.Honest, semantics=semantics)

    with pytest.raises(UnsupportedError, match=f"^{mistake}"):
        run.step(steps(line)[0])
    assert run.history == []


def test_an_operation_that_a_system_lacks_is_refused() -> None:
    """What a system does not support is bad input that names both."""
    run = lockstep(type("Small", (fakes.Honest,), {"__init__": _only_ops}))

    assert run.supports == {op.FtraceOps}
    with pytest.raises(UnsupportedError, match="the system honest does not support 'livepatch'"):
        run.step(steps("livepatch foo1")[0])


def _only_ops(self: fakes.Honest, *setting: object) -> None:
    fakes.Honest.__init__(self, *setting)
    self.supports = frozenset({op.FtraceOps})


def test_an_operation_that_a_system_declines_is_not_taken() -> None:
    """A system may decline an operation that it supports in other states; the step is refused with its reason."""
    run = lockstep(fakes.Declines)
    run.run(steps("livepatch foo1"))

    with pytest.raises(UnsupportedError, match="the system honest has no room for a second livepatch"):
        run.step(steps("livepatch foo2")[0])
    assert len(run.history) == 1
    assert run.undo() == ()


def test_costs_that_a_system_does_not_count_are_not_compared() -> None:
    """A real kernel's sites can be seen, but not how many instructions it wrote."""
    assert diverge(fakes.WrongCost, *ATTACHED).aspect == "cost"
    assert lockstep(fakes.CountsImages).run(steps(*DETACHED)) == ()
    assert diverge(fakes.LeaksCountedImages, *DETACHED).aspect == "images"


def test_undoing_leaves_nothing() -> None:
    """Everything that can be attached is detached by the undo operations."""
    lines = (
        *TRACED,
        *ATTACHED,
        "register_ftrace_graph g1",
        "livepatch foo2",
        "ftrace_ops o2",
        "update_ftrace_direct_add o2 foo6=T1 bar1=T2",
        "ftrace_ops o3 ipmodify",
        "ftrace_set_filter_ip o3 foo7",
        "register_ftrace_function o3",
        "delete_module mod1",
        "fail register",
    )
    run = lockstep(fakes.Honest)

    assert run.run(steps(*lines)) == ()
    assert run.undo() == ()
    assert run.inventory.links == run.inventory.direct_functions == {}
    assert run.inventory.modules == {"mod1"}


def test_undoing_tells_what_was_left() -> None:
    """A site that is not a nop after everything was undone is a divergence, even if all sides agree."""
    run = lockstep(model=fakes.Forgetful)
    run.run(steps(*TRACED))
    found = run.undo()

    assert [("undo", "foo1 (1) ops:o1", -1)] == [(one.aspect, one.observed.split("\n")[0], one.place) for one in found]


def test_nothing_is_undone_after_ftrace_died() -> None:
    """After ftrace_bug() nothing can be undone, and that is no divergence."""
    run = lockstep(fakes.Honest)
    run.run(steps(*TRACED[:2], "fail patch", TRACED[2]))

    assert run.inventory.dead
    assert run.undo() == ()


def test_the_inventory_follows_what_happened() -> None:
    """Filters, roles, entries and links are what the outcomes made them; failures change nothing else."""
    now = inventory(
        "ftrace_ops o1",
        "ftrace_set_filter o1 foo[12]",
        "ftrace_set_filter_ip o1 foo1 remove",
        "register_ftrace_direct_multi o1 T1",
        "ftrace_ops o1",
        "bpf_prog_load p1 fexit multi",
        "bpf_link_create l1 p1 mod1:bar*",
    )

    assert (("foo2",), True, True, {"foo2": "T1"}) == (
        now.ops["o1"].filter,
        now.ops["o1"].enabled,
        now.ops["o1"].direct,
        now.entries("o1"),
    )
    assert {f"bar{number}" for number in range(13)} == now.links["l1"].functions


STALE = (
    *ATTACHED,
    *("bpf_prog_load p2 fentry", "bpf_raw_tracepoint_open l2 p2 foo1"),
    *("fail jit_charge", "bpf_link_detach l1"),
)


def test_a_stale_image_is_not_called() -> None:
    """After a failed detach neither the function nor what calls it may be called, until it has a new image (6.12)."""
    now = inventory(*STALE, semantics="linux-6.12")

    assert {"foo1"} == now.stale
    assert [False, False, True] == [now.may_call(name) for name in ("foo1", "outer", "foo2")]
    through = ("bpf_prog_load p3 fexit calls=outer", "bpf_raw_tracepoint_open l3 p3 foo2")
    calling = inventory(*STALE, *through, semantics="linux-6.12")
    assert [False, True] == [calling.may_call(name) for name in ("foo2", "foo6")]
    assert inventory(*STALE, "bpf_raw_tracepoint_open l1 p1 foo1", semantics="linux-6.12").may_call("outer")


def test_a_call_that_is_left_out_is_told() -> None:
    """What nobody may call is bad input for a seed, and told to the witness, with the reason."""
    told = fakes.Listens()
    run = lockstep(fakes.Honest, semantics="linux-6.12", witness=told)
    run.run(steps(*STALE))

    with pytest.raises(UnsupportedError, match="linux-6.12 does not survive a call of an image"):
        run.step(steps("call outer 1")[0])
    assert ["call outer 1"] == [print_operation(operation) for operation, _ in told.declines]


def test_a_stale_image_is_called_where_programs_are_patched_out() -> None:
    """In 7.3 the call runs those programs that are still linked (IMAGE-2)."""
    run = lockstep(fakes.Honest)
    run.run(steps(*STALE))

    assert {"foo1"} == run.inventory.stale
    assert "fentry:p2 body =1" == run.step(steps("call foo1 1")[0]).observed


def test_how_an_image_reaches_the_original_is_compared() -> None:
    """Systems that can tell are asked, the others not (IMAGE-3)."""
    lines = ("bpf_prog_load p1 fexit", "bpf_raw_tracepoint_open l1 p1 foo1")
    found = diverge(fakes.LooksAtStacks, *lines)

    assert ("original", "foo1 address", "foo1 stack") == (found.aspect, found.expected, found.observed)
    assert lockstep(fakes.Looks, fakes.Honest).run(steps(*lines, "livepatch foo1")) == ()


def test_what_a_link_tells_of_itself_is_compared() -> None:
    """As it has been made, where a system can tell (LINK-18)."""
    lines = ("bpf_prog_load p1 fexit multi", "bpf_link_create l1 p1 foo2:7 foo1")
    found = diverge(fakes.TellsKind, *lines)

    assert ("link", "fexit foo1 foo2:7", "fexit") == (found.aspect, found.expected, found.observed)
    assert "LINK-18" in found.rules
    assert lockstep(fakes.Tells, fakes.Honest).run(steps(*lines, "bpf_link_create l2 p1 foo1")) == ()


def test_what_a_filter_file_shows_is_compared() -> None:
    """As it has been written, where a system can read it (GRAPH-10)."""
    lines = ("register_ftrace_graph g1 filter=foo3", "set_ftrace_filter g1 foo2")
    found = diverge(fakes.ReadsFirst, *lines)

    assert ("file", "foo2 foo3", "foo2") == (found.aspect, found.expected, found.observed)
    assert "GRAPH-10" in found.rules
    assert lockstep(fakes.Reads, fakes.Honest).run(steps(*lines, "set_ftrace_notrace g1 foo2")) == ()


@pytest.mark.parametrize(
    ("lines", "settle", "told"),
    [
        ((*DETACHED, "settle"), False, ["+1 links"]),
        (DETACHED, True, ["+1 links"]),
        (ATTACHED, True, ["+1 links"]),
        (DETACHED, False, []),
        ((*ATTACHED, "settle"), False, []),
        (("settle",), False, []),
    ],
)
def test_leaks_are_looked_for_once_all_is_undone_and_settled(
    lines: tuple[str, ...], settle: bool, told: list[str]
) -> None:
    """A run that ends with nothing attached and a settle is asked what is left over (SETTLE-1)."""
    run = lockstep(fakes.Honest, fakes.Leaks)
    run.run(steps(*lines))
    if settle:
        run.undo(settle=True)
    found = run.close()

    assert told == [one.observed for one in found]
    assert {("leak", "settle", 1)} >= {(one.aspect, one.step, one.place) for one in found}


def test_a_leak_becomes_a_seed_that_shows_it() -> None:
    """It is shrunk to what leaks, and ends with all undone and settled."""
    run = lockstep(fakes.Leaks)
    run.run(steps(*TRACED, *ATTACHED, "call foo1 1"))
    run.undo(settle=True)
    (found,) = run.close()
    seed = shrink_finding(found, run, [fakes.Leaks], math.inf).seed

    lines = [print_operation(step.operation) for step in seed.steps]
    assert [*ATTACHED, "bpf_link_detach l1"] == lines[:3]
    assert "settle" == lines[-1]
    again = lockstep(fakes.Leaks)
    assert again.run(seed.steps) == ()
    assert ["leak"] == [one.aspect for one in again.close()]


def test_the_journal_holds_the_step_that_killed_the_process(tmp_path: Path) -> None:
    """A process that dies in a step leaves a seed whose last line is that step, and that can be replayed."""
    path = tmp_path / "journal.seed"
    program = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from properties.lockstep.journal import Journal\n"
        "from tests.harness import test_lockstep\n"
        "from tests.support import lockstep_fakes\n"
        "journal = Journal(Path(sys.argv[1]), 'synthetic', 'linux-7.3')\n"
        "run = test_lockstep.lockstep(lockstep_fakes.Dies, journal=journal)\n"
        "run.run(test_lockstep.steps(*test_lockstep.DETACHED))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(path), str(Path(__file__).parents[2])], check=False)
    seed = read_seed(path)

    assert 9 == ended.returncode
    assert [*DETACHED] == [print_operation(step.operation) for step in seed.steps]
    assert ["crash"] == [one.aspect for one in lockstep(fakes.Raises).run(seed.steps)]


def test_the_journal_begins_anew(tmp_path: Path) -> None:
    """Only the steps of the run under way are in the file; it is gone when all went well."""
    journal = Journal(tmp_path / "journal.seed", "synthetic", "linux-7.3")
    journal.write(steps("ftrace_ops o1")[0])
    journal.begin()
    journal.write(steps("ftrace_ops o2")[0])

    text = print_seed(Seed("synthetic", "linux-7.3", steps("ftrace_ops o2")))
    assert journal.path.read_text(encoding="utf-8").endswith(text)
    assert "o1" not in journal.path.read_text(encoding="utf-8")
    journal.remove()
    assert not journal.path.exists()
