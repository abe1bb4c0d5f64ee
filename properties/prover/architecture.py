"""An architecture as data: all that the prover must be told. Each has one module, and nothing else knows a register.

No tool is imported here or there, so that the obligations can be run where the tools are not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from properties.prover.terms import Value
from spec.abi import Convention
from spec.errors import BadInputError

__all__ = ["Architecture", "Branch", "Origin", "SiteEntry"]

Origin = Literal["body", "caller"]


@dataclass(frozen=True)
class SiteEntry:
    """Where return addresses are when an image begins: words from the stack pointer upwards, and registers.

    body: behind the patched instruction; caller: where the traced function returns to. records: return addresses of the
    frame records that the image makes, the last first.
    """

    words: tuple[Origin, ...]
    records: tuple[Origin, ...]
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

    convention: Convention
    """Of C calls."""

    general: tuple[str, ...]
    """Registers of a word that an image may use, the stack pointer among them."""

    flags: Mapping[str, int]
    """Flags that an image may use, and which bit of the flags register each is."""

    readable: tuple[str, ...]
    """Registers that may be read, but not written."""

    frame_pointer: str
    """The register that points at the last frame record: the one before it, and a return address."""

    return_stack: bool
    """Whether processors foretell returns from calls by the instructions alone, so that the two must come in pairs."""

    pc: str

    always_aligned: bool
    """Whether the stack pointer is aligned after every instruction, not only at calls: an interrupt would fault."""

    code_alignment: int
    """Bytes; every instruction's address is a multiple of it."""

    entry: Mapping[str, SiteEntry]
    """By the kind of site, call or jmp; entered() asks for one."""

    frame: tuple[str, ...]
    """Registers that usually point into the frame."""

    kernel_text: tuple[int, int]
    """[low, high) of where return addresses may be."""

    kernel_stack: tuple[int, int]
    """[low, high) of where the stack pointer may be."""

    site_end: int
    """Bytes from a function's address to behind the patched instruction, in a kernel with landing pads."""

    nop: bytes
    """The instruction in whose place the kernel may put a jump."""

    jump: Callable[[int, int], bytes]
    """The bytes of that jump, from an address to another."""

    branch: Callable[[bytes, int], Branch | None]
    """The direct branch with which these bytes begin, at this address, if they do."""

    is_jump: Callable[[str], bool]
    """Whether an instruction, by its mnemonic, is a jump, taken always or on a condition."""

    language: str
    """SLEIGH's name of the machine."""

    scratch: tuple[str, ...]
    """What SLEIGH calls registers, and uses within an instruction only."""

    counters: Mapping[str, Callable[[Value], Value]]
    """Effects of a call on the counters that some kernels keep for each processor, by name."""

    area: str
    """The register from which on a processor's own area is; empty if a kernel has no such counters."""

    counting: Callable[[bytes, int], tuple[str, int] | None]
    """The name and place of the counter that an instruction, at an address, counts, if it does."""

    harmless: frozenset[str]
    """SLEIGH's user-defined operations without an effect that counts."""

    undefined: Callable[[bytes, str], tuple[str, ...]]
    """Flags that an instruction, by its bytes and mnemonic, leaves undefined."""

    effectless: Callable[[bytes, str], bool]
    """Whether an instruction, by its bytes and mnemonic, is one of those that may have no effect."""

    doubt: Callable[[bytes, str], str | None]
    """Why an instruction, by its bytes and mnemonic, may not do what SLEIGH says; None if it does."""

    is_usual: Callable[[bytes, str], bool]
    """Whether an instruction is of those whose p-code tests have looked at; others are looked at one by one."""

    tools_name: tuple[str, str]
    """What capstone and unicorn call the machine and its mode."""

    register_aliases: Mapping[str, str]
    """unicorn's names of registers that have another there."""

    others: tuple[str, ...]
    """unicorn's names of registers that an image must leave alone."""

    flags_register: str
    """unicorn's name of it."""

    ignored_flags: int
    """Its bits that do not count."""

    set_flags: int
    """Its other bits that are set when an image begins."""

    def entered(self, site: str) -> SiteEntry:
        """How an image begins at a kind of site; BadInputError where the architecture has none of that kind."""
        if site not in self.entry:
            raise BadInputError(f"{self.name} has no {site} sites: the site must be {' or '.join(self.entry)}")
        return self.entry[site]
