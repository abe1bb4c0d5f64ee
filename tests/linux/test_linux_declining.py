"""A kernel is not asked to do some things; the reasons need no kernel."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from impl.linux.declining import GIVEN_BACK, UNFOUND, UNLOCKED, UNTAKEN, Decliner
from impl.linux.declining_tasks import FREED, TaskDecliner
from impl.linux.run import RunState
from impl.linux.tasks import StandingTask
from spec.inventory import Inventory
from spec.outcomes import Errno, Ok
from spec.seeds import parse_operation
from spec.semantics import PRESETS
from spec.worlds import synthetic

LOADED = ("bpf_prog_load p1 fentry", "bpf_prog_load p2 fexit", "bpf_prog_load p3 fentry multi")
PATCHED = ("livepatch foo6", "bpf_raw_tracepoint_open l4 p2 foo6")
ENTRY = "bpf_raw_tracepoint_open l1 p1 foo1"


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
    return Decliner(cast("Any", Directory(symbols=symbols, station=SimpleNamespace(own=()))), run, retries=True)


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


ENTRIES = {"image": 100, "before:p2": 120, "program:p2": 900, "before:p1": 150, "program:p1": 950}
EXIT_POINTS = "image enter before:p3 after-body before:p2 before:p1 exit".split()
EXITS = {point: 100 + 20 * number for number, point in enumerate(EXIT_POINTS)}


@pytest.mark.parametrize(
    ("kinds", "points", "at", "freed"),
    [
        (("fentry", "fentry"), ENTRIES, "image", True),
        (("fentry", "fentry"), ENTRIES, "program:p2", True),
        (("fentry", "fentry"), ENTRIES, "before:p1", True),
        (("fentry", "fentry"), ENTRIES, "program:p1", False),
        (("fentry", "fentry"), ENTRIES, "body", False),
        (("fexit", "fexit", "fmod_ret"), EXITS, "enter", False),
        (("fexit", "fexit", "fmod_ret returns=-22"), EXITS, "enter", True),
        (("fexit", "fexit", "fmod_ret"), EXITS, "after-body", False),
        (("fexit", "fexit", "fmod_ret"), EXITS, "before:p2", True),
        (("fexit", "fexit", "fmod_ret"), EXITS, "exit", False),
    ],
)
def test_a_program_is_not_freed_before_a_task(
    kinds: tuple[str, ...], points: dict[str, int], at: str, *, freed: bool
) -> None:
    """DEFECT-17: p1 leaves while others stay, and the task comes to it, unless putting the image leads it past."""
    run = RunState(Inventory.at_start(synthetic(), PRESETS["linux-6.12"]))
    for number, kind in enumerate(kinds, 1):
        for line in (f"bpf_prog_load p{number} {kind}", f"bpf_raw_tracepoint_open l{number} p{number} foo1"):
            run.inventory = run.inventory.after(parse_operation(line), Ok())
    task = StandingTask("foo1", 0, {point: (place,) for point, place in points.items()}, at)
    tasks = SimpleNamespace(tasks={"t1": task})
    spared = TaskDecliner(cast("Any", Directory()), run, cast("Any", tasks), known=True)

    assert (FREED if freed else "") == spared.reason(parse_operation("bpf_link_detach l1"))
