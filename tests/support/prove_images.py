"""Trampolines for tests of the prover, laid out as Linux lays them out, with the goals that they are to meet.

An image is a list of instructions, so that a test can leave one out or put another in its place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from properties.prover.goal import Goal, Program, Run
from properties.prover.image import Image
from spec.populations import built_in, load
from spec.prototypes import Prototype, Type

FUNCTION = 0xFFFFFFFF81234560
BODY = FUNCTION + 9
ADDRESS = 0xFFFFFFFFC0010000
IM = 0xFFFF888004A78000
HELPERS = {
    name: 0xFFFFFFFF81100000 + 0x100 * number
    for number, name in enumerate(
        (
            "__bpf_tramp_enter __bpf_tramp_exit __bpf_prog_enter_recur __bpf_prog_exit_recur __bpf_prog_enter "
            "__bpf_prog_exit __bpf_prog_enter_sleepable_recur __bpf_prog_exit_sleepable_recur "
            "__bpf_prog_enter_sleepable __bpf_prog_exit_sleepable"
        ).split(),
    )
}
NUMBERS = {name: number for number, name in enumerate("rax rcx rdx rbx rsp rbp rsi rdi r8 r9".split())}
NOP = bytes.fromhex("0f1f440000")
IS_RETURN = 1 << 63


def long(count: int) -> Prototype:
    """A function of so many long arguments, that returns one."""
    word = Type("long", "INT", 8)
    return Prototype((word,) * count, word)


def sized(sizes: Sequence[int], returns: int = 8) -> Prototype:
    """A function of arguments of these sizes; those that no integer has are structs."""
    integers = {1: "char", 2: "short", 4: "int", 8: "long"}
    arguments = tuple(
        Type(integers.get(size, "struct s"), "INT" if size in integers else "STRUCT", size) for size in sizes
    )
    return Prototype(arguments, Type("long", "INT", returns) if returns else Type("void", "VOID", 0))


def goal_of(prototype: Prototype, *programs: Program, **fields: object) -> Goal:
    """A goal with addresses of our own for what the programs leave open."""
    placed = tuple(
        replace(program, code=ADDRESS - 0x8000 + 0x40 * place, pointer=0xFFFFC90000085000 + 0x1000 * place)
        for place, program in enumerate(programs)
    )
    defaults = {"function": FUNCTION, "body": BODY, "site": "call", "helpers": HELPERS, "im": IM}
    return Goal(prototype, placed, **(defaults | fields))  # type: ignore[arg-type]


def of_kinds(*kinds: str, cookies: bool = False, sleepable: bool = False) -> tuple[Program, ...]:
    """Programs of these kinds, in the order of attaching."""
    return tuple(
        Program(kind, 0, cookie=0x1122334455667700 + place if cookies else 0, sleepable=sleepable)  # type: ignore[arg-type]
        for place, kind in enumerate(kinds)
    )


@dataclass
class Instruction:
    """code: its bytes; or, for a call or jump, its opcode, and to whom it goes: an address or a label."""

    code: bytes
    target: int | str | None = None
    label: str | None = None

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.code) + (4 if self.target is not None else 0)


@dataclass
class Layout:
    """Where what is in the frame, below rbp."""

    slots: int
    returned: bool
    func_ip: bool
    cookies: int
    outgoing: int
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.context = 8 * (self.slots + self.returned)
        self.meta = self.context + 8
        self.ip = self.meta + 8 * self.func_ip
        self.cookie = self.ip + 8 * self.cookies
        self.rbx = self.cookie + 8
        self.run_context = self.rbx + 16
        self.size = self.run_context + 8 * self.outgoing
        self.size += 8 if self.outgoing and self.size % 16 == 0 else 0


Edit = Callable[[list[Instruction]], None]


def find(code: list[Instruction], text: str, nth: int = 0) -> int:
    """The place of the nth instruction whose bytes begin so."""
    found = [place for place, instruction in enumerate(code) if instruction.code.hex().startswith(text)]
    return found[nth]


def put_in(text: str, other: str, nth: int = 0) -> Edit:
    """Puts other bytes in an instruction's place; `other` begins with + to stand before it, or is empty to drop it."""

    def edit(code: list[Instruction]) -> None:
        place = find(code, text, nth)
        if other.startswith("+"):
            code.insert(place, Instruction(bytes.fromhex(other[1:]), None, code[place].label))
            code[place + 1].label = None
        else:
            code[place] = Instruction(bytes.fromhex(other), None, code[place].label)

    return edit


def goes_to(address: int, other: int | None, opcode: str = "e8", nth: int = 0) -> Edit:
    """Sends the nth call of an address elsewhere, or with another opcode."""

    def edit(code: list[Instruction]) -> None:
        calls = [instruction for instruction in code if instruction.target == address]
        calls[nth].code = bytes.fromhex(opcode)
        calls[nth].target = address if other is None else other

    return edit


def cut_behind(text: str, nth: int = 0) -> Edit:
    """Leaves out all that follows the nth instruction whose bytes begin so."""

    def edit(code: list[Instruction]) -> None:
        del code[find(code, text, nth) + 1 :]

    return edit


def jump_at_the_end(text: str, target: int) -> Edit:
    """Puts a jump, whose bytes are these before the distance, in the place of the last instruction."""

    def edit(code: list[Instruction]) -> None:
        code[-1] = Instruction(bytes.fromhex(text), target)

    return edit


def without_rex(text: str) -> Edit:
    """Makes the first instruction whose bytes begin so one of 32 bits."""

    def edit(code: list[Instruction]) -> None:
        place = find(code, text)
        code[place].code = code[place].code[1:]

    return edit


def both(first: Edit, second: Edit) -> Edit:
    """Two edits, one after the other."""

    def edit(code: list[Instruction]) -> None:
        first(code)
        second(code)

    return edit


class Trampoline:
    """An image as instructions, made from a goal."""

    def __init__(self, goal: Goal, *, skips: bool = False) -> None:
        self.goal = goal
        self.code: list[Instruction] = []
        self._skips = skips
        stacked = sum(slot.stack is not None for slot in goal.prototype.slots)
        asking = [program.kind == "fsession" and bool(program.session_cookie) for program in goal.programs]
        self._asking = [place for place in range(len(asking)) if asking[place]][::-1]
        self.layout = Layout(
            len(goal.prototype.slots),
            goal.calls_original,
            goal.func_ip,
            len(self._asking),
            stacked * goal.calls_original,
        )
        self._make()

    def image(self, edit: Callable[[list[Instruction]], None] | None = None) -> Image:
        """The image; after an edit of its instructions, if there is one."""
        code = [replace(instruction) for instruction in self.code]
        if edit:
            edit(code)
        places, at = {}, ADDRESS
        for instruction in code:
            if instruction.label:
                places[instruction.label] = at
            at += instruction.size
        done = b""
        for instruction in code:
            done += instruction.code
            if instruction.target is not None:
                target = places.get(instruction.target, instruction.target)  # type: ignore[call-overload]
                done += (target - ADDRESS - len(done) - 4).to_bytes(4, "little", signed=True)
        return Image(ADDRESS, done + b"\xcc", len(done))

    def emit(self, code: bytes, target: int | str | None = None) -> None:
        """Appends an instruction."""
        self.code.append(Instruction(code, target, self._pending()))

    _label: str | None = None

    def _pending(self) -> str | None:
        label, self._label = self._label, None
        return label

    def _at(self, register: str, opcode: int, below: int) -> bytes:
        number = NUMBERS[register]
        rex = 0x4C if number > 7 else 0x48
        return bytes([rex, opcode, 0x85 | (number & 7) << 3]) + (-below).to_bytes(4, "little", signed=True)

    def store(self, register: str, below: int) -> None:
        """The instruction mov [rbp - below], register."""
        self.emit(self._at(register, 0x89, below))

    def load(self, register: str, below: int) -> None:
        """The instruction mov register, [rbp - below]."""
        self.emit(self._at(register, 0x8B, below))

    def lea(self, register: str, below: int) -> None:
        """The instruction lea register, [rbp - below]."""
        self.emit(self._at(register, 0x8D, below))

    def constant(self, register: str, value: int) -> None:
        """The instruction movabs register, value."""
        self.emit(bytes([0x48, 0xB8 + NUMBERS[register]]) + value.to_bytes(8, "little"))

    def put(self, value: int, below: int) -> None:
        """A constant to [rbp - below], by rax."""
        self.constant("rax", value)
        self.store("rax", below)

    def call(self, target: int) -> None:
        """The instruction call target."""
        self.emit(b"\xe8", target)

    def _make(self) -> None:
        goal = self.goal
        self._prologue()
        for run in goal.fentry:
            self._run(run)
        if goal.fmod_ret:
            self.put(0, 8)
        for run in goal.fmod_ret:
            self._run(run)
            self.emit(bytes.fromhex("48837df800"))
            self.emit(b"\x0f\x85", "fexit")
        if goal.calls_original:
            self._original()
        self._label = "fexit"
        if goal.has_sessions:
            self.put(self.layout.slots | IS_RETURN, self.layout.meta)
        for run in goal.fexit:
            self._run(run)
        self._leave()

    def _prologue(self) -> None:
        goal, layout = self.goal, self.layout
        for code in (b"\x55", b"\x48\x89\xe5", b"\x48\x81\xec" + layout.size.to_bytes(4, "little")):
            self.emit(code)
        self.store("rbx", layout.rbx)
        self.put(layout.slots, layout.meta)
        if goal.func_ip:
            self.put(goal.function, layout.ip)
        self._save_arguments()
        if goal.calls_original:
            self.constant("rdi", IM)
            self.call(HELPERS["__bpf_tramp_enter"])
        if goal.has_sessions:
            for number in range(layout.cookies):
                self.put(0, layout.cookie - 8 * number)
            self.put(0, 8)

    def _save_arguments(self) -> None:
        place = self.layout.context
        above = 24 if self.goal.site == "call" else 16
        for slot in self.goal.prototype.slots:
            if slot.register:
                self.store(slot.register, place)
            else:
                assert slot.stack is not None
                self.load("rax", -above - 8 * slot.stack)
                self.store("rax", place)
            place -= 8

    def _restore_arguments(self) -> None:
        for number, slot in enumerate(self.goal.prototype.slots):
            if slot.register:
                self.load(slot.register, self.layout.context - 8 * number)

    def _run(self, run: Run) -> None:
        program = self.goal.programs[run.program]
        layout = self.layout
        if run.program in self._asking:
            index = (layout.cookie - 8 * self._asking.index(run.program) - layout.context) // 8
            returning = IS_RETURN if run.list == "fexit" else 0
            self.put(layout.slots | index << 8 | returning, layout.meta)
        if self._skips:
            self.emit(NOP)
        sleepable = self.goal.some_sleep if program.sleepable is None else program.sleepable
        gate = ("_sleepable" if sleepable else "") + ("" if program.kind == "lsm" else "_recur")
        self.constant("rdi", program.cookie or 0)
        self.store("rdi", layout.run_context)
        self.constant("rdi", program.pointer or 0)
        self.lea("rsi", layout.run_context)
        self.call(HELPERS[f"__bpf_prog_enter{gate}"])
        self.emit(bytes.fromhex("4889c3"))
        self.emit(bytes.fromhex("4885c0"))
        self.emit(b"\x0f\x84", f"{run.place} skipped")
        self.lea("rdi", layout.context)
        self.call(program.code)
        if run.list == "fmod_ret":
            self.store("rax", 8)
        self._label = f"{run.place} skipped"
        self.constant("rdi", program.pointer or 0)
        self.emit(bytes.fromhex("4889de"))
        self.lea("rdx", layout.run_context)
        self.call(HELPERS[f"__bpf_prog_exit{gate}"])

    def _original(self) -> None:
        self._restore_arguments()
        above = 24 if self.goal.site == "call" else 16
        for number in range(self.layout.outgoing):
            self.load("rax", -above - 8 * number)
            self.emit(b"\x48\x89\x84\x24" + (8 * number).to_bytes(4, "little"))
        if self.goal.shares_ipmodify:
            self.load("rbx", -8)
            self.emit(bytes.fromhex("ffd3"))
        else:
            self.call(self.goal.body)
        self.store("rax", 8)
        if not self._skips:
            self.emit(NOP)

    def _leave(self) -> None:
        goal = self.goal
        if goal.calls_original:
            self.constant("rdi", IM)
            self.call(HELPERS["__bpf_tramp_exit"])
            self.load("rax", 8)
        else:
            self._restore_arguments()
        self.load("rbx", self.layout.rbx)
        self.emit(b"\xc9")
        if goal.site == "jmp" and not goal.calls_original:
            self.emit(b"\xe9", goal.body)
            return
        if goal.calls_original and goal.site == "call":
            self.emit(bytes.fromhex("4883c408"))
        self.emit(b"\xc3")


def file_of(goal: Goal, image: Image) -> str:
    """A file as a kernel's dump would be, of an image that is to meet the goal."""
    branch = (0xE9 if goal.site == "jmp" else 0xE8).to_bytes(1, "little")
    shared = goal.shares_ipmodify
    branch += ((goal.function if shared else image.address) - goal.body).to_bytes(8, "little", signed=True)[:4]
    kinds = [program.kind for program in goal.programs]
    listed = [(f"bpf_prog_0_c{place}_{kind}", goal.programs[place].code) for place, kind in enumerate(kinds)]
    heap = {goal.im, *(program.pointer for program in goal.programs)}
    targets = [*goal.helpers.items(), *(("heap", value) for value in heap), *listed]
    calls = [{"off": 0, "insn": "call", "target": f"{target:#x}", "sym": symbol} for symbol, target in targets]
    types = [{"type": one.name, "kind": one.kind, "size": one.size} for one in goal.prototype.arguments]
    returns = goal.prototype.returns
    fields = {
        "kernel": "7.3.4",
        "function": "f",
        "args": types,
        "ret": {"type": returns.name, "kind": returns.kind, "size": returns.size},
        "attach_order": kinds,
        "options": {
            "ip": goal.func_ip,
            "cookie": bool(goal.programs[0].cookie),
            "flags": 16 * any(program.sleepable is not False for program in goal.programs),
        },
        "function_address": f"{goal.function:#x}",
        "fentry_offset": 4,
        "function_prologue_bytes": "f30f1efa" + branch.hex() + "90" * 7,
        "enabled_functions": ["f (1) R I D   M \ttramp: x" if shared else "f (1) R   D   M \ttramp: x"],
        "image_address": f"{image.address:#x}",
        "used_bytes": image.used,
        "image_hex": image.code.hex(),
        "calls": calls,
        "programs": [{"name": name, "symbol_address": f"{address:#x}"} for name, address in sorted(listed)],
    }
    return json.dumps(fields)


def shapes_of_populations() -> list[Prototype]:
    """One prototype for each shape of the real kernels' functions, one that BPF can describe where there is one."""
    found: dict[object, Prototype] = {}
    for name in built_in():
        for function in load(name).functions:
            prototype = function.prototype
            if prototype and (prototype.shape not in found or not found[prototype.shape].describable):
                found[prototype.shape] = prototype
    return list(found.values())
