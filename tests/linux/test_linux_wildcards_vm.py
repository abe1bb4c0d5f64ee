"""`plan` against real kernels, on wildcards that people used: what is selected, attached, refused, and left out.

To attach thousands of functions one by one takes an emulated processor hours, so that SINGLY of each wildcard are
tried, the refused ones first; one call may have as many as LARGEST. What was left out is counted and printed.

What trampolines reach themselves, so that a program there may end the kernel, is left out where it would be attached,
and printed too: `plan` names it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import cache

import pytest

from impl.linux.instruments import bpftrace, measure
from properties.kernels.cost import CLIENT_ARGUMENTS, CLIENT_SUITES
from properties.kernels.population import MODULES
from properties.plan.expanding import Expansion, expansions
from properties.plan.explaining import find_endless
from properties.plan.planning import Plan, plan
from properties.plan.probes import Probe, parse_probes
from spec import populations
from spec.errors import BadInputError
from spec.globs import matcher
from spec.semantics import PRESETS
from spec.worlds import Function
from tests.support.stations import KERNELS, kernel_or_skip
from tests.support.wildcards import Room, Site, opened, read_wildcards

pytestmark = pytest.mark.vm

SINGLY, LARGEST = 20, 1000
CLIENT_FUNCTIONS, CLIENT_WILDCARDS = 80, 4
WITH_BATCHES = "linux-7.3"
VMLINUX = "vmlinux"


@pytest.fixture(scope="module", params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> str:
    """One after the other, so that there is one guest at a time."""
    return request.param


@pytest.fixture(scope="module")
def room(kernel: str) -> Iterator[Room]:
    """The guest that the built-in population was made of."""
    with opened(kernel_or_skip(kernel), MODULES[kernel]) as found:
        yield found


@cache
def planned(kernel: str) -> list[tuple[Probe, Plan]]:
    """The wildcards that match something in this kernel's world."""
    world, found, nothing = populations.load(kernel), [], []
    for wildcard in read_wildcards():
        try:
            probes = parse_probes([wildcard.probe], world)
        except BadInputError as error:
            nothing.append(str(error))
        else:
            found.append((probes[0], plan(probes, PRESETS[kernel])))
    assert len(found) >= 30
    assert all("matches no function" in each for each in nothing)
    return found


@cache
def expanded(kernel: str) -> list[tuple[Probe, list[Expansion]]]:
    """What one call does for each wildcard, as either tool expands it."""
    world, semantics = populations.load(kernel), PRESETS[kernel]
    return [(probe, list(expansions(probe, each.attached[0], world, semantics))) for probe, each in planned(kernel)]


def site(function: Function) -> Site:
    return function.module, function.symbol


def spread(functions: Sequence[Function], most: int) -> list[Function]:
    return list(functions[:: max(1, len(functions) // most)][:most])


def harmless(functions: Sequence[Function]) -> list[Function]:
    endless = find_endless(functions)
    return [function for function in functions if function not in endless]


def told_endless(kernel: str) -> str:
    found = {function.symbol for probe, _ in planned(kernel) for function in find_endless(probe.matched)}
    return f"what may end the kernel: {', '.join(sorted(found))}"


def test_ftrace_selects_what_plan_matches(kernel: str) -> None:
    """Each glob in set_ftrace_filter, without the modules that need not be there, as they cost seconds a glob."""
    probes = [probe for probe, _ in planned(kernel) if not of_modules(probe)]
    with opened(kernel_or_skip(kernel), ()) as bare:
        selected, differ = compare_filters(bare, probes)
    print(f"\n{kernel}: {len(probes)} wildcards select {selected:,} functions")

    assert {} == differ


def test_ftrace_selects_what_plan_matches_in_modules(kernel: str, room: Room) -> None:
    """GLOB:mod:GLOB is MODULE:GLOB."""
    selected, differ = compare_filters(room, [probe for probe, _ in planned(kernel) if of_modules(probe)])

    assert {} == differ
    assert selected > 0


def of_modules(probe: Probe) -> bool:
    (wanted,) = probe.selection.globs
    return wanted.module is not None and not matcher(wanted.module)(VMLINUX)


def compare_filters(room: Room, probes: Sequence[Probe]) -> tuple[int, dict[str, object]]:
    """How many functions ftrace selects, and by pattern what only ftrace selects and what only plan does."""
    selected, differ = 0, {}
    for probe in probes:
        (wanted,) = probe.selection.globs
        command = f":mod:{wanted.module if of_modules(probe) else '!*'}" if wanted.module else ""
        expected = Counter(site(f) for f in probe.matched if f.has_site and f.module in room.btfs)
        found = room.select(wanted.glob + command)
        selected += found.total()
        if expected != found:
            differ[probe.pattern] = (found - expected, expected - found)
    return selected, differ


def test_functions_one_by_one_answer_as_planned(kernel: str, room: Room) -> None:
    """Attached is what plan attaches, and nothing else; refused is what it refuses; after detaching nothing is left."""
    differ: dict[str, object] = {}
    tried = refused = left = hidden = 0
    for probe, found in planned(kernel):
        taking = {site(function) for function in found.attached[0]}
        named = [function for function in probe.matched if function.btf_id is not None]
        refusing = [function for function in named if site(function) not in taking]
        sample = refusing[: SINGLY // 2]
        sample += spread(harmless(found.attached[0]), SINGLY - len(sample))
        errnos, during, after = room.singly(probe.kind, map(site, sample))
        lost = {each for each, errno in errnos.items() if not errno and not during[each]}
        hidden += len(lost)
        wrong = {each: errno for each, errno in errnos.items() if (not errno) != (each in taking)}
        strangers = set(during) - {each for each, errno in errnos.items() if not errno}
        if wrong or strangers or after or lost - room.hidden:
            differ[probe.pattern] = wrong, strangers, after, lost
        tried, refused, left = (
            tried + len(sample),
            refused + len(sample) - during.total(),
            left + len(named) - len(sample),
        )
    print(
        f"\n{kernel}: {tried:,} functions of {len(planned(kernel))} wildcards one by one, {refused:,} of them refused, "
        f"{hidden} attached without a site (DEFECT-22); {left:,} were left out, among them {told_endless(kernel)}"
    )

    assert {} == differ
    assert refused > 0


@pytest.mark.parametrize("kernel", [WITH_BATCHES], indirect=True)
def test_one_call_answers_as_planned(kernel: str, room: Room) -> None:
    """As libbpf expands it and as available_filter_functions has it: errno, list to leave out, attach, detach."""
    differ: dict[tuple[str, str, str], object] = {}
    calls = refused = attached = large = 0
    for probe, found in expanded(kernel):
        for one in found:
            names = named_by_guest(room, probe, one)
            ids = [name for name in names if one.btf != VMLINUX or name not in room.aliases]
            told = [] if len(ids) == one.count else [f"{len(ids)} functions, planned {one.count}"]
            endless = find_endless(probe.matched)
            for batch, errno in ((names, one.errno), (without(names, one.left_out), "")):
                tried = batch if errno else without(batch, endless)
                if errno == "" and len(tried) > LARGEST:
                    large += 1
                elif tried and (batch is names or one.errno):
                    told += call(room, probe.kind, one.btf, tried, errno)
                    calls, refused, attached = calls + 1, refused + bool(errno), attached + (not errno) * len(tried)
            if told:
                differ[probe.pattern, one.btf, one.how] = told
    print(
        f"\n{kernel}: {calls:,} calls, {refused:,} of them refused as a whole, the others with {attached:,} functions; "
        f"{large} of more than {LARGEST:,} functions were left out, and {told_endless(kernel)}"
    )

    assert {} == differ
    assert min(refused, attached) > 0


def named_by_guest(room: Room, probe: Probe, one: Expansion) -> list[str]:
    """The names of the guest's own BTF that one call passes."""
    (wanted,) = probe.selection.globs
    module = None if one.btf == VMLINUX else one.btf
    return room.expand(wanted.glob, module, traceable="available" in one.how)


def without(names: Sequence[str], left_out: Sequence[Function]) -> list[str]:
    gone = {function.symbol for function in left_out}
    return [name for name in names if name not in gone]


def call(room: Room, kind: str, btf: str, names: Sequence[str], expected: str) -> list[str]:
    """Sentences of how a call differs from what was planned."""
    module = None if btf == VMLINUX else btf
    errno, during, after = room.link(kind, module, names)
    told = (
        []
        if errno == expected
        else [f"{len(names)} functions: {errno or 'attached'}, planned {expected or 'attached'}"]
    )
    wanted = set() if expected else {(module, name) for name in names if name not in room.aliases} - room.hidden
    if not wanted <= set(during) or (expected and during):
        told.append(f"not attached: {sorted(wanted - set(during))[:5]}")
    return [*told, f"left: {sorted(after)[:5]}"] if after else told


@pytest.mark.parametrize("kernel", [WITH_BATCHES], indirect=True)
def test_no_shorter_list_can_be_left_out(kernel: str, room: Room) -> None:
    """Each function of a list to leave out is refused in a call of its own, too; so many of each list are tried."""
    attached, tried = [], 0
    for probe, found in expanded(kernel):
        for one in found:
            for function in spread(one.left_out, 3):
                tried += 1
                if room.link(probe.kind, function.module, [function.symbol])[0] == "":
                    attached.append((probe.pattern, function.name))
    print(f"\n{kernel}: {tried:,} functions to leave out, each in a call of its own")

    assert [] == attached
    assert tried > 50


def test_bpftrace_attaches_what_plan_attaches(kernel: str) -> None:
    """Debian's bpftrace, given some of the wildcards as they are: the sites of plan, and none after its end."""
    fetched = kernel_or_skip(kernel)
    try:
        client = bpftrace.fetch(CLIENT_SUITES[kernel], fetched.architecture)
    except BadInputError as error:
        pytest.skip(str(error))
    differ, attached, tried = {}, 0, []
    with closing((bench := measure.prepare(fetched, memory=bpftrace.MEMORY, files=client.files)).guest):
        for probe, expected in for_the_client(kernel):
            bench.fresh()
            measured = bpftrace.trace(
                bench, f"{probe.pattern.replace('fentry', 'kfunc').replace('fexit', 'kretfunc')} {{ }}"
            )
            tried.append(probe.pattern)
            attached += len(measured.attached)
            if measured.attached != expected or measured.left:
                differ[probe.pattern] = measured.attached ^ expected, measured.left
    print(f"\n{kernel}: bpftrace {client.version} attached {attached} functions of {', '.join(tried)}")

    assert {} == differ
    assert len(tried) == CLIENT_WILDCARDS


def for_the_client(kernel: str) -> list[tuple[Probe, frozenset[str]]]:
    """Wildcards of few functions, and what plan attaches of those that have no more arguments than bpftrace takes."""
    found = []
    for probe, each in planned(kernel):
        small = 1 < len(probe.matched) <= CLIENT_FUNCTIONS
        if small and all(function.module is None for function in probe.matched):
            taken = [f for f in each.attached[0] if f.prototype and len(f.prototype.arguments) <= CLIENT_ARGUMENTS]
            found.append((probe, frozenset(function.symbol for function in taken)))
    return found[:CLIENT_WILDCARDS]
