"""What the generator must know of an architecture: how to make instructions, by what they do in a trampoline."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from impl.batched.jit.assembler import Dialect
from impl.batched.jit.template import Form
from spec.abi import Convention

__all__ = ["MARK", "Code", "Emitter", "Instruction", "Isa", "Label", "Layout", "Statement", "To"]

To = Literal["caller", "body"]

MARK: Final = 0x5A5A5A5A5A5A5A5A
"""The number that stands for an address in assembler text."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """Assembler text. With a form, the last bytes of what it assembles to are a hole, and hold MARK or 0.

    symbol: whose address is put there, or a label. code: its bytes, where the assembler does not know it or would
    choose another form; the text is then for the reader. count: how many instructions it is.
    """

    text: str
    form: Form | None = None
    symbol: str = ""
    code: bytes = b""
    count: int = 1


@dataclass(frozen=True, slots=True)
class Label:
    """A place in the code."""

    name: str


Statement = Instruction | Label
Code = Iterable[Instruction]


@dataclass(frozen=True, slots=True)
class Layout:
    """The places of words in an image's frame, as bytes below its top.

    slots: how many the context has, for a generic image the most. result: the return slot, 0 without. context: the
    first context word, the others above it. meta, ip: the words before it; ip is 0 without. cookies: the first session
    cookie, the others above it. kept: what the register had that keeps what enter returned. count: the number of slots,
    of a generic image, whose return slot is behind that many; else 0. run_context: 16 bytes. outgoing: the first of the
    original's stack arguments, at the stack pointer. size: of all, in bytes.
    """

    site: Literal["call", "jmp"]
    slots: int
    result: int
    context: int
    meta: int
    ip: int
    cookies: int
    kept: int
    count: int
    run_context: int
    outgoing: int
    size: int


class Emitter(Protocol):
    """Makes the instructions of one image. Places in its frame are given as bytes below the top.

    keeper: a register that calls preserve. result: the one in which they return. scratch: one that carries no argument.
    move: the instruction that moves one register to another.
    """

    keeper: str
    result: str
    scratch: str
    move: str

    def enter(self) -> Code:
        """Makes the frame, and saves the keeper."""

    def leave(self, to: To) -> Code:
        """Undoes the frame; goes to the function's caller, or into the function, by the stack or to symbol body."""

    def store(self, register: str, below: int) -> Code:
        """Stores a register in the frame."""

    def load(self, register: str, below: int) -> Code:
        """Loads a register from the frame."""

    def copy(self, number: int, below: int) -> Code:
        """Copies the function's stack argument of this number to the frame; all argument registers stay."""

    def put(self, value: int, below: int) -> Code:
        """Puts a constant in the frame; all argument registers stay."""

    def put_symbol(self, symbol: str, below: int) -> Code:
        """Puts a symbol's value in the frame; all argument registers stay."""
        yield from self.symbol(self.scratch, symbol)
        yield from self.store(self.scratch, below)

    def put_meta(self, bits: int) -> Code:
        """Puts the number of slots, and other bits, in ctx[-1]; all argument registers stay."""

    def symbol(self, register: str, symbol: str) -> Code:
        """Loads a register with a symbol's value."""

    def address(self, register: str, below: int) -> Code:
        """Loads a register with the address of a place in the frame."""

    def return_address(self, register: str) -> Code:
        """Loads a register with the return address into the function."""

    def call(self, symbol: str) -> Code:
        """Calls a symbol."""

    def call_back(self) -> Code:
        """Calls the code at the return address into the function; all argument registers reach it."""

    def keep(self) -> Code:
        """Moves what the last call returned to the keeper."""
        yield Instruction(f"{self.move} {self.keeper}, {self.result}")

    def kept(self, register: str) -> Code:
        """Moves the keeper to a register."""
        yield Instruction(f"{self.move} {register}, {self.keeper}")

    def result_to(self, below: int) -> Code:
        """Stores what the last call returned in the frame."""
        yield from self.store(self.result, below)

    def unless_result(self, label: str) -> Code:
        """Jumps to a label if the last call returned 0."""

    def store_slot(self) -> Code:
        """Stores what the last call returned in the return slot."""

    def clear_slot(self) -> Code:
        """Stores 0 in the return slot; all argument registers may be lost."""

    def load_slot(self) -> Code:
        """Loads the return slot into the register of results."""

    def if_slot(self, label: str) -> Code:
        """Jumps to a label unless the return slot is 0."""

    def nop(self) -> Code:
        """Leaves room that can be patched to jump to any place in the image."""


@dataclass(frozen=True, eq=False)
class Isa:
    """An architecture."""

    name: str

    convention: Convention
    """Of C calls; a generic image serves functions of up to as many slots as it has registers."""

    dialect: Dialect
    """Its names in assembler and disassembler."""

    mnemonics: frozenset[str]
    """All that a template may have, as capstone prints them."""

    frame_bytes: Callable[[int, int, str], int]
    """The size of a frame of so many bytes, so many of which are outgoing arguments, at a site, with the stack aligned.

    PlanError where the architecture has no such site.
    """

    emitter: Callable[[Layout], Emitter]
    """The maker of an image's instructions, for this layout of its frame."""
