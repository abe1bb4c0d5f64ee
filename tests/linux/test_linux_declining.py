"""A kernel is not asked to do some things; the reasons need no kernel."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest

from impl.linux.declining.decliner import Decliner
from impl.linux.declining.faults import FaultDecliner
from impl.linux.declining.ftrace import COUNTED, DIES_REFUSING, GIVEN_BACK, HALF_STARTED, REGS_GIVEN, TAKEN_OUT
from impl.linux.declining.graph import UNTAKEN, GraphDecliner
from impl.linux.declining.ipmodify import MEETS_GONE, UNFOUND, UNLOCKED
from impl.linux.declining.patterns import EVERYTHING, Patterns
from impl.linux.declining.tasks import FREED, SEVERAL, UNDER_A_SLEEPER, TaskDecliner
from impl.linux.probes.tracefs import ALONE, GraphTracer
from impl.linux.run import RunState
from impl.linux.tasks import StandingTask
from properties.systems.kernels import like_a_kernel
from spec.following import follow
from spec.inventory import Inventory
from spec.outcomes import Errno, Ok
from spec.seeds import parse_operation
from spec.semantics import PRESETS
from spec.worlds import synthetic

LOADED = ("bpf_prog_load p1 fentry", "bpf_prog_load p2 fexit", "bpf_prog_load p3 fentry multi")
PATCHED = ("livepatch foo6", "bpf_raw_tracepoint_open l4 p2 foo6")
IPMODIFY = ("ftrace_ops o1 ipmodify", "ftrace_set_filter_ips o1 foo1 foo2")
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
        run.inventory = follow(run.inventory, parse_operation(line), Ok())
    return Decliner(cast("Any", Directory(symbols=symbols, station=STATION)), run, retries=True)


@pytest.mark.parametrize(
    ("semantics", "kind", "unfiltered", "declined"),
    [
        ("linux-7.3", "kretprobe", True, True),
        ("linux-7.3", "kretprobe", False, False),
        ("linux-7.3", "kprobe", True, False),
        ("linux-6.12", "kretprobe", True, False),
    ],
)
def test_fprobes_at_returns_do_not_join_a_user_without_a_filter(
    semantics: str, kind: str, *, unfiltered: bool, declined: bool
) -> None:
    """On 7.3 they are users of the graph tracer (KPROBE-5), and graph_ops then covers what the first one hides."""
    asked = decliner(f"bpf_prog_load p1 {kind}", "register_ftrace_graph g1", semantics=semantics)
    graph = SimpleNamespace(is_unfiltered=lambda _: unfiltered)
    asked.directory.station = cast("Any", SimpleNamespace(graph=graph))

    assert declined == (ALONE in asked.reason(parse_operation("bpf_link_create l1 p1 foo1")))


@pytest.mark.parametrize(
    ("semantics", "flag", "filtered", "declined"),
    [
        ("linux-6.1", "save_regs", False, REGS_GIVEN),
        ("linux-6.1", "save_regs", True, ""),
        ("linux-6.1", "", False, ""),
        ("linux-6.12", "save_regs", False, ""),
    ],
)
def test_a_notrace_hash_that_gives_regs_to_everything_stays_as_it_is(
    semantics: str, flag: str, declined: str, *, filtered: bool
) -> None:
    """The world has but few of the functions of a kernel at which it is asked again (SITE-6)."""
    filters = ("ftrace_set_filter_ip o1 foo2",) if filtered else ()
    asked = decliner(f"ftrace_ops o1 {flag}".strip(), *filters, "register_ftrace_function o1", semantics=semantics)

    assert declined == asked.reason(parse_operation("ftrace_set_notrace o1 foo1"))


@pytest.mark.parametrize(("off", "declined"), [(False, ""), (True, DIES_REFUSING)])
def test_a_direct_call_does_not_end_where_ftrace_may_die_of_it(declined: str, *, off: bool) -> None:
    """R may have stayed at a site while kernel.ftrace_enabled was 0, by which ftrace_shutdown() kills ftrace."""
    turned = ("ftrace_enabled 0", "ftrace_enabled 1") if off else ()
    asked = decliner(*turned, "register_ftrace_direct foo2 T1", semantics="linux-6.1")

    assert declined == asked.reason(parse_operation("unregister_ftrace_direct foo2 T1"))


@pytest.mark.parametrize(
    ("first", "calls", "declined"), [("bar1", " calls=foo1", True), ("foo2", " calls=foo1", False), ("bar1", "", False)]
)
def test_a_program_that_calls_is_linked_over_one_btf(first: str, calls: str, *, declined: bool) -> None:
    """A program is loaded for each BTF, and then meets another one where it would meet itself (TRACE-3)."""
    asked = decliner(f"bpf_prog_load p1 fentry multi{calls}", f"bpf_link_create l1 p1 {first}")
    asked.directory.home = lambda function: function.module  # type: ignore[method-assign]

    assert declined == ("once for each BTF" in asked.reason(parse_operation("bpf_link_create l2 p1 foo1")))


@pytest.mark.parametrize(("hooks", "declined"), [((), True), (("bpf_lsm_quotactl",), False)])
def test_a_kernel_without_hooks_is_given_no_programs_for_them(hooks: tuple[str, ...], *, declined: bool) -> None:
    """CONFIG_BPF_LSM makes them, whose functions BTF names."""
    asked = decliner()
    asked.directory.station = cast("Any", SimpleNamespace(vmlinux=SimpleNamespace(functions=hooks)))

    assert declined == ("CONFIG_BPF_LSM" in asked.reason(parse_operation("bpf_prog_load p1 lsm")))
    assert not asked.reason(parse_operation("bpf_prog_load p1 fentry"))


@pytest.mark.parametrize(
    ("before", "line", "declined"),
    [
        ((*PATCHED, ENTRY), "bpf_raw_tracepoint_open l2 p2 foo1", True),
        ((*PATCHED, ENTRY), "bpf_link_create l2 p3 foo1 foo2", True),
        ((*PATCHED, ENTRY, "bpf_raw_tracepoint_open l2 p2 foo1"), "bpf_link_detach l2", True),
        ((*PATCHED, ENTRY, *IPMODIFY), "register_ftrace_function o1", True),
        ((*PATCHED, ENTRY, *IPMODIFY, "register_ftrace_function o1"), "unregister_ftrace_function o1", True),
        ((*PATCHED, *IPMODIFY), "register_ftrace_function o1", False),
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


def of_graph(asked: Decliner) -> GraphDecliner:
    """The part that is asked of the graph tracer."""
    return GraphDecliner(asked.directory, asked.run, Patterns(asked.directory, asked.run))


@pytest.mark.parametrize(("semantics", "declined"), [("linux-7.3", UNTAKEN), ("linux-6.12", "")])
def test_a_graph_user_behind_fprobes_at_returns_is_not_asked_for(semantics: str, declined: str) -> None:
    """Where the fprobes' user has slot 0, and is told of frames that it did not take (DEFECT-32)."""
    asked = decliner("bpf_prog_load k2 kretprobe", "bpf_link_create j1 k2 foo1", semantics=semantics)

    assert declined == of_graph(asked)._meets_returns()
    assert "" == of_graph(decliner("bpf_prog_load k1 kprobe", "bpf_link_create j1 k1 foo1"))._meets_returns()


@pytest.mark.parametrize(("entry", "declined"), [("bar1", MEETS_GONE), ("foo1", "")])
def test_an_ipmodify_ops_does_not_meet_a_function_that_has_gone(entry: str, declined: str) -> None:
    """Of which a raw direct ops has the address, too (DEFECT-11)."""
    filtered = ("ftrace_ops o1 ipmodify", "ftrace_ops o2", "ftrace_set_filter_ips o1 bar1 foo2")
    asked = decliner(*filtered, f"update_ftrace_direct_add o2 {entry}=T1", "delete_module mod1")

    assert declined == asked.reason(parse_operation("register_ftrace_function o1"))


GONE = "livepatch bar1"
GIVES_BACK = "unregister_ftrace_direct_multi o1 T1 free"


@pytest.mark.parametrize(
    ("line", "dead", "declined"),
    [
        (GONE, True, UNFOUND),
        ("livepatch foo2", True, ""),
        (GONE, False, ""),
        (GIVES_BACK, True, GIVEN_BACK),
        ("unregister_ftrace_direct foo1 T1", True, TAKEN_OUT),
        ("modify_ftrace_direct foo1 T1 T2", True, COUNTED),
        ("modify_ftrace_direct foo1 T1 T2", False, ""),
        ("unregister_ftrace_direct foo1 T1", False, ""),
        (GIVES_BACK.removesuffix(" free"), True, ""),
        (GIVES_BACK, False, ""),
    ],
)
def test_what_our_module_does_otherwise_is_not_asked_once_ftrace_is_dead(line: str, dead: bool, declined: str) -> None:
    """It asks ftrace what klp_patch_func() asks kallsyms before (IPMODIFY-7), and forgets ops that were given back."""
    asked = decliner("delete_module mod1", "ftrace_ops o1", "fail patch", semantics="linux-6.12")
    if dead:
        asked.run.inventory = follow(asked.run.inventory, parse_operation("livepatch foo1"), Errno("ENODEV", warn=True))

    assert declined == asked.reason(parse_operation(line))


@pytest.mark.parametrize(
    ("died", "line", "semantics", "declined"),
    [
        ("bpf_raw_tracepoint_open l1 p1 foo1", "bpf_raw_tracepoint_open l1 p2 foo2", "linux-7.3", HALF_STARTED),
        ("bpf_link_create l1 p3 foo1", "bpf_link_create l1 p3 foo2 foo3", "linux-7.3", HALF_STARTED),
        ("bpf_raw_tracepoint_open l1 p1 foo1", "bpf_link_create l1 k1 foo1", "linux-7.3", ""),
        ("livepatch foo1", "bpf_raw_tracepoint_open l1 p2 foo2", "linux-7.3", ""),
        ("bpf_raw_tracepoint_open l1 p1 foo1", "bpf_raw_tracepoint_open l1 p2 foo2", "linux-6.12", ""),
    ],
)
def test_nothing_is_attached_by_an_ops_at_which_ftrace_died(
    died: str, line: str, semantics: str, declined: str
) -> None:
    """Where all of BPF's functions have one: it is enabled without a function, which is -EINVAL before anything."""
    asked = decliner(*LOADED[:2], "bpf_prog_load k1 kprobe", semantics=semantics)
    asked.run.inventory = follow(asked.run.inventory, parse_operation("bpf_prog_load p3 fentry multi"), Ok())
    asked.run.inventory = follow(asked.run.inventory, parse_operation("fail patch"), Ok())
    operation, outcome = parse_operation(died), Errno("ENODEV", warn=True)
    asked.run.inventory = follow(asked.run.inventory, operation, outcome)
    asked.run.follow_death(operation, outcome)

    assert declined == asked.reason(parse_operation(line))


@pytest.mark.parametrize(
    ("before", "line", "defects"),
    [
        ((ENTRY,), "bpf_link_detach l1", "DEFECT-1"),
        (("bpf_link_create l1 p3 foo1",), "bpf_link_detach l1", "DEFECT-24"),
        (("register_ftrace_graph g1 filter=foo1",), "unregister_ftrace_graph g1", "DEFECT-25"),
        ((), "delete_module mod1", "DEFECT-34"),
        ((), "init_module mod1", "DEFECT-38, DEFECT-43"),
        (("bpf_prog_load k2 kretprobe",), "bpf_link_create j1 k2 foo1", "DEFECT-36"),
        (("bpf_prog_load k1 kprobe",), "bpf_link_create j1 k1 foo1", ""),
        (("bpf_prog_load k2 kretprobe", "bpf_link_create j1 k2 foo1"), "bpf_link_detach j1", "DEFECT-35"),
        ((), "register_ftrace_graph g1 filter=foo1", "DEFECT-26, DEFECT-30"),
        (("ftrace_ops o1",), "ftrace_set_filter o1 foo*", "DEFECT-28"),
        (("ftrace_ops o1",), "ftrace_set_notrace o1 !foo*", ""),
        (("register_ftrace_graph g1 filter=foo1",), "set_ftrace_filter g1 foo2", "DEFECT-29"),
        (("register_ftrace_graph g1 filter=foo1",), "set_graph_notrace g1 foo1", "DEFECT-46"),
        ((), ENTRY, ""),
    ],
)
def test_what_is_known_without_memory_is_asked_for_by_name(before: tuple[str, ...], line: str, defects: str) -> None:
    """With an allocation that is to fail; a kernel that is asked to show one of them does it, and so does a seed."""
    run = decliner(*LOADED, *before).run
    operation = parse_operation(line)

    def reason(armed: int, *asked: str) -> str:
        return FaultDecliner(run, cast("Any", SimpleNamespace(armed=armed)), frozenset(asked)).reason(operation)

    assert (bool(defects), defects in reason(1)) == (bool(reason(1)), True)
    assert "" == reason(0)
    assert "" == reason(1, *defects.split(", "))


GONE_FROM_BOTH = ("set_ftrace_notrace g2 bar4:mod:mod1", "delete_module mod1")


@pytest.mark.parametrize(
    "line", ["unregister_ftrace_graph g1", "register_ftrace_graph g3 filter=foo3", "set_ftrace_filter g1 foo3"]
)
def test_graph_ops_is_not_made_anew_of_hashes_whose_functions_have_gone(line: str) -> None:
    """One address stands for all that have gone, so that a notrace hash takes all from a filter (DEFECT-20)."""
    users = ("register_ftrace_graph g1 filter=foo1", "register_ftrace_graph g2 filter=bar6")
    asked = parse_operation(line)

    assert decliner(*users, *GONE_FROM_BOTH).reason(asked) == EVERYTHING
    assert decliner(*users, *GONE_FROM_BOTH[1:]).reason(asked) != EVERYTHING
    assert decliner(*users, *GONE_FROM_BOTH, semantics="linux-6.12").reason(asked) != EVERYTHING


@pytest.mark.parametrize(
    ("before", "semantics", "declined"),
    [
        ((), "linux-7.3", False),
        ((), "linux-6.12", True),
        (("bpf_raw_tracepoint_open l2 p2 foo1",), "linux-6.12", False),
    ],
)
def test_a_last_detach_goes_without_memory_where_its_ops_stays(
    before: tuple[str, ...], semantics: str, *, declined: bool
) -> None:
    """One direct_ops is never freed; the ops of a trampoline is, and is registered still (NAME-12)."""
    asked = decliner(*LOADED[:2], ENTRY, *before, semantics=semantics)
    asked.run.failing.add("alloc")

    assert bool(asked.reason(parse_operation("bpf_link_detach l1"))) == declined


@pytest.mark.parametrize(
    ("own", "home", "number", "something"),
    [
        ("massattach", "massattach", 7, False),
        (None, "mod1", 7, False),
        ("mod1", None, 7, False),
        ("mod1", "massattach", 7, True),
        ("mod1", "massattach", 8, False),
        ("massattach", "mod1", 8, True),
        ("massattach", None, 8, True),
        (None, "massattach", 8, True),
    ],
)
def test_an_id_of_another_btf_may_mean_something(
    own: str | None, home: str | None, number: int, *, something: bool
) -> None:
    """The other BTF may have a FUNC of that id, or the world calls both BTFs vmlinux's (LINK-17)."""
    asked = decliner()
    directory = cast("Any", asked.directory)
    directory.home, directory.btf_id = lambda _: own, lambda _: number
    directory.station = SimpleNamespace(btfs=dict.fromkeys((home, None), SimpleNamespace(functions={"foo1": 7})))

    assert asked._bpf._means_something(synthetic().by_name["foo1"], home) == something


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
            run.inventory = follow(run.inventory, parse_operation(line), Ok())
    task = StandingTask("foo1", 0, {point: (place,) for point, place in points.items()}, at)
    tasks = SimpleNamespace(tasks={"t1": task})
    spared = TaskDecliner(cast("Any", Directory()), run, cast("Any", tasks), asked=frozenset())

    assert (FREED if freed else "") == spared.reason(parse_operation("bpf_link_detach l1"))


@pytest.mark.parametrize(
    ("points", "change", "step", "freed"),
    [
        (ENTRIES, "bpf_link_detach l2", "step t1 to=program:p1 how=sleep", True),
        (ENTRIES, "bpf_link_detach l2", "step t1 to=program:p1", False),
        (ENTRIES, "bpf_link_detach l2", "step t1 to=body how=sleep", False),
        (ENTRIES, "bpf_prog_load p3 fentry", "step t1 to=program:p1 how=sleep", False),
        (ENTRIES | {"enter": 1}, "bpf_link_detach l2", "step t1 to=program:p1 how=sleep", False),
    ],
)
def test_nobody_goes_to_sleep_in_an_image_that_was_put(
    points: dict[str, int], change: str, step: str, *, freed: bool
) -> None:
    """DEFECT-44: one that does not call the original, and another one is in its place."""
    run = RunState(Inventory.at_start(synthetic(), PRESETS["linux-7.3"]))
    for number in (1, 2):
        for line in (f"bpf_prog_load p{number} fentry sleepable", f"bpf_raw_tracepoint_open l{number} p{number} foo1"):
            run.inventory = follow(run.inventory, parse_operation(line), Ok())
    run.inventory = follow(run.inventory, parse_operation(change), Ok())
    task = StandingTask("foo1", 0, {point: (place,) for point, place in points.items()}, "image")
    tasks = SimpleNamespace(tasks={"t1": task})
    spared = TaskDecliner(cast("Any", Directory()), run, cast("Any", tasks), asked=frozenset())

    assert (UNDER_A_SLEEPER if freed else "") == spared.reason(parse_operation(step))


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


@pytest.mark.parametrize(
    ("links", "line", "declined"),
    [
        (("bpf_link_create l1 p1 foo1",), "bpf_link_create l2 p1 foo2", ""),
        (("bpf_link_create l1 p1 foo1",), "bpf_link_create l2 p1 bpf_fentry_test1", SEVERAL),
        (("bpf_link_create l1 p1 foo1", "bpf_link_create l2 p1 bpf_fentry_test1"), "step t1 to=program:p1", SEVERAL),
        (("bpf_link_create l1 p1 foo1", "bpf_link_create l2 p1 foo2"), "step t1 to=program:p1", ""),
    ],
)
def test_a_multi_program_is_several_for_several_btfs(links: tuple[str, ...], line: str, declined: str) -> None:
    """A task in one of them keeps no other from running, as TASK-6 has it of one."""
    run = RunState(Inventory.at_start(like_a_kernel(synthetic(), PRESETS["linux-7.3"]), PRESETS["linux-7.3"]))
    for before in ("bpf_prog_load p1 fentry multi", *links):
        run.inventory = follow(run.inventory, parse_operation(before), Ok())
    task = StandingTask("foo1", 0, {}, "program:p1")
    directory = SimpleNamespace(station=SimpleNamespace(own={"bpf_fentry_test1"}))
    asked = TaskDecliner(cast("Any", directory), run, cast("Any", SimpleNamespace(tasks={"t1": task})), frozenset())

    assert declined == asked.reason(parse_operation(line))
