"""Loads code into memory when it is first needed: bodies, programs, trampolines of ops, extensions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from impl.batched.jit.assembler import assemble
from impl.batched.jit.generate import template
from impl.batched.jit.plan import ImagePlan, TrampLink
from impl.batched.machine import addresses as at
from impl.batched.machine.bodies import body, is_empty
from impl.batched.machine.bpf import HELPERS, helper_name
from impl.batched.machine.entries import entry_address, jump
from impl.batched.machine.ftrace import ops_caller
from impl.batched.machine.images import PROGRAM_BYTES, code_address, normal, program_symbols
from impl.batched.machine.memory import MemoryRegion
from impl.batched.machine.poke import INT3
from impl.batched.machine.routines import routines
from impl.batched.machine.structs import OpsObject, ProgramObject
from impl.batched.machine.text import OPS_BYTES, RAW_BYTES, Text
from impl.batched.programs import EXTENSION
from impl.batched.sites import DIRECT, GRAPH, KLP
from impl.batched.state import Ops, Program, State
from spec.worlds import Function

__all__ = ["Loader"]

BODY_SPACE: Final = 1 << 24
CODE_SPACE: Final = 1 << 20
OPS_SPACE: Final = 1 << 22
ALIGNED: Final = 16
FUNCS: Final = {DIRECT: "call_direct_funcs", GRAPH: "ftrace_graph_func", KLP: "klp_ftrace_handler"}


class Loader:
    """regions: all memory that it fills. It writes each place once, except for the functions' entries."""

    def __init__(self, state: State, text: Text) -> None:
        self._state = state
        self._text = text
        count = max(1, state.functions.count)
        known = routines()
        self._routines = MemoryRegion(at.ROUTINES, len(known.code))
        self._routines.write(at.ROUTINES, known.code)
        self._bodies = MemoryRegion(at.BODIES, BODY_SPACE)
        self._patched = MemoryRegion(at.PATCHED, count * at.FUNCTION_BYTES)
        self._ops = MemoryRegion(at.OPS_TRAMPOLINES, OPS_SPACE)
        self._raw = MemoryRegion(at.RAW_TRAMPOLINES, CODE_SPACE)
        self._programs = MemoryRegion(at.PROGRAMS, CODE_SPACE)
        self.program_objects = MemoryRegion(at.PROGRAM_OBJECTS, CODE_SPACE)
        self.ops_objects = MemoryRegion(at.OPS_OBJECTS, CODE_SPACE)
        code = (self._routines, self._bodies, self._patched, self._ops, self._raw, self._programs)
        self.regions = (*code, self.program_objects, self.ops_objects)
        self._end = at.BODIES
        self._body_of: dict[object, int] = {}
        self._behind_patched: set[int] = set()
        self._stubs: dict[int, tuple[int, int]] = {}
        self._ops_loaded: set[int] = set()
        self._raw_loaded = 0
        self._programs_loaded = 0
        self._unloaded: set[int] = set()

    def load(self, index: int) -> None:
        """Loads all code that a call of a function may reach."""
        state = self._state
        self.load_programs()
        self._load_ops()
        self._load_raw()
        called = {program.calls for program in state.programs.values() if program.calls is not None}
        for reached in self._find_reached(index, called):
            self._load_entry(reached)

    def load_programs(self) -> None:
        """Loads the code of programs that are new, or that a link holds again since they were freed."""
        numbers = range(self._programs_loaded + 1, len(self._state.program_numbered) + 1)
        for number in numbers:
            self._load_program(self._state.program_numbered[number])
        self._programs_loaded = len(self._state.program_numbered)
        if self._unloaded:
            for number in [number for number in self._unloaded if self._state.program_numbered[number].links]:
                self._unloaded.remove(number)
                self._load_program(self._state.program_numbered[number])
                self._text.note([(code_address(number), code_address(number + 1))])

    def _find_reached(self, index: int, called: set[str]) -> Iterator[int]:
        functions = self._state.functions
        waiting = [functions.all[index].name, *called]
        seen: set[str] = set()
        while waiting:
            name = waiting.pop()
            place = functions.index(name)
            if name in seen or place < 0:
                continue
            seen.add(name)
            yield place
            waiting += [callee.function for callee in functions.all[place].callees]

    def _load_entry(self, index: int) -> None:
        """Lets a function's entry jump to its body, or to the extension that stands in for it (TRACE-6)."""
        node = self._state.trampolines.extension.get(index)
        wanted = self._load_body(index, patched=False) if node is None else self._load_extension(index, node)
        self._text.jump_to(index, wanted)
        if index not in self._behind_patched and self._state.livepatched[index]:
            self._behind_patched.add(index)
            place = at.PATCHED + at.FUNCTION_BYTES * index
            self._patched.write(place, jump(place, self._load_body(index, patched=True)))

    def _load_body(self, index: int, *, patched: bool) -> int:
        function = self._state.functions.all[index]
        key = (function.prototype, function.callees, is_empty(function), patched)
        if key not in self._body_of:
            self._body_of[key] = self._place(assemble(body(function, self._find, patched=patched), self._end))
        return self._body_of[key]

    def _find(self, name: str) -> tuple[int, Function]:
        functions = self._state.functions
        index = functions.index(name)
        return index, functions.all[index]

    def _place(self, code: bytes) -> int:
        place = self._end
        self._bodies.write(place, code)
        self._end += -(-len(code) // ALIGNED) * ALIGNED
        return place

    def _load_extension(self, index: int, node: int) -> int:
        """A trampoline that runs the program, and returns what it returns."""
        known = self._stubs.get(index)
        if known is not None and known[0] == node:
            return known[1]
        state = self._state
        prototype = state.functions.all[index].prototype
        assert prototype is not None
        program = state.program_numbered[int(state.trampolines.sets.node_program[node])]
        made = template(
            ImagePlan(normal(prototype), (TrampLink("fmod_ret", program.sleepable),), program.func_ip, site="jmp")
        )
        symbols = routines().address | program_symbols(state, [node])
        symbols |= {
            "body": routines().address["nothing"],
            "function": entry_address(index),
            "im": at.IMAGE_OBJECTS,
        }
        place = self._place(made.relocate(self._end, symbols))
        self._stubs[index] = node, place
        return place

    def unload_program(self, number: int) -> None:
        """Frees a program's code, which is loaded anew when a link holds the program again."""
        self._programs.write(code_address(number), bytes([INT3]) * PROGRAM_BYTES)
        self._text.note([(code_address(number), code_address(number + 1))])
        self._unloaded.add(number)

    def _load_program(self, program: Program) -> None:
        """Writes the program's code, which loads its object and jumps to the code common to all programs."""
        place, found = code_address(program.number), at.PROGRAM_OBJECTS + ProgramObject.SIZE * program.number
        common = routines().address["program"]
        self._programs.write(place, assemble(f"mov rsi, {found}; jmp {common}", place))
        callee = self._state.functions.index(program.calls)
        flags = ProgramObject.HAS_SLOT * (program.kind not in {"fentry", EXTENSION})
        flags |= ProgramObject.FUNC_IP * program.func_ip | ProgramObject.SLEEPABLE * program.sleepable
        flags |= ProgramObject.SESSION * (program.kind == "fsession") | ProgramObject.GUARDED * program.is_guarded()
        calls = entry_address(callee) if callee >= 0 else 0
        words = (0, program.number, flags, program.returns, calls, max(callee, 0), *self._find_helpers(program))
        start = (found - at.PROGRAM_OBJECTS) // 8
        self.program_objects.u64[start : start + len(words)] = words

    def _find_helpers(self, program: Program) -> Iterator[int]:
        """The addresses of the program's helpers, 0 for those it may not call. An extension has those of fentry."""
        kind = "fentry" if program.kind == EXTENSION else program.kind
        for helper in HELPERS:
            yield routines().address.get(helper_name(helper, kind, self._state.facts), 0)

    def _load_ops(self) -> None:
        """Writes the trampolines and objects of the ops in the list."""
        plain = [(e.code, e.regs, e.routine) for e in self._state.ops_list if isinstance(e, Ops)]
        own = [(DIRECT, True, FUNCS[DIRECT]), (GRAPH, False, FUNCS[GRAPH]), (KLP, True, FUNCS[KLP])]
        for code, regs, routine in [*own, *plain]:
            if code in self._ops_loaded:
                continue
            self._ops_loaded.add(code)
            func = routines().address[routine]
            found, place = at.OPS_OBJECTS + OpsObject.SIZE * code, at.OPS_TRAMPOLINES + OPS_BYTES * code
            self.ops_objects.u64[(found - at.OPS_OBJECTS) // 8 :][:2] = func, code
            self._ops.write(place, ops_caller(regs=regs, ops=found, function=func))

    def _load_raw(self) -> None:
        for number in range(self._raw_loaded, len(self._state.direct.names)):
            place = at.RAW_TRAMPOLINES + RAW_BYTES * number
            told = routines().address["record_direct"]
            self._raw.write(place, assemble(f"push rax; mov eax, {number}; call {told}; pop rax; ret", place))
        self._raw_loaded = len(self._state.direct.names)
