"""The generator's parts: plans that are refused, templates and their holes, relocation one by one and in bulk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from impl.batched.jit.assembler import disassembler
from impl.batched.jit.generate import assemble, assembled, layout, statements, template
from impl.batched.jit.isa import Instruction
from impl.batched.jit.plan import ImagePlan, LinkKind, LinkRun, PlanError, TrampLink
from impl.batched.jit.template import BitField, Form, Hole, Template, relocate_many
from impl.batched.jit.x86_64 import NOP5, REL32, X86_64
from spec.errors import BadInputError
from spec.prototypes import Shape

KINDS: tuple[LinkKind, ...] = ("fentry", "fexit", "fmod_ret", "fsession")
ADDRESS = 0xFFFFFFFFC0010000
EVERYTHING = tuple(TrampLink(kind, sleepable) for sleepable in (False, True) for kind in KINDS)
LONG = Shape((8,) * 12, 8)


def plans() -> Iterator[ImagePlan]:
    """Plans of every form: kinds, sites, sharing, arguments on the stack."""
    for shape in (Shape((), 0), Shape((4, 16, 1), 4), LONG):
        for links in (*((TrampLink(kind),) for kind in KINDS), EVERYTHING):
            for func_ip in (False, True):
                yield ImagePlan(shape, links, func_ip)
                yield ImagePlan(shape, links, func_ip, orig_stack=True)
                yield ImagePlan(shape, links, func_ip, site="jmp")
                yield ImagePlan(shape, links, func_ip, shared=True)
    for links in (*((TrampLink(kind),) for kind in KINDS), EVERYTHING):
        yield from (ImagePlan(None, links, func_ip) for func_ip in (False, True))


def symbols_of(made: Template, first: int, step: int) -> dict[str, int]:
    """An address for each symbol, each another."""
    return {name: first + step * number for number, name in enumerate(sorted(made.symbols))}


def operands(code: bytes) -> dict[int, tuple[str, str]]:
    """Mnemonic and operands by where an instruction ends, as if the code were at ADDRESS."""
    found = disassembler(X86_64.dialect).disasm_lite(code, ADDRESS)
    return {at + size - ADDRESS: (mnemonic, text) for at, size, mnemonic, text in found}


@pytest.mark.parametrize(
    ("fields", "mistake"),
    [
        ({"links": ()}, "an image without links has nothing to do"),
        ({"links": (TrampLink("fentry"),) * 39}, "39 links are more than the 38 of an image"),
        ({"shape": Shape((8, 24), 0)}, "an argument of 24 bytes is not one of 1 to 16"),
        ({"shape": Shape((0,), 0)}, "an argument of 0 bytes is not one of 1 to 16"),
        ({"shape": Shape((16,) * 6 + (1,), 0)}, "13 slots are more than the 12 of a context"),
        ({"shape": Shape((), 16)}, "a return value of 16 bytes does not fit the return slot"),
        ({"site": "jmp", "orig_stack": True}, "the original is found through the return address of a call, and"),
        ({"site": "jmp", "shared": True}, "the original is found through the return address of a call, and"),
        ({"site": "jmp", "shape": None}, "the original is found through the return address of a call, and"),
    ],
)
def test_what_cannot_be_built_is_refused(fields: dict[str, object], mistake: str) -> None:
    """A plan that no image can meet raises one sentence that says why."""
    with pytest.raises(PlanError) as error:
        ImagePlan(**({"shape": LONG, "links": (TrampLink("fentry"),)} | fields))  # type: ignore[arg-type]

    assert str(error.value).startswith(mistake)


def test_programs_run_newest_first() -> None:
    """Each list is in the reverse order of attaching, sessions among entries and returns."""
    plan = ImagePlan(
        LONG,
        (TrampLink("fentry"), TrampLink("fsession"), TrampLink("fmod_ret"), TrampLink("fexit"), TrampLink("fentry")),
    )

    assert [4, 1, 0] == [run.link for run in plan.fentry]
    assert [3, 1] == [run.link for run in plan.fexit]
    assert (LinkRun(2, "fmod_ret"),) == plan.fmod_ret


def test_every_hole_is_where_the_template_says() -> None:
    """Relocated to two sets of addresses, exactly the instructions with holes differ, and name those addresses."""
    for plan in plans():
        made = template(plan)
        first, second = symbols_of(made, 0xFFFFFFFFA0000000, 0x4130), symbols_of(made, 0xFFFFFFFFB5000000, 0x7250)
        code = [made.relocate(ADDRESS, symbols) for symbols in (first, second)]
        shown, other = map(operands, code)
        ends = {hole.offset + hole.form.size: hole.symbol for hole in made.holes}

        assert shown.keys() == other.keys()
        assert set(ends) == {end for end in shown if shown[end] != other[end]}
        for end, symbol in ends.items():
            assert int(shown[end][1].rpartition(" ")[2], 16) == first[symbol]
            assert int(other[end][1].rpartition(" ")[2], 16) == second[symbol]


def test_a_template_has_the_symbols_of_its_plan() -> None:
    """No more is asked for than the image needs: a shared one neither the body nor the function."""
    links = (TrampLink("fentry", sleepable=True), TrampLink("fexit"))
    run = {f"{what} {place}" for what in ("code", "prog", "cookie") for place in (0, 1)}
    gates = {f"__bpf_prog_{what}{kind}_recur" for what in ("enter", "exit") for kind in ("", "_sleepable")}
    common = run | gates | {"im", "__bpf_tramp_enter", "__bpf_tramp_exit"}

    assert common | {"body", "function"} == template(ImagePlan(LONG, links, func_ip=True)).symbols
    assert common | {"lookup_ip"} == template(ImagePlan(LONG, links, func_ip=True, shared=True)).symbols
    assert common | {"lookup", "lookup_ip"} == template(ImagePlan(None, links, func_ip=True)).symbols
    assert common | {"lookup"} == template(ImagePlan(None, links)).symbols


def test_places_to_patch_are_nops() -> None:
    """Each run begins with a nop of 5 bytes, and so does what follows the original; both lead to instructions."""
    for plan in plans():
        made = template(plan)
        ends = operands(made.code).keys()
        nops = [skip.at for skip in made.skips]
        assert [skip.run for skip in made.skips] == [*plan.fentry, *plan.fmod_ret, *plan.fexit]
        assert plan.calls_original == (made.after_call is not None) == (made.epilogue is not None)
        if made.after_call is not None:
            nops.append(made.after_call)
            assert made.epilogue in ends

        assert [NOP5] * len(nops) == [made.code[at : at + 5] for at in nops]
        assert {skip.behind for skip in made.skips} <= ends
        assert {at + 5 for at in nops} <= ends


def test_sizes_do_not_depend_on_distances() -> None:
    """With 38 programs, whose jumps are long, every program is as long as that of an image with one."""
    one, many = (template(ImagePlan(LONG, (TrampLink("fexit"),) * count)) for count in (1, 38))

    assert {one.skips[0].behind - one.skips[0].at} == {skip.behind - skip.at for skip in many.skips}


@pytest.mark.parametrize("site", ["call", "jmp"])
def test_the_stack_is_aligned_where_arguments_are_on_it(site: str) -> None:
    """At the original's call the stack is 16-aligned if it was at the function's own; arguments are at its end."""
    for count in range(7, 13):
        plan = ImagePlan(Shape((8,) * count, 8), (TrampLink("fexit"),), site=site)  # type: ignore[arg-type]
        frame = layout(plan)
        pushed = (3 if site == "call" else 2) * 8

        assert 0 == (pushed + frame.size) % 16
        assert frame.size == frame.outgoing
        assert frame.run_context + 8 * (count - 6) <= frame.size


def test_relocating_many_is_relocating_each() -> None:
    """Rows of relocate_many are what relocate gives, symbols being one for all or one for each."""
    addresses = np.uint64(ADDRESS) + np.arange(50, dtype=np.uint64) * np.uint64(0x340)
    for plan in plans():
        made = template(plan)
        symbols: dict[str, int | np.ndarray[tuple[int], np.dtype[np.uint64]]] = {}
        symbols |= symbols_of(made, 0xFFFFFFFF81000000, 0x1010)
        symbols["im"] = np.uint64(0xFFFF888000000000) + np.arange(50, dtype=np.uint64)
        symbols["body"] = np.uint64(0xFFFFFFFF82000000) + np.arange(50, dtype=np.uint64) * np.uint64(17)
        rows = relocate_many(made, addresses, symbols)
        for row, address in enumerate(addresses):
            own = {name: int(np.broadcast_to(value, (50,))[row]) for name, value in symbols.items()}

            assert made.relocate(int(address), own) == rows[row].tobytes()


def test_a_template_is_as_good_as_one_generated_for_the_place() -> None:
    """Relocated there and back, the code is the same; what is cached is what is generated anew."""
    plan = ImagePlan(LONG, EVERYTHING, func_ip=True)
    made = template(plan)
    symbols = symbols_of(made, 0xFFFFFFFF81000000, 0x4010)

    assert made == assembled(plan)
    assert made.relocate(ADDRESS, symbols) == assembled(plan).relocate(ADDRESS, symbols)
    assert made.relocate(ADDRESS, symbols) != made.relocate(ADDRESS + 16, symbols)


def test_mistakes_of_addresses_are_told() -> None:
    """A symbol that is missing, and one that a call does not reach, are named, for one image and for many."""
    made = template(ImagePlan(LONG, (TrampLink("fentry"),)))
    near = symbols_of(made, ADDRESS, 64)
    far = near | {"code 0": ADDRESS - (1 << 32)}
    missing = {name: value for name, value in near.items() if name != "prog 0"}
    where = np.full(3, ADDRESS, np.uint64)
    for symbols, mistake in ((far, "code 0 is too far"), (missing, "needs the address of 'prog 0'")):
        with pytest.raises(BadInputError, match=mistake):
            made.relocate(ADDRESS, symbols)
        with pytest.raises(BadInputError, match=mistake):
            relocate_many(made, where, symbols)


def test_a_distance_may_go_around_the_end_of_memory() -> None:
    """As it does on the processor: what is at 0x1000 is near what is at the end of memory."""
    made = template(ImagePlan(LONG, (TrampLink("fentry"),)))
    address = (1 << 64) - 0x1000
    symbols = symbols_of(made, 0x1000, 64)
    one = made.relocate(address, symbols)
    called = [hole for hole in made.holes if hole.form is REL32]
    ends = [hole.offset + 4 for hole in called]
    distances = [int.from_bytes(one[end - 4 : end], "little", signed=True) for end in ends]

    assert [symbols[hole.symbol] + 0x1000 for hole in called] == [
        end + distance for end, distance in zip(ends, distances, strict=True)
    ]
    assert one == relocate_many(made, np.array([address], np.uint64), symbols)[0].tobytes()


def test_forms_of_other_machines() -> None:
    """A distance in the middle of a word, and a value over several words, keep the bits around them."""
    branch = Form("26 bits", 4, (BitField(0, 4, 0, 26, 2),), origin=0, reach=28, align=4)
    wide = Form("four halves", 16, tuple(BitField(4 * part, 4, 5, 16, 16 * part) for part in range(4)))
    code = 0x94000000.to_bytes(4, "little") + b"".join(
        (0xD2800001 | part << 21).to_bytes(4, "little") for part in range(4)
    )
    made = Template(code, (Hole(0, branch, "there", 4), Hole(4, wide, "value")))
    symbols = {"there": ADDRESS - 12, "value": 0x1122334455667788}
    done = made.relocate(ADDRESS, symbols)
    words = [int.from_bytes(done[at : at + 4], "little") for at in range(0, 20, 4)]

    assert 0x97FFFFFE == words[0]
    assert [0x7788, 0x5566, 0x3344, 0x1122] == [word >> 5 & 0xFFFF for word in words[1:]]
    assert [0xD2800001, 0xD2A00001, 0xD2C00001, 0xD2E00001] == [word & ~(0xFFFF << 5) for word in words[1:]]
    assert done == relocate_many(made, np.array([ADDRESS], np.uint64), symbols)[0].tobytes()
    with pytest.raises(BadInputError, match="there is too far"):
        made.relocate(ADDRESS, symbols | {"there": ADDRESS + 2})


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("unknown rax", "keystone does not assemble"),
        ("std", "'std' is what no image has: std"),
        ("nop; nop", "'nop; nop' is 2 bytes that are disassembled as 2 instructions"),
    ],
)
def test_code_that_is_not_what_was_asked_for_is_refused(text: str, mistake: str) -> None:
    """Each statement is disassembled: what is unknown, or another number of instructions, makes no template."""
    plan = ImagePlan(LONG, (TrampLink("fentry"),))
    made = statements(plan)
    made[0] = Instruction(text)
    with pytest.raises(BadInputError, match=mistake):
        assemble(plan, made)


def test_a_hole_without_its_mark_is_refused() -> None:
    """A hole holds the mark, or nothing, before it is cleared."""
    plan = ImagePlan(LONG, (TrampLink("fentry"),))
    made = statements(plan)
    place = next(place for place, one in enumerate(made) if isinstance(one, Instruction) and one.symbol == "prog 0")
    one = made[place]
    assert isinstance(one, Instruction)
    made[place] = replace(one, text="movabs rdi, 0x1234567812345678")
    with pytest.raises(BadInputError, match="has no hole for prog 0"):
        assemble(plan, made)
