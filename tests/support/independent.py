"""An executor of x86-64 images that shares nothing with the prover: unicorn, the ABI, and what an image file says.

It runs an image on random values, with an interrupt behind each instruction that writes below the stack pointer, plays
its callees, and tells the first thing that goes wrong. Flags that the manual leaves undefined, by capstone's table, are
random.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import capstone  # type: ignore[import-untyped]
from unicorn import UC_ARCH_X86, UC_MODE_64, Uc, UcError, unicorn_const, x86_const  # type: ignore[attr-defined]

from spec.images import ImageFile

__all__ = ["Execution", "violation"]

PAGE = 0x1000
STACK_BYTES = 0x8000
BELOW = 0x600
REGISTERS = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split()
NUMBERS = {name: getattr(x86_const, f"UC_X86_REG_{name.upper()}") for name in (*REGISTERS, "rip", "eflags")}
ARGUMENTS = "rdi rsi rdx rcx r8 r9".split()
PRESERVED = "rbx rbp r12 r13 r14 r15".split()
FLAGS = {"cf": 0, "pf": 2, "zf": 6, "sf": 7, "of": 11}
DF = 1 << 10
UNDEFINED = {getattr(capstone.x86, f"X86_EFLAGS_UNDEFINED_{name.upper()}"): 1 << bit for name, bit in FLAGS.items()}
THUNK = "_return_thunk"
MASK = (1 << 64) - 1


class WrongError(Exception):
    """Something that an image must not do; the text says what."""


@dataclass(frozen=True)
class Place:
    """Where a word of an argument is: a register, or so many words up in the stack's arguments. size: its bytes."""

    size: int
    register: str = ""
    stack: int = -1
    integer: bool = True


def places(file: ImageFile) -> list[Place]:
    """System V: whole arguments in registers while these last; an __int128 on the stack at a multiple of 16."""
    found: list[Place] = []
    used = stacked = 0
    for each in file.args:
        words = (each.size + 7) // 8
        sizes = [min(8, each.size - 8 * word) for word in range(words)]
        integer = each.kind in {"INT", "ENUM"}
        if used + words <= len(ARGUMENTS):
            found += [Place(size, ARGUMENTS[used + word], integer=integer) for word, size in enumerate(sizes)]
            used += words
            continue
        wide = each.alignment == 16 or (each.kind == "INT" and each.size == 16)
        stacked += stacked % 2 if wide else 0
        found += [Place(size, stack=stacked + word, integer=integer) for word, size in enumerate(sizes)]
        stacked += words
    return found


@dataclass(frozen=True)
class Turn:
    """One run of a program. place: in attach_order; which: fentry, fmod_ret or fexit."""

    place: int
    which: str


def turns(file: ImageFile) -> tuple[list[Turn], list[Turn], list[Turn]]:
    """The three lists, each from the newest program to the oldest; an lsm program modifies what its hook returns."""
    modifies = {"fmod_ret", "lsm"} if file.ret.size else {"fmod_ret"}
    leaves = {"fexit", "fsession"} if file.ret.size else {"fexit", "fsession", "lsm"}

    def list_of(which: str, kinds: set[str]) -> list[Turn]:
        newest = reversed(list(enumerate(file.attach_order)))
        return [Turn(place, which) for place, kind in newest if kind in kinds]

    return list_of("fentry", {"fentry", "fsession"}), list_of("fmod_ret", modifies), list_of("fexit", leaves)


@dataclass
class Execution:
    """One run. code: the image's bytes, in the place of the file's."""

    file: ImageFile
    code: bytes
    draw: random.Random
    bound: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        file = self.file
        self.start, self.used = int(file.image_address), len(self.code)
        self.symbols = {call.sym: int(call.target) for call in file.calls}
        self.targets = {int(program.symbol_address) for program in file.programs}
        site = int(file.function_address) + file.fentry_offset
        self.body = site + 5
        self.call = not any("direct(jmp)-->" in line for line in file.enabled_functions) and (
            file.function_prologue_bytes[file.fentry_offset] == 0xE8 or file.callsite_target != file.image_address
        )
        self.where = places(file)
        self.machine = Uc(UC_ARCH_X86, UC_MODE_64)  # type: ignore[no-untyped-call]
        self.machine.ctl_set_tlb_mode(unicorn_const.UC_TLB_VIRTUAL)
        self.decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self.decoder.detail = True
        self.undefined: dict[int, int] = {}
        self.steps = 0
        self.wrong = ""
        self.before = -1
        self.open = 0

    # The machine.

    def get(self, name: str) -> int:
        """A register."""
        return int(self.machine.reg_read(NUMBERS[name]))

    def put(self, name: str, value: int) -> None:
        """Sets a register."""
        self.machine.reg_write(NUMBERS[name], value & MASK)

    def word(self, address: int) -> int:
        """A word of the stack."""
        if not self.bottom <= address <= self.bottom + STACK_BYTES - 8:
            raise WrongError("a callee is given an address that is not in the stack")
        return int.from_bytes(self.machine.mem_read(address, 8), "little")

    def random_word(self) -> int:
        """A word that other words are unlike."""
        return self.draw.choice((0, 1, MASK, self.draw.getrandbits(64), self.draw.getrandbits(64)))

    def scribble(self, address: int) -> None:
        """Writes below an address, as interrupts and callees do."""
        low = max(address - BELOW, self.bottom)
        self.machine.mem_write(low, self.draw.randbytes(address - low))
        start = low - self.bottom
        self.defined[start : address - self.bottom] = bytes(address - low)

    def set_up(self) -> None:
        """Puts image, stack, registers and arguments in place."""
        draw, machine = self.draw, self.machine
        first, last = self.start // PAGE, (self.start + self.used + 16) // PAGE
        machine.mem_map(first * PAGE, (last - first + 1) * PAGE)
        machine.mem_write(first * PAGE, b"\xf4" * ((last - first + 1) * PAGE))
        machine.mem_write(self.start, self.code)
        self.bottom = 0xFFFFC90000100000
        machine.mem_map(self.bottom, STACK_BYTES)
        machine.mem_write(self.bottom, draw.randbytes(STACK_BYTES))
        self.defined = bytearray(STACK_BYTES)
        self.caller = 0xFFFFFFFF81700000 + 16 * draw.randrange(0x1000)
        self.top = self.bottom + STACK_BYTES - 0x400 + 8 * draw.randrange(2)
        returns = [self.body, self.caller] if self.call else [self.caller]
        stacked = max((place.stack + 1 for place in self.where), default=0)
        self.extra = [draw.getrandbits(64) for _ in range(stacked)]
        self.above = self.top + 8 * (len(returns) + stacked)
        for number, value in enumerate([*returns, *self.extra]):
            machine.mem_write(self.top + 8 * number, value.to_bytes(8, "little"))
        self.first = {name: draw.getrandbits(64) for name in REGISTERS}
        for name, value in self.first.items():
            self.put(name, value)
        self.put("rsp", self.top)
        self.put("eflags", 0x202 | self.random_flags())
        self.returns = returns
        machine.hook_add(unicorn_const.UC_HOOK_CODE, self.begins)
        kinds = unicorn_const.UC_HOOK_MEM_READ | unicorn_const.UC_HOOK_MEM_WRITE
        machine.hook_add(kinds, self.accesses)

    def random_flags(self) -> int:
        """Arithmetic flags, each 0 or 1."""
        return sum(self.draw.getrandbits(1) << bit for bit in FLAGS.values())

    def begins(self, _: Any, address: int, size: int, __: Any) -> None:
        """Before an instruction: the one before has ended, and an interrupt may come."""
        left = self.undefined.get(self.before, 0) if self.before >= 0 else 0
        self.ends()
        if left or not self.start <= address < self.start + self.used:
            self.open = left
            self.machine.emu_stop()
            return
        self.steps += 1
        self.before, self.pointer = address, self.get("rsp")
        if self.steps > 4 * self.used + 64:
            self.fail("it does not end")
        if address not in self.undefined:
            code = self.code[address - self.start :][:15]
            found = next(self.decoder.disasm(code, address, 1), None)
            if found is None or found.size != size:
                self.fail("the decoders differ")
            self.undefined[address] = sum(bit for flag, bit in UNDEFINED.items() if found and found.eflags & flag)

    def ends(self) -> None:
        """Behind an instruction."""
        if self.before < 0:
            return
        pointer = self.get("rsp")
        if not self.bottom + BELOW <= pointer <= self.above:
            self.fail("the stack pointer is gone")
        else:
            self.scribble(pointer)
        self.before = -1

    def accesses(self, _: Any, access: int, address: int, size: int, __: int, ___: Any) -> None:
        """An instruction loads or stores."""
        low = min(self.pointer, self.get("rsp"))
        writes = access == unicorn_const.UC_MEM_WRITE
        if not low - 8 * writes <= address <= (self.top if writes else self.above) - size:
            self.fail("it stores outside its frame" if writes else "it loads what is not its own")
        elif writes:
            start = address - self.bottom
            self.defined[start : start + size] = b"\1" * size

    def fail(self, text: str) -> None:
        """Ends the run."""
        self.wrong = self.wrong or text
        self.machine.emu_stop()

    # The callees.

    def go(self) -> int:
        """Runs the image until control is outside, and returns where."""
        while True:
            self.open = 0
            try:
                self.machine.emu_start(self.get("rip"), 0)
            except UcError as error:
                if error.errno == unicorn_const.UC_ERR_FETCH_UNMAPPED:
                    self.ends()
                else:
                    self.wrong = self.wrong or f"the processor stops: {error}"
            if self.wrong:
                raise WrongError(self.wrong)
            at = self.get("rip")
            if not self.start <= at < self.start + self.used:
                return at
            self.need(self.open, "the processor stops")
            self.put("eflags", self.get("eflags") & ~self.open | self.random_flags() & self.open)

    def need(self, holds: object, text: str) -> None:
        """WrongError if it does not hold."""
        if not holds:
            raise WrongError(text)

    def called(self, target: int | None, name: str) -> int:
        """Control must get to a callee. Returns the stack pointer above its return address."""
        at = self.go()
        self.need(at == target, f"{name} is not called")
        pointer = self.get("rsp")
        self.need(not self.get("eflags") & DF, f"DF is set at {name}")
        self.need(self.start <= self.word(pointer) < self.start + self.used, f"{name} does not return")
        self.need(pointer % 8 == self.top % 8, f"the stack is not aligned at {name}")
        frame = self.get("rbp")
        self.need(pointer <= frame < self.top, f"the frame pointer is lost at {name}")
        chain = self.word(frame) == self.first["rbp"] and self.word(frame + 8) == self.returns[0]
        self.need(chain, f"the chain of frames is broken at {name}")
        return pointer + 8

    def come_back(self, result: int, high: int | None = None) -> None:
        """Returns from a callee: nothing that it need not preserve is as it was."""
        pointer = self.get("rsp")
        back = self.word(pointer)
        for name in REGISTERS:
            if name not in {*PRESERVED, "rsp"}:
                self.put(name, self.draw.getrandbits(64))
        self.put("rax", result)
        if high is not None:
            self.put("rdx", high)
        self.put("eflags", 0x202 | self.random_flags())
        self.scribble(pointer + 8)
        self.put("rsp", pointer + 8)
        self.put("rip", back)

    def same(self, name: str, value: int) -> None:
        """A constant is what it was where it first occurred."""
        self.need(self.bound.setdefault(name, value) == value, f"another {name}")

    def is_defined(self, address: int) -> bool:
        """Whether all bytes of a word have been written."""
        start = address - self.bottom
        return 0 <= start and all(self.defined[start : start + 8])

    def helper(self, turn: Turn, what: str) -> tuple[set[int | None], str]:
        """What may be called before or behind a program."""
        recursion = "" if self.file.attach_order[turn.place] == "lsm" else "_recur"
        plain, sleeps = f"__bpf_prog_{what}{recursion}", f"__bpf_prog_{what}_sleepable{recursion}"
        names = [plain, sleeps] if self.file.options.flags & 16 else [plain]
        return {self.symbols.get(name) for name in names} - {None}, plain

    def gate(self, turn: Turn, what: str) -> int:
        """Control gets to a program's enter or exit."""
        allowed, name = self.helper(turn, what)
        at = self.go()
        self.need(at in allowed, f"{name} is not called")
        sleeps = at == self.symbols.get(name.replace(what, f"{what}_sleepable"))
        self.same(f"way into program {turn.place}", int(sleeps))
        return self.called(at, name)

    def value(self, place: Place) -> int:
        """What the caller has passed."""
        return self.first[place.register] if place.register else self.extra[place.stack]

    def run_program(self, turn: Turn) -> None:
        """A program's turn."""
        live = self.gate(turn, "enter")
        self.same(f"prog {turn.place}", self.get("rdi"))
        context = self.get("rsi")
        self.need(live <= context <= self.top - 16, "the run context is not in the frame")
        began, saved = self.draw.choice((0, 1, self.draw.getrandbits(64))), self.draw.getrandbits(64)
        self.machine.mem_write(context + 8, saved.to_bytes(8, "little"))
        self.defined[context + 8 - self.bottom : context + 16 - self.bottom] = b"\1" * 8
        self.come_back(began)
        if began:
            self.judge_program(turn, context)
        self.gate(turn, "exit")
        self.same(f"prog {turn.place}", self.get("rdi"))
        self.need(self.get("rsi") == began, "exit does not get what enter returned")
        self.need(self.get("rdx") == context, "exit gets another run context")
        self.need(self.word(context + 8) == saved, "the saved run context is lost")
        self.come_back(self.draw.getrandbits(64))

    def judge_program(self, turn: Turn, run_context: int) -> None:
        """The program runs, and sees its context."""
        file, kind = self.file, self.file.attach_order[turn.place]
        name = f"_c{turn.place}_{kind}"
        target = next(int(one.symbol_address) for one in file.programs if one.name.endswith(name))
        live = self.called(target, name)
        context, count = self.get("rdi"), len(self.where)
        sees_slot = turn.which != "fentry" or kind == "fsession"
        low = context - (16 if file.options.ip else 8)
        self.need(live <= low and context + 8 * (count + sees_slot) <= self.top, "the context is not in the frame")
        for number, place in enumerate(self.where):
            self.see(context + 8 * number, self.value(place), place.size, f"ctx[{number}]")
        if sees_slot:
            self.see(context + 8 * count, self.slot, min(file.ret.size, 8), "the return slot")
        sessions = "fsession" in file.attach_order
        self.see(context - 8, count, 1 if sessions else 8, "ctx[-1]")
        if file.options.ip:
            self.see(context - 16, int(file.function_address), 8, "ctx[-2]")
        cookie = self.word(run_context)
        self.need(self.is_defined(run_context), "the cookie is not written")
        self.need((cookie != 0) == file.options.cookie, "the cookie is wrong")
        self.same(f"cookie {turn.place}", cookie)
        if kind == "fsession":
            self.need(self.word(context - 8) >> 63 == (turn.which == "fexit"), "ctx[-1] tells a wrong phase")
        result = self.draw.choice((0, 0, self.random_word()))
        if turn.which == "fmod_ret":
            self.slot = result
        self.come_back(result)

    def see(self, address: int, expected: int, size: int, name: str) -> None:
        """A program reads a word."""
        mask = (1 << 8 * size) - 1
        self.need(self.word(address) & mask == expected & mask, f"{name} is wrong")
        self.need(self.is_defined(address), f"{name} is not written as a whole")

    def judge_arguments(self, outgoing: int | None) -> None:
        """The function gets its arguments; outgoing: where those on the stack must be, if they have been copied."""
        for number, place in enumerate(self.where):
            bits = 8 * (max(place.size, 4) if place.integer else place.size)
            if place.register:
                got = self.get(place.register)
            elif outgoing is None:
                continue
            else:
                got = self.word(outgoing + 8 * place.stack)
            self.need((got ^ self.value(place)) & ((1 << bits) - 1) == 0, f"argument word {number} is wrong")

    def run(self) -> None:
        """The whole image; WrongError if it does what it must not."""
        self.set_up()
        self.put("rip", self.start)
        fentry, fmod_ret, fexit = turns(self.file)
        self.slot = 0
        calls = bool(fmod_ret or fexit)
        if calls:
            self.tramp("enter")
        for turn in fentry:
            self.run_program(turn)
        for turn in fmod_ret:
            if not self.slot:
                self.run_program(turn)
        if calls:
            if not self.slot or not fmod_ret:
                self.run_original()
            for turn in fexit:
                self.run_program(turn)
            self.tramp("exit")
        self.leave(calls)

    def tramp(self, what: str) -> None:
        """Control gets to __bpf_tramp_enter or -exit."""
        name = f"__bpf_tramp_{what}"
        self.called(self.symbols.get(name), name)
        self.same("im", self.get("rdi"))
        self.come_back(self.draw.getrandbits(64))

    def run_original(self) -> None:
        """The body runs."""
        live = self.called(self.body, "the original")
        self.judge_arguments(live)
        stacked = max((place.stack + 1 for place in self.where), default=0)
        self.slot = self.random_word()
        self.machine.mem_write(live, self.draw.randbytes(8 * stacked))
        self.high = self.draw.getrandbits(64)
        self.come_back(self.slot, self.high)

    def leave(self, calls: bool) -> None:
        """Control goes to the caller, or on to the body."""
        at = self.go()
        if any(symbol.endswith(THUNK) and at == target for symbol, target in self.symbols.items()):
            at = self.word(self.get("rsp"))
            self.put("rsp", self.get("rsp") + 8)
        self.need(at == (self.caller if calls else self.body), "it goes to the wrong place at the end")
        above = len(self.returns) if calls else 1 if self.call else 0
        self.need(self.get("rsp") == self.top + 8 * above, "rsp is wrong at the end")
        self.need(not self.get("eflags") & DF, "DF is set at the end")
        self.need(all(self.get(name) == self.first[name] for name in PRESERVED), "a register is lost")
        if not calls:
            self.judge_arguments(None)
            return
        mask = (1 << 8 * min(self.file.ret.size, 8)) - 1
        self.need((self.get("rax") ^ self.slot) & mask == 0, "the result is wrong")


def violation(file: ImageFile, code: bytes, seeds: Sequence[int]) -> str:
    """What goes wrong first, in executions with these random seeds; empty if nothing does."""
    bound: dict[str, int] = {}
    sleeping = file.options.flags & 16
    for seed in seeds:
        execution = Execution(file, code, random.Random(seed), bound)
        try:
            execution.run()
        except WrongError as error:
            return str(error)
    entered = {value for name, value in bound.items() if name.startswith("way into")}
    return "no program sleeps" if sleeping and entered == {0} else ""
