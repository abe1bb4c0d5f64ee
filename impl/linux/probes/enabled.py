"""What enabled_functions shows, which together with a site's own bytes is a spec.sites.Site.

The bytes are the truth about what a site calls; the lines add who covers it. Source: t_show() of kernel/trace/ftrace.c.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from impl.linux.architectures import SiteCode
from spec.errors import BadInputError
from spec.sites import Site

__all__ = [
    "EnabledFunction",
    "OpsTrampoline",
    "Pointer",
    "direct_functions",
    "parse_enabled_functions",
    "require_sense",
    "site_of",
]

# reads guest memory at (address, length) pairs in one round trip
Reader = Callable[[Sequence[tuple[int, int]]], Sequence[bytes]]

POINTER = r"(?:0x[0-9a-f]+|[^\s()+{}]+\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[[^\]]+\])?)"
LINE = re.compile(r"(?P<symbol>\S+)(?: \[(?P<module>[^\]]+)\])? \((?P<count>\d+)\)(?P<letters>[ RIDOM]*)(?P<rest>.*)")
TRAMPOLINE = re.compile(rf"(?P<kind>tramp|ops): (?P<at>{POINTER}) \((?P<func>{POINTER})\)(?: ->(?P<calls>{POINTER}))?")
TRAMP = "\ttramp: "
CALLER = re.compile(rf" ?->(?P<calls>{POINTER})")
LIST, ASSIST = "arch_ftrace_ops_list_func", "ftrace_ops_assist_func"
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
class OpsTrampoline:
    """`tramp: AT (FUNC) ->CALLS` (or `ops:`), of the only ops that covers a site; calls is None without an arrow."""

    at: Pointer
    func: Pointer
    calls: Pointer | None


@dataclass(frozen=True, slots=True)
class EnabledFunction:
    """One function of enabled_functions.

    count: how many ops cover it. regs, ipmodify, direct, call_ops: its R, I, D, O. modified: M, which stays for ever
    where the kernel prints it. trampoline: that of the only ops. calls: what the common caller calls if there are
    several. entry: what is behind `direct-->`. jmp: the entry is reached by jmp.
    """

    symbol: str
    module: str | None
    count: int
    regs: bool
    ipmodify: bool
    direct: bool
    call_ops: bool = False
    modified: bool = False
    trampoline: OpsTrampoline | None = None
    calls: Pointer | None = None
    entry: Pointer | None = None
    jmp: bool = False


def parse_enabled_functions(text: str) -> tuple[EnabledFunction, ...]:
    """Every function that the kernel lists, in its order, which is that of the sites' addresses.

    Records of overridden weak functions are left out. A line of another form is a BadInputError.
    """
    found: list[EnabledFunction] = []
    for line in text.splitlines():
        if line.startswith("\tdirect") and found:
            found[-1] = _add_entry(found[-1], line)
        elif not line.startswith("__ftrace_invalid_address___"):
            found.append(_parse_line(line))
    return tuple(found)


def _parse_line(line: str) -> EnabledFunction:
    match = LINE.fullmatch(line)
    if not match:
        raise BadInputError(f"enabled_functions: cannot read the line {line!r}")
    letters, rest = match["letters"], match["rest"]
    if "ERROR!" in rest or ("\tops: " in rest and "O" not in letters):
        raise BadInputError(f"enabled_functions: what covers the site cannot be so in the line {line!r}")
    if rest.count(TRAMP) > 1:
        raise BadInputError(f"enabled_functions: a site with a trampoline of one ops has several in the line {line!r}")
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
        trampoline=_parse_trampoline(trampoline) if trampoline else None,
        calls=_parse_pointer(caller["calls"]) if caller else None,
    )


def _parse_trampoline(match: re.Match[str]) -> OpsTrampoline:
    calls = _parse_pointer(match["calls"]) if match["calls"] else None
    return OpsTrampoline(_parse_pointer(match["at"]), _parse_pointer(match["func"]), calls)


def _add_entry(function: EnabledFunction, line: str) -> EnabledFunction:
    match = DIRECT.fullmatch(line)
    if not match:
        raise BadInputError(f"enabled_functions: cannot read the line {line!r}")
    return replace(function, entry=_parse_pointer(match["entry"]), jmp=bool(match["jmp"]))


def _parse_pointer(text: str) -> Pointer:
    if text.startswith("0x"):
        return Pointer(None, address=int(text, 16))
    symbol, _, rest = text.rpartition("+")
    span, _, module = rest.partition(" ")
    offset, _, size = span.partition("/")
    return Pointer(symbol, int(offset, 16), int(size, 16), module.strip("[]") or None)


def require_sense(functions: Sequence[EnabledFunction]) -> None:
    """BadInputError for what no site can have that works, whoever is there.

    What a site goes to directly, an image or a trampoline of ours, has a name in kallsyms. An ops' own trampoline calls
    its func, or what calls that with protection; the kernel's trampolines of one ops call none. The common caller
    calls the list of ops, or the func of an ops that has no trampoline, for lack of memory, and is the only one there.
    """
    for function in functions:
        own, calls = function.trampoline, function.calls
        if function.entry and function.entry.symbol is None:
            raise BadInputError(f"enabled_functions: what {function.symbol} goes to directly has no name in kallsyms")
        if own and own.at.symbol is None:
            right = own.calls is not None and own.calls.symbol in {own.func.symbol, ASSIST}
        else:
            right = own.calls is None if own else calls is not None and _may_call(calls.symbol, function.count)
        if not right:
            raise BadInputError(f"enabled_functions: what the trampoline of {function.symbol} calls cannot be so")


def _may_call(symbol: str | None, count: int) -> bool:
    """Whether the common caller may call it for so many ops. Source: ftrace_ops_get_list_func()."""
    return symbol == LIST or (count == 1 and symbol not in {None, "ftrace_stub"})


def site_of(function: EnabledFunction, code: SiteCode, entry: int | None, spell: Callable[[int], str]) -> Site:
    """The Site that a line and the site's bytes describe.

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
