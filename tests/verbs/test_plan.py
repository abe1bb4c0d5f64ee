"""The verb `plan`: its figures are those that `batched` shows and the model confirms, and its pictures show them."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from impl.batched import Batched
from model import system
from properties.__main__ import main
from properties.plan.expanding import expansions
from properties.plan.explaining import Reason
from properties.plan.planning import BATCH, DIRECT_MULTI, ONE_BY_ONE, Plan, plan
from properties.plan.probes import Probe, parse_probe, parse_probes, snoop
from properties.plan.programs import read_word
from properties.plan.selecting import parse_lists
from spec import operations as op
from spec import populations
from spec.costs import Cost
from spec.errors import BadInputError
from spec.operations import Operation
from spec.outcomes import Errno, Ok
from spec.prototypes import Prototype
from spec.semantics import PRESETS
from spec.sharing import LEVELS
from spec.worlds import LONG, Function, World, synthetic

SEMANTICS = tuple(PRESETS)
PARTS = "proposal-2021"


def planned(semantics: str, *patterns: str, world: World | None = None) -> Plan:
    world = world or synthetic()
    return plan(parsed(world, patterns), PRESETS[semantics])


def parsed(world: World, patterns: Sequence[str]) -> list[Probe]:
    return [parse_probe(pattern, number, world) for number, pattern in enumerate(patterns, 1)]


def read(*words: str, world: World | None = None) -> list[Probe]:
    """The probes of words, as the verb reads them."""
    return parse_probes([probe for word in words for probe in read_word(word).probes], world or synthetic())


def named(*functions: tuple[str, int]) -> World:
    """A world of functions of so many words each."""
    return World(
        "named",
        tuple(
            Function(name, Prototype((LONG,) * words, LONG), number)
            for number, (name, words) in enumerate(functions, 1)
        ),
    )


def reasons(of: Plan, program: int) -> dict[tuple[str, str], list[str]]:
    return {
        (reason.rule, reason.text): [function.name for function in functions]
        for reason, functions in of.refused[program].items()
    }


def attached(of: Plan) -> list[int]:
    return [len(functions) for functions in of.attached]


def images(of: Plan) -> list[int]:
    return [sum(of.images(level, numbers) for numbers in of.sets) for level in LEVELS]


@pytest.mark.parametrize(
    ("semantics", "attach", "detach"),
    [
        ("linux-6.1", Cost({"rcu_tasks": 1}, 7, 7, 7, 7), Cost({"rcu_tasks": 7, "rcu_tasks_rude": 7}, 7, 7, 0, 0)),
        ("linux-6.12", Cost({}, 13, 13, 13, 13), Cost({"rcu_tasks": 13, "rcu_tasks_rude": 13}, 13, 13, 0, 0)),
        ("linux-7.3", Cost({}, 13, 13, 13, 13), Cost({}, 13, 13, 0, 0)),
        (PARTS, Cost({"rcu_tasks": 1}, 7, 7, 7, 7), Cost({"rcu_tasks": 7, "rcu_tasks_rude": 7}, 7, 7, 0, 0)),
    ],
)
def test_one_function_a_call_costs_a_round_each(semantics: str, attach: Cost, detach: Cost) -> None:
    """COST-2, COST-5: thirteen functions of rising arity, of which two kernels take the first seven."""
    found = planned(semantics, "fentry:foo*")

    assert attach == found.costs[f"attach, {ONE_BY_ONE}"]
    assert detach == found.costs[f"detach, {ONE_BY_ONE}"]


@pytest.mark.parametrize(
    ("semantics", "attach", "detach"),
    [
        ("linux-6.1", None, None),
        ("linux-6.12", None, None),
        ("linux-7.3", Cost({}, 1, 13, 13, 13), Cost({}, 1, 13, 0, 0)),
        (PARTS, Cost({"rcu_tasks": 1}, 1, 7, 7, 7), Cost({"rcu_tasks": 7, "rcu_tasks_rude": 7}, 1, 7, 0, 0)),
    ],
)
def test_one_call_costs_a_round_for_all(semantics: str, attach: Cost | None, detach: Cost | None) -> None:
    """COST-4: where there is a batch; the proposal has a part for each number of arguments, and waits for each."""
    found = planned(semantics, "kfunc:foo*")

    assert attach == found.costs[f"attach, {BATCH}"]
    assert detach == found.costs[f"detach, {BATCH}"]


@pytest.mark.parametrize(
    ("semantics", "attach", "detach"),
    [
        ("linux-6.1", Cost({"rcu_tasks": 1}, 1, 7, 0, 0), Cost({"rcu_tasks": 1, "rcu_tasks_rude": 1}, 1, 7, 0, 0)),
        ("linux-6.12", Cost({}, 1, 13, 0, 0), Cost({"rcu_tasks": 1, "rcu_tasks_rude": 1}, 1, 13, 0, 0)),
        ("linux-7.3", None, None),
        (PARTS, None, None),
    ],
)
def test_without_a_batch_a_raw_trampoline_is_compared(
    semantics: str,
    attach: Cost | None,
    detach: Cost | None,
) -> None:
    """DIRECT-6, DIRECT-8: one ops on every function that a program is attached to, each counted once."""
    found = planned(semantics, "fentry:foo*", "fexit:foo*")

    assert attach == found.costs[f"attach, {DIRECT_MULTI}"]
    assert detach == found.costs[f"detach, {DIRECT_MULTI}"]


def test_a_further_program_is_changed_in_two_passes() -> None:
    """COST-3: the image of a function that has one is changed through the caller of a temporary ops, and back."""
    found = planned("linux-7.3", "fentry:foo*", "fexit:foo[12]")

    assert Cost({}, 13 + 4, 13 + 4, 15, 13) == found.costs[f"attach, {ONE_BY_ONE}"]
    assert Cost({}, 1 + 2, 13 + 4, 15, 13) == found.costs[f"attach, {BATCH}"]
    assert Cost({}, 1 + 2 + 1, 11 + 4 + 2, 2, 0) == found.costs[f"detach, {BATCH}"]


def test_rounds_hold_256_sites() -> None:
    """COST-2: 600 functions are three rounds in one pass."""
    world = named(*((f"f{number}", 1) for number in range(600)))
    found = planned("linux-7.3", "fentry:f*", world=world)

    assert Cost({}, 3, 600, 600, 600) == found.costs[f"attach, {BATCH}"]


@pytest.mark.parametrize(
    ("functions", "waits"),
    [(1, 1), (65, 1), (66, 2), (129, 2), (130, 3), (8193, 8), (8194, 9), (8195, 10), (8200, 15)],
)
def test_growth_of_direct_functions_waits_as_its_table_is_exchanged(functions: int, waits: int) -> None:
    """DIRECT-13: 32, 64, ... 4096 buckets, each for twice as many entries; beyond those, every attach waits."""
    world = named(*((f"f{number}", 1) for number in range(functions)))
    found = planned("linux-6.1", "fentry:f*", world=world).costs[f"attach, {ONE_BY_ONE}"]

    assert found is not None
    assert {"rcu_tasks": waits} == found.grace_periods


@pytest.mark.parametrize(
    ("semantics", "per_function", "per_shape", "generic"),
    [("linux-6.1", 14, 9, 2), ("linux-7.3", 26, 15, 8)],
)
def test_images_are_counted_by_program_set_and_shape(
    semantics: str,
    per_function: int,
    per_shape: int,
    generic: int,
) -> None:
    """Two programs on each fooN and one on each barN: by shape fooN and barN differ only where a program does."""
    found = planned(semantics, "fentry:[fb][oa][or]*", "fexit:foo[12]")

    assert [per_function, per_shape, generic] == images(found)


def test_programs_meet_where_their_patterns_overlap() -> None:
    """The mixing picture: a line for each set of programs that occurs, and the functions it occurs on."""
    found = planned("linux-7.3", "fentry:foo[0-4]", "fexit:foo[3-6]", "fentry:foo4")

    assert {
        (0,): ["foo0", "foo1", "foo2"],
        (0, 1): ["foo3"],
        (0, 1, 2): ["foo4"],
        (1,): ["foo5", "foo6"],
    } == {numbers: [function.name for function in functions] for numbers, functions in found.sets.items()}


@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("kind", ["fmod_ret", "fsession"])
def test_a_kernel_without_the_kind_refuses_all(semantics: str, kind: str) -> None:
    """PROG-1: nothing is attached, and nothing costs."""
    found = planned(semantics, f"{kind}:foo1")
    exists = {"fmod_ret": PRESETS[semantics].fmod_ret, "fsession": PRESETS[semantics].fsession}[kind]

    assert [int(exists)] == attached(found)
    assert exists or reasons(found, 0) == {("PROG-1", "the kernel has no such programs"): ["foo1"]}
    assert Cost({}, int(exists), int(exists), int(exists), int(exists)) == without_waits(found)


def without_waits(of: Plan) -> Cost:
    cost = of.costs[f"attach, {ONE_BY_ONE}"]
    assert cost is not None
    return Cost({}, cost.poke_rounds, cost.sites_patched, cost.images_built, cost.images_alive)


@pytest.mark.parametrize(("kind", "each"), [("fentry", 1), ("fsession", 2)])
def test_a_full_trampoline_takes_no_more(kind: str, each: int) -> None:
    """LINK-3: 36 programs on 7.3, a session counting twice."""
    found = planned("linux-7.3", *[f"{kind}:foo1"] * 37)

    assert 36 // each == sum(attached(found))
    assert {("LINK-3", "as many programs as a trampoline holds"): ["foo1"]} == reasons(found, -1)


def test_fmod_ret_goes_one_by_one_in_a_batch_too() -> None:
    """PROG-1: there is no multi program of this kind."""
    found = planned("linux-7.3", "fmod_ret:foo*", "fexit:foo*")

    assert Cost({}, 13 + 2, 13 + 26, 26, 13) == found.costs[f"attach, {BATCH}"]


@pytest.mark.parametrize("level", LEVELS)
def test_images_are_those_that_batched_has_alive(level: str) -> None:
    """COST-7: what the plan counts at a sharing level is alive once every probe is attached in one call."""
    world = sample(10)
    probes = parsed(world, ("fentry:*", "fexit:*e*", "fsession:*a*"))
    found = plan(probes, PRESETS["linux-7.3"])
    system = Batched(world, PRESETS["linux-7.3"], level)
    for probe, functions in zip(probes, found.attached, strict=True):
        system.apply(op.BpfProgLoad(probe.name, probe.kind, multi=True))
        targets = tuple((function.name, None) for function in functions)

        assert Ok() == system.apply(op.BpfLinkCreate(probe.name, probe.name, targets))

    assert system.cost().images_alive == sum(found.images(level, numbers) for numbers in found.sets)


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_where_nothing_is_attached_nothing_is_compared(semantics: str) -> None:
    """A raw trampoline on no function is none: there is no ops to register, nor to wait for."""
    found = planned(semantics, "fmod_ret:f", world=World("plain", (Function("f", Prototype((LONG,), LONG), 1),)))

    assert [0] == attached(found)
    assert Cost() == found.costs[f"attach, {ONE_BY_ONE}"] == found.costs[f"detach, {ONE_BY_ONE}"]
    assert found.costs[f"attach, {DIRECT_MULTI}"] is found.costs[f"detach, {DIRECT_MULTI}"] is None


def test_too_many_parts_refuse_the_batch() -> None:
    """LINK-11: a link of the proposal that meets 21 parts is refused; one function a call has no such limit."""
    world = named(*((f"{letter}{words}", words) for letter in "abc" for words in range(7)))
    few = planned(PARTS, "fentry:a*", "fentry:b*", "fentry:[ab]*", world=world)
    many = planned(PARTS, "fentry:a*", "fentry:b*", "fentry:c*", "fexit:*", world=world)

    assert ({}, {"P4": 21}) == (few.cut, many.cut)
    assert few.costs[f"attach, {BATCH}"] is not None
    assert many.costs[f"attach, {BATCH}"] is None
    assert many.costs[f"attach, {ONE_BY_ONE}"] is not None


def test_parts_are_cut_and_each_end_is_waited_for() -> None:
    """LINK-11, COST-5: two functions of one arity are one part until a link meets only one of them."""
    world = named(("a1", 1), ("a2", 1), ("b", 1))
    whole = planned(PARTS, "fentry:a*", world=world).costs[f"detach, {BATCH}"]
    cut = planned(PARTS, "fentry:a*", "fexit:a1", world=world).costs[f"detach, {BATCH}"]

    assert whole is not None
    assert cut is not None
    assert (1, 2) == (whole.grace_periods["rcu_tasks_rude"], cut.grace_periods["rcu_tasks_rude"])


def sample(seed: int) -> World:
    """Some functions of a real population: ordinary ones, and those that kernels treat in their own way."""
    functions = [function for function in populations.load("linux-7.3").functions if function.module is None]
    rng = random.Random(seed)
    special = [function for function in functions if function.attributes & {"deny", "noreturn"}]
    odd = [function for function in functions if function.prototype and not function.prototype.describable]
    wide = [function for function in functions if function.prototype and function.prototype.returns.size > 8]
    many = [function for function in functions if function.prototype and len(function.prototype.slots) > 6]
    again = [function for function in functions if "@" in function.name]
    security = [function for function in functions if function.symbol.startswith("security_")]
    pools = ((special, 14), (odd, 10), (wide, 6), (many, 12), (again, 6), (security, 12), (functions, 100))
    chosen = {function.name for pool, count in pools for function in rng.sample(pool, min(count, len(pool)))}
    return World("sample", tuple(function for function in functions if function.name in chosen))


PATTERNS = (
    ("fentry:*", "fexit:*e*"),
    ("fexit:s*", "fentry:*r*", "fmod_ret:*"),
    ("fsession:*a*", "fentry:*", "kretfunc:*t"),
)


def answers(world: World, semantics: str, operations: Sequence[Operation]) -> tuple[list[Ok | Errno], list[Cost]]:
    """What the model answers to each operation, and its cost before the first and after each."""
    model = system(world, PRESETS[semantics])
    costs = [model.cost()]
    outcomes = []
    for operation in operations:
        outcomes.append(model.apply(operation))
        costs.append(model.cost())
    return outcomes, costs


def spent(before: Cost, after: Cost) -> Cost:
    waits = {flavour: count - before.grace_periods.get(flavour, 0) for flavour, count in after.grace_periods.items()}
    return Cost(
        {flavour: count for flavour, count in waits.items() if count},
        after.poke_rounds - before.poke_rounds,
        after.sites_patched - before.sites_patched,
        after.images_built - before.images_built,
        after.images_alive,
    )


@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("patterns", PATTERNS)
def test_the_model_attaches_and_refuses_the_same_one_by_one(semantics: str, patterns: tuple[str, ...]) -> None:
    """Each function that the plan refuses, and no other, is refused by the model; the costs are the same."""
    world = sample(8)
    programs = parsed(world, patterns)
    found = plan(programs, PRESETS[semantics])
    pairs = [(program, function.name) for program in programs for function in program.matched]
    loads = [op.BpfProgLoad(program.name, program.kind) for program in programs]
    opens = [op.BpfRawTracepointOpen(f"{program.name}.{name}", program.name, name) for program, name in pairs]
    accepted = {
        (program.name, function.name)
        for program, functions in zip(programs, found.attached, strict=True)
        for function in functions
    }
    closes = [op.BpfLinkDetach(each.link) for each in opens if (each.prog, each.function) in accepted]
    outcomes, costs = answers(world, semantics, [*loads, *opens, *closes])
    middle = len(loads) + len(opens)

    assert accepted == {
        (each.prog, each.function)
        for each, outcome in zip(opens, outcomes[len(loads) : middle], strict=True)
        if outcome == Ok()
    }
    assert found.costs[f"attach, {ONE_BY_ONE}"] == spent(costs[0], costs[middle])
    assert found.costs[f"detach, {ONE_BY_ONE}"] == spent(costs[middle], costs[-1])


@pytest.mark.parametrize("semantics", [name for name in SEMANTICS if PRESETS[name].tracing_multi])
@pytest.mark.parametrize("patterns", [("fentry:*", "fexit:*e*"), ("fexit:s*", "fentry:*r*", "fexit:*"), ("fentry:s*",)])
def test_the_model_spends_the_same_on_a_batch(semantics: str, patterns: tuple[str, ...]) -> None:
    """One call a pattern: the globs stand for the functions that the plan attaches, at the plan's cost."""
    world = sample(9)
    programs = parsed(world, patterns)
    found = plan(programs, PRESETS[semantics])
    loads = [op.BpfProgLoad(program.name, program.kind, multi=True) for program in programs]
    globs = [program.pattern.partition(":")[2] for program in programs]
    links = [
        op.BpfLinkCreate(f"l{program.name}", program.name, ((f"attachable({glob})", None),))
        for program, glob in zip(programs, globs, strict=True)
    ]
    closes = [op.BpfLinkDetach(link.link) for link in links]
    outcomes, costs = answers(world, semantics, [*loads, *links, *closes])
    middle = len(loads) + len(links)

    assert {Ok()} == set(outcomes)
    assert found.costs[f"attach, {BATCH}"] == spent(costs[0], costs[middle])
    assert found.costs[f"detach, {BATCH}"] == spent(costs[middle], costs[-1])


def test_the_model_refuses_a_link_of_too_many_parts() -> None:
    """LINK-11: where the plan says that a link meets too many parts, the model answers -EBUSY."""
    world = named(*((f"{letter}{words}", words) for letter in "abc" for words in range(7)))
    loads = [op.BpfProgLoad(f"p{letter}", "fentry", multi=True) for letter in "abc*"]
    links = [op.BpfLinkCreate(f"l{letter}", f"p{letter}", ((f"{letter}*", None),)) for letter in "abc*"]
    outcomes, _ = answers(world, PARTS, [*loads, *links])

    assert [Ok(), Ok(), Ok(), Errno("EBUSY")] == outcomes[4:]


def test_every_reason_has_its_rule() -> None:
    """On the whole of 7.3, each reason names a rule and the functions that it concerns."""
    world = populations.load("linux-7.3")
    found = planned("linux-7.3", "fmod_ret:*", world=world)
    counts = {reason.rule: 0 for reason in found.refused[0]}
    for reason, functions in found.refused[0].items():
        counts[reason.rule] += len(functions)

    assert {"PROG-3", "ARG-4"} == set(counts)
    assert sum(f.has_site for f in world.functions) == sum(counts.values()) + len(found.attached[0])
    assert 138 == len(found.refused[0][Reason("ARG-4", "variable arguments")])
    assert ["__x64_sys_exit", "__x64_sys_exit_group"] == [
        function.name for function in found.refused[0][Reason("PROG-3", "never returns")]
    ]


@pytest.mark.parametrize(
    ("semantics", "first", "one_by_one", "batch"),
    [
        ("linux-6.1", 108, Cost({"rcu_tasks": 3}, 184, 184, 184, 184), None),
        ("linux-6.12", 109, Cost({}, 185, 185, 185, 185), None),
        # Five of x86* are kvm's, for which a link of their own is made.
        ("linux-7.3", 109, Cost({}, 185, 185, 185, 185), Cost({}, 3, 185, 185, 185)),
        (PARTS, 108, Cost({"rcu_tasks": 3}, 184, 184, 184, 184), Cost({"rcu_tasks": 2}, 3, 184, 184, 184)),
    ],
)
def test_the_wildcards_of_the_talk(semantics: str, first: int, one_by_one: Cost, batch: Cost | None) -> None:
    """What fentry:x86* and fexit:vfs_* do on the functions of 7.3, by each kernel's rules."""
    found = planned(semantics, "fentry:x86*", "fexit:vfs_*", world=populations.load("linux-7.3"))

    assert [first, 76] == attached(found)
    assert {(0,): first, (1,): 76} == {numbers: len(functions) for numbers, functions in found.sets.items()}
    assert one_by_one == found.costs[f"attach, {ONE_BY_ONE}"]
    assert batch == found.costs[f"attach, {BATCH}"]


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["plan", *words]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_the_answer_is_printed_for_every_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    """Matches, reasons with examples, the mixing picture, images and costs, a column for each kernel."""
    lines = printed(capsys, "fentry:x86*", "fexit:vfs_*")

    assert "P1 fentry:x86*: 112 match, attached 108 109 109 108" in lines
    assert "PROG-3 no BTF 3 3 3 3" in lines
    assert "LINK-4 more argument slots than the JIT takes 1 — — —" in lines
    assert "vfs_kern_mount.part.0, vfs_statfs.part.0.isra.0, vfs_statfs" in lines
    assert "Mixing trampolines on linux-6.12, linux-7.3" in lines
    assert "TRAMPOLINE2 ○ ● 76 39 vfs_fadvise, vfs_fallocate, vfs_truncate, …" in lines
    assert "per_function: one a function 184 185 185 184" in lines
    assert "waits for rcu_tasks_rude 184 185 0 184" in lines
    assert "text-poke rounds — — 3 3" in lines


def test_lines_fit_a_log_of_100_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal, tables are 100 columns wide, whatever the patterns."""
    assert main(["plan", "fentry:*read*", "fexit:vfs_*", "fsession:s*", "fmod_ret:security_*", "kfunc:*_r*"]) == 0

    assert 100 >= max(map(len, capsys.readouterr().out.splitlines()))


def test_one_kernel_may_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """With --semantics there is one column, and no note on other kernels."""
    lines = printed(capsys, "fentry:foo*", "--world", "synthetic", "--semantics", "linux-7.3")

    assert "P1 fentry:foo*: 13 match, attached 13" in lines
    assert not any("linux-6.1" in line for line in lines)


def test_nothing_attached_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """A pattern that matches but attaches nothing is an answer, not an error."""
    lines = printed(capsys, "fmod_ret:vfs_*", "--semantics", "linux-7.3")

    assert "Mixing trampolines on linux-7.3: nothing is attached" in lines
    assert "PROG-3 its return value may not be modified 76" in lines


@pytest.mark.parametrize(
    ("pattern", "mistake"),
    [
        ("foo*", "'foo*' is no pattern: write KIND:GLOB, such as fentry:foo*"),
        ("mod1:bar*", "'mod1:bar*' has no kind: write fentry:mod1:bar*, for example"),
        ("fentry:traceable(foo*)", "'fentry:traceable(foo*)' is how a seed spells it: write fentry:foo*"),
        ("fentry:mod1:traceable(*)", "write fentry:mod1:*, planned as tools expand it"),
        ("fexit.s/foo1", "'fexit.s/foo1' is sleepable, which no plan is: write fexit:foo1"),
        ("fentry:foo1 fexit:foo1", "'fentry:foo1 fexit:foo1' has blanks: write KIND:GLOB without, and commas between"),
        ("fentry:foo1 /pid/", "'fentry:foo1 /pid/' has blanks"),
        ("fentry:", "'fentry:' is no pattern: write KIND:GLOB"),
        (":foo", "':foo' is no pattern: write KIND:GLOB"),
        ("kprobe:foo*", "unknown kind 'kprobe' in 'kprobe:foo*': write fentry:foo* to plan trampolines instead"),
        ("uprobe:foo*", "unknown kind 'uprobe' in 'uprobe:foo*': write one of fentry, kfunc, fexit, kretfunc"),
        ("freplace:foo*", "unknown kind 'freplace'"),
        ("fentry:!foo*", "'fentry:!foo*' asks for removal: write the glob without '!'"),
        ("fentry:nowhere*", "'fentry:nowhere*' matches no function of the world synthetic"),
        ("fentry:5", "'fentry:5' matches no function of the world synthetic"),
    ],
)
def test_a_pattern_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], pattern: str, mistake: str) -> None:
    """The front door exits with 2 and says what to write instead."""
    with pytest.raises(BadInputError) as caught:
        parse_probe(pattern, 1, synthetic())

    assert mistake in str(caught.value)
    assert main(["plan", "fentry:foo1", pattern, "--world", "synthetic"]) == 2
    assert mistake in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["fentry:vmlinux:foo1"], [("fentry", ["foo1"])]),
        (["kfunc:mod1:bar[12]"], [("fentry", ["bar1", "bar2"])]),
        (["kretfunc:m*:*1"], [("fexit", ["bar1", "bar11"])]),
        (["fentry:foo1,fexit:foo2 , fentry:foo3"], [("fentry", ["foo1"]), ("fexit", ["foo2"]), ("fentry", ["foo3"])]),
        (["kfunc:foo1 /pid == 7/ { if (1) { @[func] = count(); } }"], [("fentry", ["foo1"])]),
        (
            ["kfunc:foo1 { @a = 1 } kretfunc:foo1, kretfunc:foo2 { @b = 2 }", "fexit:outer"],
            [("fentry", ["foo1"]), ("fexit", ["foo1"]), ("fexit", ["foo2"]), ("fexit", ["outer"])],
        ),
    ],
)
def test_probes_are_read_as_bpftrace_writes_them(words: list[str], found: list[tuple[str, list[str]]]) -> None:
    """Modules, commas, and whole one-liners with predicates and blocks."""
    probes = read(*words)

    assert found == [(probe.kind, [function.name for function in probe.matched]) for probe in probes]
    assert [f"P{number}" for number in range(1, len(found) + 1)] == [probe.name for probe in probes]


@pytest.mark.parametrize(
    ("word", "mistake"),
    [
        ("kfunc:foo1 { @a = 1", "the braces of 'kfunc:foo1 { @a = 1' do not match"),
        ("fentry::foo1", "'fentry::foo1' is no pattern: write KIND:GLOB, such as fentry:vfs_*, or KIND:MODULE:GLOB"),
        (
            "fentry:nowhere:foo1",
            "'fentry:nowhere:foo1' names no module of the world synthetic: write one of vmlinux, mod1",
        ),
        ("bpftrace -e 'kfunc:foo1", "the quotes of '-e 'kfunc:foo1' do not match: write the probes alone"),
        ("bpftrace -v", "there is nothing to plan"),
        ("retsnoop -e", "retsnoop: argument -e/--entry: expected one argument: write GLOB behind it"),
        ("retsnoop -c bpf", "retsnoop's cases are not known here: write the globs of a case by -e, -a and -d"),
        ("/nowhere/opens.bt", "/nowhere/opens.bt: a script of bpftrace: cannot be read: No such file or directory"),
        ("sudo", "there is nothing to plan"),
        ("{ }", "'{ }' is no pattern"),
    ],
)
def test_a_word_that_is_no_probe_is_refused(capsys: pytest.CaptureFixture[str], word: str, mistake: str) -> None:
    """One sentence says what is wrong."""
    assert main(["plan", word, "--world", "synthetic"]) == 2

    (sentence,) = capsys.readouterr().err.splitlines()
    assert mistake in sentence


@pytest.mark.parametrize(
    ("pattern", "answers_of_73"),
    [
        ("fentry:vmlinux:x86*", [("vmlinux", 129, "ENOENT", 25), ("vmlinux", 104, "", 0)]),
        ("fexit:vmlinux:do_*", [("vmlinux", 296, "ENOENT", 41), ("vmlinux", 257, "EINVAL", 2)]),
        ("fentry:t_*", [("vmlinux", 7, "ENOENT", 7), ("vmlinux", 3, "ENOENT", 3)]),
        ("fentry:ext4:ext4_sync*", [("ext4", 3, "", 0), ("ext4", 3, "", 0)]),
    ],
)
def test_one_call_is_told_as_either_tool_expands_it(
    pattern: str, answers_of_73: list[tuple[str, int, str, int]]
) -> None:
    """What 7.3.4 answered to these ids, and what must be left out (GLOB-6, LINK-7); without it the call attaches."""
    world, semantics = populations.load("linux-7.3"), PRESETS["linux-7.3"]
    (probe,) = parsed(world, [pattern])
    attached = plan([probe], semantics).attached[0]
    found = list(expansions(probe, attached, world, semantics))

    assert answers_of_73 == [(one.btf, one.count, one.errno, len(one.left_out)) for one in found]
    assert [] == list(expansions(probe, attached, world, PRESETS["linux-6.12"]))


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("f:foo1,fr:foo2", [("fentry", ["foo1"]), ("fexit", ["foo2"])]),
        (
            'config = { a = "warn" } BEGIN { @a = 1 } i:s:1 { exit() } kfunc:foo1 { @ = 1 } END { }',
            [("fentry", ["foo1"])],
        ),
        ('kfunc:foo1 { printf("}{ \\"%d", 1); /* { */ exit(); // }\n }', [("fentry", ["foo1"])]),
        ("kfunc:foo1 /@a[tid] && pid/2 == 1/ { @ = 1 }", [("fentry", ["foo1"])]),
        ("kfunc:foo1/pid == 1/{ @ = 1 }", [("fentry", ["foo1"])]),
        (
            "uprobe:/bin/sh:main /pid/ { } kfunc:foo1,\nkfunc:foo2\n/pid/ { }",
            [("fentry", ["foo1"]), ("fentry", ["foo2"])],
        ),
        (
            """#!/usr/bin/bpftrace
            #include <linux/fs.h>
            struct a { int b; }; union c { int d; }
            let @m = hash(5); import "lib";
            macro add(a, b) { a + b }
            fn f($a : int64, $b : int64): int64 { return 1; }
            kfunc:foo1 { @ = 1 }""",
            [("fentry", ["foo1"])],
        ),
        ("tracepoint:a:b, kfunc:foo1 { } software:faults:1 { }", [("fentry", ["foo1"])]),
        (f"kfunc:foo1 {'{' * 50_000}{'}' * 50_000}", [("fentry", ["foo1"])]),
        ("'kfunc:foo1'", [("fentry", ["foo1"])]),
        ("“kfunc:foo1”", [("fentry", ["foo1"])]),
        ('SEC("fentry/foo1")', [("fentry", ["foo1"])]),
        ("fexit.multi/mod1:bar1", [("fexit", ["bar1"])]),
        ("bpftrace -e 'kfunc:foo1 { printf(\"%d, \", pid); }'", [("fentry", ["foo1"])]),
        ("$ sudo /usr/bin/bpftrace -ve 'kfunc:foo1 { }' | head", [("fentry", ["foo1"])]),
        ("bpftrace -lv 'kfunc:foo1'", [("fentry", ["foo1"])]),
        ("fentry:s*(struct pair two, ...)", [("fentry", ["split", "spill"])]),
        ("fentry:foo1(long int), fexit:foo1(signed long)", [("fentry", ["foo1"]), ("fexit", ["foo1"])]),
        ("fentry:*(bool)", [("fentry", ["narrow"])]),
        ("fentry:(struct pair)", [("fentry", ["split", "spill"])]),
        ("fentry:*( pair , int ), fexit:vmlinux:s*(char)", [("fentry", ["split"]), ("fexit", ["spill"])]),
    ],
)
def test_whole_programs_and_types_are_read(word: str, found: list[tuple[str, list[str]]]) -> None:
    """What attaches to no function is passed over; strings and comments may hold braces; types stand in parentheses."""
    probes = read(word)

    assert found == [(probe.kind, [function.name for function in probe.matched]) for probe in probes]


@pytest.mark.parametrize("world", populations.built_in())
def test_functions_that_take_a_pointer_to_a_struct(world: str) -> None:
    """More than the 1,400 of pwru's kind: qualifiers do not count, and what is nearly called so does."""
    functions = populations.load(world)
    (found,) = read("fentry:*(struct sk_buff *)", world=functions)
    (short,) = read("fentry:*(sk_buff*)", world=functions)
    (both,) = read("fentry:*(struct sk_buff *, struct sock *)", world=functions)
    named = [{argument.name for argument in f.prototype.arguments} for f in found.matched if f.prototype]

    assert found.matched == short.matched
    assert set(both.matched) < set(found.matched)
    assert 1400 < len(found.matched) == len(named)
    assert all(names & {"struct sk_buff *", "const struct sk_buff *"} for names in named)
    assert any("struct sk_buff *" not in names for names in named)


def test_a_script_is_read_from_its_file(tmp_path: Path) -> None:
    """By its path, whatever it is called, and as bpftrace's command line names it."""
    path = tmp_path / "opens"
    path.write_text("BEGIN { @ = 1 }\n// all, of them\nkfunc:foo1,\nkretfunc:foo2\n{ @[func] = count(); }\n")

    for word in str(path), f"bpftrace -v {path}":
        assert [("fentry", "kfunc:foo1"), ("fexit", "kretfunc:foo2")] == [(p.kind, p.pattern) for p in read(word)]


def test_a_command_line_of_retsnoop_is_its_lists(capsys: pytest.CaptureFixture[str]) -> None:
    """As one word, or as several; its other options are passed over."""
    words = "retsnoop -F -e foo? --allow=outer -d foo3 -T -n sh"
    lines = printed(capsys, words, "--world", "synthetic")
    options = printed(capsys, "retsnoop", "-e", "foo?", "-a", "outer", "-d", "foo3", "--world", "synthetic")

    assert "P1 -e 'foo?' -a 'outer' -d 'foo3': 7" in " ".join(lines)
    assert lines == options


@pytest.mark.parametrize("of", ["{}", ",", "/*", '"', "(", "[", "?", "*a", " /", "\n#", "let "])
def test_nonsense_is_refused_at_once(capsys: pytest.CaptureFixture[str], of: str) -> None:
    """A hundred thousand letters of it: one short sentence. (Time that grows with the square would be hours.)"""
    assert main(["plan", f"fentry:{of * 30_000}", "--world", "synthetic"]) == 2
    assert main(["plan", of * 30_000, "--world", "synthetic"]) == 2

    assert 500 > max(map(len, capsys.readouterr().err.splitlines()))


@pytest.mark.parametrize(
    ("name", "rule", "text"),
    [
        ("sched_clock", "LINK-16", "notrace: ftrace has no record of it"),
        ("vfs_caches_init", "LINK-16", "__init, or notrace in a module"),
        ("ksys_semctl", "PROG-7", "kallsyms has no such symbol: inlined everywhere"),
        ("t_next", "LINK-16", "BPF finds an earlier symbol, without a site"),
    ],
)
def test_a_function_without_a_site_is_refused_with_the_reason(name: str, rule: str, text: str) -> None:
    """A probe that matches no function that ftrace knows speaks of those that BTF names, as tried on 7.3."""
    found = planned("linux-7.3", f"fentry:{name}", world=populations.load("linux-7.3"))

    assert [0] == attached(found)
    assert {(rule, text): [name]} == reasons(found, 0)


def snooped(world: World, *, entry: str, allow: str = "", deny: str = "") -> list[Probe]:
    lists = (parse_lists(option, texts.split()) for option, texts in (("-e", entry), ("-a", allow), ("-d", deny)))
    return snoop(*lists, 1, world)


def test_retsnoop_attaches_fentry_and_fexit_to_what_its_lists_choose() -> None:
    """Entry and allowed functions without denied ones, of vmlinux unless a module is named, of up to six arguments."""
    probes = snooped(synthetic(), entry="foo? outer", allow="bar2 bar1[mod*] narrow spill", deny="foo[2] foo3*")

    assert [("P1", "fentry"), ("P2", "fexit")] == [(probe.name, probe.kind) for probe in probes]
    assert ["foo0", "foo1", "foo2", "foo4", "foo5", "foo6", "outer", "narrow", "bar1"] == [
        function.name for function in probes[0].matched
    ]
    assert {"a prototype that retsnoop does not take": 4} == probes[1].passed_over


def test_retsnoop_denies_functions_of_itself() -> None:
    """Of 7.3 it leaves out what is delicate, what is ambiguous, and what returns a pointer to no struct."""
    (probe, _) = snooped(
        populations.load("linux-7.3"), entry="vfs_*", allow="migrate_* rcu_read_unlock* t_next kstrdup*"
    )
    chosen = {function.symbol for function in probe.matched}

    assert {"vfs_read", "migrate_huge_page_move_mapping"} < chosen
    assert not {"migrate_disable", "rcu_read_unlock_strict", "t_next", "kstrdup"} & chosen
    assert 4 == len(probe.passed_over)


def test_a_glob_of_retsnoop_is_of_vmlinux_unless_it_names_a_module() -> None:
    """Also in a call of its own for a module that another glob names."""
    world, semantics = synthetic(), PRESETS["linux-7.3"]
    (probe, _) = snoop(parse_lists("-e", ["*1", "bar2 [mod1]"]), (), (), 1, world)
    found = expansions(probe, plan([probe], semantics).attached[0], world, semantics)

    assert ["foo1", "bar2"] == [function.name for function in probe.matched]
    assert [("vmlinux", 1), ("mod1", 1)] == [(one.btf, one.count) for one in found]


def test_lists_of_thousands_of_names_cost_what_short_ones_do() -> None:
    """As retsnoop prints them and --left-out writes them. (Each name tried on each function would be an hour.)"""
    world = populations.load("linux-7.3")
    names = [function.symbol for function in world.functions if function.module is None]
    allowed = parse_lists("-a", names[1:9000:2])
    (probe, _) = snoop(parse_lists("-e", ["vfs_*"]), allowed, parse_lists("-d", names[::2]), 1, world)
    passed = probe.selection.expand(world, "traceable", "vmlinux")

    assert 400 > len(probe.pattern)
    assert 3000 < len(probe.matched) < 4600
    assert not {function.symbol for function in probe.matched} & set(names[::2])
    assert set(probe.matched) == set(passed)


def test_lists_come_from_files(tmp_path: Path) -> None:
    """@FILE has globs between spaces and lines."""
    path = tmp_path / "list"
    path.write_text("foo1 foo2\n\nbar*[mod1]\n")

    assert ["foo1", "foo2", "bar* [mod1]"] == list(map(str, parse_lists("-d", [f"@{path}"])))


def test_the_deny_list_holds_for_probes(capsys: pytest.CaptureFixture[str]) -> None:
    """--deny leaves functions out of a probe, and so out of a call as libbpf expands it."""
    lines = printed(capsys, "fentry:vfs_*", "-d", "vfs_caches_init*", "--deny", "vfs_read", "--semantics", "linux-7.3")

    assert "P1 fentry:vfs_*: 78 match, attached 75" in lines
    assert any("as libbpf expands it: 75 functions, attached." in f"{line} {after}" for line, after in pairwise(lines))


def test_what_is_left_out_comes_with_its_reasons_and_as_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """41 functions of do_* make one call fail, for four reasons; without all that the file names it attaches."""
    path, kernel = tmp_path / "skip", ("--semantics", "linux-7.3")
    text = " ".join(printed(capsys, "fexit:do_*", *kernel, "--left-out", str(path)))
    after = " ".join(printed(capsys, "fexit:do_*", *kernel, "-d", f"@{path}"))

    assert (
        "296 functions, -ENOENT. It attaches without these 41: PROG-3 never returns (2): do_exit, do_group_exit" in text
    )
    assert "LINK-16 __init, or notrace in a module (15): do_allocate_snapshot, do_collect," in text
    assert 41 == len(path.read_text().splitlines())
    assert "over vmlinux, as libbpf expands it: 255 functions, attached." in after


def test_what_is_left_out_of_modules_names_them(tmp_path: Path) -> None:
    """As retsnoop writes it; a file that cannot be written is told."""
    path = tmp_path / "skip"

    assert main(["plan", "fentry:xfs:*", "--semantics", "linux-7.3", "--left-out", str(path)]) == 0
    assert all(re.fullmatch(r"[\w.]+\[xfs\]", line) for line in path.read_text().splitlines())
    assert path.read_text()
    assert main(["plan", "fentry:foo1", "--world", "synthetic", "--left-out", str(tmp_path / "no" / "skip")]) == 2


@pytest.mark.parametrize(
    ("words", "mistake"),
    [
        ([], "there is nothing to plan: write a probe, such as fentry:vfs_*, or retsnoop's -e GLOB"),
        (["-a", "foo*"], "-a names what retsnoop traces beside its entry functions: write -e GLOB, too"),
        (["-e", ":kernel/bpf/*.c"], "-e ':kernel/bpf/*.c' names source files, which a world does not know"),
        (["-e", "foo*", "-d", "**"], "-d '**' is no glob of retsnoop: write GLOB, such as vfs_*, or 'GLOB [MODULE]'"),
        (["-e", "nowhere*"], "-e 'nowhere*' matches no function of the world synthetic that retsnoop attaches to"),
        (["-e", "foo12"], "-e 'foo12' matches no function of the world synthetic that retsnoop attaches to"),
        (["-e", "@/nowhere/list"], "/nowhere/list: -e: cannot be read: No such file or directory"),
        (
            ["kretprobe:foo*"],
            "unknown kind 'kretprobe' in 'kretprobe:foo*': write fexit:foo* to plan trampolines instead",
        ),
        (["fentry:*(struct nothing *)"], "no function of the world synthetic takes 'struct nothing *'"),
        (["fentry:*()"], "'()' names no type: write it as in fentry:*(struct sk_buff *)"),
        (["BEGIN { }"], "'BEGIN { }' is no pattern"),
    ],
)
def test_what_is_not_understood_gets_a_sentence(
    capsys: pytest.CaptureFixture[str], words: list[str], mistake: str
) -> None:
    """And exit status 2."""
    assert main(["plan", *words, "--world", "synthetic"]) == 2

    (sentence,) = capsys.readouterr().err.splitlines()
    assert mistake in sentence


def test_bpftrace_programs_may_follow_its_own_option(capsys: pytest.CaptureFixture[str]) -> None:
    """-e is bpftrace's, too."""
    lines = printed(capsys, "-e", "kfunc:foo1 { @ = 1 }", "-e", "foo2", "--world", "synthetic")

    assert ["P1 kfunc:foo1: 1", "P2 -e 'foo2': 1", "P3 -e 'foo2': 1"] == [
        line.partition(" match")[0] for line in lines if " match, attached" in line
    ]


def test_functions_that_may_end_the_kernel_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    """What __rcu_read_unlock() calls, on every kernel; itself and its like where the kernel does not deny them."""
    new, old = (
        " ".join(printed(capsys, "fentry:*rcu_read_*lock*", "--world", kernel, "--semantics", kernel))
        for kernel in ("linux-7.3", "linux-6.1")
    )

    assert "leave out rcu_read_unlock_special: trampolines reach it" in new
    assert "leave out __rcu_read_lock, __rcu_read_unlock, rcu_read_unlock_special: trampolines" in old
    assert "leave out" not in " ".join(printed(capsys, "fentry:vfs_read*", "--semantics", "linux-6.12"))


def test_functions_that_a_kernel_may_lose_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    """DEFECT-22: those before the record of an overridden weak function, of kvm in 7.3."""
    text = " ".join(printed(capsys, "fentry:kvm:kvm_vcpu_*", "--semantics", "linux-7.3"))

    assert "may answer 0 and trace nothing of kvm_vcpu_compat_ioctl, kvm_vcpu_halt: the record" in text
    assert "DEFECT-22" not in " ".join(printed(capsys, "fentry:vfs_*"))
