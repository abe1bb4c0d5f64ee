"""What the prover must be told of an architecture. One module a machine gives it; nothing else knows a register."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from spec.errors import BadInputError
from spec.prototypes import Prototype, Slot

__all__ = ["Architecture", "Branch", "Entry", "Origin"]

Origin = Literal["body", "caller"]


@dataclass(frozen=True)
class Entry:
    """Where return addresses are when an image begins: words from the stack pointer upwards, and registers.

    body: behind the patched instruction; caller: where the traced function returns to.
    """

    words: tuple[Origin, ...]
    registers: Mapping[str, Origin] = field(default_factory=dict)

    def popped(self, origin: Origin) -> int:
        """How many bytes above its first value the stack pointer is when control is at this return address."""
        return 8 * (self.words.index(origin) + 1) if origin in self.words else 0


@dataclass(frozen=True)
class Branch:
    """A direct call or jump. size: of the instruction, in bytes."""

    kind: Literal["call", "jmp"]
    target: int
    size: int


@dataclass(frozen=True, eq=False)
class Architecture:
    """A machine with words of 8 bytes, little-endian, whose stack grows down. Register names are lower case."""

    name: str

    language: str
    """SLEIGH's name of it."""

    general: tuple[str, ...]
    """Registers of a word that an image may use, the stack pointer among them."""

    flags: tuple[str, ...]
    """Flags that an image may use, bytes in SLEIGH."""

    readable: tuple[str, ...]
    """Registers that may be read, but not written."""

    scratch: tuple[str, ...]
    """What SLEIGH calls registers, and uses within an instruction only."""

    pc: str
    stack_pointer: str

    stack_alignment: int
    """Bytes; the stack pointer is a multiple of it at every call."""

    always_aligned: bool
    """Whether it is one after every instruction as well: an interrupt would fault on it."""

    code_alignment: int
    """Bytes; every instruction's address is a multiple of it."""

    arguments: tuple[str, ...]
    """Of a C call."""

    slots: Callable[[Prototype], tuple[Slot, ...]]
    """Where the words of a function's arguments are: one slot for each context word, in order."""

    results: tuple[str, str]
    """Low and high word of what a C function returns."""

    preserved: tuple[str, ...]
    """What a C function leaves as it is, the stack pointer aside."""

    clear: tuple[str, ...]
    """Flags that are 0 at every call and return."""

    entry: Mapping[str, Entry]
    """By the kind of site, call or jmp; entered() asks for one."""

    return_words: int
    """How many words a call pushes."""

    link: str | None
    """The register that a call writes its return address to, if it does not push it.

    There the body expects its caller's, when an image goes on to it.
    """

    harmless: frozenset[str]
    """SLEIGH's user-defined operations without an effect that counts."""

    undefined: Callable[[str], tuple[str, ...]]
    """Flags that an instruction, by its mnemonic, leaves undefined."""

    dubious: Callable[[bytes, str], str | None]
    """Why an instruction, by its bytes and mnemonic, may not do what SLEIGH says; None if it does."""

    usual: Callable[[bytes, str], bool]
    """Whether an instruction is of those whose p-code tests have looked at; others are looked at one by one."""

    jumps: Callable[[str], bool]
    """Whether an instruction, by its mnemonic, is a jump, taken always or on a condition."""

    frame: tuple[str, ...]
    """Registers that usually point into the frame."""

    nop: bytes
    """The instruction in whose place the kernel may put a jump."""

    jump: Callable[[int, int], bytes]
    """The bytes of that jump, from an address to another."""

    branch: Callable[[bytes, int], Branch | None]
    """The direct branch with which these bytes begin, at this address, if they do."""

    site_end: int
    """Bytes from a function's address to behind the patched instruction, in a kernel with landing pads."""

    kernel_text: tuple[int, int]
    """[low, high) of where return addresses may be."""

    kernel_stack: tuple[int, int]
    """[low, high) of where the stack pointer may be."""

    disassembler: Callable[[], Any]
    """A new capstone.Cs."""

    emulator: Callable[[], Any]
    """A new unicorn.Uc."""

    emulator_registers: Mapping[str, int]
    """unicorn's numbers of general, readable and pc."""

    others: tuple[int, ...]
    """unicorn's numbers of registers that an image must leave alone."""

    flags_register: int
    """unicorn's number of it."""

    flag_bits: Mapping[str, int]
    """Where in it the flags are."""

    ignored_flags: int
    """Its bits that do not count."""

    set_flags: int
    """Its other bits that are set when an image begins."""

    def entered(self, site: str) -> Entry:
        """How an image begins at a kind of site; BadInputError where the architecture has none of that kind."""
        if site not in self.entry:
            raise BadInputError(f"{self.name} has no {site} sites: the site must be {' or '.join(self.entry)}")
        return self.entry[site]
