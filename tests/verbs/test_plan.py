"""The verb `plan`: its figures are those that `batched` shows and the model confirms, and its pictures show them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from impl.batched import Batched
from model import system
from properties.__main__ import main
from properties.plan.explaining import Reason
from properties.plan.planning import BATCH, DIRECT_MULTI, ONE_BY_ONE, Plan, plan
from spec import operations as op
from spec import populations
from spec.costs import Cost
from spec.operations import Operation
from spec.outcomes import Errno, Ok
from spec.prototypes import Prototype
from spec.semantics import PRESETS
from spec.sharing import LEVELS
from spec.worlds import LONG, Function, World
from tests.support.plans import attached, images, named, parsed, planned, printed, reasons

SEMANTICS = tuple(PRESETS)
PARTS = "proposal-2021"


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


PARTS = "proposal-2021"


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
