"""What is drawn: the whole world and the whole range within a bounded search; shrinking goes back to small names."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import islice, pairwise
from typing import TypeVar
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, find, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from hypothesis.strategies import DrawFn

from impl.batched import system as batched
from properties.hunt.machines import STEPS, generating, machine_for
from properties.hunt.search import INTERLEAVED_ROUNDS, LARGE_ROUNDS, Search, beside
from properties.hunt.strategies import operations
from properties.hunt.strategies.drawing import Setting
from properties.hunt.units import SearchUnit, search_units
from properties.lockstep.lockstep import Lockstep, Taken
from properties.lockstep.runners import Reference, reference
from spec import operations as op
from spec.globs import record_index
from spec.inventory import Inventory
from spec.names import names_of
from spec.seeds import Step, print_operation
from spec.semantics import PRESETS, Semantics
from spec.worlds import World, large, synthetic

ROUNDS = 10
HALF = 1 << 32
SIGN = 1 << 63
PAGE = 256
OPERATIONS = "properties.hunt.strategies.operations"
Kind = TypeVar("Kind", bound=op.Operation)


@dataclass
class Example:
    """The operations of an example, and the model that has carried them out."""

    model: Reference
    drawn: list[op.Operation] = field(default_factory=list)

    def of(self, kind: type[Kind]) -> list[Kind]:
        """Those of a kind."""
        return [operation for operation in self.drawn if isinstance(operation, kind)]

    @property
    def attached(self) -> set[str]:
        """The functions that programs were attached to by name."""
        one_by_one = {one.function for one in self.of(op.BpfRawTracepointOpen) if one.function}
        return one_by_one | {name for one in self.of(op.BpfLinkCreate) for name, _ in one.targets}

    @property
    def called(self) -> set[str]:
        """The functions that were called."""
        return {one.function for one in self.of(op.Call)}


def draw_examples(world: World, semantics: Semantics, rounds: int) -> Iterator[Example]:
    """Wide examples, ten a round, that the model alone carries out."""
    found: list[Example] = []

    def begin(world: World, semantics: Semantics) -> Reference:
        found.append(Example(reference(world, semantics)))
        return found[-1].model

    class Kept(machine_for(world, semantics, [], model=begin)):  # type: ignore[misc]
        def execute(self, operations: tuple[op.Operation, ...]) -> None:
            found[-1].drawn += operations
            super().execute(operations)

    with patch(f"{OPERATIONS}.NARROW", 0):
        for number in range(rounds):
            run_state_machine_as_test(seed(number)(Kept), settings=generating(10))
    return iter(found)


@cache
def examples(semantics: str) -> tuple[Example, ...]:
    return tuple(draw_examples(synthetic(), PRESETS[semantics], ROUNDS))


@cache
def large_examples() -> tuple[Example, ...]:
    return tuple(draw_examples(large(), PRESETS["linux-6.12"], ROUNDS // 2 + 3))


def arities(world: World, names: Iterable[str]) -> set[int]:
    known = (world.by_name[name].prototype for name in names if name in world.by_name)
    return {len(form.slots) for form in known if form is not None}


@pytest.mark.parametrize("semantics", ["linux-6.12", "linux-7.3"])
def test_every_arity_is_attached_and_called(semantics: str) -> None:
    """From 0 to 12 arguments, both in one example."""
    found: set[str] = set()
    for example in examples(semantics):
        found |= example.attached & example.called

    assert set(range(13)) <= arities(synthetic(), found)


def test_examples_have_many_of_one_thing() -> None:
    """Ops, users of the graph tracer up to their limit, programs, direct trampolines, functions in one call."""
    found = examples("linux-6.12")
    tramps = [{n.text for o in e.drawn for n in names_of(o, "names") if n.space == "tramp"} for e in found]

    assert 5 <= sum(len({one.ops for one in example.of(op.FtraceOps)}) >= 5 for example in found)
    assert 5 <= sum(len({one.user for one in example.of(op.RegisterFtraceGraph)}) >= 5 for example in found)
    assert 17 <= max(len({one.user for one in example.of(op.RegisterFtraceGraph)}) for example in found)
    assert 45 <= max(len(example.of(op.BpfProgLoad)) for example in found)
    assert 4 <= max(map(len, tramps))
    assert 9 <= max(len(one.functions) for example in found for one in example.of(op.FtraceSetFilterIps))


def test_one_program_is_in_many_trampolines() -> None:
    """By links of its own."""
    used = [Counter(one.prog for one in example.of(op.BpfRawTracepointOpen)) for example in examples("linux-6.12")]

    assert 30 <= max(count for each in used for count in each.values())


@pytest.mark.parametrize("semantics", ["linux-6.12", "linux-7.3"])
def test_hundreds_of_images_are_built_in_an_example(semantics: str) -> None:
    """With batches and without, of a few functions."""
    built = [example.model.cost().images_built for example in examples(semantics)]

    assert 256 <= max(built)
    assert 20 >= sorted(built)[len(built) // 2]


def test_words_have_the_whole_range() -> None:
    """Cookies, return values and arguments: small, where 32 and 64 bits end, negative, and any."""
    one_by_one = {one.cookie for e in examples("linux-6.12") for one in e.of(op.BpfRawTracepointOpen)}
    batch = {cookie for e in examples("linux-7.3") for one in e.of(op.BpfLinkCreate) for _, cookie in one.targets}
    returned = {one.returns for e in examples("linux-6.12") for one in e.of(op.BpfProgLoad)}
    arguments = {word for e in examples("linux-6.12") for one in e.of(op.Call) for word in one.arguments}
    for words in (one_by_one, batch, returned):
        assert {None, 1} < words
        assert any(HALF // 2 <= word <= HALF for word in words if word)
        assert any(word >= SIGN or word < 0 for word in words if word)

    assert any(HALF < word < SIGN for word in one_by_one | batch if word)
    assert {0, 1, -1, HALF + 1, SIGN} <= arguments
    assert any(word < -HALF for word in arguments)


@pytest.mark.slow
def test_a_large_world_is_used_to_its_ends() -> None:
    """Functions and records of each page, several modules, and calls of many functions."""
    world = large()
    places = {function.name: place for place, function in enumerate(world.functions)}
    found = large_examples()
    called = {name for example in found for name in example.called}
    covered = {n.text for e in found for o in e.drawn for n in names_of(o, "names") if n.text in places}
    globs = {one.glob for e in found for one in (*e.of(op.FtraceSetFilter), *e.of(op.FtraceSetNotrace))}
    globs |= {one.filter for e in found for one in e.of(op.RegisterFtraceGraph) if one.filter}
    numbers = {record_index(glob) or 0 for glob in globs}

    assert set(range(6)) == {places[name] // PAGE for name in covered}
    assert set(range(6)) == {places[name] // PAGE for name in called}
    assert {None, "mod1", "mod2"} <= {world.by_name[name].module for name in covered}
    assert 5 < max(numbers)
    assert 9 <= max(len(one.functions) for e in found for one in e.of(op.FtraceSetFilterIps))


def test_most_examples_are_narrow() -> None:
    """They draw from few functions, which so meet often."""
    wide: list[bool] = []

    class Kept(machine_for(synthetic(), PRESETS["linux-7.3"], [])):  # type: ignore[misc]
        def teardown(self) -> None:
            wide.append(self.wide)
            super().teardown()

    for number in range(6):
        run_state_machine_as_test(seed(number)(Kept), settings=generating(10))

    assert 0.1 < sum(wide) / len(wide) < 0.5


def test_some_rounds_are_in_the_large_world() -> None:
    """Beside the synthetic world alone; the seed of what is found there names it."""
    worlds: list[str] = []

    def begin(world: World, semantics: Semantics) -> Reference:
        worlds.append(world.name)
        return reference(world, semantics)

    search = Search(synthetic(), PRESETS["linux-6.1"], [], 2, model=begin, large=beside(synthetic()))
    for _ in range(LARGE_ROUNDS):
        search.take_examples()
        search.rounds += 1

    assert {"synthetic", "synthetic-1500"} == set(worlds)
    assert len(worlds) / 2 > worlds.count("synthetic-1500")
    assert beside(large()) is None


def test_a_search_begins_narrow() -> None:
    """In the small world; then wide examples and the large world come too."""
    worlds: list[tuple[float, str]] = []
    wide: list[float] = []

    def begin(world: World, semantics: Semantics) -> Reference:
        worlds.append((search.tally.steps, world.name))
        return reference(world, semantics)

    def note(_draw: DrawFn, _at: Setting) -> tuple[op.Operation, ...]:
        wide.append(search.tally.steps)
        return ()

    search = Search(synthetic(), PRESETS["linux-6.1"], [], 1, model=begin, large=beside(synthetic()), before=0)
    limit = patch("properties.hunt.search.NARROW_OPERATIONS", 300)
    with limit, patch(f"{OPERATIONS}.NARROW", 0), patch(f"{OPERATIONS}.prelude", note):
        while "synthetic-1500" not in {name for _, name in worlds}:
            search.take_examples()
            search.rounds += 1

    assert 300 <= min(wide)
    assert 300 <= min(steps for steps, name in worlds if name == "synthetic-1500")


@pytest.mark.parametrize(("before", "most"), [(0, 1), (700, 0)])
def test_the_simplest_example_is_had_once(before: int, most: int) -> None:
    """By the first round of the first unit; in no other does an example repeat one step to its end."""
    taken: dict[Lockstep, list[op.Operation]] = {}

    def step(lockstep: Lockstep, wanted: Step) -> Taken:
        taken.setdefault(lockstep, []).append(wanted.operation)
        return stepped(lockstep, wanted)

    stepped = Lockstep.step
    search = Search(synthetic(), PRESETS["linux-6.1"], [], 1, before=before)
    with patch.object(Lockstep, "step", step):
        for _ in range(3):
            search.round(math.inf, 1)
    repeats = [max(Counter(operations).values()) for operations in taken.values()]

    assert most == sum(count > STEPS // 2 for count in repeats)
    assert len(taken) == search.examples


def test_only_the_first_units_of_a_setting_begin_narrow() -> None:
    """Each knows how many operations those before it have had."""
    settings = [SearchUnit(("batched",), "synthetic", name, 1, operations=700) for name in ("linux-6.1", "linux-7.3")]

    assert [0, 0, 700, 700, 1400, 1400] == [unit.before for unit in islice(search_units(settings), 6)]


def test_units_take_turns_to_interleave() -> None:
    """A unit ends before the round that would interleave; so some units begin later in turn than others."""
    few, many = (SearchUnit(("batched",), "synthetic", "linux-6.12", 1, operations=count) for count in (200, 1000))

    assert [0, 1, 2, 3] == [unit.rounds_before for unit in islice(search_units([few]), 4)]
    assert [0, 1, 2, 3] == [unit.rounds_before for unit in islice(search_units([many]), 4)]

    for before, always, tasks in (
        (INTERLEAVED_ROUNDS - 2, False, False),
        (INTERLEAVED_ROUNDS - 1, False, True),
        (0, True, True),
    ):
        search = Search(synthetic(), PRESETS["linux-6.12"], [batched], 1, rounds_before=before, tasks=always)
        search.round(math.inf, 1)

        assert tasks == any(verb == "task" for verb, _ in search.tally.outcomes)


@pytest.mark.slow
def test_modules_come_back_to_filters_that_named_them() -> None:
    """A module goes and comes back at once, just when an ops has got a function of it; in a large world each module."""
    found = large_examples()
    again = {
        two.module
        for example in found
        for one, two, three in zip(example.drawn, example.drawn[1:], example.drawn[2:], strict=False)
        if isinstance(one, op.FtraceSetFilterIp) and isinstance(two, op.DeleteModule)
        if three == op.InitModule(two.module) and large().by_name[one.function].module == two.module
    }

    assert {"mod1", "mod2", "mod3"} <= again


def test_lines_wait_for_modules_that_come() -> None:
    """For the filter and the notrace hash; some are taken back, in the words in which they were written."""
    met = Counter[str]()
    for example in examples("linux-7.3"):
        lines: set[str] = set()
        for one in example.drawn:
            text = (one.filter if isinstance(one, op.RegisterFtraceGraph) else getattr(one, "glob", None)) or ""
            met["back"] += text[1:] in lines
            met[one.verb] += isinstance(one, op.InitModule) and any(line.endswith(f":{one.module}") for line in lines)
            lines |= {text} if ":mod:" in text and not text.startswith("!") else set()
            met[type(one).__name__] += ":mod:" in text

    assert 3 <= met["back"]
    assert 5 <= min(met["init_module"], met["SetFtraceFilter"], met["SetFtraceNotrace"], met["RegisterFtraceGraph"])


@pytest.mark.slow
def test_records_of_every_page_are_selected_by_number() -> None:
    """For ops, and for users of the graph tracer."""
    numbers = {record_index(one.glob) or 0 for e in large_examples() for one in e.of(op.FtraceSetFilter)}
    numbers |= {record_index(one.filter or "") or 0 for e in large_examples() for one in e.of(op.RegisterFtraceGraph)}

    assert set(range(6)) == {number // PAGE for number in numbers}


def test_livepatched_functions_get_programs() -> None:
    """One by one and in a batch, just when they are livepatched, and later by batches that modify their images."""
    met = Counter[str]()
    for example in examples("linux-7.3"):
        patched: set[str] = set()
        attached: set[str] = set()
        for one in example.drawn:
            if isinstance(one, op.Livepatch):
                patched.add(one.function)
            elif isinstance(one, op.BpfLinkCreate | op.BpfRawTracepointOpen):
                functions = patched.intersection(n.text for n in names_of(one, "names"))
                met[one.verb] += bool(functions)
                met["modifies"] += isinstance(one, op.BpfLinkCreate) and not functions.isdisjoint(attached)
                attached |= functions

    assert 10 <= min(met["bpf_link_create"], met["bpf_raw_tracepoint_open"], met["modifies"])


def test_faults_are_reached_at_once() -> None:
    """The operation that follows is one of those that reach the point, for each of them."""
    found: dict[str, set[type[op.Operation]]] = {}
    for example in examples("linux-7.3"):
        for one, two in pairwise(example.drawn):
            if isinstance(one, op.Fail):
                found.setdefault(one.point, set()).add(type(two))

    attaching = {op.BpfRawTracepointOpen, op.BpfLinkCreate, op.BpfLinkDetach}
    registering = {op.RegisterFtraceFunction, op.RegisterFtraceDirectMulti, op.RegisterFtraceGraph, op.Livepatch}
    assert attaching <= found["register"]
    assert not found["register"].isdisjoint(registering)
    assert attaching <= found["jit_charge"]
    assert not found["filter"].isdisjoint({op.FtraceSetFilter, op.FtraceSetFilterIp, op.FtraceSetFilterIps})


def test_graph_users_are_seen_where_functions_call_others() -> None:
    """What one does at a depth, or in a subtree, shows in no other call; a few have a depth of 1 and nothing else."""
    followed = [
        isinstance(two, op.Call) and bool(synthetic().by_name[two.function].callees)
        for example in examples("linux-6.12")
        for one, two in pairwise(example.drawn)
        if isinstance(one, op.RegisterFtraceGraph | op.UnregisterFtraceGraph)
    ]
    shallow = [one for e in examples("linux-6.12") for one in e.of(op.RegisterFtraceGraph) if one.depth == 1]

    assert 0.1 < sum(followed) / len(followed)
    assert 3 <= sum(one.filter is one.function is one.notrace is None for one in shallow)


SIMPLEST = {
    op.FtraceOps: "ftrace_ops o1",
    op.BpfProgLoad: "bpf_prog_load p1 fentry",
    op.Livepatch: "livepatch foo1",
    op.RegisterFtraceGraph: "register_ftrace_graph g1 filter=foo1",
    op.Call: "call foo1 1",
}


@pytest.mark.parametrize(("kind", "line"), SIMPLEST.items(), ids=[kind.verb for kind in SIMPLEST])
@pytest.mark.parametrize("world", [synthetic(), large()], ids=["small", "large"])
def test_draws_shrink_to_small_names(world: World, kind: type[op.Operation], line: str) -> None:
    """The first function, o1, p1, g1 and no options, in any world."""
    semantics = PRESETS["linux-7.3"]
    drawn = operations(Inventory.at_start(world, semantics), semantics, frozenset({kind}))
    limits = settings(
        max_examples=2000,
        database=None,
        derandomize=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    simplest = find(drawn, lambda operation: isinstance(operation, kind), settings=limits)

    assert print_operation(simplest) in {line, line.removesuffix(" filter=foo1")}


def test_hundreds_of_direct_calls_are_followed_by_an_entry_more() -> None:
    """A program is attached behind them: only with so many does the table of direct calls grow in another way."""
    found = 0
    for example in large_examples():
        _, filled, *rest = (*example.drawn[:5], None, None)
        follow = [type(each) for each in rest if each]
        if isinstance(filled, op.FtraceSetFilterIps) and len(filled.functions) > 200:
            found += follow == [op.RegisterFtraceDirectMulti, op.BpfProgLoad, op.BpfRawTracepointOpen]

    assert found
