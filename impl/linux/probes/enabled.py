"""What is at ftrace's sites: the lines of enabled_functions, the sites' own bytes, and both as spec.sites.Site.

The bytes are the truth about what a site calls; the lines add who covers it. Source of the lines: t_show() of
kernel/trace/ftrace.c.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from spec.errors import BadInputError
from spec.sites import Site

__all__ = [
    "EnabledFunction",
    "Pointer",
    "SiteCode",
    "Subops",
    "Trampoline",
    "decode_site",
    "direct_functions",
    "ops_of_trampoline",
    "parse_enabled_functions",
    "site_of",
]

# Reads guest memory: (address, length) pairs in, the bytes of each out. One call is one round trip.
Reader = Callable[[Sequence[tuple[int, int]]], Sequence[bytes]]

SITE_BYTES = 5
# endbr64, and the nops that gen_endbr_poison() puts in its place where no indirect call comes; the last is 7.3's.
ENDBR = (bytes.fromhex("f30f1efa"), bytes.fromhex("660f1f00"), bytes.fromhex("0f1f40d6"))
NOP5 = bytes.fromhex("0f1f440000")
CALLS = {0xE8: "call", 0xE9: "jmp"}
LOAD_OPS = bytes.fromhex("488b15")

POINTER = r"(?:0x[0-9a-f]+|[^\s()+{}]+\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[[^\]]+\])?)"
LINE = re.compile(r"(?P<symbol>\S+)(?: \[(?P<module>[^\]]+)\])? \((?P<count>\d+)\)(?P<letters>[ RIDOM]*)(?P<rest>.*)")
TRAMPOLINE = re.compile(rf"(?P<kind>tramp|ops): (?P<at>{POINTER}) \((?P<func>{POINTER})\)(?: ->(?P<calls>{POINTER}))?")
SUBOPS = re.compile(rf"\{{ent:(?P<entry>{POINTER}) ret:(?P<returns>{POINTER})\}}")
CALLER = re.compile(rf" ?->(?P<calls>{POINTER})")
DIRECT = re.compile(rf"\tdirect(?P<jmp>\(jmp\))?-->(?P<entry>{POINTER})")


@dataclass(frozen=True, slots=True)
class Pointer:
    """An address as %pS prints it: a symbol, the distance from it, its size and module, or else the number alone."""

    symbol: str | None
    offset: int = 0
    size: int = 0
    module: str | None = None
    address: int | None = None


@dataclass(frozen=True, slots=True)
class Trampoline:
    """`tramp: AT (FUNC) ->CALLS` (or `ops:`): of the ops that covers a site alone; calls is None without an arrow."""

    at: Pointer
    func: Pointer
    calls: Pointer | None


@dataclass(frozen=True, slots=True)
class Subops:
    """A user of the graph tracer that covers the site, by its two callbacks."""

    entry: Pointer
    returns: Pointer


@dataclass(frozen=True, slots=True)
class EnabledFunction:
    """One function of enabled_functions.

    count: ops that cover it. regs, ipmodify, direct, call_ops: its R, I, D, O. modified: M, which stays for ever where
    the kernel prints it. trampoline: that of the only ops. calls: what the common caller calls, with several. subops:
    users of the graph tracer, where the kernel tells them. entry: what stands behind `direct-->`. jmp: the entry is
    reached by jmp.
    """

    symbol: str
    module: str | None
    count: int
    regs: bool
    ipmodify: bool
    direct: bool
    call_ops: bool = False
    modified: bool = False
    trampoline: Trampoline | None = None
    calls: Pointer | None = None
    subops: tuple[Subops, ...] = ()
    entry: Pointer | None = None
    jmp: bool = False


@dataclass(frozen=True, slots=True)
class SiteCode:
    """The instruction at a site. address: its own. kind: nop, call or jmp. target: what it calls, None for a nop."""

    address: int
    kind: str
    target: int | None


def parse_enabled_functions(text: str) -> tuple[EnabledFunction, ...]:
    """Every function that the kernel lists, in its order, which is that of the sites' addresses.

    Records of overridden weak functions are left out. A line of another form is a BadInputError.
    """
    found: list[EnabledFunction] = []
    for line in text.splitlines():
        if line.startswith("\tdirect") and found:
            found[-1] = _with_entry(found[-1], line)
        elif not line.startswith("__ftrace_invalid_address___"):
            found.append(_function(line))
    return tuple(found)


def _function(line: str) -> EnabledFunction:
    match = LINE.fullmatch(line)
    if not match:
        raise BadInputError(f"enabled_functions: cannot read the line {line!r}")
    letters, rest = match["letters"], match["rest"]
    trampoline, caller = TRAMPOLINE.search(rest), CALLER.match(rest)
    return EnabledFunction(
        match["symbol"],
        match["module"],
        int(match["count"]),
        "R" in letters,
        "I" in letters,
        "D" in letters,
        "O" in letters,
        "M" in letters,
        trampoline=_trampoline(trampoline) if trampoline else None,
        calls=_pointer(caller["calls"]) if caller else None,
        subops=tuple(Subops(_pointer(one["entry"]), _pointer(one["returns"])) for one in SUBOPS.finditer(rest)),
    )


def _trampoline(match: re.Match[str]) -> Trampoline:
    calls = match["calls"]
    return Trampoline(_pointer(match["at"]), _pointer(match["func"]), _pointer(calls) if calls else None)


def _with_entry(function: EnabledFunction, line: str) -> EnabledFunction:
    match = DIRECT.fullmatch(line)
    if not match:
        raise BadInputError(f"enabled_functions: cannot read the line {line!r}")
    return replace(function, entry=_pointer(match["entry"]), jmp=bool(match["jmp"]))


def _pointer(text: str) -> Pointer:
    if text.startswith("0x"):
        return Pointer(None, address=int(text, 16))
    symbol, _, rest = text.rpartition("+")
    span, _, module = rest.partition(" ")
    offset, _, size = span.partition("/")
    return Pointer(symbol, int(offset, 16), int(size, 16), module.strip("[]") or None)


def decode_site(address: int, code: bytes) -> SiteCode:
    """The site of the function at an address, from its first nine bytes: at once, or behind an endbr64.

    A site in the middle of a text poke, or of any other form, is a BadInputError.
    """
    skipped = 4 if code[:4] in ENDBR else 0
    site, instruction = address + skipped, code[skipped : skipped + SITE_BYTES]
    if instruction == NOP5:
        return SiteCode(site, "nop", None)
    kind = CALLS.get(instruction[0]) if len(instruction) == SITE_BYTES else None
    if kind is None:
        raise BadInputError(f"no ftrace site at {site:#x}: its bytes are {instruction.hex()}")
    return SiteCode(site, kind, site + SITE_BYTES + struct.unpack_from("<i", instruction, 1)[0])


def ops_of_trampoline(code: bytes) -> int | None:
    """The address of the ops that a private trampoline of ftrace was made for, or None if it is no such trampoline.

    Code: its first 512 bytes. The trampoline loads its ops from a word behind its code, where its callbacks take the
    pointer from. Source: create_trampoline() of arch/x86/kernel/ftrace.c.
    """
    at = code.find(LOAD_OPS)
    if at < 0 or at + 7 > len(code):
        return None
    word = at + 7 + struct.unpack_from("<i", code, at + 3)[0]
    return struct.unpack_from("<Q", code, word)[0] if 0 <= word <= len(code) - 8 else None


def site_of(function: EnabledFunction, code: SiteCode, entry: int | None, spell: Callable[[int], str]) -> Site:
    """What a line and its site's bytes say, as a Site.

    Entry: the address behind `direct-->` (direct_functions() tells it), None without one. Spell: how a seed spells an
    address that a site can call, such as `ftrace_caller`, `ops:NAME`, `direct:TRAMP` or `trampoline:KIND:PROG`.
    """
    return Site(
        function.count,
        function.regs,
        function.ipmodify,
        function.direct,
        "nop" if code.target is None else spell(code.target),
        None if entry is None else spell(entry),
    )


def direct_functions(read: Reader, variable: int) -> Mapping[int, int]:
    """The kernel's table of direct entries: site to address, bit 0 set where it is reached by jmp.

    Variable: the address of the symbol `direct_functions`. It takes four round trips and one for each further entry
    of the longest chain. Source: struct ftrace_hash and struct ftrace_func_entry.
    """
    (table,) = struct.unpack("<Q", read([(variable, 8)])[0])
    bits, buckets = struct.unpack("<QQ", read([(table, 16)])[0])
    if not buckets:
        return {}
    chains = struct.unpack(f"<{1 << bits}Q", read([(buckets, 8 << bits)])[0])
    found: dict[int, int] = {}
    pending = [head for head in chains if head]
    while pending:
        entries = [struct.unpack("<QQQQ", entry) for entry in read([(entry, 32) for entry in pending])]
        found.update((ip, direct) for _, _, ip, direct in entries)
        pending = [following for following, _, _, _ in entries if following]
    return found
