"""Reads image files: one JSON object an image, as dumped from a running kernel (design contract 3.3)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from properties.prover.goal import KINDS, Goal, Kind, Program
from properties.prover.image import Image
from properties.prover.x86_64 import X86_64
from spec.errors import BadInputError
from spec.prototypes import MAX_ARGUMENT_BYTES, Prototype, Type

__all__ = ["Dump", "parse_image", "read_image"]

LARGEST: Final = 1 << 16
"""Bytes of an image; Linux's are at most a page."""

LARGEST_FILE: Final = 1 << 22
MOST_PROGRAMS: Final = 256
SLEEPABLE: Final = 16
HEAP: Final = "heap"
HELPER: Final = "__bpf_"
BTF_KINDS: Final = frozenset(
    (
        "VOID INT PTR ARRAY STRUCT UNION ENUM FWD TYPEDEF VOLATILE CONST RESTRICT FUNC FUNC_PROTO VAR DATASEC FLOAT "
        "DECL_TAG TYPE_TAG ENUM64"
    ).split()
)
PROGRAM_NAME: Final = re.compile(r"_c([0-9]{1,3})_([a-z_]+)$")
WORD: Final = re.compile("0x[0-9a-fA-F]{1,16}", re.ASCII)
IPMODIFY: Final = re.compile(r"\S+(?: \[\S+\])? +\([0-9]+\)(?: R|  ) I")
"""A line of enabled_functions on whose site an IPMODIFY ops is."""


@dataclass(frozen=True, slots=True)
class Dump:
    """An image file: where it is from, what was attached, the image, and what is to be proved of it."""

    file: str
    kernel: str
    function: str
    attached: tuple[Kind, ...]
    image: Image
    goal: Goal


def read_image(path: Path) -> Dump:
    """Reads one file. BadInputError names the file, the field and the mistake."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            raise BadInputError(f"is larger than {LARGEST_FILE} bytes", str(path))
        return parse_image(data.decode("utf-8"), str(path))
    except OSError as error:
        raise BadInputError(f"cannot be read: {error.strerror}", str(path)) from error
    except UnicodeDecodeError as error:
        raise BadInputError("is not UTF-8 text", str(path)) from error


def parse_image(text: str, file: str) -> Dump:
    """Reads the text of one file; `file` names it in errors."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"is not JSON: {error}", file) from error
    return _dump(_Fields(parsed, file, ""), file)


class _Fields:
    """An object of the file; each accessor checks one field, and its error names it."""

    def __init__(self, value: Any, file: str, place: str) -> None:
        self._file = file
        self._place = place
        if not isinstance(value, dict):
            raise BadInputError(f"{place.rstrip('.') or 'the file'} must be an object", file)
        self._value = value

    def error(self, name: str, mistake: str) -> BadInputError:
        """What is wrong with a field."""
        return BadInputError(f"{self._place}{name}: {mistake}", self._file)

    def text(self, name: str) -> str:
        """A string."""
        value = self._get(name)
        if not isinstance(value, str) or not value.isprintable():
            raise self.error(name, "must be a string of printable letters")
        return value

    def number(self, name: str, low: int, high: int) -> int:
        """A number of [low, high]."""
        value = self._get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.error(name, f"must be a number from {low} to {high}")
        return value

    def address(self, name: str) -> int:
        """An address, as a string like 0xffffffff81000000."""
        value = self.text(name)
        if not WORD.fullmatch(value):
            raise self.error(name, "must be an address such as '0xffffffff81000000'")
        return int(value, 16)

    def words(self, name: str, most: int) -> list[int]:
        """A list of words, each as a string like 0x100000000."""
        members = self.members(name, most)
        if not all(isinstance(member, str) and WORD.fullmatch(member) for member in members):
            raise self.error(name, "must be a list of words such as '0x100000000'")
        return [int(member, 16) for member in members]

    def code(self, name: str) -> bytes:
        """A string of hexadecimal digits, two a byte."""
        value = self.text(name)
        if not re.fullmatch("([0-9a-fA-F]{2})*", value):
            raise self.error(name, "must be hexadecimal digits, two a byte")
        return bytes.fromhex(value)

    def flag(self, name: str) -> bool:
        """A boolean, false where it is missing."""
        value = self._value.get(name, False)
        if not isinstance(value, bool):
            raise self.error(name, "must be true or false")
        return value

    def members(self, name: str, most: int) -> list[Any]:
        """A list of at most so many members."""
        value = self._get(name)
        if not isinstance(value, list) or len(value) > most:
            raise self.error(name, f"must be a list of at most {most} members")
        return value

    def object(self, name: str) -> _Fields:
        """An object."""
        return _Fields(self._get(name), self._file, f"{self._place}{name}.")

    def objects(self, name: str, most: int) -> list[_Fields]:
        """A list of objects."""
        members = enumerate(self.members(name, most))
        return [_Fields(value, self._file, f"{self._place}{name}[{index}].") for index, value in members]

    def __contains__(self, name: str) -> bool:
        return name in self._value

    def _get(self, name: str) -> Any:
        if name not in self._value:
            raise self.error(name, "is missing")
        return self._value[name]


def _dump(fields: _Fields, file: str) -> Dump:
    prototype = _prototype(fields)
    attached = _attached(fields)
    helpers, objects = _calls(fields)
    function = fields.address("function_address")
    site, body = _site(fields)
    goal = Goal(
        prototype=prototype,
        programs=_programs(fields, attached),
        function=function,
        body=body,
        site=site,
        helpers=helpers,
        func_ip=fields.object("options").flag("ip"),
        shares_ipmodify=_shares_ipmodify(fields),
        objects=objects,
    )
    return Dump(file, fields.text("kernel"), fields.text("function"), attached, _image(fields), goal)


def _prototype(fields: _Fields) -> Prototype:
    arguments = tuple(_type(argument, 1) for argument in fields.objects("args", MOST_PROGRAMS))
    prototype = Prototype(arguments, _type(fields.object("ret"), 0))
    if not prototype.describable:
        raise fields.error("args", "no trampoline can serve this prototype: 12 arguments of 16 bytes at most")
    return prototype


def _type(fields: _Fields, smallest: int) -> Type:
    kind = fields.text("kind")
    if kind not in BTF_KINDS:
        raise fields.error("kind", f"must be one of {', '.join(sorted(BTF_KINDS))}")
    size = fields.number("size", smallest, MAX_ARGUMENT_BYTES)
    if (kind == "VOID") != (size == 0):
        raise fields.error("size", "must be 0 for VOID, and for VOID only")
    return Type(fields.text("type"), kind, size)


def _attached(fields: _Fields) -> tuple[Kind, ...]:
    kinds = tuple(fields.members("attach_order", MOST_PROGRAMS))
    if not kinds or not all(kind in KINDS for kind in kinds):
        raise fields.error("attach_order", f"must be a list of {', '.join(KINDS)}, at least one")
    return kinds


def _programs(fields: _Fields, attached: tuple[Kind, ...]) -> tuple[Program, ...]:
    """In the order of attaching, which the names tell: c0_fentry is the first, and an fentry program."""
    options = fields.object("options")
    cookies = _cookies(fields, len(attached))
    flags = options.number("flags", 0, (1 << 32) - 1) if "flags" in options else 0
    session = options.flag("session_cookie") if "session_cookie" in options else None
    found: dict[int, Program] = {}
    for listed in fields.objects("programs", MOST_PROGRAMS):
        place = _place(listed, attached)
        if place in found:
            raise listed.error("name", "two programs have the same place in attach_order")
        # The file does not say to which of the programs the flags were given.
        sleepable = None if flags & SLEEPABLE else False
        code = listed.address("symbol_address")
        found[place] = Program(attached[place], code, None, cookies[place], sleepable, session)
    if len(found) != len(attached):
        raise fields.error("programs", f"has {len(found)} of the {len(attached)} programs in attach_order")
    return tuple(found[place] for place in range(len(attached)))


def _cookies(fields: _Fields, count: int) -> list[int] | list[None]:
    """In the order of attaching; a file may say that links have cookies, and not which."""
    if not fields.object("options").flag("cookie"):
        return [0] * count
    if "cookies" not in fields:
        return [None] * count
    cookies = fields.words("cookies", MOST_PROGRAMS)
    if len(cookies) != count:
        raise fields.error("cookies", f"has {len(cookies)} of the {count} programs in attach_order")
    return cookies


def _place(listed: _Fields, attached: tuple[Kind, ...]) -> int:
    match = PROGRAM_NAME.search(listed.text("name"))
    if not match:
        raise listed.error("name", "must end in its place in attach_order and its kind, such as '_c0_fentry'")
    place = int(match[1])
    if place >= len(attached) or attached[place] != match[2]:
        raise listed.error("name", f"attach_order has no {match[2]} in place {place}")
    return place


def _calls(fields: _Fields) -> tuple[dict[str, int], frozenset[int]]:
    """Helpers by symbol, and the heap objects: struct bpf_prog and struct bpf_tramp_image."""
    helpers: dict[str, int] = {}
    objects = set()
    for call in fields.objects("calls", LARGEST):
        symbol, target = call.text("sym"), call.address("target")
        if symbol == HEAP:
            objects.add(target)
        elif helpers.setdefault(symbol, target) != target and symbol.startswith(HELPER):
            raise call.error("sym", f"{symbol} has two addresses")
    return helpers, frozenset(objects)


def _site(fields: _Fields) -> tuple[Literal["call", "jmp"], int]:
    """How the image is reached, and what follows the site.

    Where others share the site, it is ftrace that calls or jumps, as its list of direct calls says.
    """
    prologue = fields.code("function_prologue_bytes")
    offset = fields.number("fentry_offset", 0, len(prologue))
    at = fields.address("function_address") + offset
    branch = X86_64.branch(prologue[offset:], at)
    if branch is None:
        raise fields.error("function_prologue_bytes", f"there is no call or jmp at fentry_offset {offset}")
    kind = branch.kind
    if branch.target != fields.address("image_address"):
        kind = "jmp" if any("direct(jmp)-->" in line for line in _enabled(fields)) else "call"
    return kind, (at + branch.size) % (1 << 64)


def _shares_ipmodify(fields: _Fields) -> bool:
    return any(IPMODIFY.match(line) for line in _enabled(fields))


def _enabled(fields: _Fields) -> list[str]:
    lines = fields.members("enabled_functions", MOST_PROGRAMS) if "enabled_functions" in fields else []
    if not all(isinstance(line, str) for line in lines):
        raise fields.error("enabled_functions", "must be a list of strings")
    return lines


def _image(fields: _Fields) -> Image:
    code = fields.code("image_hex")
    if not 0 < len(code) <= LARGEST:
        raise fields.error("image_hex", f"must have 1 to {LARGEST} bytes")
    address = fields.address("image_address")
    low, high = X86_64.kernel_text
    if not low <= address <= high - len(code):
        raise fields.error("image_address", f"must be in the kernel's text, from {low:#x} to {high:#x}")
    return Image(address, code, fields.number("used_bytes", 1, len(code)))
