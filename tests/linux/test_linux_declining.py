"""A kernel is not asked to do some things; the reasons need no kernel."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest

from impl.linux.declining import EVERYTHING, GIVEN_BACK, UNFOUND, UNLOCKED, UNTAKEN, Decliner
from impl.linux.probes.tracefs import GraphTracer
from impl.linux.run import RunState
from spec.inventory import Inventory
from spec.outcomes import Errno, Ok
from spec.seeds import parse_operation
from spec.semantics import PRESETS
from spec.worlds import synthetic

LOADED = ("bpf_prog_load p1 fentry", "bpf_prog_load p2 fexit", "bpf_prog_load p3 fentry multi")
PATCHED = ("livepatch foo6", "bpf_raw_tracepoint_open l4 p2 foo6")
ENTRY = "bpf_raw_tracepoint_open l1 p1 foo1"


STATION = SimpleNamespace(
    own=(), foreign=("vfs_read",), foreign_modules=("virtio",), world=synthetic(), graph=GraphTracer(Mock(), 4)
)


class Directory(SimpleNamespace):
    """The kernel's symbols, and where functions are."""

    def home(self, _: object) -> None:
        """Everything is the kernel's own."""

    def home_of_link(self, *_: object) -> None:
        """So is each link."""

    def functions_of_link(self, inventory: Inventory, wanted: Any) -> list[Any]:
        """Its functions by name."""
        return [inventory.world.by_name[name] for name, _ in wanted.targets]


def decliner(*lines: str, semantics: str = "linux-7.3", lockdep: bool = True) -> Decliner:
    """One behind operations that succeeded."""
    symbols = SimpleNamespace(addresses=lambda name: (1,) if lockdep and name == "lock_is_held_type" else ())
    run = RunState(Inventory.at_start(synthetic(), PRESETS[semantics]))
    for line in lines:
        run.inventory = run.inventory.after(parse_operation(line), Ok())
    return Decliner(cast("Any", Directory(symbols=symbols, station=STATION)), run, retries=True)


@pytest.mark.parametrize(
    ("before", "line", "declined"),
    [
        ((*PATCHED, ENTRY), "bpf_raw_tracepoint_open l2 p2 foo1", True),
        ((*PATCHED, ENTRY), "bpf_link_create l2 p3 foo1 foo2", True),
        ((*PATCHED, ENTRY, "bpf_raw_tracepoint_open l2 p2 foo1"), "bpf_link_detach l2", True),
        ((*PATCHED, ENTRY), "bpf_raw_tracepoint_open l2 p2 foo2", False),
        ((*PATCHED, ENTRY), "bpf_link_detach l1", False),
        ((*PATCHED, ENTRY), "bpf_raw_tracepoint_open l2 p1 foo6", False),
        ((PATCHED[0], ENTRY), "bpf_raw_tracepoint_open l2 p2 foo1", False),
        ((PATCHED[1], ENTRY), "bpf_raw_tracepoint_open l2 p2 foo1", False),
    ],
)
def test_a_kernel_with_lockdep_is_spared_a_known_warning(before: tuple[str, ...], line: str, *, declined: bool) -> None:
    """Where an image takes another's place while a neighbour has one and is livepatched (DEFECT-27)."""
    asked = parse_operation(line)

    assert decliner(*LOADED, *before).reason(asked) == (UNLOCKED if declined else "")
    assert decliner(*LOADED, *before, lockdep=False).reason(asked) == ""
    assert decliner(*LOADED[:2], *before, semantics="linux-6.12").reason(asked) == ""


@pytest.mark.parametrize(("semantics", "declined"), [("linux-7.3", UNTAKEN), ("linux-6.12", "")])
def test_a_graph_user_behind_fprobes_at_returns_is_not_asked_for(semantics: str, declined: str) -> None:
    """Where the fprobes' user has slot 0, and is told of frames that it did not take (DEFECT-32)."""
    asked = decliner("bpf_prog_load k2 kretprobe", "bpf_link_create j1 k2 foo1", semantics=semantics)

    assert declined == asked._meets_returns()
    assert "" == decliner("bpf_prog_load k1 kprobe", "bpf_link_create j1 k1 foo1")._meets_returns()


GONE = "livepatch bar1"
GIVES_BACK = "unregister_ftrace_direct_multi o1 T1 free"


@pytest.mark.parametrize(
    ("line", "dead", "declined"),
    [
        (GONE, True, UNFOUND),
        ("livepatch foo2", True, ""),
        (GONE, False, ""),
        (GIVES_BACK, True, GIVEN_BACK),
        (GIVES_BACK.removesuffix(" free"), True, ""),
        (GIVES_BACK, False, ""),
    ],
)
def test_what_our_module_does_otherwise_is_not_asked_once_ftrace_is_dead(line: str, dead: bool, declined: str) -> None:
    """It asks ftrace what klp_patch_func() asks kallsyms before (IPMODIFY-7), and forgets ops that were given back."""
    asked = decliner("delete_module mod1", "ftrace_ops o1", "fail patch", semantics="linux-6.12")
    if dead:
        asked.run.inventory = asked.run.inventory.after(parse_operation("livepatch foo1"), Errno("ENODEV", warn=True))

    assert declined == asked.reason(parse_operation(line))


def laboratory(*lines: str, semantics: str = "linux-7.3") -> Decliner:
    """One of a kernel where modules of ours hold all of the world."""
    asked = decliner(*lines, semantics=semantics)
    cast("Any", asked.directory).home = lambda function: function.module or "massattach"
    return asked


USER, GOES, WAITS = "register_ftrace_graph g1 filter=foo1", "delete_module mod1", "set_ftrace_filter g1 bar1:mod:mod1"
LONELY = "register_ftrace_graph g1 filter=bar1:mod:mod1"


@pytest.mark.parametrize(
    ("before", "line", "declined"),
    [
        ((USER,), "set_ftrace_filter g1 :mod:mod1", ""),
        ((USER,), "set_ftrace_filter g1 foo2:mod:!mod1", ""),
        ((USER,), "set_ftrace_filter g1 2:mod:mod1", "numbers its records"),
        ((USER,), "set_ftrace_filter g1 foo2:mod:", "has the module massattach"),
        ((USER,), "set_ftrace_filter g1 *:mod:!mod1", "has functions outside of the world"),
        ((USER,), "set_ftrace_notrace g1 *:mod:vir*", "has functions outside of the world"),
        ((USER,), "set_ftrace_filter g1 foo2:mod:virtio", "has a module virtio"),
        ((GOES, USER, WAITS), "init_module mod1", ""),
        ((GOES, USER, WAITS), "set_ftrace_filter g1 !foo1", ""),
        ((GOES, USER, WAITS, "set_ftrace_filter g1 !foo1"), "set_ftrace_filter g1 !*:mod:mod1", EVERYTHING),
        ((GOES, LONELY), "init_module mod1", ""),
        ((GOES, LONELY.replace("bar1", "foo1")), "init_module mod1", EVERYTHING),
        ((GOES, LONELY), WAITS, ""),
    ],
)
def test_lines_that_name_modules(before: tuple[str, ...], line: str, declined: str) -> None:
    """The kernel has other modules, and there one of ours holds what is the kernel's own in the world."""
    reason = laboratory(*before).reason(parse_operation(line))

    assert declined == reason[: len(declined)]
    assert bool(declined) == bool(reason)


@pytest.mark.parametrize("line", [WAITS, "set_ftrace_filter g1 nosuch", "unregister_ftrace_graph g2"])
def test_a_line_that_waits_may_be_forgotten(line: str) -> None:
    """Where the newest user has nothing else, graph_ops is made anew as if it had no filter (DEFECT-39)."""
    last = ("register_ftrace_graph g2 filter=foo2",) if line.startswith("un") else ()
    asked = laboratory(GOES, LONELY, *last, semantics="linux-6.12")

    assert EVERYTHING == asked.reason(parse_operation(line))
    assert "" == laboratory(GOES, LONELY, *last).reason(parse_operation(line))
    assert "" == laboratory(GOES, USER, WAITS, *last, semantics="linux-6.12").reason(parse_operation(line))
