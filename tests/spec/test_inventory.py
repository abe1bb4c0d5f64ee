"""The inventory and the model agree about what exists, whatever was done; and operations say what they name."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import model
from model.state import DIRECT_OPS, FPROBE_OPS, FPROBE_USER
from properties.hunt.strategies import operations
from properties.hunt.strategies.drawing import covered_functions
from spec.existing import SINGLE_API
from spec.following import follow
from spec.inventory import Inventory
from spec.names import names_of, renamed
from spec.operations import OPERATIONS, Call, ObserveSite
from spec.outcomes import Ok
from spec.seeds import parse_operation, print_operation
from spec.semantics import PRESETS, Semantics
from spec.worlds import synthetic

STEPS = 25
OWN_KEYS = ("graph ops", DIRECT_OPS, FPROBE_OPS)
OWN_PREFIXES = ("klp ", "fprobe ")


@pytest.mark.parametrize("semantics", PRESETS.values(), ids=PRESETS)
@given(data=st.data())
@settings(max_examples=40)
def test_inventory_and_model_agree_about_what_exists(semantics: Semantics, data: st.DataObject) -> None:
    """After random operations ops, hashes, entries, programs, links, users and modules are the same in both."""
    world = synthetic()
    system = model.system(world, semantics)
    inventory = Inventory.at_start(world, semantics)
    supports = system.supports - {Call, ObserveSite}
    for _ in range(STEPS):
        operation = data.draw(operations(inventory, semantics, supports).filter(lambda drawn: type(drawn) in supports))
        inventory = follow(inventory, operation, system.apply(operation))

        check_agreement(inventory, system.state)


def check_agreement(inventory: Inventory, state: model.state.State) -> None:
    declared = {key: ops for key, ops in state.ops.items() if key not in OWN_KEYS and not key.startswith(OWN_PREFIXES)}
    assert declared.keys() == inventory.ops.keys()
    for name, ops in declared.items():
        record = inventory.ops[name]
        assert (ops.filter_hash, ops.notrace_hash) == (set(record.filter_hash), set(record.notrace_hash))
        assert (ops.ipmodify, ops.func, ops.direct) == (record.ipmodify, record.func, record.direct)
        assert state.enabled(name) == record.enabled
    owners = {DIRECT_OPS: SINGLE_API}
    entries = {f: (entry.tramp, owners.get(entry.owner, entry.owner)) for f, entry in state.direct_functions.items()}
    assert entries == {f: (entry.tramp, entry.owner) for f, entry in inventory.direct_functions.items()}
    assert state.programs == inventory.programs
    assert {name: set(link.cookies) for name, link in state.links.items()} == {
        name: link.functions for name, link in inventory.links.items()
    }
    assert {name: kprobe.functions for name, kprobe in state.kprobes.items()} == {
        name: link.functions for name, link in inventory.kprobes.items()
    }
    assert state.graph_users.keys() - {FPROBE_USER} == set(inventory.graph_users)
    for name, graph_user in inventory.graph_users.items():
        user = state.graph_users[name]
        assert (user.filter_hash, user.mod_trace) == (set(graph_user.filter_hash), graph_user.mod_trace)
        assert (user.notrace_hash, user.mod_notrace) == (set(graph_user.notrace_hash), graph_user.mod_notrace)
    assert {key.removeprefix("klp ") for key in state.ops if key.startswith("klp ")} == set(inventory.livepatches)
    assert state.modules == inventory.modules
    attached = {f for f in world_functions(inventory) if inventory.has_image(f)}
    assert state.images.keys() <= attached
    assert attached <= state.images.keys() | inventory.stale
    assert inventory.off == state.off
    assert inventory.dead or not state.dead


def followed(semantics: str, *lines: str) -> Inventory:
    """The inventory after these lines, by the model's answers."""
    system = model.system(synthetic(), PRESETS[semantics])
    inventory = Inventory.at_start(synthetic(), PRESETS[semantics])
    for operation in map(parse_operation, lines):
        inventory = follow(inventory, operation, system.apply(operation))
    return inventory


ATTACHED = ("bpf_prog_load p1 fexit", "bpf_raw_tracepoint_open l1 p1 foo2", "bpf_raw_tracepoint_open l2 p1 foo1")


def test_everything_is_undone_once_nothing_is_attached() -> None:
    """Programs and ops that nobody uses count for nothing; a detach that failed may have left something."""
    gone = ("bpf_link_detach l1", "bpf_link_detach l2", "ftrace_ops o1")

    assert followed("linux-7.3", *ATTACHED, *gone).undone
    assert not followed("linux-7.3", *ATTACHED, *gone[:1]).undone
    for line in ("livepatch foo1", "register_ftrace_graph g filter=foo1", "ftrace_enabled 0"):
        assert not followed("linux-6.12", *ATTACHED, *gone, line).undone
    third = ("bpf_prog_load p2 fentry", "bpf_raw_tracepoint_open l3 p2 foo1", "fail jit_charge", "bpf_link_detach l3")
    assert not followed("linux-7.3", *ATTACHED, *third, *gone).undone


def test_functions_with_images_come_in_the_order_of_their_links() -> None:
    """Those whose module has gone have none."""
    assert ("foo2", "foo1") == followed("linux-7.3", *ATTACHED).with_images()
    assert ("foo1",) == followed("linux-7.3", *ATTACHED, "bpf_link_detach l1").with_images()


def test_it_is_open_what_a_handshake_that_failed_leaves() -> None:
    """Until an IPMODIFY user of the function comes or goes, or its trampoline is a new one (IPMODIFY-2)."""
    fails = (
        "livepatch foo3",
        "ftrace_ops o1 ipmodify",
        "ftrace_set_filter_ips o1 foo1 foo3",
        "register_ftrace_function o1",
    )
    unsure = followed("linux-7.3", *ATTACHED, *fails)

    assert {"foo1", "foo3"} == unsure.unsure
    assert {"foo3"} == followed("linux-7.3", *ATTACHED, *fails, "livepatch foo1").unsure
    again = ("bpf_link_detach l2", "bpf_raw_tracepoint_open l2 p1 foo1")
    assert {"foo3"} == followed("linux-7.3", *ATTACHED, *fails, *again).unsure


def world_functions(inventory: Inventory) -> list[str]:
    return [function.name for function in inventory.world.functions]


def named(line: str, role: str = "") -> list[tuple[str, str]]:
    return [(name.space, name.text) for name in names_of(parse_operation(line), role)]


def test_operations_say_what_they_make_use_and_name() -> None:
    """Field by field, from left to right."""
    assert [("link", "l1")] == named("bpf_raw_tracepoint_open l1 p1 foo1", "makes")
    assert [("prog", "p1")] == named("bpf_raw_tracepoint_open l1 p1 foo1", "uses")
    assert [("function", "foo1"), ("tramp", "T1"), ("tramp", "T2")] == named("modify_ftrace_direct foo1 T1 T2")
    assert [("ops", "o1"), ("function", "foo1"), ("tramp", "T1")] == named("update_ftrace_direct_add o1 foo1=T1")
    assert [("user", "g1"), ("glob", "foo*")] == named("register_ftrace_graph g1 filter=foo* depth=2")
    assert ("foo1",) == covered_functions(parse_operation("bpf_link_create l1 p1 foo1:7 bar*"))
    assert () == covered_functions(parse_operation("call foo1 1"))


def test_every_word_of_an_operation_has_its_space() -> None:
    """But for what is no name: kinds, points, flavours, a switch."""
    plain = {
        (kind.verb, entry.name)
        for kind in OPERATIONS.values()
        for entry in fields(kind)
        if entry.metadata["form"] in {"word", "words", "pairs", "targets"} and "space" not in entry.metadata
    }

    choices = {("bpf_prog_load", "kind"), ("fail", "point"), ("grace_period", "flavour"), ("ftrace_enabled", "switch")}
    assert choices == plain


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("update_ftrace_direct_add o1 foo1=T1 foo2=foo1", "update_ftrace_direct_add o1 X=T1 foo2=foo1"),
        ("bpf_link_create foo1 p1 foo1:3 foo2", "bpf_link_create foo1 p1 X:3 foo2"),
        (
            "bpf_prog_load p1 fexit target=foo1 calls=foo1",
            "bpf_prog_load p1 fexit target=X calls=X",
        ),
        ("ftrace_set_filter_ips o1 foo1 foo2 reset", "ftrace_set_filter_ips o1 X foo2 reset"),
    ],
)
def test_renaming_changes_names_of_one_space_alone(line: str, expected: str) -> None:
    """A function may be renamed without its namesakes among other things."""
    changed = renamed(parse_operation(line), lambda space, text: "X" if (space, text) == ("function", "foo1") else text)

    assert parse_operation(expected) == parse_operation(print_operation(changed))


def test_a_link_by_a_glob_holds_what_a_tool_would_name() -> None:
    """A pattern is of one BTF, and stands for what was there when the link was made (GLOB-6)."""
    inventory = Inventory.at_start(synthetic(), PRESETS["linux-7.3"])
    for line in ("bpf_prog_load p1 fexit multi", "bpf_link_create l1 p1 mod1:bar1? bar2"):
        inventory = follow(inventory, parse_operation(line), Ok())

    assert {"bar10", "bar11", "bar12", "bar2"} == inventory.links["l1"].functions
