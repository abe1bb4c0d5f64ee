"""Rules with surprising results, on `batched` alone and at every sharing level: expectations stand in the lines."""

from __future__ import annotations

import pytest

from impl.batched import Batched
from spec import operations as op
from spec.border import bordered
from spec.costs import Cost
from spec.errors import BadInputError
from spec.seeds import Step, parse_seed
from spec.semantics import PRESETS
from spec.sharing import LEVELS
from spec.worlds import synthetic

MOST_6, MOST_7 = 38, 36
LINES = {
    "TRAMP-1 newest first": """
        bpf_prog_load p1 fentry
        bpf_prog_load p2 fexit
        bpf_prog_load p3 fentry
        bpf_prog_load p4 fexit
        bpf_raw_tracepoint_open l1 p1 foo1 -> 0
        bpf_raw_tracepoint_open l2 p2 foo1 -> 0
        bpf_raw_tracepoint_open l3 p3 foo1 -> 0
        bpf_raw_tracepoint_open l4 p4 foo1 -> 0
        call foo1 9 -> fentry:p3 fentry:p1 body fexit:p4 fexit:p2 =9
        site foo1 -> trampoline:fentry:p3,fentry:p1,fexit:p4,fexit:p2""",
    "SITE-5 another image between two looks": """
        bpf_prog_load p1 fentry
        bpf_prog_load p2 fentry
        bpf_raw_tracepoint_open l1 p1 foo1 -> 0
        site foo1 -> trampoline:fentry:p1
        bpf_link_detach l1 -> 0
        bpf_raw_tracepoint_open l2 p2 foo1 -> 0
        site foo1 -> trampoline:fentry:p2""",
    "TRAMP-3 a modified return": """
        bpf_prog_load p1 fmod_ret returns=0
        bpf_prog_load p2 fmod_ret returns=-5
        bpf_prog_load p3 fmod_ret returns=7
        bpf_prog_load p4 fexit
        bpf_raw_tracepoint_open l1 p3 foo1 -> 0
        bpf_raw_tracepoint_open l2 p2 foo1 -> 0
        bpf_raw_tracepoint_open l3 p1 foo1 -> 0
        bpf_raw_tracepoint_open l4 p4 foo1 -> 0
        call foo1 9 -> fmod_ret:p1 fmod_ret:p2 fexit:p4 =-5""",
    "FILTER-10 the last entry": """
        ftrace_ops o1
        ftrace_set_filter_ip o1 foo1 -> 0
        register_ftrace_function o1 -> 0
        site foo2 -> nop
        ftrace_set_filter_ip o1 foo1 remove -> 0
        site foo2 -> ops:o1""",
    "FILTER-5 in the functions' order": """
        ftrace_ops o1
        ftrace_set_filter_ips o1 foo1 foo2 foo1 -> 0
        ftrace_set_filter_ips o1 foo1 foo1 nowhere remove -> -ENOENT
        ftrace_set_filter_ips o1 foo1 nowhere foo1 remove -> -EINVAL
        ftrace_set_filter_ip o1 foo1 remove reset -> -ENOENT
        ftrace_set_filter_ips o1 foo1 foo2 remove -> 0""",
    "SITE-6 R stays": """
        ftrace_ops o1 save_regs
        ftrace_ops o2
        ftrace_ops o3
        register_ftrace_function o1 -> 0
        register_ftrace_function o2 -> 0
        register_ftrace_function o3 -> 0
        ftrace_set_filter o1 foo[12] -> 0
        site foo1 -> ftrace_regs_caller
        site foo3 -> ftrace_regs_caller
        ftrace_set_notrace o1 foo2 -> 0
        site foo2 -> ftrace_regs_caller
        ftrace_set_filter_ip o1 foo3 -> 0
        unregister_ftrace_function o1 -> 0
        site foo1 -> ftrace_caller
        site foo2 -> ftrace_regs_caller
        site foo3 -> ftrace_caller
        site foo4 -> ftrace_regs_caller
        unregister_ftrace_function o2 -> 0
        site foo4 -> ops:o3
        unregister_ftrace_function o3 -> 0
        register_ftrace_function o2 -> 0
        register_ftrace_function o3 -> 0
        site foo4 -> ftrace_caller""",
    "SITE-6 R stays behind direct calls": """
        ftrace_ops o1
        ftrace_ops o2
        ftrace_ops o3
        register_ftrace_function o2 -> 0
        register_ftrace_function o3 -> 0
        update_ftrace_direct_add o1 foo1=T1 foo2=T1 foo3=T1 -> 0
        update_ftrace_direct_del o1 foo1=T1 -> 0
        site foo1 -> ftrace_regs_caller
        update_ftrace_direct_del o1 foo2=T1 foo3=T1 -> 0
        site foo2 -> ftrace_caller
        bpf_prog_load p1 fentry multi
        bpf_prog_load p2 fexit multi
        bpf_link_create l1 p1 foo4 foo5 -> 0
        bpf_link_create l2 p2 foo5 -> 0
        bpf_link_detach l1 -> 0
        site foo4 -> ftrace_regs_caller
        bpf_link_detach l2 -> 0
        site foo5 -> ftrace_caller""",
    "GLOB-4 a number has base 0": """
        ftrace_ops o1
        ftrace_set_filter o1 0x2 -> 0
        ftrace_set_filter o1 010 -> 0
        ftrace_set_filter o1 3x -> -EINVAL
        register_ftrace_function o1 -> 0
        site foo1 -> ops:o1
        site foo7 -> ops:o1
        register_ftrace_graph g function=2 -> -EINVAL
        register_ftrace_graph g notrace=2 -> -EINVAL
        register_ftrace_graph g filter=2 -> 0
        call foo1 1 -> graph>g ops:o1 body <graph:g =1
        call foo2 1 2 -> body =3""",
    "MODULE-5 an address stays": """
        ftrace_ops o1
        ftrace_set_filter_ip o1 bar1 -> 0
        register_ftrace_function o1 -> 0
        delete_module mod1 -> 0
        init_module mod1 -> 0
        site bar1 -> nop
        site foo1 -> nop
        call bar1 5 -> body =5""",
    "MODULE-6 an address is a site of direct_functions": """
        ftrace_ops o1
        ftrace_ops o2
        ftrace_ops o3
        ftrace_set_filter_ip o1 bar1 -> 0
        ftrace_set_filter_ips o2 bar1 foo1 -> 0
        ftrace_set_filter_ip o3 bar2 -> 0
        delete_module mod1 -> 0
        register_ftrace_direct_multi o1 T1 -> 0
        register_ftrace_direct_multi o2 T2 -> -EBUSY
        register_ftrace_direct_multi o3 T2 -> 0
        modify_ftrace_direct_multi o1 T2 -> 0
        unregister_ftrace_direct_multi o1 T2 -> 0
        register_ftrace_direct_multi o2 T2 -> 0
        unregister_ftrace_direct_multi o2 T1 -> 0
        register_ftrace_direct_multi o1 T1 -> -EBUSY
        init_module mod1 -> 0
        site bar1 -> nop
        site foo1 -> nop""",
    "IPMODIFY-6 no second try in a batch": """
        bpf_prog_load p1 fexit multi
        bpf_prog_load p2 fentry multi
        livepatch foo1 -> 0
        bpf_link_create l1 p1 foo1 foo2 -> -EAGAIN
        site foo2 -> nop
        bpf_link_create l2 p2 foo1 foo2 -> 0
        bpf_link_create l1 p1 foo1 foo2 -> -EAGAIN
        site foo2 -> trampoline:fentry:p2
        call foo1 1 -> fentry:p2 body:patched =1001""",
    "LINK-9 what a batch answers over a foreign direct call": """
        ftrace_ops o1
        ftrace_set_filter_ip o1 foo3
        register_ftrace_direct_multi o1 T1 -> 0
        bpf_prog_load p1 fentry multi
        bpf_link_create l1 p1 foo1 foo3 -> -EINVAL
        site foo1 -> nop""",
    "LINK-13 an old image stays": """
        bpf_prog_load p1 fentry multi
        bpf_prog_load p2 fexit multi
        bpf_link_create l1 p1 foo1 foo2 -> 0
        bpf_link_create l2 p2 foo1 foo2 foo3 -> 0
        fail jit_charge 2
        bpf_link_detach l1 -> 0 WARN
        site foo1 -> trampoline:fexit:p2
        site foo2 -> trampoline:fentry:p1,fexit:p2
        call foo2 1 2 -> body fexit:p2 =3
        bpf_link_create l1 p1 foo2 -> 0
        bpf_link_detach l1 -> 0
        site foo2 -> trampoline:fexit:p2""",
    "LINK-15 cookies follow the function": """
        bpf_prog_load p1 fentry multi
        bpf_link_create l1 p1 foo3:3 foo1:1 foo2 -> 0
        bpf_link_create l2 p1 foo1 -> -EBUSY
        bpf_link_create l2 p1 foo4 foo4 -> -EINVAL
        bpf_link_create l2 p1 foo4 foo* -> -EINVAL
        bpf_link_create l2 p1 zzz* -> -EINVAL""",
    "PROG-6 a program does not run inside itself": """
        bpf_prog_load p1 fentry calls=foo1
        bpf_prog_load p2 fentry
        bpf_raw_tracepoint_open l1 p2 foo1 -> 0
        bpf_raw_tracepoint_open l2 p1 foo1 -> 0
        call foo1 4 -> fentry:p1 foo1[ fentry:p2 body =0 ] fentry:p2 body =4""",
    "DEAD-1 ftrace_bug": """
        ftrace_ops o1
        fail patch
        register_ftrace_function o1 -> -ENODEV WARN
        register_ftrace_function o1 -> -ENODEV
        delete_module mod1 -> 0
        init_module mod1 -> 0
        call bar1 1 -> body =1
        ftrace_set_filter_ip o1 foo1 -> -ENODEV""",
    "DEAD-2 a module that comes too late": """
        ftrace_ops o1
        register_ftrace_function o1 -> 0
        call bar1 1 -> ops:o1 body =1
        fail patch
        register_ftrace_graph g -> -ENODEV WARN
        call bar1 1 -> ops:o1 body =1
        delete_module mod1 -> 0
        init_module mod1 -> 0
        site bar1 -> nop
        call bar1 1 -> body =1""",
    "DIRECT-6, DIRECT-8, DIRECT-9 the batch API": """
        ftrace_ops o1 dynamic
        ftrace_ops o2
        ftrace_set_filter_ips o1 foo1 foo2
        ftrace_set_filter_ips o2 foo2 foo3
        register_ftrace_direct_multi o1 T1 -> 0
        register_ftrace_direct_multi o2 T2 -> -EBUSY
        modify_ftrace_direct_multi o1 T2 -> 0
        modify_ftrace_direct_multi o2 T2 -> -EINVAL
        call foo2 1 2 -> direct:T2 body =3
        ftrace_set_filter_ip o1 foo3 -> -EOPNOTSUPP
        unregister_ftrace_direct_multi o1 T2 free -> 0
        ftrace_free_filter o1 -> -EBADF
        site foo2 -> nop""",
    "DIRECT-8 entries with another address stay behind": """
        ftrace_ops o1 dynamic
        ftrace_ops o2
        ftrace_ops o3
        ftrace_set_filter_ips o1 foo1 foo2
        ftrace_set_filter_ip o2 foo2
        update_ftrace_direct_add o3 foo4=T1 foo5=T2
        register_ftrace_direct_multi o1 T1 -> 0
        unregister_ftrace_direct_multi o1 T2 free -> 0
        site foo1 -> nop
        call foo1 1 -> body =1
        register_ftrace_direct_multi o2 T1 -> -EBUSY
        bpf_prog_load p1 fentry
        bpf_raw_tracepoint_open l1 p1 foo1 -> -EINVAL
        ftrace_ops o1
        ftrace_set_filter_ip o1 foo1
        register_ftrace_function o1 -> 0
        site foo1 -> ops:o1
        call foo1 1 -> ops:o1 body =1
        livepatch foo2 -> 0
        unregister_ftrace_direct_multi o3 T1 -> 0
        site foo5 -> nop
        ftrace_set_filter_ip o3 foo4 reset
        register_ftrace_direct_multi o3 T1 -> 0
        site foo4 -> direct:T1
        ftrace_set_filter_ip o2 foo5 reset
        register_ftrace_direct_multi o2 T1 -> -EBUSY""",
    "DIRECT-10, DIRECT-11, DIRECT-12 the hash API": """
        ftrace_ops o1 dynamic
        update_ftrace_direct_add o1 foo1=T1 foo1=T2 -> -EINVAL
        update_ftrace_direct_add o1 foo1=T1 foo2=T2 -> 0
        update_ftrace_direct_add o1 foo2=T2 foo3=T3 -> -EINVAL
        update_ftrace_direct_mod o1 foo1=T4 foo5=T4 -> 0
        site foo1 -> direct:T4
        site foo5 -> nop
        update_ftrace_direct_del o1 foo1=T1 -> -EINVAL
        update_ftrace_direct_del o1 foo1=T4 -> 0
        site foo1 -> nop
        update_ftrace_direct_del o1 foo2=T2 -> 0
        update_ftrace_direct_mod o1 foo2=T2 -> -EINVAL
        update_ftrace_direct_add o1 foo2=T2 -> 0
        ftrace_ops o2
        ftrace_set_filter_ip o2 foo2
        register_ftrace_function o2 -> 0
        update_ftrace_direct_add o2 foo6=T1 -> -EOPNOTSUPP
        update_ftrace_direct_mod o2 foo2=T1 -> -EINVAL
        site foo2 -> ftrace_regs_caller""",
    "IPMODIFY-1 one user a site": """
        ftrace_ops o1 ipmodify
        ftrace_ops o2 ipmodify
        ftrace_set_filter_ip o1 foo1
        ftrace_set_filter_ip o2 foo2
        register_ftrace_function o1 -> 0
        register_ftrace_function o2 -> 0
        ftrace_set_filter_ip o2 foo1 -> -EBUSY
        ftrace_set_filter_ip o2 foo2 remove -> -EINVAL
        ftrace_set_notrace o2 foo2 -> -EINVAL
        livepatch foo1 -> -EBUSY
        ftrace_set_filter o2 foo3 -> 0
        unregister_ftrace_function o1 -> 0
        unregister_ftrace_function o1 -> -EBUSY WARN
        livepatch foo1 -> 0
        site foo1 -> ops:klp_ops""",
    "LINK-14 after ftrace has died": """
        bpf_prog_load p1 fentry multi
        bpf_prog_load p2 fexit multi
        bpf_link_create l1 p1 foo1 foo2 -> 0
        bpf_link_create l2 p2 foo2 -> 0
        fail patch
        bpf_link_detach l1 -> 0 WARN
        bpf_link_detach l2 -> 0 WARN
        site foo1 -> trampoline:fentry:p1
        site foo2 -> trampoline:fentry:p1,fexit:p2
        call foo2 1 2 -> body =3
        bpf_link_create l1 p1 foo1 -> -ENODEV""",
    "MODULE-1, MODULE-3 what joins, and what holds": """
        register_ftrace_graph g filter=foo1 -> 0
        ftrace_ops o1
        register_ftrace_function o1 -> 0
        bpf_prog_load p1 fentry target=bar1 -> 0
        delete_module mod1 -> -EAGAIN
        delete_module mod2 -> -ENOENT
        init_module mod2 -> -ENOENT
        site bar1 -> ops:o1""",
    "GRAPH-3 the slot free longest": """
        register_ftrace_graph a -> 0
        register_ftrace_graph b -> 0
        unregister_ftrace_graph a -> 0
        register_ftrace_graph c filter=!foo* -> -EINVAL
        register_ftrace_graph c filter=foo* -> 0
        call foo1 1 -> graph>b graph>c body <graph:b <graph:c =1
        call outer 1 -> graph>b body foo1[ graph>b graph>c body <graph:b <graph:c =1 ] \
foo2[ graph>b graph>c body <graph:b <graph:c =2 ] <graph:b =3""",
    "GRAPH-6 the flag of set_graph_function": """
        register_ftrace_graph g function=outer depth=1 -> 0
        call foo1 1 -> body =1
        call outer 1 -> graph>g body foo1[ body =1 ] foo2[ body =2 ] <graph:g =3
        call foo1 1 -> body =1""",
    "GRAPH-4 a silent subtree": """
        register_ftrace_graph g notrace=outer -> 0
        call outer 3 -> body foo1[ body =3 ] foo2[ body =4 ] =7
        call foo1 3 -> graph>g body <graph:g =3""",
    "TRACE-6 an extension in the body's place": """
        bpf_prog_load p1 freplace returns=300
        bpf_prog_load p2 fentry
        bpf_raw_tracepoint_open l1 p1 narrow -> 0
        bpf_raw_tracepoint_open l2 p2 narrow -> -EBUSY
        call narrow -1 2 3 2 -> freplace:p1 =300
        livepatch narrow -> 0
        call narrow -1 2 3 2 -> body:patched =1005""",
}
OLD_LINES = {
    "DIRECT-5, after ftrace has died": """
        ftrace_ops o1 -> 0
        ftrace_set_filter_ip o1 foo1 -> 0
        register_ftrace_direct foo1 T1 -> 0
        register_ftrace_direct foo3 T1 -> 0
        register_ftrace_function o1 -> 0
        ftrace_ops o2 -> 0
        ftrace_set_filter_ip o2 foo2 -> 0
        fail patch -> 0
        register_ftrace_function o2 -> -ENODEV WARN
        modify_ftrace_direct foo1 T1 T2 -> 0
        modify_ftrace_direct foo3 T1 T2 -> -ENODEV
    """,
    "DIRECT-4, DIRECT-13 waits": """
        register_ftrace_direct foo1 T1 -> 0
        register_ftrace_direct foo2 T1 -> 0
        unregister_ftrace_direct foo1 T1 -> 0
        unregister_ftrace_direct foo2 T1 -> 0""",
    "LINK-4 the charge comes before the slots": """
        bpf_prog_load p1 fentry
        bpf_raw_tracepoint_open l1 p1 foo7 -> -ENOTSUPP
        fail jit_charge
        bpf_raw_tracepoint_open l1 p1 foo7 -> -EPERM""",
    "DIRECT-7 a failed registration spoils the ops": """
        ftrace_ops o1
        ftrace_set_filter_ip o1 foo1
        fail register
        register_ftrace_direct_multi o1 T1 -> -EBUSY
        register_ftrace_direct_multi o1 T1 -> -EINVAL
        register_ftrace_function o1 -> -EOPNOTSUPP""",
    "SITE-6 a notrace hash makes the kernel ask again": """
        ftrace_ops o1 save_regs
        ftrace_ops o2
        ftrace_ops o3
        register_ftrace_function o1 -> 0
        register_ftrace_function o2 -> 0
        register_ftrace_function o3 -> 0
        ftrace_set_notrace o1 foo1 -> 0
        site foo1 -> ftrace_caller
        register_ftrace_direct foo1 T1 -> 0
        register_ftrace_direct foo2 T1 -> 0
        unregister_ftrace_direct foo1 T1 -> 0
        site foo1 -> ftrace_regs_caller
        ftrace_set_notrace o1 foo1 -> 0
        site foo1 -> ftrace_caller""",
    "GLOB-4 a number ends where its digits do": """
        ftrace_ops o1
        ftrace_set_filter o1 08 -> -EINVAL
        ftrace_set_filter o1 3x -> 0
        ftrace_set_filter o1 18446744073709551620 -> 0
        register_ftrace_function o1 -> 0
        site foo2 -> ops:o1
        site foo3 -> ops:o1""",
    "IPMODIFY-2 the image is made anew for a livepatch": """
        bpf_prog_load p1 fexit
        bpf_raw_tracepoint_open l1 p1 foo1 -> 0
        fail jit_charge
        livepatch foo1 -> -EPERM
        livepatch foo1 -> 0
        call foo1 1 -> body:patched fexit:p1 =1001""",
}


def observe(system: Batched, step: Step) -> str:
    """What the system says to one line, as a seed spells it."""
    operation = step.operation
    if isinstance(operation, op.Call):
        return str(system.call(operation.function, operation.arguments))
    if isinstance(operation, op.ObserveSite):
        site = system.sites().get(operation.function)
        return site.target if site is not None else "nop"
    return str(system.apply(operation))


def replay(lines: str, semantics: str, level: str = "per_function") -> Batched:
    """Run the lines of a seed, and hold each against what it expects; a line without an arrow must succeed."""
    world, facts = synthetic(), PRESETS[semantics]
    system = bordered(Batched(world, facts, level), world, facts)
    text = "\n".join(line.strip() for line in lines.splitlines())
    for step in parse_seed(f"world synthetic\nsemantics {semantics}\n---\n{text}\n").steps:
        expected = str(step.expected) if step.expected is not None else "0"

        assert (step.operation, expected) == (step.operation, observe(system, step))

    return system


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("rule", LINES)
def test_the_rule_holds_in_7_3(rule: str, level: str) -> None:
    """Each line is answered as it says."""
    replay(LINES[rule], "linux-7.3", level)


@pytest.mark.parametrize("rule", OLD_LINES)
def test_the_rule_holds_in_6_1(rule: str) -> None:
    """Each line is answered as it says."""
    replay(OLD_LINES[rule], "linux-6.1")


@pytest.mark.parametrize(("semantics", "most"), [("linux-6.12", MOST_6), ("linux-7.3", MOST_7)])
def test_as_many_programs_as_the_limit_and_no_more(semantics: str, most: int) -> None:
    """LINK-3: programs of all kinds count; at the limit -E2BIG comes before the -EBUSY of a program that is there."""
    kinds = ("fentry", "fexit", "fmod_ret")
    lines = [f"bpf_prog_load p{number} {kinds[number % 3]}" for number in range(most + 1)]
    lines += ["bpf_raw_tracepoint_open again p0 foo1 -> 0", "bpf_raw_tracepoint_open b p0 foo1 -> -EBUSY"]
    lines += [f"bpf_raw_tracepoint_open l{number} p{number} foo1 -> 0" for number in range(1, most)]
    lines += [f"bpf_raw_tracepoint_open more p{most} foo1 -> -E2BIG", "bpf_raw_tracepoint_open b p0 foo1 -> -E2BIG"]
    lines += ["bpf_link_detach l1 -> 0", "bpf_raw_tracepoint_open b p0 foo1 -> -EBUSY"]

    replay("\n".join(lines), semantics)


def test_a_session_needs_two_places() -> None:
    """LINK-3: one below the limit a session is refused, and another program still fits."""
    lines = [f"bpf_prog_load p{number} fentry" for number in range(MOST_7)]
    lines += [f"bpf_raw_tracepoint_open l{number} p{number} foo1 -> 0" for number in range(MOST_7 - 1)]
    lines += ["bpf_prog_load s fsession", "bpf_raw_tracepoint_open ls s foo1 -> -E2BIG"]
    lines += [f"bpf_raw_tracepoint_open last p{MOST_7 - 1} foo1 -> 0"]

    replay("\n".join(lines), "linux-7.3")


MISSING = {
    "one function": ("bpf_prog_load p1 fentry calls=foo1", "bpf_raw_tracepoint_open l1 p1 foo1", {"p1": 2}),
    "both runs of a session": ("bpf_prog_load p1 fsession calls=foo1", "bpf_raw_tracepoint_open l1 p1 foo1", {"p1": 8}),
    "another function, and so program": (
        "bpf_prog_load p1 fentry calls=outer",
        "bpf_raw_tracepoint_open l1 p1 foo1\nbpf_raw_tracepoint_open l2 p1 foo2",
        {"p1": 2},
    ),
    "one program for many": ("bpf_prog_load p1 fentry multi calls=outer", "bpf_link_create l1 p1 foo1 foo2", {"p1": 4}),
    "a target": ("bpf_prog_load p1 fexit target=foo1 calls=outer", "bpf_raw_tracepoint_open l1 p1", {"p1": 2}),
    "no call": ("bpf_prog_load p1 fentry", "bpf_raw_tracepoint_open l1 p1 foo1", {}),
}


@pytest.mark.parametrize(("load", "attach", "missed"), MISSING.values(), ids=MISSING)
def test_missed_runs_are_counted(load: str, attach: str, missed: dict[str, int]) -> None:
    """PROG-8: in two calls, whatever the sharing level; a program without a target is one for each function."""
    for level in LEVELS:
        system = replay(f"{load}\n{attach}", "linux-7.3", level)
        for argument in (1, 2):
            system.call("foo1", (argument,))

        assert missed == system.cost().missed


def test_grace_periods_of_the_single_api() -> None:
    """DIRECT-4: only the last use of an address is waited for; DIRECT-13: and the first entry of an empty table."""
    system = replay(OLD_LINES["DIRECT-4, DIRECT-13 waits"], "linux-6.1")

    assert Cost({"rcu_tasks": 2}, poke_rounds=4, sites_patched=4) == system.cost()


@pytest.mark.parametrize(("count", "now", "later"), [(2, "-EPERM", "0"), (3, "-EBUSY", "-EPERM"), (4, "-EBUSY", "0")])
def test_a_point_counts_what_was_reached(count: int, now: str, later: str) -> None:
    """FAIL-1, LINK-8: two functions are charged before the third, by BTF id, is found to have the program."""
    lines = f"""
        bpf_prog_load p1 fentry multi
        bpf_prog_load p2 fentry multi
        bpf_link_create l1 p1 foo3 -> 0
        fail jit_charge {count}
        bpf_link_create l2 p1 foo3 foo2 foo1 -> {now}
        site foo1 -> nop
        bpf_link_create l3 p2 foo5 -> {later}"""

    replay(lines, "linux-7.3")


def test_parts_of_the_proposal_are_cut_and_waited_for() -> None:
    """LINK-11, COST-5: one link over three arities makes three parts; cut in two, one wait for each part that ends."""
    lines = """
        bpf_prog_load p1 fentry multi
        bpf_prog_load p2 fexit multi
        bpf_link_create l1 p1 foo1 foo2 outer foo3 -> 0
        bpf_link_create l2 p1 foo4 -> -EBUSY
        bpf_link_create l2 p2 foo1 -> 0
        bpf_link_detach l2 -> 0
        bpf_link_detach l1 -> 0"""
    system = replay(lines, "proposal-2021")

    assert {"rcu_tasks_rude": 4, "rcu_tasks": 4 + 1} == system.cost().grace_periods


def test_a_call_with_the_wrong_number_of_words_is_bad_input() -> None:
    """One word for each slot is what a call is given."""
    system = Batched(synthetic(), PRESETS["linux-7.3"])

    with pytest.raises(BadInputError, match="'split' takes 4 words"):
        system.call("split", (1, 2, 3))
