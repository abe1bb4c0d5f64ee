"""What differs from one processor architecture to the next: the type of its record, and a folder for each architecture.

A new architecture is a folder beside x86_64, its stubs in laboratory/module and its registers in sizes.h there, and a
line for each of its kernels in guest/packages.py. Nothing else here names a register, an opcode or a system call's
number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto

__all__ = ["Architecture", "Change", "Flow", "FlowInstruction", "ImageInstruction", "Meaning", "Mutation", "SiteCode"]


@dataclass(frozen=True, slots=True)
class SiteCode:
    """The instruction at a site. address: its own. kind: nop, call or jmp. target: what it calls, None for a nop."""

    address: int
    kind: str
    target: int | None


class Meaning(Enum):
    """What an instruction of a BPF trampoline image does, as far as that tells which programs the image calls."""

    CALL = auto()
    ROOM = auto()
    """It does nothing, and gives way to a SKIP when a program is detached; or it stands elsewhere."""
    SKIP = auto()
    """It jumps behind a program, as bpf_trampoline_skip_prog() lets it do."""
    ARGUMENT = auto()
    """It sets the register of a callee's first argument, to `number` if that is a constant."""
    COOKIE = auto()
    """It stores that register in the frame."""
    TEST_RETURN = auto()
    """It tests the return slot, as it is done behind each fmod_ret program."""
    DROP_FRAME = auto()
    """It drops a return address, so that the image returns to the function's caller."""
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class ImageInstruction:
    """One instruction of an image.

    number: the target of a call or a jump, or the constant that it loads; None where a register holds it. listed: how
    an image file names the instruction, which lists calls and 64-bit constants; empty for all others. text: as a
    disassembler shows it.
    """

    offset: int
    size: int
    meaning: Meaning
    number: int | None
    listed: str
    text: str


class Flow(Enum):
    """The addresses at which the processor may go on behind an instruction."""

    NEXT = auto()
    """At the next one; also behind a call."""
    CALL = auto()
    BRANCH = auto()
    """At the next one or at the target."""
    JUMP = auto()
    """At the target alone, or wherever a register says."""
    RETURN = auto()
    TRAP = auto()
    """In the handler of a WARN or a BUG."""
    PADDING = auto()
    """It stands between functions, or aligns what follows."""


@dataclass(frozen=True, slots=True)
class FlowInstruction:
    """One instruction of a function.

    target: of a call, branch or jump; None where a register or memory holds it. constant: what is loaded into a
    register, as a signed number; None if it is no constant.
    """

    address: int
    size: int
    flow: Flow
    target: int | None
    constant: int | None


class Change(StrEnum):
    """The ways to make a mutant of an instruction of the kernel's own."""

    INVERTED = "jump inverted"
    ALWAYS = "jump always"
    NEVER = "jump never"
    CALL = "call left out"
    STORE = "store left out"
    CONSTANT = "constant changed"
    ERRNO = "another errno"
    SUCCESS = "no errno"


@dataclass(frozen=True, slots=True)
class Mutation:
    """One change of one instruction. text: the instruction; old and new: its bytes, as many of each.

    before: the text of the instructions right before it in the code that was given, two at most. target: of a call or a
    jump; None for the others.
    """

    address: int
    change: Change
    text: str
    before: tuple[str, ...]
    old: bytes
    new: bytes
    target: int | None


@dataclass(frozen=True, slots=True)
class Architecture:
    """Everything that impl/linux knows of one architecture.

    debian: how packages call it. multiarch: how Debian calls the directory of its libraries. loader: the path of its
    dynamic loader, without the leading slash.

    compiler and objcopy: the tools that make its code here. make: what kbuild is told of it.

    qemu and qemu_package: the emulator, and the package that has it. machine: the emulator's options. command_line:
    what the kernel is told of the machine, the serial console among it. boot_image: where kbuild leaves the kernel as
    it is packed, in its tree. unpack_kernel: makes the file that QEMU boots out of that, whose name is for errors.

    syscalls: numbers by name; a call that an older one could make too (open, mkdir, rmdir) has only its *at form.

    kernel_addresses: the lowest address that is the kernel's. page_bytes: of a page. site_offset: the most bytes from
    a function's address to its site. site_bytes: so many from there on are enough for decode_site. trap: stands first
    where an instruction is being exchanged. decode_site: what a
    function at an address has at its site, by its first bytes; BadInputError if that is no site. read_image: the
    instructions of an image at an address, the last included; BadInputError if there is none in these bytes.
    read_flow: all instructions of the code at an address. mutate: every change of every instruction of the code at an
    address. mask: the code at an address without what a linker fills in, so that it is the same elsewhere.

    saved_arguments: at which bytes of struct pt_regs the registers of arguments are, in the convention's order.
    saved_result: that of the return value.

    leave_at_once: code for the beginning of a function, by the function's address, what it is to return, an address
    within 2 GiB of it, and which bits of the byte there the code is to set.

    The files that know an architecture are stubs_ARCH.S, park_ARCH.S, points_ARCH.c and sizes.h of laboratory/module.
    """

    name: str
    debian: str
    multiarch: str
    loader: str
    compiler: str
    objcopy: str
    make: tuple[str, ...]
    qemu: str
    qemu_package: str
    machine: tuple[str, ...]
    command_line: str
    boot_image: str
    unpack_kernel: Callable[[bytes, str], bytes]
    syscalls: Mapping[str, int]
    kernel_addresses: int
    page_bytes: int
    site_offset: int
    site_bytes: int
    trap: bytes
    decode_site: Callable[[int, bytes], SiteCode]
    read_image: Callable[[int, bytes], Iterator[ImageInstruction]]
    read_flow: Callable[[int, bytes], Iterator[FlowInstruction]]
    mutate: Callable[[int, bytes], Iterator[Mutation]]
    mask: Callable[[int, bytes], bytes]
    saved_arguments: tuple[int, ...]
    saved_result: int
    leave_at_once: Callable[[int, int, int, int], bytes]
