"""The verb `faults`: scenarios, verdicts, known defects, records and bad options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from properties.__main__ import main
from properties.faults.known import KNOWN, KnownFinding, defect_of
from properties.faults.records import exit_status, faults_table, make_records, summary
from properties.faults.scenarios import AFTER, Scenario, scenarios, scenarios_of
from properties.faults.units import Faulted, FaultsUnit, Tried
from properties.lockstep.lockstep import Lockstep
from properties.mutants.subject import Subject
from properties.report.show import text_of
from properties.report.writing import write_lines
from properties.systems.naming import KERNELS, resolve
from properties.work.units import request, unit_of, value_of
from spec.alphabet import alphabet
from spec.errors import BadInputError
from spec.operations import Operation
from spec.reading import encode
from spec.seeds import Step, parse_operation
from spec.semantics import PRESETS
from spec.worlds import synthetic

ROOT = Path(__file__).parents[2]
SCENARIO = Scenario(("livepatch foo1",), "unlivepatch foo1")
PLAIN = Tried("", "", "", "", "", "seed")
AGREES = Tried("nth 1", "kmalloc_caller", "-ENOMEM", "", "", "seed")
DONE = Tried("nth 2", "", "0", "", "", "seed")
FINDING = Tried("nth 3", "", "0", "outcome", "KASAN: use-after-free", "seed")
UNHARMED = frozenset({"call", "site", "fail", "settle", "task", "step", "finish"})
"""Verbs that change nothing of ftrace's or BPF's; tasks are not a kernel's."""


@pytest.mark.parametrize("name", KERNELS)
def test_every_scenario_succeeds_in_the_model(name: str) -> None:
    """But where a kernel has no second user of the graph tracer, or does not let ftrace be turned off."""
    refused = {"register_ftrace_graph g2 filter=foo2": "-EBUSY", "unregister_ftrace_graph g2": "-EBADF"}
    if PRESETS[name].name != "linux-6.1":
        refused = {"ftrace_enabled 0": "-EOPNOTSUPP"}
    for scenario in scenarios(PRESETS[name]):
        lockstep = Lockstep(synthetic(), PRESETS[name], [resolve("batched")])
        for line in (*scenario.before, "fail nth 7", scenario.line):
            taken = lockstep.step(Step(parse_operation(line)))

            assert () == taken.divergences
            assert taken.observed in {"0", refused.get(line)}, f"{line} of {scenario}"


@pytest.mark.parametrize("name", KERNELS)
def test_every_operation_of_the_alphabet_has_a_scenario(name: str) -> None:
    """Whatever it does to ftrace and BPF."""
    kinds: set[type[Operation]] = {type(scenario.operation) for scenario in scenarios(PRESETS[name])}

    assert set() == {kind.verb for kind in alphabet(PRESETS[name]) - kinds} - UNHARMED


def test_calls_behind_the_operation_are_of_the_world() -> None:
    """Each with its arguments."""
    lockstep = Lockstep(synthetic(), PRESETS["linux-7.3"], [])
    for line in AFTER:
        lockstep.check(Step(parse_operation(line)))


def test_scenarios_are_chosen_by_their_operation() -> None:
    """One that is not there is bad input."""
    every = scenarios(PRESETS["linux-7.3"])

    assert every == scenarios_of(every, None)
    assert {"livepatch"} == {each.operation.verb for each in scenarios_of(every, "livepatch")}
    with pytest.raises(BadInputError, match="'call' is no operation that can be made to fail: write one of ftrace_ops"):
        scenarios_of(every, "call")


@pytest.mark.parametrize(
    ("outcome", "verdicts", "status"),
    [
        (Faulted((PLAIN, AGREES, DONE)), ["agrees", "agrees", "agrees"], 0),
        (Faulted((PLAIN, AGREES, FINDING)), ["agrees", "agrees", "finding"], 1),
        (Faulted((), "ftrace_enabled 0: is off"), ["declined"], 2),
        (Faulted((PLAIN, Tried("nth 1", "", "", "stall", "too slow", "seed"))), ["agrees", "lost"], 2),
        ("its process died", ["lost"], 2),
    ],
)
def test_a_verdict_follows_from_what_was_tried(outcome: Faulted | str, verdicts: list[str], status: int) -> None:
    """What was declined is no fault, and what was lost is told."""
    found = tuple(make_records("bzImage", "7.3.4", SCENARIO, outcome, 2.0))

    assert verdicts == [record.verdict for record in found]
    assert status == exit_status(found)


def test_a_known_defect_is_no_finding() -> None:
    """It is known by its operation, its text, and where a chain is named by that."""
    known = (KnownFinding("DEFECT-1", "unlivepatch", "use-after"), KnownFinding("DEFECT-2", "livepatch", "", "< at"))

    assert "DEFECT-1" == defect_of(SCENARIO.line, FINDING.told, "", known)
    assert "DEFECT-2" == defect_of("livepatch foo1", "", "alloc < at", known)
    assert "" == defect_of("livepatch foo1", FINDING.told, "alloc < elsewhere", known)
    assert "" == defect_of(SCENARIO.line, "a site", "alloc < at", known)


GLOB = "add_ftrace_hash_entry_direct < enter_record < match_records < ftrace_set_hash < ftrace_set_filter"
PUT = "__ftrace_hash_move < ftrace_hash_move_and_update_subops.isra.0 < ftrace_regex_release < __fput"
REBUILT = "add_first_hash.constprop.0 < rebuild_hashes < ftrace_hash_move_and_update_subops < ftrace_regex_release"


@pytest.mark.parametrize(
    ("line", "aspect", "where", "defect"),
    [
        ("ftrace_set_filter o1 foo*", "sites", GLOB, "DEFECT-28"),
        ("ftrace_set_notrace o1 foo1", "sites", GLOB, "DEFECT-28"),
        ("ftrace_set_filter o1 foo*", "sites", "alloc_ftrace_hash < ftrace_set_hash", ""),
        ("ftrace_set_filter o1 foo*", "sites", "", ""),
        ("ftrace_set_filter o1 !foo*", "sites", GLOB, ""),
        ("ftrace_set_filter o1 foo*", "leak", GLOB, ""),
        ("ftrace_set_filter_ip o1 foo1", "sites", GLOB, ""),
        ("set_ftrace_filter g1 foo2", "sites", PUT, "DEFECT-29"),
        ("set_ftrace_notrace g1 foo2", "sites", REBUILT, "DEFECT-29"),
        ("set_ftrace_notrace g1 foo2", "file", REBUILT, "DEFECT-29"),
        ("set_ftrace_filter g1 foo2", "sites", "alloc_ftrace_hash < ftrace_regex_open", ""),
        ("set_ftrace_filter g1 foo2", "leak", PUT, ""),
        ("set_graph_function g1 foo1", "trace", "ftrace_graph_set_hash < ftrace_graph_write < vfs_write", "DEFECT-46"),
        ("set_graph_notrace g1 foo1", "trace", "__ftrace_hash_move < ftrace_graph_release < __fput", "DEFECT-46"),
        ("set_graph_notrace g1 foo1", "trace", "alloc_ftrace_hash < __ftrace_graph_open.part.0", ""),
    ],
)
def test_a_filter_without_memory_is_known(line: str, aspect: str, where: str, defect: str) -> None:
    """By what the call has left, and by the functions that lost the error, and nothing else of it."""
    step = "call foo1 1" if aspect == "trace" else line
    told = f"bzImage diverges in {aspect} at step 5: {step}\n  the model says: foo1 nop"

    assert defect == defect_of(line, told, where)


def test_a_probe_of_the_scheduler_without_memory_is_known() -> None:
    """By its warning when the user goes, after the fault of its start."""
    told = "unregister_ftrace_graph g1\n 0 WARN\n WARNING: kernel/tracepoint.c:369 at tracepoint_probe_unregister+0x7b4"
    where = "tracepoint_add_func < tracepoint_probe_register < tracing_start_sched_switch < graph_trace_init"

    assert "DEFECT-30" == defect_of("register_ftrace_graph g1", told, where)
    assert "" == defect_of("register_ftrace_graph g1", told, "alloc_ftrace_hash < add_first_hash")
    assert "" == defect_of("unregister_ftrace_graph g1", told, where)


def test_a_module_whose_btf_lost_a_type_is_known() -> None:
    """By its answer, where the kernel does not tell which allocation failed; another is told, and is another's."""
    told = "bzImage diverges in outcome at step 6: init_module mod1\n  the model says: 0\n  bzImage says: -EINVAL\n"
    elsewhere = "ftrace_process_locs < ftrace_module_init < load_module"

    assert "DEFECT-43" == defect_of("init_module mod1", told, "")
    assert "DEFECT-38" == defect_of("init_module mod1", told, elsewhere)
    assert "" == defect_of("init_module mod1", told, "kernfs_new_node < sysfs_create_bin_file")
    assert "" == defect_of("delete_module mod1", told, "")


def test_a_link_of_fprobes_that_is_closed_without_memory_is_known() -> None:
    """By what still covers its functions, and by who asked for the memory."""
    told = "diverges in sites at step 5: bpf_link_detach l1\n  the model says: foo1 nop\n  k says: foo1 (1) ops:fprobe"
    chain = "ftrace_set_filter_ips < unregister_fprobe_nolock < unregister_fprobe_async < bpf_kprobe_multi_link_release"

    assert "DEFECT-35" == defect_of("bpf_link_detach l1", told, chain)
    assert "" == defect_of("bpf_link_detach l1", told, "bpf_tracing_link_release")


def test_every_known_defect_stands_in_the_document() -> None:
    """spec/DEFECTS.md has an entry of its name."""
    text = (ROOT / "spec" / "DEFECTS.md").read_text()

    assert [] == [each.defect for each in KNOWN if f"- **{each.defect}**" not in text]


def test_records_are_lines_of_json(tmp_path: Path) -> None:
    """And a table, and a sentence."""
    found = tuple(make_records("bzImage", "7.3.4", SCENARIO, Faulted((PLAIN, AGREES, DONE, FINDING)), 2.0))
    write_lines(found, tmp_path / "made" / "faults.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "made" / "faults.jsonl").read_text().splitlines()]
    shown = text_of(faults_table("bzImage", found), width=160)

    assert ["", "nth 1", "nth 2", "nth 3"] == [line["fault"] for line in lines]
    assert "outcome: 3" in shown
    assert "unlivepatch foo1, after 1" in shown
    assert summary(found).startswith(
        "3 faults in 1 operations: 3 runs agree, 1 faults were -ENOMEM; 0 known; 1 finding"
    )


def test_a_scenario_crosses_to_another_process_and_back() -> None:
    """As JSON."""
    unit, value = FaultsUnit(Subject("linux-7.3", "linux-7.3"), SCENARIO), Faulted((PLAIN, FINDING), "")

    assert unit == unit_of(request(unit))
    assert value == value_of(unit, encode(value))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "the faults of one kernel are tried: write --bzimage FILE, or --kernel linux-7.3"),
        (["--system", "batched"], "'batched' is no kernel: write one of linux-6.1, linux-6.12, linux-7.3"),
        (["--kernel", "linux-7.3", "--semantics", "linux-6.12"], "--semantics is for a kernel of your own"),
    ],
)
def test_bad_options_are_told(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In one sentence, with exit code 2."""
    assert 2 == main(["faults", *options])
    assert told in capsys.readouterr().err


def test_fprobes_at_returns_that_find_no_memory_are_known() -> None:
    """By the WARN with which their link is refused, and by who asked for the memory."""
    told, line = "diverges in outcome\n  the model says: 0\n  k says:\n    -ENOMEM WARN\n", "bpf_link_create l1 k2 foo1"
    chain = "alloc_ftrace_hash < register_ftrace_graph < register_fprobe_ips < bpf_kprobe_multi_link_attach < __sys_bpf"

    assert "DEFECT-36" == defect_of(line, told, chain)
    assert "" == defect_of(line, told, "register_fprobe_ips < bpf_kprobe_multi_link_attach")
