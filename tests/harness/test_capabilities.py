"""Capabilities: what a system may have besides a System's members, through the guard and from another process."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from properties.lockstep.lockstep import Lockstep
from properties.lockstep.supported import UnsupportedError
from properties.systems.exec_system import exec_factory
from properties.systems.guard import SystemCrashError, guarded
from properties.systems.naming import resolve
from spec import capabilities
from spec.border import bordered
from spec.capabilities import METHODS, VALUES
from spec.operations import BpfLinkCreate, Finish, SetFtraceFilter
from spec.operations import Step as TaskStep
from spec.seeds import Step, parse_operation, parse_seed
from spec.semantics import PRESETS, Semantics
from spec.system import System, SystemFactory
from spec.worlds import World, synthetic
from tests.support import lockstep_fakes as fakes

EXAMPLE = Path(__file__).parents[1] / "support" / "example_process.py"
SEMANTICS = PRESETS["linux-7.3"]
STEPS = """world synthetic
semantics linux-7.3
---
ftrace_ops o1
ftrace_set_filter_ip o1 foo1
register_ftrace_function o1
bpf_prog_load p1 fexit multi
bpf_link_create l1 p1 foo1 outer
livepatch foo2
register_ftrace_graph g1 filter=outer
set_ftrace_filter g1 foo2
"""
MEMBERS = [name for name in vars(System) if not name.startswith("_")]
FACTORIES = [
    fakes.Honest,
    fakes.Declines,
    fakes.CountsImages,
    fakes.Talks,
    fakes.Shares,
    fakes.Looks,
    fakes.Veils,
    fakes.Tells,
    fakes.Reads,
    fakes.Leaks,
    fakes.Capable,
]
LINK = BpfLinkCreate("l1", "p1", (("foo1", None), ("outer", None)))
SETTING = SetFtraceFilter("g1", "foo2")
SECOND = parse_operation("livepatch foo3")


def in_process(factory: type) -> SystemFactory:
    """The same system in a process of its own."""
    return exec_factory(f"{sys.executable} {EXAMPLE} {fakes.__name__}:{factory.__name__}", 10.0)


def made(factory: SystemFactory) -> System:
    """A system behind some steps."""
    system = factory(synthetic(), SEMANTICS)
    for step in parse_seed(STEPS).steps:
        system.apply(step.operation)
    return system


def answers(system: System) -> dict[str, Any]:
    """All that a system says of itself, as whoever uses it asks."""
    return {
        "name": system.name,
        "supports": system.supports,
        "apply": system.apply(parse_operation("register_ftrace_function o1")),
        "sites": system.sites(),
        "call": system.call("foo1", (1,)),
        "cost": system.cost(),
        "declines": [
            capabilities.declines(system, operation) for operation in (SECOND, parse_operation("ftrace_ops o2"))
        ],
        "console": capabilities.console(system),
        "counts": capabilities.counts(system),
        "originals": capabilities.originals(system),
        "link_info": capabilities.link_info(system, LINK) if hasattr(system, "link_info") else "",
        "hash_file": capabilities.hash_file(system, SETTING) if hasattr(system, "hash_file") else "",
        "unseen": capabilities.unseen(system),
        "left_over": capabilities.left_over(system),
        "sharing": capabilities.sharing(system),
        "fails_nth": capabilities.fails_nth(system),
        "step": capabilities.step(system, TaskStep("t1", to="body")),
        "finish": capabilities.finish(system, Finish("t1")),
        "close": system.close(),
        "present": {name for name in (*VALUES, *METHODS) if hasattr(system, name)},
    }


def test_every_member_is_compared() -> None:
    """What is compared below is all that a System has and may have; each accessor is that of a declared capability."""
    accessors = {
        name for name, _ in inspect.getmembers(capabilities, inspect.isfunction) if name in capabilities.__all__
    }

    assert {*MEMBERS, *VALUES, *METHODS, "present"} == answers(made(fakes.Capable)).keys()
    assert {*VALUES, *METHODS} == accessors
    assert {*VALUES, *METHODS} == {name for name in (*VALUES, *METHODS) if hasattr(fakes.Capable, name)}


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_guarded_system_is_transparent(factory: type) -> None:
    """Every member and capability, present or absent, is that of the system inside."""
    assert answers(made(factory)) == answers(made(guarded(factory, 10.0)))


def test_a_guard_finds_what_is_behind_the_border() -> None:
    """The capabilities of a system that the border wraps, and no others."""

    def behind(world: World, semantics: Semantics) -> System:
        return bordered(fakes.Tells(world, semantics), world, semantics)

    assert {"link_info", "step", "finish"} == answers(made(guarded(behind, 10.0)))["present"]


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_process_has_the_capabilities_of_its_system(factory: type) -> None:
    """Another process answers as the system that it stands for; it chooses its name itself."""
    own, other = answers(made(factory)), answers(made(in_process(factory)))

    assert own | {"name": "example"} == other


def test_a_process_that_knows_of_no_capabilities_has_none() -> None:
    """An answer to hello without them means what it always meant."""
    answer = """input(); print('{"name": "x", "supports": ["call"]}', flush=True)"""
    system = exec_factory(f'{sys.executable} -c "{answer.replace(chr(34), chr(92) + chr(34))}"', 10.0)(
        synthetic(), SEMANTICS
    )
    system.close()

    assert not any(hasattr(system, name) for name in (*VALUES, *METHODS))


@pytest.mark.parametrize("wrapped", [lambda factory: factory, lambda factory: guarded(factory, 10.0), in_process])
def test_lockstep_asks_for_them_everywhere(wrapped: Callable[[type], SystemFactory]) -> None:
    """A system that declines, counts, talks and shares does so in a plug-in and in a process as well."""
    run = Lockstep(
        synthetic(), SEMANTICS, [wrapped(fakes.Declines), wrapped(fakes.CountsImages), wrapped(fakes.Shares)]
    )
    steps = parse_seed(STEPS).steps

    assert () == run.run(steps)
    with pytest.raises(UnsupportedError, match="the system .* has no room for a second livepatch"):
        run.step(Step(SECOND))
    assert () == run.close()

    talking = Lockstep(synthetic(), SEMANTICS, [wrapped(fakes.Talks)])
    (found,) = talking.run(steps)
    assert "0 WARN\na warning about register_ftrace_function" == found.observed
    talking.close()


class Wrong(fakes.Honest):
    """Has capabilities that are none."""

    counts: object = frozenset({"images_alive"})
    sharing: object = "per_shape"

    def declines(self, _: object) -> object:
        """No text."""
        return None

    def console(self) -> str:
        """No answer."""
        raise OSError("no console")


def test_a_plug_in_with_wrong_capabilities_has_crashed() -> None:
    """Their types are checked like those of other answers."""
    system = guarded(Wrong, 10.0)(synthetic(), SEMANTICS)
    with pytest.raises(SystemCrashError, match=r"declines\(\) returned a NoneType: expected a string, not null"):
        capabilities.declines(system, SECOND)
    with pytest.raises(SystemCrashError, match=r"console\(\) raised OSError: no console"):
        capabilities.console(system)
    for members, sentence in (
        (
            {"counts": frozenset({"image_alive"})},
            "counts returned a frozenset: .*expected one of grace_periods, images",
        ),
        ({"sharing": "per_family"}, "sharing returned a str: expected one of generic, per_function, per_shape"),
    ):
        with pytest.raises(SystemCrashError, match=sentence):
            guarded(type("Wronger", (Wrong,), members), 10.0)(synthetic(), SEMANTICS)


def test_a_system_that_fails_to_decline_has_crashed() -> None:
    """The step is taken, and the failure is its divergence; others go on."""
    run = Lockstep(synthetic(), SEMANTICS, [guarded(Wrong, 10.0), fakes.Honest])
    found = run.step(Step(parse_operation("ftrace_ops o1"))).divergences

    assert [("crash", 0)] == [(one.aspect, one.place) for one in found]
    assert "declines() returned a NoneType" in found[0].observed
    assert () == run.run([Step(parse_operation("register_ftrace_function o1"))])
    assert () == run.close()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ('"counts": ["images"]', r"counts\[0\]: expected one of grace_periods"),
        ('"sharing": 1', "sharing: expected a string or null, not an integer"),
        ('"answers": ["flies"]', r"answers\[0\]: expected one of console, declines"),
    ],
)
def test_a_process_with_wrong_capabilities_has_crashed(answer: str, sentence: str) -> None:
    """Its answer to hello is checked."""
    hello = f'{{"name": "x", "supports": [], {answer}}}'.replace('"', '\\"')
    factory = exec_factory(f"""{sys.executable} -c "input(); print('{hello}', flush=True)" """, 10.0)
    with pytest.raises(SystemCrashError, match=sentence):
        factory(synthetic(), SEMANTICS)


def test_a_plug_in_by_name_is_asked() -> None:
    """What the command line names is guarded, and asked all the same."""
    run = Lockstep(synthetic(), SEMANTICS, [resolve(f"{fakes.__name__}:Declines")])
    run.run([Step(parse_operation("livepatch foo2"))])

    assert "has no room for a second livepatch" in run.declined(SECOND)
