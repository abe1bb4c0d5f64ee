"""The emulated kernel: text follows the state byte by byte, what is freed traps, and calls in bulk are calls."""

from __future__ import annotations

import random

import numpy as np
import pytest

from impl.batched import Batched
from impl.batched.machine import addresses as at
from impl.batched.machine.cpu import ExecutionError
from impl.batched.machine.entries import SITE_BYTES, branches, fresh_text, site_offsets
from impl.batched.machine.memory import MemoryRegion
from impl.batched.machine.poke import INSTRUCTION, INT3, Phase, poke
from impl.batched.machine.routines import routines
from impl.batched.machine.stopping import SteppedPoke, passages
from model import system as model_system
from spec.operations import Operation
from spec.prototypes import Prototype, Type
from spec.seeds import parse_operation
from spec.semantics import PRESETS
from spec.sharing import LEVELS
from spec.worlds import World, synthetic

NEWEST = PRESETS["linux-7.3"]
WORLD = synthetic()
NOP = bytes.fromhex("0f1f440000")
TOP = 1 << 64


def made(*lines: str, level: str = LEVELS[0], world: World = WORLD) -> Batched:
    """A system after these operations, all of which succeed."""
    system = Batched(world, NEWEST, level)
    apply(system, *lines)
    return system


def apply(system: Batched, *lines: str) -> None:
    for line in lines:
        assert "0" == str(system.apply(parse_operation(line))), line


def target(system: Batched, function: str) -> tuple[str, int]:
    """What the site of a function does, and where it goes."""
    index = system.state.functions.index(function)
    code = system.text.site(index)
    if code == NOP:
        return "nop", 0
    site = at.TEXT + int(site_offsets(np.array([index]))[0])
    distance = int.from_bytes(code[1:], "little", signed=True)
    return {0xE8: "call", 0xE9: "jmp"}[code[0]], (site + SITE_BYTES + distance) % TOP


def code_at(system: Batched, address: int, size: int) -> bytes:
    return system.text.images.read(address, size)


def image(system: Batched, function: str) -> int:
    """The address of the image that a function's site calls or jumps to."""
    how, address = target(system, function)

    assert how in {"call", "jmp"}
    assert at.IMAGES <= address < at.IMAGES + (1 << 29)
    return address


ATTACHED = (
    "bpf_prog_load p1 fentry multi",
    "bpf_prog_load p2 fexit multi",
    "bpf_link_create l1 p1 foo1 foo2 outer spill",
    "bpf_link_create l2 p2 foo2",
)


def test_a_site_goes_where_enabled_functions_says() -> None:
    """A nop; an ops' own trampoline; the common callers; BPF's image, called, or jumped to where it calls the body."""
    system = made(*ATTACHED, "ftrace_ops o1", "ftrace_set_filter_ips o1 foo3 foo1", "register_ftrace_function o1")
    known = routines().address
    code = system.state.ops["o1"].code

    assert ("nop", 0) == target(system, "foo5")
    assert ("call", at.OPS_TRAMPOLINES + 256 * code) == target(system, "foo3")
    assert ("call", known["ftrace_regs_caller"]) == target(system, "foo1")
    assert "call" == target(system, "spill")[0]
    assert "jmp" == target(system, "foo2")[0]
    assert image(system, "spill") != image(system, "foo2")


@pytest.mark.parametrize("level", LEVELS)
def test_images_are_shared_as_the_level_says(level: str) -> None:
    """foo1 and outer have equal programs and shapes; each has an image of its own, or both have one."""
    system = made(*ATTACHED, level=level)

    assert (level == "per_function") == (image(system, "foo1") != image(system, "outer"))


def test_only_an_image_of_its_own_is_jumped_to() -> None:
    """A shared image finds the body by the return address of a call."""
    assert "jmp" == target(made(*ATTACHED), "foo2")[0]
    assert "call" == target(made(*ATTACHED, level="per_shape"), "foo2")[0]


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_freed_traps(level: str) -> None:
    """The bytes of an image that nobody has any more are int3, and a site that still called it would not return."""
    system = made(*ATTACHED, level=level)
    old = image(system, "spill")
    apply(system, "bpf_link_detach l1")

    assert bytes([INT3]) * 16 == code_at(system, old, 16)

    index = system.state.functions.index("spill")
    site = at.TEXT + int(site_offsets(np.array([index]))[0])
    system.text.entries.write(site, b"\xe8" + (old - site - SITE_BYTES).to_bytes(4, "little", signed=True))
    with pytest.raises(ExecutionError, match="Unhandled CPU exception"):
        system.call("spill", tuple(range(8)))


def test_a_freed_slot_is_not_used_at_once() -> None:
    """Images that are built behind a free are elsewhere."""
    system = made(*ATTACHED)
    old = image(system, "spill")
    apply(system, "bpf_link_detach l1", "bpf_link_create l3 p1 spill")

    assert old != image(system, "spill")


def test_memory_of_images_is_lent_to_one_system_at_a_time() -> None:
    """What a system gives back, even twice, is for one other, and nothing is left in it."""
    first = made(*ATTACHED)
    place = image(first, "spill")
    first.close()
    first.close()
    second, third = made(), made()

    assert second.text.images is not third.text.images
    assert bytes([INT3]) * 16 == code_at(first, place, 16)


def test_text_of_a_module_comes_and_goes_with_it() -> None:
    """Without its module a function's text traps; with it the entry is fresh."""
    system = made("delete_module mod1")
    index = system.state.functions.index("bar2")
    start = at.TEXT + at.FUNCTION_BYTES * index
    gone = system.text.entries.read(start, at.FUNCTION_BYTES)
    apply(system, "init_module mod1")

    assert bytes([INT3]) * at.FUNCTION_BYTES == gone
    assert NOP == system.text.site(index)
    assert 3 == system.call("bar2", (1, 2)).value


def test_text_that_has_gone_stays_so_whatever_was_at_its_site() -> None:
    """A function that an ops traced goes with its module: all of its entry traps, and comes back with its site."""
    system = made("ftrace_ops o1", "register_ftrace_function o1")
    start = at.TEXT + at.FUNCTION_BYTES * system.state.functions.index("bar2")
    apply(system, "delete_module mod1")

    assert bytes([INT3]) * at.FUNCTION_BYTES == system.text.entries.read(start, at.FUNCTION_BYTES)

    apply(system, "init_module mod1")

    assert "ops:o1 body =3" == str(system.call("bar2", (1, 2)))


def test_the_list_of_ops_asks_both_hashes() -> None:
    """Two ops at a site that a third one excludes: an empty filter covers what the notrace hash does not hold."""
    system = made(
        *("ftrace_ops o1", "ftrace_ops o2", "ftrace_ops o3", "ftrace_set_filter_ip o1 foo1"),
        *("ftrace_set_notrace o2 foo1", "ftrace_set_notrace o3 foo2"),
        *("register_ftrace_function o1", "register_ftrace_function o2", "register_ftrace_function o3"),
    )

    assert "ops:o3 ops:o1 body =1" == str(system.call("foo1", (1,)))
    assert "ops:o2 body =3" == str(system.call("foo2", (1, 2)))


def test_above_an_arguments_width_there_is_junk() -> None:
    """Of narrow(char, short, int, bool) the words that a program and the body find are none of the caller's, above."""
    system = made(*ATTACHED[:1], "bpf_link_create l1 p1 narrow")
    trace = system.call("narrow", (1, 2, 3, 1))
    words = system.kernel.recorded().tolist()
    context = words[9 + 2 * 4 + 2 :][:4]

    assert [1, 2, 3, 1] == [word % (1 << bits) for word, bits in zip(context, (8, 16, 32, 8), strict=True)]
    assert all(word >> bits for word, bits in zip(context, (8, 16, 32, 8), strict=True))
    assert "fentry:p1 body =7" == str(trace)


def test_what_breaks_the_callers_registers_is_caught() -> None:
    """An image that does not give rbx back ends the call with an error."""
    system = made(*ATTACHED)
    start = image(system, "foo2")
    size = 512
    code = code_at(system, start, size)
    restored = code.index(bytes.fromhex("488b5d"))
    system.text.images.write(start + restored, bytes.fromhex("90909090"))
    with pytest.raises(ExecutionError, match="or a register that C preserves is lost"):
        system.call("foo2", (1, 2))


def test_a_call_that_does_not_end_is_ended() -> None:
    """An entry that jumps to itself."""
    system = made()
    index = system.state.functions.index("foo1")
    system.call("foo1", (1,))
    system.text.entries.write(at.TEXT + at.FUNCTION_BYTES * index, bytes.fromhex("ebfe"))
    system.text.written = None
    with pytest.raises(ExecutionError, match="not back after 1000000 instructions"):
        system.call("foo1", (1,))


def test_a_poke_passes_through_traps_only() -> None:
    """At every step a site is the old instruction, the new one, or begins with int3."""
    count = 600
    text = fresh_text(count).reshape(-1)
    where = site_offsets(np.arange(count))
    rng = np.random.default_rng(1)
    code = branches(where, rng.integers(0x80000000, 0xF0000000, count).astype(np.uint32) & np.uint32(0xFFFFFFFE))
    new = code.view(np.uint8).reshape(count, SITE_BYTES)
    old = text[where[:, None] + np.arange(SITE_BYTES)].copy()
    steps: list[Phase] = []
    for step in poke(text, where, code):
        steps.append(step)
        now = text[where[:, None] + np.arange(SITE_BYTES)]
        whole = (now == old).all(axis=1) | (now == new).all(axis=1)

        assert (whole | (now[:, 0] == INT3)).all()

    assert (text[where[:, None] + np.arange(SITE_BYTES)] == new).all()
    assert steps == ["int3", "tail", "first"]


def test_a_poke_that_stops_takes_256_sites_at_a_time() -> None:
    """Three stops for each batch; at each, no more than its sites are neither old nor new."""
    count = 600
    region = MemoryRegion(at.TEXT, count * at.FUNCTION_BYTES)
    region.u8[: count * at.FUNCTION_BYTES] = fresh_text(count).reshape(-1)
    where = np.arange(count)
    targets = np.full(count, 0x90000010, np.uint32)
    stepped = SteppedPoke(region, passages(targets, where, where[:0], np.uint32(0)), lambda _: None)
    trapped = []
    while stepped.advance():
        trapped.append(int((region.u8[site_offsets(where)] == INT3).sum()))

    assert trapped == [256, 256, 0, 256, 256, 0, 88, 88, 0]


def test_a_processor_between_the_steps_traps_or_does_the_old_or_the_new() -> None:
    """A call of foo1 at each step of the poke of its site, to an ops' trampoline and back."""
    system = made("ftrace_ops o1", "ftrace_set_filter_ip o1 foo1", "register_ftrace_function o1")
    index = np.array([system.state.functions.index("foo1")])
    new, old = system.text.site(int(index[0])), NOP
    outcomes = []
    for before, after in ((new, old), (old, new)):
        system.text.entries.write(at.TEXT + int(site_offsets(index)[0]), before)
        row = np.frombuffer(after, INSTRUCTION)
        for _ in poke(system.text.entries.u8, site_offsets(index), row):
            system.text.written = None
            try:
                outcomes.append(str(system.call("foo1", (1,))))
            except ExecutionError as error:
                outcomes.append("int3" if "exception" in str(error) else str(error))

    assert ["int3", "int3", "body =1", "int3", "int3", "ops:o1 body =1"] == outcomes


def test_bulk_calls_do_what_single_calls_do() -> None:
    """2,000 vectors: return values, and the records of all calls, equal those of calls one by one."""
    system = made(*ATTACHED)
    index = system.state.functions.index("foo2")
    vectors = np.random.default_rng(2).integers(0, 1 << 63, (2_000, 2), dtype=np.uint64)
    results, records = system.kernel.calls(index, vectors)
    rows = records.reshape(len(vectors), -1)

    assert (vectors.sum(axis=1) == results).all()
    for place in (0, 7, 1_999):
        trace = system.call("foo2", tuple(vectors[place].tolist()))

        assert rows[place].tolist() == system.kernel.recorded().tolist()
        assert str(trace).startswith("fentry:p1 body fexit:p2")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("count", range(13))
def test_what_programs_see_in_bulk_is_what_was_passed(count: int, level: str) -> None:
    """For every arity: the context of fentry and fexit, and the body's arguments, for 500 random vectors."""
    name = f"foo{count}"
    system = made(*ATTACHED[:2], f"bpf_link_create l1 p1 {name}", f"bpf_link_create l2 p2 {name}", level=level)
    vectors = np.random.default_rng(count).integers(0, 1 << 63, (500, count), dtype=np.uint64)
    results, records = system.kernel.calls(system.state.functions.index(name), vectors)
    rows = records.reshape(len(vectors), -1)
    first = 9 + 2 * count + 2
    body = first + count + 3
    last = body + count + first

    assert (vectors == rows[:, first : first + count]).all()
    assert (vectors == rows[:, body : body + count]).all()
    assert (vectors == rows[:, last : last + count]).all()
    assert (results == rows[:, last + count]).all()


def test_a_call_in_bulk_that_faults_is_told() -> None:
    """As a single one."""
    system = made(*ATTACHED)
    system.text.images.write(image(system, "foo2"), bytes([INT3]))
    with pytest.raises(ExecutionError):
        system.kernel.calls(system.state.functions.index("foo2"), np.zeros((10, 2), np.uint64))


SIZES = (("char", 1), ("bool", 1), ("short", 2), ("int", 4), ("unsigned int", 4), ("long", 8), ("void *", 8))


def random_world(seed: int, count: int) -> World:
    """Functions of random prototypes: scalars of all widths, and structs by value of 1 to 16 bytes."""
    draw = random.Random(seed)
    functions = []
    for number in range(1, count + 1):
        types: list[Type] = []
        while len(types) < draw.randrange(9) and sum(-(-kind.size // 8) for kind in types) < 11:
            name, size = draw.choice(SIZES)
            struct = Type("struct s", "STRUCT", draw.randrange(1, 17))
            types.append(struct if draw.random() < 0.3 else Type(name, "PTR" if "*" in name else "INT", size))
        name, size = draw.choice(SIZES)
        prototype = Prototype(tuple(types), Type(name, "INT", size))
        functions.append(type(WORLD.functions[0])(f"f{number}", prototype, number))
    return World(f"random {seed}", tuple(functions))


@pytest.mark.parametrize("level", LEVELS)
def test_words_reach_programs_and_bodies_whatever_the_prototype(level: str) -> None:
    """150 random prototypes, three calls each: what programs see is what the slots say, at their widths."""
    world = random_world(7, 150)
    names = " ".join(function.name for function in world.functions)
    lines = (
        "bpf_prog_load p1 fentry multi func_ip",
        "bpf_prog_load p2 fexit multi",
        "bpf_prog_load p3 fsession multi",
        *(f"bpf_link_create l{number} p{number} {names}" for number in (1, 2, 3)),
    )
    system, model = made(*lines, level=level, world=world), model_system(world, NEWEST)
    for line in lines:
        model.apply(parse_operation(line))
    draw = random.Random(8)
    for function in world.functions * 3:
        assert function.prototype is not None
        words = tuple(draw.getrandbits(64) for _ in function.prototype.slots)

        assert model.call(function.name, words) == system.call(function.name, words)


def test_operations_of_each_kind_have_text() -> None:
    """The text never moves by an operation that fails."""
    system = made(*ATTACHED)
    before = system.text.entries.u8.tobytes()
    failing: Operation = parse_operation("bpf_link_create l9 p1 foo1")
    outcome = system.apply(failing)

    assert "-EBUSY" == str(outcome)
    assert before == system.text.entries.u8.tobytes()
