"""The functions' bodies as code: each records its arguments, and returns the sum that TRACE-2 says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from impl.batched.machine import addresses as at
from impl.batched.machine import records
from impl.batched.machine.structs import Globals
from spec.abi import SYSTEM_V
from spec.prototypes import Prototype, Type
from spec.worlds import Callee, Function

__all__ = ["body", "is_empty"]

PATCHED_MORE: Final = 1000
LOADS: Final = {
    (1, False): "movzx {0}, byte ptr [{1}]",
    (1, True): "movsx {0}, byte ptr [{1}]",
    (2, False): "movzx {0}, word ptr [{1}]",
    (2, True): "movsx {0}, word ptr [{1}]",
    (4, True): "movsxd {0}, dword ptr [{1}]",
}
LONG: Final = Type("long", "INT", 8)
SAVED_BYTES: Final = 8

FindFunction = Callable[[str], tuple[int, Function]]


def body(function: Function, find: FindFunction, *, patched: bool) -> str:
    """The text of a function's body. `find` gives a callee's index and the callee."""
    if is_empty(function) and not patched:
        return "xor eax, eax; ret"
    return "\n".join(_Body(function, find).lines(patched=patched))


def is_empty(function: Function) -> bool:
    """Whether its body returns 0, and does nothing else (TRACE-7)."""
    return "empty" in function.attributes


class _Body:
    """Words of the frame below rbp: rbx, then the function's words in order; rbx holds the sum."""

    def __init__(self, function: Function, find: FindFunction) -> None:
        self._function = function
        self._find = find
        prototype = function.prototype
        untyped = Prototype((LONG,) * len(SYSTEM_V.arguments), LONG)
        self._prototype = prototype or untyped

    def lines(self, *, patched: bool) -> Iterator[str]:
        slots = self._prototype.slots
        yield from ("push rbp", "mov rbp, rsp", "push rbx", f"sub rsp, {8 * len(slots) + 8 * (len(slots) + 1 & 1)}")
        for number, slot in enumerate(slots):
            source = slot.register or "rax"
            if slot.stack is not None:
                yield f"mov rax, [rbp + {16 + 8 * slot.stack}]"
            yield f"mov [{self._spell_word(number)}], {source}"
        yield from self._record(patched=patched)
        yield f"mov rbx, {PATCHED_MORE * patched}"
        if self._function.callees:
            for place, callee in enumerate(self._function.callees):
                yield from self._call(place, callee)
        else:
            yield from self._add_members()
        yield "mov rax, rbx"
        yield from ("push rax", *_cut_result(self._prototype.returns), "mov rbx, [rbp - 8]", "leave", "ret")

    def _spell_word(self, number: int) -> str:
        return f"rbp - {SAVED_BYTES + 8 * (number + 1)}"

    def _record(self, *, patched: bool) -> Iterator[str]:
        count = len(self._prototype.slots)
        yield f"mov r11, {at.GLOBALS}; mov r10, [r11 + {Globals.TRACE}]"
        yield f"mov qword ptr [r10], {records.BODY}; mov qword ptr [r10 + 8], {int(patched)}"
        yield f"mov qword ptr [r10 + 16], {count}"
        for number in range(count):
            yield f"mov rax, [{self._spell_word(number)}]; mov [r10 + {24 + 8 * number}], rax"
        yield f"add r10, {24 + 8 * count}; mov [r11 + {Globals.TRACE}], r10"

    def _add_members(self) -> Iterator[str]:
        """Adds up the arguments' members; of a scalar over 8 bytes only the low word counts."""
        for number, slot in enumerate(self._prototype.slots):
            argument = self._prototype.arguments[slot.argument]
            if argument.by_value:
                yield from _read("rax", self._spell_word(number), Type("", "INT", slot.size))
            elif not slot.offset:
                yield from _read("rax", self._spell_word(number), argument)
            else:
                continue
            yield "add rbx, rax"

    def _call(self, place: int, callee: Callee) -> Iterator[str]:
        """A call of a function, if it is there (TRACE-4)."""
        index, function = self._find(callee.function)
        assert function.prototype is not None
        slots = function.prototype.slots
        stacked = sum(slot.stack is not None for slot in slots)
        yield f"mov rax, {at.LOADED}; cmp byte ptr [rax + {index}], 0; je absent{place}"
        yield f"mov r11, {at.GLOBALS}; mov r10, [r11 + {Globals.TRACE}]; mov qword ptr [r10], {records.CALL}"
        yield f"mov qword ptr [r10 + 8], {index}; add r10, 16; mov [r11 + {Globals.TRACE}], r10"
        pad = stacked & 1
        yield f"sub rsp, {8 * pad}"
        for slot, argument in reversed(list(zip(slots, callee.arguments, strict=True))):
            yield from self._pass(argument)
            yield from _convert(function.prototype.arguments[slot.argument])
            yield f"mov {slot.register}, rax" if slot.register else "push rax"
        yield f"call {at.TEXT + at.FUNCTION_BYTES * index}"
        yield f"add rsp, {8 * (pad + stacked)}"
        yield f"mov r11, {at.GLOBALS}; mov r10, [r11 + {Globals.TRACE}]; mov qword ptr [r10], {records.RETURN}"
        yield f"mov [r10 + 8], rax; add r10, 16; mov [r11 + {Globals.TRACE}], r10"
        yield "push rax"
        yield from _read("rax", "rsp", function.prototype.returns)
        yield f"add rsp, 8; add rbx, rax; absent{place}:"

    def _pass(self, argument: tuple[str, int]) -> Iterator[str]:
        """Loads a callee's word into rax: a constant, or one of the function's own words at its width."""
        source, number = argument
        if source == "slot":
            yield from _read("rax", self._spell_word(number), Type("", "INT", self._prototype.slots[number].size))
        else:
            yield f"movabs rax, {number % (1 << 64)}"


def _convert(kind: Type) -> Iterator[str]:
    """A caller converts the word in rax to the argument's type (ARG-3); bits above its width are undefined."""
    if kind.name in {"bool", "_Bool"}:
        yield "test rax, rax; setne al; movzx eax, al"


def _cut_result(kind: Type) -> Iterator[str]:
    """The sum on top of the stack as a value of the return type; to bool it is converted, not cut."""
    if kind.name in {"bool", "_Bool"}:
        yield "cmp qword ptr [rsp], 0; setne byte ptr [rsp]"
    yield from _read("rax", "rsp", kind)


def _read(register: str, address: str, kind: Type) -> Iterator[str]:
    """A value of a type from memory, as C extends it."""
    if not kind.size:
        yield f"xor {register}, {register}"
    elif kind.name in {"bool", "_Bool"}:
        yield f"cmp byte ptr [{address}], 0; setne al; movzx eax, al"
    elif kind.size >= 8:
        yield f"mov {register}, [{address}]"
    elif (kind.size, kind.signed) in LOADS:
        yield LOADS[kind.size, kind.signed].format(register, address)
    else:
        shift = 64 - 8 * kind.size
        back = "sar" if kind.signed else "shr"
        yield f"mov {register}, [{address}]; shl {register}, {shift}; {back} {register}, {shift}"
