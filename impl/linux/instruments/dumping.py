"""Trampolines of a running kernel: programs that do nothing are attached to functions, and what was built is read.

Nothing is detached: the guest goes back to its snapshot, so that every trampoline is the first one of its function.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from impl.linux.architectures import Architecture
from impl.linux.bpf.commands import (
    SLEEPABLE,
    LoadedProgram,
    create_link,
    load_program,
    loaded_program,
    open_link,
    program_info,
)
from impl.linux.bpf.instructions import (
    BpfInstruction,
    call_helper,
    call_kfunc,
    encode,
    exit_program,
    move,
    move_register,
)
from impl.linux.bpf.recorders import ATTACH_TYPES, GET_FUNC_IP
from impl.linux.guest.batch import Batch, Ref, Reply
from impl.linux.guest.errnos import errno_name
from impl.linux.guest.guest import Guest, GuestDiedError
from impl.linux.instruments.image_files import Attached, DumpedTrampoline, image_file
from impl.linux.instruments.objects import KernelObjects, NotedJump
from impl.linux.probes.btf import VMLINUX_BTF, Btf
from impl.linux.probes.disassembly import disassemble, helpers
from impl.linux.probes.enabled import parse_enabled_functions
from impl.linux.probes.symbols import KALLSYMS, Symbols, Table, parse_kallsyms
from impl.linux.probes.tracefs import AVAILABLE, ENABLED
from spec.errors import BadInputError
from spec.images import ImageFile, Options
from spec.prototypes import Type
from spec.worlds import Function

__all__ = ["Answer", "Attaching", "Dumper", "kernel_of"]

TAINTED = "/proc/sys/kernel/tainted"
PROLOGUE_BYTES, MOST_BYTES = 16, 1 << 13
# bpf_trampoline_compute_key() of the first BTF, vmlinux's
VMLINUX_KEY = 1 << 32 | 0x80000000
# an image file names these kernels by their series, and others by their version
LONG_TERM = ("linux-6.1", "linux-6.12")
VERSION = re.compile(r"[0-9]+(?:\.[0-9]+)*")
R0, R1, R6 = 0, 1, 6
COOKIE = 1 << 32
"""The first link's cookie; the next ones' follow."""


@dataclass(frozen=True, slots=True)
class Attaching:
    """Programs to attach to one function: their kinds in the order of attaching, and the helpers that all of them call.

    session_cookie: whether the fsession programs ask for their cookie.
    """

    kinds: tuple[str, ...]
    cookie: bool = False
    ip: bool = False
    sleepable: bool = False
    session_cookie: bool = False

    @property
    def attached(self) -> Attached:
        """As an image file has it."""
        flags = SLEEPABLE if self.sleepable else 0
        options = Options(self.cookie, self.ip, True if self.session_cookie else None, flags)
        cookies = tuple(range(COOKIE, COOKIE + len(self.kinds))) if self.cookie else None
        return Attached(self.kinds, options, cookies, self.sleepable)

    def cookie_of(self, place: int) -> int | None:
        """The cookie of a program's link, by the program's place; None: it is attached without one."""
        return COOKIE + place if self.cookie else None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the kernel did with the programs of one function.

    loads, attaches: for each program the errno's name, or nothing for success; the attach of a program that was not
    loaded is None. image: what was built, if all succeeded. trouble: what went wrong beyond refusals: the guest died,
    the kernel warned, or the image is not what was asked for.
    """

    loads: tuple[str, ...]
    attaches: tuple[str | None, ...]
    image: ImageFile | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class _Attached:
    """A function whose programs are all attached, in the order of attaching."""

    function: Function
    start: int
    programs: tuple[LoadedProgram, ...]


@dataclass(frozen=True, slots=True)
class _ImagePlace:
    """An image: its site's bytes and lines in enabled_functions, its address, and its size, which may be too much."""

    attached: _Attached
    prologue: bytes
    lines: tuple[str, ...]
    image: int
    size: int

    @property
    def key(self) -> int:
        """The trampoline's key: that of its function's BTF, and the function's id in it."""
        return VMLINUX_KEY | (self.attached.function.btf_id or 0)

    @property
    def symbol(self) -> str:
        """The trampoline's name, from its key."""
        return f"bpf_trampoline_{self.key}"


@dataclass(frozen=True, slots=True)
class _Objects:
    """Addresses of programs, by their ids, and of images, by their trampolines' keys; as far as they were found.

    jumps: what images note, by their addresses.
    """

    programs: Mapping[int, int]
    images: Mapping[int, int]
    jumps: Mapping[int, tuple[NotedJump, ...]]


class _WarnedError(Exception):
    """The kernel has warned."""


class Dumper:
    """A guest at its snapshot, and what its kernel says of itself. The guest stays the caller's, to be closed.

    name: of the kernel, as image files have it.
    """

    def __init__(self, guest: Guest, name: str) -> None:
        self._guest = guest
        self.name = name
        self._architecture = guest.kernel.architecture
        kallsyms, records, blob, self._taint = guest.read(KALLSYMS, AVAILABLE, VMLINUX_BTF, TAINTED)
        self._symbols = parse_kallsyms(kallsyms)
        self._records = records.decode().splitlines()
        self._btf = Btf(blob)
        self._helpers = helpers(self._symbols)
        self._objects = KernelObjects(guest, self._symbols, self._btf)
        self._session_cookie = self._btf.functions.get("bpf_session_cookie", 0)
        guest.snapshot()

    def population(self) -> dict[str, Any]:
        """The traceable functions of the kernel proper, as a population file has them, in the kernel's order."""
        types: dict[Type, int] = {}

        def index(kind: Type) -> int:
            return types.setdefault(kind, len(types))

        rows: list[dict[str, Any]] = []
        for symbol, _, module in (record.partition(" ") for record in self._records):
            btf_id = self._btf.functions.get(symbol)
            if not module:
                rows.append({"name": symbol} | (self._describe(btf_id, index) if btf_id else {}))
        return {
            "kernel": self._guest.kernel.release,
            "types": [[kind.kind, kind.size, kind.name] for kind in types],
            "functions": rows,
        }

    def _describe(self, btf_id: int, index: Callable[[Type], int]) -> dict[str, Any]:
        prototype = self._btf.prototype(btf_id)
        return {
            "btf_id": btf_id,
            "args": [index(argument) for argument in prototype.arguments],
            "ret": index(prototype.returns),
            "variadic": prototype.variadic,
        }

    def is_unique(self, function: Function) -> bool:
        """Whether the kernel has one symbol of this name only."""
        return len(self._symbols.addresses(function.symbol)) == 1

    def answers(self, functions: Sequence[Function], attaching: Attaching) -> list[Answer]:
        """What the kernel does, function by function. Each has a BTF id.

        Where a guest dies or warns with several functions, they are tried again in halves.
        """
        try:
            return self._answers(functions, attaching)
        except (GuestDiedError, _WarnedError) as trouble:
            if len(functions) == 1:
                return [Answer((), (), trouble=str(trouble))]
        middle = len(functions) // 2
        return [*self.answers(functions[:middle], attaching), *self.answers(functions[middle:], attaching)]

    def _answers(self, functions: Sequence[Function], attaching: Attaching) -> list[Answer]:
        self._guest.restore()
        self._guest.console()
        batch = Batch()
        places = range(len(attaching.kinds))
        tried = [[self._add(batch, function, attaching, place) for place in places] for function in functions]
        replies = self._guest.submit(batch)
        answers = [_read_answer(replies, entries) for entries in tried]
        attached = {
            number: _Attached(functions[number], self._find(functions[number]), _read_programs(replies, tried[number]))
            for number, answer in enumerate(answers)
            if not any((*answer.loads, *answer.attaches))
        }
        for number, found in zip(attached, self._find_images(list(attached.values()), attaching), strict=True):
            answers[number] = replace(answers[number], **found)
        return answers

    def _add(self, batch: Batch, function: Function, attaching: Attaching, place: int) -> tuple[int, int, int]:
        """Load one program and attach it: the entries of the load, of the program's description, and of the attach."""
        kind, cookie = attaching.kinds[place], attaching.cookie_of(place)
        load = load_program(
            batch,
            encode(_write_program(attaching, kind, self._session_cookie)),
            ATTACH_TYPES[kind, False],
            _program_name(place, kind),
            sleepable=attaching.sleepable,
            btf_id=function.btf_id or 0,
        )
        info = program_info(batch, Ref(load))
        if cookie is None:
            return load, info, open_link(batch, Ref(load))
        return load, info, create_link(batch, Ref(load), ATTACH_TYPES[kind, False], cookie)

    def _find(self, function: Function) -> int:
        """Where BPF looks for a function: kallsyms_lookup_name() finds the first symbol of a name."""
        return self._symbols.addresses(function.symbol)[0]

    def _find_images(self, attached: Sequence[_Attached], attaching: Attaching) -> list[dict[str, Any]]:
        """For each function its answer's image, or its trouble."""
        batch = Batch()
        listed = batch.read_file(ENABLED)
        taint = batch.read_file(TAINTED)
        for each in attached:
            batch.read_memory(each.start, PROLOGUE_BYTES)
        replies = self._guest.submit(batch)
        if replies[taint].data[0] != self._taint:
            raise _WarnedError(f"the kernel warns: {self._guest.console().strip()}")
        lines = _group_lines(replies[listed].data[0].decode())
        places = [
            _find_image(self._architecture, each, prologue.data[0], lines.get(each.function.symbol, ()))
            for each, prologue in zip(attached, replies[taint + 1 :], strict=True)
        ]
        wanted = [(place.image, place.size) for place in places if isinstance(place, _ImagePlace)]
        images = dict(zip((address for address, _ in wanted), self._guest.read_memory(wanted), strict=True))
        symbols = self._symbols.with_module("bpf", _list_symbols(attached, places, attaching))
        built = [place for place in places if isinstance(place, _ImagePlace)]
        pointers = self._objects.programs(program.id for place in built for program in place.attached.programs)
        noted = self._objects.images([place.key for place in built])
        objects = _Objects(pointers, noted, self._objects.jumps(list(noted.values())))
        return [
            self._check_image(place, images[place.image], symbols, attaching, objects)
            if isinstance(place, _ImagePlace)
            else {"trouble": place}
            for place in places
        ]

    def _check_image(
        self,
        place: _ImagePlace,
        code: bytes,
        symbols: Symbols,
        attaching: Attaching,
        objects: _Objects,
    ) -> dict[str, Any]:
        """The image, if it calls the programs that were attached, each as often as its kind says."""
        function = place.attached.function
        try:
            image = disassemble(self._architecture, place.image, code, self._helpers)
        except BadInputError as error:
            return {"trouble": str(error)}
        called = Counter(call.program for call in image.programs)
        pairs = zip(place.attached.programs, attaching.kinds, strict=True)
        wanted = Counter({program.address: 1 + (kind == "fsession") for program, kind in pairs})
        if called != wanted:
            return {"trouble": f"the image at {place.image:#x} calls other programs than were attached"}
        assert function.btf_id is not None
        assert function.prototype is not None
        trampoline = DumpedTrampoline(
            function.name,
            self._btf.declaration(function.btf_id),
            function.prototype,
            function.btf_id,
            place.attached.start,
            place.prologue,
            place.image,
            code[: image.used],
            place.lines,
            {one.address: objects.programs[one.id] for one in place.attached.programs if one.id in objects.programs},
            objects.images.get(place.key),
            objects.jumps.get(objects.images.get(place.key, 0)),
        )
        release = self._guest.kernel.release
        names = kernel_of(self.name, release), release
        return {"image": image_file(self._architecture, names, attaching.attached, trampoline, symbols)}


def kernel_of(name: str, release: str) -> str:
    """What an image file calls a kernel: a long-term series as such (6.12), another by its version (7.3.4)."""
    version = VERSION.match(release)
    return name.removeprefix("linux-") if name in LONG_TERM or version is None else version[0]


def _write_program(attaching: Attaching, kind: str, session_cookie: int) -> list[BpfInstruction]:
    """A program that calls the helpers of `attaching` and returns 0. session_cookie: the kfunc's BTF id."""
    asks = [call_helper(GET_FUNC_IP)] if attaching.ip else []
    if attaching.session_cookie and kind == "fsession":
        asks = [move_register(R6, R1), *asks, move_register(R1, R6), call_kfunc(session_cookie)]
    return [*asks, *move(R0, 0), exit_program()]


def _program_name(place: int, kind: str) -> str:
    return f"c{place}_{kind}"


def _read_answer(replies: Sequence[Reply], tried: Sequence[tuple[int, int, int]]) -> Answer:
    loads = tuple(_read_refusal(replies[load]) for load, _, _ in tried)
    attaches = (_read_refusal(replies[attach]) for _, _, attach in tried)
    return Answer(loads, tuple(None if load else attach for load, attach in zip(loads, attaches, strict=True)))


def _read_refusal(reply: Reply) -> str:
    return errno_name(reply.value) if reply.value < 0 else ""


def _read_programs(replies: Sequence[Reply], tried: Sequence[tuple[int, int, int]]) -> tuple[LoadedProgram, ...]:
    return tuple(loaded_program(replies[info]) for _, info, _ in tried)


def _group_lines(text: str) -> dict[str, list[str]]:
    """The lines of enabled_functions by function; of several functions of one name those of one with a direct entry."""
    found: dict[str, list[str]] = {}
    block: list[str] = []
    for line in text.splitlines():
        if line.startswith("\t"):
            block.append(line)
            found[block[0].split(" ")[0]] = block
        else:
            block = [line]
    return found


def _find_image(
    architecture: Architecture, attached: _Attached, prologue: bytes, lines: Sequence[str]
) -> _ImagePlace | str:
    """Where the image of a function is, or what is wrong with its site."""
    name = attached.function.name
    if not lines:
        return f"enabled_functions does not show a direct entry of {name}"
    try:
        target = architecture.decode_site(attached.start, prologue).target
    except BadInputError as error:
        return str(error)
    (listed,) = parse_enabled_functions("\n".join(lines))
    if target is None or listed.entry is None:
        return f"the site of {name} does not call its trampoline"
    # bpf_tree_comp() takes the end of an image for a part of it: where two adjoin, the list may name the first.
    size = MOST_BYTES if listed.entry.offset else listed.entry.size
    return _ImagePlace(attached, prologue, tuple(lines), target, size)


def _list_symbols(attached: Iterable[_Attached], places: Iterable[_ImagePlace | str], attaching: Attaching) -> Table:
    """Programs and trampolines as kallsyms lists them under `bpf`."""
    names = {
        program.address: f"bpf_prog_{program.tag}_{_program_name(place, attaching.kinds[place])}"
        for each in attached
        for place, program in enumerate(each.programs)
    }
    names |= {place.image: place.symbol for place in places if isinstance(place, _ImagePlace)}
    starts = sorted(names)
    return Table(starts, [names[start] for start in starts])
