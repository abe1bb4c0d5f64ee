"""Mutants of the generator: what it emits for a plan, edited by name before it is assembled.

Each edit is a mistake that a generator may make. An edit belongs to a class, and says what it changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

from impl.batched.jit.generate import assemble, statements, template
from impl.batched.jit.isa import Instruction, Label, Statement
from impl.batched.jit.plan import ImagePlan, TrampLink
from impl.batched.jit.template import Template
from impl.batched.jit.x86_64 import X86_64
from properties.proofs.generated import bound, goal_of, while_detaching
from properties.prover.goal import Goal, Program
from properties.prover.image import Image
from spec.abi import SLOT_BYTES, SYSTEM_V
from spec.prototypes import Prototype, Type

__all__ = ["CONFIGURATIONS", "Configuration", "Mutant", "mutants"]

Made = list[Statement]
Edit = tuple[str, Made]
"""What is changed, and the statements then."""

MEMORY: Final = re.compile(r"\[rbp( \+ rcx \* 8)? ([+-]) (0x[0-9a-f]+)\]")
REGISTERS: Final = SYSTEM_V.arguments
COOKIE: Final = 0x1122334455667789
LONG: Final = Type("long", "INT", 8)
HALVES: Final = dict(
    zip("rax rcx rdx rbx rbp rsi rdi r8 r9".split(), "eax ecx edx ebx ebp esi edi r8d r9d".split(), strict=True)
)
NEXT: Final = dict(zip(REGISTERS, (*REGISTERS[1:], REGISTERS[0]), strict=True)) | {"rax": "rdx", "rbx": "rax"}
UNSAVED: Final = ("r12", "r13", "r14", "r15")
VOLATILE: Final = ("r10", "r11", "r8", "rcx")
CONDITIONS: Final = {"0f84": "85 88 8f 82", "0f85": "84 88 8f 82"}
LENIENT: Final = replace(X86_64, mnemonics=X86_64.mnemonics | set("std pop xor js jg jb".split()))
"""Takes what a generator should not emit."""


@dataclass(frozen=True)
class Configuration:
    """An image to be mutated."""

    name: str
    prototype: Prototype
    programs: tuple[Program, ...]
    options: tuple[tuple[str, Any], ...] = ()

    def plan(self) -> ImagePlan:
        """What the generator is asked for."""
        options = dict(self.options)
        shape = None if options.pop("generic", False) else self.prototype.shape
        links = tuple(TrampLink(program.kind, bool(program.sleepable)) for program in self.programs)  # type: ignore[arg-type]
        return ImagePlan(shape, links, **options)

    def image(self) -> Image:
        """The image without a mistake."""
        return bound(template(self.plan()), self.goal())

    def goal(self) -> Goal:
        """What it must do."""
        return goal_of(self.prototype, self.programs, self.plan())


@dataclass(frozen=True)
class Mutant:
    """One mistake. goal: that of the image without it."""

    configuration: Configuration
    kind: str
    name: str
    image: Image
    goal: Goal
    made: tuple[Statement, ...]


def _of(*kinds: str, sleepable: bool = False) -> tuple[Program, ...]:
    return tuple(
        Program(kind, 0, cookie=COOKIE * (2 * place + 1) % (1 << 64), sleepable=sleepable and place % 2 == 0)  # type: ignore[arg-type]
        for place, kind in enumerate(kinds)
    )


def _long(count: int) -> Prototype:
    return Prototype((LONG,) * count, LONG)


_STRUCTS: Final = Prototype(
    (LONG, Type("int", "INT", 4), *(Type("struct s", "STRUCT", size) for size in (12, 16, 16)), LONG, LONG),
    Type("int", "INT", 4),
)

CONFIGURATIONS: Final = (
    Configuration("fentry fentry", _long(3), _of("fentry", "fentry", sleepable=True)),
    Configuration("fentry fexit, 8 arguments", _long(8), _of("fentry", "fexit"), (("func_ip", True),)),
    Configuration("fmod_ret fmod_ret fexit", _long(2), _of("fmod_ret", "fexit", "fmod_ret")),
    Configuration("fsession fsession", _long(2), _of("fsession", "fsession")),
    Configuration("fexit, shared", _long(4), _of("fexit"), (("shared", True), ("func_ip", True))),
    Configuration(
        "fmod_ret fexit, generic", _long(6), _of("fmod_ret", "fexit"), (("generic", True), ("func_ip", True))
    ),
    Configuration("fentry at a jmp", _long(6), _of("fentry"), (("site", "jmp"),)),
    Configuration("fexit of structs at a jmp", _STRUCTS, _of("fexit", sleepable=True), (("site", "jmp"),)),
    Configuration("fentry fsession fmod_ret fexit", _long(7), _of("fentry", "fsession", "fmod_ret", "fexit")),
)


def mutants(configuration: Configuration) -> Iterator[Mutant]:
    """All of one image, in a fixed order."""
    plan = configuration.plan()
    goal = configuration.goal()
    made = statements(plan)
    seen = {template(plan)}
    for kind, edit in EDITS.items():
        wanted = while_detaching(goal) if kind in WHILE_DETACHING else goal
        for name, edited in edit(made):
            mutated = assemble(plan, edited, LENIENT)
            image = bound(mutated, goal)
            places = {patch.at for patch in image.patches}
            # Two jumps in one place are no image at all.
            if mutated not in seen and len(places) == len(image.patches):
                seen.add(mutated)
                yield Mutant(configuration, kind, name, image, wanted, tuple(edited))
    for name, mutated in _targets(template(plan)):
        yield Mutant(configuration, "call target", name, bound(mutated, goal), goal, tuple(made))


def _targets(made: Template) -> Iterator[tuple[str, Template]]:
    """Calls that go beside their targets."""
    for place, hole in enumerate(made.holes):
        if hole.form.origin is not None:
            for addend in (-5, 4):
                holes = (*made.holes[:place], replace(hole, addend=addend), *made.holes[place + 1 :])
                yield f"{hole.symbol} {addend:+}", replace(made, holes=holes)


def _instructions(made: Made, pattern: str = "") -> Iterator[tuple[int, Instruction]]:
    for place, one in enumerate(made):
        if isinstance(one, Instruction) and re.search(pattern, one.text):
            yield place, one


def _with(made: Made, place: int, *new: Statement) -> Made:
    return [*made[:place], *new, *made[place + 1 :]]


def _text(made: Made, place: int, text: str) -> Edit:
    one = made[place]
    assert isinstance(one, Instruction)
    return f"{one.text} -> {text}", _with(made, place, replace(one, text=text))


def _at(match: re.Match[str], delta: int) -> str:
    offset = int(match[3], 16) * (-1 if match[2] == "-" else 1) + delta
    return f"[rbp{match[1] or ''} {'-' if offset < 0 else '+'} {abs(offset):#x}]"


def _offsets(made: Made) -> Iterator[Edit]:
    for place, one in _instructions(made, MEMORY.pattern):
        for delta in (-8, 8):
            yield _text(made, place, MEMORY.sub(lambda match, by=delta: _at(match, by), one.text))  # type: ignore[misc]


def _registers(made: Made) -> Iterator[Edit]:
    for place, one in _instructions(made, r"^(mov|movabs|lea) "):
        mnemonic, _, operands = one.text.partition(" ")
        first, _, second = operands.partition(", ")
        if first in NEXT:
            yield _text(made, place, f"{mnemonic} {NEXT[first]}, {second}")
        if second in NEXT:
            yield _text(made, place, f"{mnemonic} {first}, {NEXT[second]}")


def _swapped(made: Made) -> Iterator[Edit]:
    """The registers of two stores, or of two loads, one after the other."""
    for (place, one), (other, two) in pairwise(_instructions(made, r"^mov (qword.*, r|r.*, qword)")):
        if other == place + 1:
            first, second = one.text[4:].split(", "), two.text[4:].split(", ")
            where = [words[0].startswith("r") for words in (first, second)]
            if where[0] == where[1]:
                place_of = 0 if where[0] else 1
                first[place_of], second[place_of] = second[place_of], first[place_of]
                new = [replace(each, text=f"mov {', '.join(words)}") for each, words in ((one, first), (two, second))]
                yield f"{new[0].text}; {new[1].text}", [*made[:place], *new, *made[other + 1 :]]


def _halves(made: Made) -> Iterator[Edit]:
    """Of 32 bits: stores, loads, moves."""
    for place, one in _instructions(made, r"^mov (?!rbp)"):
        text = one.text.replace("qword ptr", "dword ptr")
        kept = MEMORY.search(text)
        address = kept[0] if kept else ""
        text = text.replace(address, "@") if address else text
        text = re.sub("|".join(HALVES), lambda match: HALVES[match[0]], text)
        yield _text(made, place, text.replace("@", address))


def _missing(made: Made) -> Iterator[Edit]:
    for place, one in _instructions(made, r"^(?!nop)"):
        yield one.text, _with(made, place)


def _repeated(made: Made) -> Iterator[Edit]:
    for place, one in _instructions(made, r"^(call|push|sub|leave|add)"):
        yield one.text, _with(made, place, one, one)


def _symbols(made: Made) -> Iterator[Edit]:
    """Another pointer, cookie, helper or function."""
    known = sorted({one.symbol for _, one in _instructions(made) if one.symbol and one.form and "0x5a" in one.text})
    called = sorted({one.symbol for _, one in _instructions(made, "^call ") if one.symbol})
    for place, one in _instructions(made):
        among = known if one.symbol in known else called if one.symbol in called else []
        for other in _others(one.symbol, among):
            yield f"{one.symbol} -> {other}", _with(made, place, replace(one, symbol=other))


def _others(symbol: str, among: Sequence[str]) -> Sequence[str]:
    """Two that follow, in turn."""
    if symbol not in among:
        return ()
    start = among.index(symbol)
    return [one for one in (*among, *among)[start + 1 : start + 3] if one != symbol]


def _constants(made: Made) -> Iterator[Edit]:
    for place, one in _instructions(made, r"^(mov qword ptr|movabs r..,|cmp|add rsp).* 0x[0-9a-f]+$|, [0-9]+$"):
        if one.form is None and not one.text.startswith(("sub", "lea")):
            before, _, number = one.text.rpartition(" ")
            changes = (1, 0x100, 0x7C00, *((1 << 63,) if "movabs" in one.text else ()))
            for value in (int(number, 0) ^ change for change in changes):
                yield _text(made, place, f"{before} {value:#x}")


def _frames(made: Made) -> Iterator[Edit]:
    for place, one in _instructions(made, "^sub rsp"):
        size = int(one.text.rpartition(" ")[2], 16)
        for delta in (-64, -16, -8, -4, 4, 8, 16, 64):
            if size + delta > 0:
                yield _text(made, place, f"sub rsp, {size + delta:#x}")


def _keepers(registers: Sequence[str]) -> Callable[[Made], Iterator[Edit]]:
    """What enter returned is kept elsewhere."""

    def edit(made: Made) -> Iterator[Edit]:
        for register in registers:
            kept = [
                replace(one, text=one.text.replace("rbx", register))
                if isinstance(one, Instruction) and one.text in {"mov rbx, rax", "mov rsi, rbx"}
                else one
                for one in made
            ]
            yield f"kept in {register}", kept

    return edit


def _start_lost(made: Made) -> Iterator[Edit]:
    for place, _ in _instructions(made, "^mov rbx, rax"):
        yield _text(made, place, "mov rbx, rdi")
        yield _text(made, place, "xor ebx, ebx")
    for place, _ in _instructions(made, "^mov rsi, rbx"):
        yield _text(made, place, "mov rsi, rax")
        yield _text(made, place, "mov rsi, rbp")


def _tests(made: Made) -> Iterator[Edit]:
    for place, one in _instructions(made, "^test|^cmp"):
        others: tuple[str, ...] = ("test eax, eax", "test al, al", "test rbx, rbx", "test rdi, rdi", "test rsp, rsp")
        if one.text.startswith("cmp"):
            others = tuple(one.text.replace("qword", size) for size in ("dword", "word", "byte"))
        for text in others:
            yield _text(made, place, text)


def _branches(made: Made) -> Iterator[Edit]:
    for place, one in _instructions(made, "^j(e|ne) "):
        for second in CONDITIONS[one.code[:2].hex()].split():
            code = b"\x0f" + bytes.fromhex(second) + one.code[2:]
            yield f"{one.text} -> 0f{second}", _with(made, place, replace(one, code=code))


def _labels(made: Made) -> Iterator[Edit]:
    """Jumps within the image that end elsewhere."""
    known = [one.name for one in made if isinstance(one, Label)]
    for place, one in _instructions(made, "^j(e|ne) "):
        for other in _others(one.symbol, known):
            yield f"{one.text} -> {other}", _with(made, place, replace(one, symbol=other))


def _jumps(made: Made) -> Iterator[Edit]:
    for place, one in _instructions(made, "^call "):
        if one.code:
            yield f"{one.text} -> jmp", _with(made, place, replace(one, code=b"\xe9" + one.code[1:]))
        else:
            yield _text(made, place, one.text.replace("call", "jmp"))


def _returns(made: Made) -> Iterator[Edit]:
    for place, one in _instructions(made, "^(ret|leave|add rsp)"):
        for text in {"ret": ("ret 8", "ret 0x10"), "leave": ("pop rbp", "mov rsp, rbp")}.get(
            one.text, ("add rsp, 0x10",)
        ):
            yield _text(made, place, text)


def _inserted(texts: Sequence[str], before: str) -> Callable[[Made], Iterator[Edit]]:
    """Another instruction before each of some."""

    def edit(made: Made) -> Iterator[Edit]:
        for place, one in _instructions(made, before):
            for text in texts:
                yield f"{text} before {one.text}", [*made[:place], Instruction(text), *made[place:]]

    return edit


def _run_context(made: Made) -> Iterator[Edit]:
    """What enter has saved in the run context is overwritten before exit finds it."""
    for place, one in _instructions(made, "^lea rdx"):
        text = MEMORY.sub(lambda match: _at(match, 8), one.text.replace("lea rdx,", "mov")) + ", rdi"
        yield text, [*made[:place], Instruction(text), *made[place:]]


def _too_early(made: Made) -> Iterator[Edit]:
    """An argument is lost before it is saved."""
    for place, one in _instructions(made, r"^mov qword ptr \[rbp - .*\], (rdi|rsi|rdx|rcx|r8|r9)$"):
        register = one.text.rpartition(" ")[2]
        yield f"{register} lost", [*made[:place], Instruction(f"mov {register}, rax"), *made[place:]]


def _too_late(made: Made) -> Iterator[Edit]:
    """An instruction changes places with the call that follows it, or that it follows."""
    for place, one in _instructions(made, "^call "):
        before, after = made[place - 1], made[place + 1]
        if isinstance(before, Instruction):
            yield f"{before.text} behind {one.text}", [*made[: place - 1], one, before, *made[place + 1 :]]
        if isinstance(after, Instruction) and "nop" not in after.text:
            yield f"{after.text} before {one.text}", [*made[:place], after, one, *made[place + 2 :]]


def _given_back(made: Made) -> Iterator[Edit]:
    """Stack is given back for a moment, up to a place that the image uses: an interrupt may write below."""
    used = {
        int(match[3], 16) for _, one in _instructions(made) for match in MEMORY.finditer(one.text) if match[2] == "-"
    }
    for place, one in _instructions(made, "^(call|leave)"):
        for offset in sorted(used | {0, -SLOT_BYTES}):
            above = SLOT_BYTES - offset
            raised = f"lea rsp, [rbp {'-' if above < 0 else '+'} {abs(above):#x}]"
            texts = ("mov r10, rsp", raised, "mov rsp, r10")
            yield f"{raised} before {one.text}", [*made[:place], *map(Instruction, texts), *made[place:]]


def _leaving(made: Made) -> Iterator[Edit]:
    """The image is left by another instruction than the one that is meant for it, or ends with a call."""
    for place, _ in _instructions(made, "^ret$"):
        yield "ret -> jmp", _with(made, place, Instruction("pop r10"), Instruction("jmp r10"))
    for place, one in _instructions(made, "^jmp "):
        if one.code and one.symbol == "body":
            yield f"{one.text} -> call", _with(made, place, replace(one, code=b"\xe8" + one.code[1:]))
    for place, one in _instructions(made, "^call "):
        labels = (other for other in made[place:] if isinstance(other, Label))
        apart = (each for label in labels for each in (label, Instruction("nop")))
        yield f"nothing behind {one.text}", [*made[:place], *apart, one]


def _order(made: Made) -> Iterator[Edit]:
    """Two programs change places, wholly or in part."""
    places = sorted({one.symbol.split()[1] for _, one in _instructions(made) if one.symbol.startswith("prog ")})
    for one, other in pairwise(places):
        for parts in (("code",), ("prog",), ("cookie",), ("code", "prog"), ("code", "prog", "cookie")):
            names = {f"{part} {one}": f"{part} {other}" for part in parts}
            names |= {second: first for first, second in names.items()}
            edited = [
                replace(each, symbol=names.get(each.symbol, each.symbol)) if isinstance(each, Instruction) else each
                for each in made
            ]
            yield f"{' and '.join(parts)} of {one} and {other}", edited


def _patched(made: Made) -> Iterator[Edit]:
    """A place to patch, or where its jump goes, is an instruction off."""
    for place, one in enumerate(made):
        if isinstance(one, Label) and (one.name.endswith(("nop", "behind")) or one.name in {"after call", "epilogue"}):
            if isinstance(made[place - 1], Instruction):
                yield f"{one.name} too early", [*made[: place - 1], one, made[place - 1], *made[place + 1 :]]
            if isinstance(made[place + 1], Instruction):
                yield f"{one.name} too late", [*made[:place], made[place + 1], one, *made[place + 2 :]]


def _jumps_in(made: Made) -> Iterator[Edit]:
    """A jump that the kernel puts in goes where another would have to: to the exit of a program, behind tramp_exit."""
    for one in made:
        if isinstance(one, Label) and one.name.endswith("behind"):
            run = one.name.removesuffix("behind")
            yield f"{run}exit without enter", _moved(made, one, f"{run}not entered")
        elif isinstance(one, Label) and one.name == "epilogue":
            for other in ("exited", "fexit"):
                yield f"epilogue at {other}", _moved(made, one, other)


def _moved(made: Made, label: Label, other: str) -> Made:
    """A label is where another is."""
    rest = [one for one in made if one != label]
    place = rest.index(Label(other))
    return [*rest[:place], label, *rest[place:]]


def _jumped_way(made: Made) -> Iterator[Edit]:
    """The jump behind the fexit programs goes to an epilogue of its own, and only this one has a mistake."""
    if Label("epilogue") not in made:
        return
    place = made.index(Label("epilogue"))
    own: Made = [one for one in made[place:] if isinstance(one, Instruction)]
    rest = [one for one in made if one != Label("epilogue")]
    for edit in (_offsets, _registers, _halves, _missing, _repeated, _symbols, _returns):
        for name, edited in edit(own):
            yield f"{name}, on the jumped way", [*rest, Label("epilogue"), *edited]


def _slots(made: Made) -> Iterator[Edit]:
    """A generic image's return slot lies at a fixed place, or is looked for with another number."""
    for place, one in _instructions(made, r"rcx \* 8"):
        for fixed in ("[rbp - 0x8]", "[rbp - 0x38]"):
            yield _text(made, place, MEMORY.sub(fixed, one.text))
        yield _text(made, place, one.text.replace("* 8", "* 4"))
        yield _text(made, place, one.text.replace("rcx * 8", "rdx * 8"))


WHILE_DETACHING: Final = frozenset({"place to patch", "jump put in", "jumped way"})
"""Classes of mistakes that matter only while programs are detached."""

EDITS: Final[dict[str, Callable[[Made], Iterator[Edit]]]] = {
    "wrong offset": _offsets,
    "wrong register": _registers,
    "swapped": _swapped,
    "32 bits": _halves,
    "missing instruction": _missing,
    "repeated instruction": _repeated,
    "wrong symbol": _symbols,
    "wrong constant": _constants,
    "frame": _frames,
    "callee-saved, but unsaved": _keepers(UNSAVED),
    "caller-saved, over a call": _keepers(VOLATILE),
    "start time lost": _start_lost,
    "test": _tests,
    "branch condition": _branches,
    "branch target": _labels,
    "call becomes jmp": _jumps,
    "return": _returns,
    "direction flag": _inserted(("std",), "^(call|leave)"),
    "wild store": _inserted(
        (
            "mov qword ptr [rbp + 8], rax",
            "mov qword ptr [rbp + 0x18], rax",
            "mov qword ptr [rsp - 0x10], rax",
            "mov dword ptr [rdi], eax",
        ),
        "^(call code|leave)",
    ),
    "saved run context": _run_context,
    "lost before saved": _too_early,
    "too late": _too_late,
    "stack given back": _given_back,
    "left otherwise": _leaving,
    "frame record": _inserted(("mov qword ptr [rbp], rax",), "^call "),
    "order of programs": _order,
    "place to patch": _patched,
    "jump put in": _jumps_in,
    "jumped way": _jumped_way,
    "return slot": _slots,
}
