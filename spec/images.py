"""Image files: a trampoline as a running kernel has built it, one JSON object each (design contract 3.3).

`impl.linux` writes them and the proofs read them; nothing else knows the format.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast, get_args

import msgspec
from msgspec import Meta, Struct

from spec import reading
from spec.prototypes import MAX_ARGUMENT_BYTES, Prototype, Type
from spec.reading import matching, one_of

__all__ = [
    "HEAP",
    "KINDS",
    "Address",
    "CallEntry",
    "Code",
    "ImageFile",
    "Kind",
    "Options",
    "PatchEntry",
    "ProgramEntry",
    "TypeEntry",
    "parse_image_file",
    "print_image_file",
    "read_image_file",
]

Kind = Literal["fentry", "fexit", "fmod_ret", "lsm", "fsession"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

LARGEST_FILE: Final = 1 << 22
LARGEST_IMAGE: Final = 1 << 16
"""Bytes of an image; Linux's are at most a page."""

MOST_PROGRAMS: Final = 256
HEAP: Final = "heap"
BTF_KINDS: Final = (
    "VOID INT PTR ARRAY STRUCT UNION ENUM FWD TYPEDEF VOLATILE CONST RESTRICT FUNC FUNC_PROTO VAR DATASEC FLOAT "
    "DECL_TAG TYPE_TAG ENUM64"
).split()
SPELLED_ADDRESS: Final = re.compile("0x[0-9a-fA-F]{1,16}", re.ASCII)
SPELLED_CODE: Final = re.compile("(?:[0-9a-fA-F]{2})*", re.ASCII)

Text = Annotated[str, matching("a string of printable ASCII characters", "[ -~]*")]
Line = Annotated[str, matching("a line of ASCII characters", "[ -~\t]*")]


class Address(int):
    """A word of 64 bits; the file spells it 0xffffffff81000000."""


class Code(bytes):
    """Bytes of machine code; the file has two hexadecimal digits for each."""


class Options(Struct, frozen=True, omit_defaults=True):
    """What programs and links were asked for.

    ip: a program asks for the function's address. cookie: each link has a nonzero cookie. session_cookie: whether the
    fsession programs ask for their session cookie. flags: of the programs' load; 16 is sleepable.
    """

    cookie: bool = False
    ip: bool = False
    session_cookie: bool | None = None
    flags: Annotated[int, Meta(ge=0, lt=1 << 32)] = 0


class TypeEntry(Struct, frozen=True, omit_defaults=True):
    """The type of an argument or of the return value, as BTF describes it; size in bytes, 0 for VOID only.

    alignment: in bytes; BTF does not tell it.
    """

    type: Text
    kind: Annotated[str, one_of(BTF_KINDS)]
    size: Annotated[int, Meta(ge=0, le=MAX_ARGUMENT_BYTES)]
    alignment: Literal[1, 2, 4, 8, 16] | None = None

    def __post_init__(self) -> None:
        if (self.kind == "VOID") != (self.size == 0):
            raise ValueError("expected a size of 0 for VOID, and for VOID only")


class CallEntry(Struct, frozen=True):
    """A call in the image, or a 64-bit immediate of it.

    off: from the image's start. insn: its mnemonic. sym: what is at the target; `heap` is a struct bpf_prog or
    bpf_tramp_image.
    """

    off: int
    insn: Text
    target: Address
    sym: Text


class ProgramEntry(Struct, frozen=True, omit_defaults=True):
    """A program as kallsyms lists it; its name ends in its place in attach_order and its kind: `_c0_fentry`.

    pointer: its struct bpf_prog. sleepable: whether it was loaded as a program that may sleep.
    """

    name: Text
    symbol_address: Address
    pointer: Address | None = None
    sleepable: bool | None = None


class PatchEntry(Struct, frozen=True, omit_defaults=True):
    """A place that the kernel noted when it built the image: there it will put a jump while tasks are in it.

    off: from the image's start. target: of the jump. pointer: the struct bpf_prog that it jumps over
    (bpf_trampoline_skip_prog()); without one it is the jump behind the original (bpf_tramp_image_put()).
    """

    off: Annotated[int, Meta(ge=0)]
    target: Address
    pointer: Address | None = None


class ImageFile(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The object of one file; other members are ignored. Those with a default may be missing.

    attach_order: kinds in the order of attaching. cookies: of the links, in that order. function_prologue_bytes: from
    function_address on; the site is at fentry_offset. used_bytes: of image_hex through its last `ret`. programs: by
    name, not in the order of attaching. enabled_functions: what it shows of the function, without ends of lines. im:
    the struct bpf_tramp_image; patches: all places that it notes. counters: per-CPU variables in which the kernel
    counts calls, by name; without them they are where the image counts first.
    """

    arch: Text = "x86-64"
    kernel: Text
    release: Text = ""
    attach: dict[str, int] = {}
    attach_order: Annotated[
        tuple[Annotated[str, one_of(KINDS)], ...],
        Meta(min_length=1, max_length=MOST_PROGRAMS),
    ]
    options: Options
    function: Text
    prototype: Text = ""
    btf_id: int = 0
    ret: TypeEntry
    args: Annotated[tuple[TypeEntry, ...], Meta(max_length=MOST_PROGRAMS)]
    nregs: int = -1
    trampoline_symbol: Text = ""
    function_address: Address
    function_prologue_bytes: Code
    fentry_offset: Annotated[int, Meta(ge=0)]
    callsite_target: Address | None = None
    callsite_target_sym: Text | None = None
    enabled_functions: Annotated[tuple[Line, ...], Meta(max_length=MOST_PROGRAMS)] = ()
    image_address: Address
    image_size_ksym: int = 0
    used_bytes: Annotated[int, Meta(ge=1)]
    image_hex: Code
    calls: Annotated[tuple[CallEntry, ...], Meta(max_length=LARGEST_IMAGE)]
    programs: Annotated[tuple[ProgramEntry, ...], Meta(max_length=MOST_PROGRAMS)]
    cookies: Annotated[tuple[Address, ...], Meta(max_length=MOST_PROGRAMS)] | None = None
    im: Address | None = None
    patches: Annotated[tuple[PatchEntry, ...], Meta(max_length=MOST_PROGRAMS)] | None = None
    counters: dict[Text, Address] = {}

    def __post_init__(self) -> None:
        if not 0 < len(self.image_hex) <= LARGEST_IMAGE:
            raise ValueError(f"image_hex: expected 1 to {LARGEST_IMAGE} bytes")
        if self.used_bytes > len(self.image_hex):
            raise ValueError(f"used_bytes: expected at most {len(self.image_hex)}, the bytes of image_hex")
        if self.fentry_offset > len(self.function_prologue_bytes):
            raise ValueError(
                f"fentry_offset: expected at most {len(self.function_prologue_bytes)}, the prologue's bytes"
            )
        if self.options.cookie and self.cookies is not None and len(self.cookies) != len(self.attach_order):
            raise ValueError(f"cookies: has {len(self.cookies)} for {len(self.attach_order)} programs in attach_order")
        if any(argument.size == 0 for argument in self.args):
            raise ValueError("args: expected arguments of 1 byte at least")

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Kinds of the programs, in the order of attaching."""
        return cast("tuple[Kind, ...]", self.attach_order)

    @property
    def types(self) -> Prototype:
        """The function's prototype."""
        arguments = tuple(Type(each.type, each.kind, each.size, each.alignment) for each in self.args)
        return Prototype(arguments, Type(self.ret.type, self.ret.kind, self.ret.size))

    @property
    def subject(self) -> tuple[object, ...]:
        """Of which kernel, function and programs it is; another dump of the same differs in addresses only."""
        return self.arch, self.release, self.function, self.attach_order, self.options


def read_image_file(path: Path) -> ImageFile:
    """Reads one file. BadInputError names the file, the field and the mistake."""
    return reading.load(path, ImageFile, LARGEST_FILE, _parse)


def parse_image_file(text: str, file: str) -> ImageFile:
    """Reads the text of one file; `file` names it in errors."""
    return reading.decode(text.encode(errors="surrogatepass"), ImageFile, file, _parse)


def print_image_file(image: ImageFile) -> str:
    """The text of a file."""
    return msgspec.json.format(reading.encode(image, _print), indent=1).decode() + "\n"


def _parse(kind: type, value: object) -> Address | Code:
    if kind is Address and isinstance(value, str) and SPELLED_ADDRESS.fullmatch(value):
        return Address(int(value, 16))
    if kind is Code and isinstance(value, str) and SPELLED_CODE.fullmatch(value):
        return Code(bytes.fromhex(value))
    raise ValueError(
        "expected an address such as '0xffffffff81000000'"
        if kind is Address
        else "expected a string of hexadecimal digits, two a byte"
    )


def _print(value: Any) -> str:
    return value.hex() if isinstance(value, Code) else hex(value)
