"""The commands of bpf(2), and close(2), as entries of a batch: maps, programs, links, BTF objects.

Every function adds entries to a batch, and returns the index of the reply whose value is the new descriptor, or -errno.
A descriptor may be that of an earlier entry of the batch. Layouts are those of union bpf_attr in
include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from impl.linux.bpf.instructions import BYTES
from impl.linux.guest.batch import Batch, Out, Ref, Reply, Struct
from impl.linux.guest.guest import Guest

__all__ = [
    "JIT_LIMIT",
    "SLEEPABLE",
    "LoadedProgram",
    "ToldLink",
    "ask_kprobe_multi",
    "ask_link",
    "close",
    "close_all",
    "create_array",
    "create_kprobe_multi",
    "create_link",
    "create_multi_link",
    "first_link",
    "load_kprobe",
    "load_program",
    "loaded_program",
    "open_btfs",
    "open_link",
    "program_info",
    "read_misses",
    "recursion_misses",
    "without_jit_charge",
]

# enum bpf_cmd
MAP_CREATE, PROG_LOAD, GET_INFO, RAW_TRACEPOINT_OPEN = 0, 5, 15, 17
BTF_FD_BY_ID, BTF_NEXT_ID, LINK_CREATE, LINK_NEXT_ID = 19, 23, 28, 31
MAP_TYPE_ARRAY, MMAPABLE = 2, 1 << 10
PROG_TYPE_KPROBE, PROG_TYPE_TRACING, PROG_TYPE_LSM = 2, 26, 29
LSM_MAC = 27
SLEEPABLE = 1 << 4
TRACE_KPROBE_MULTI, KPROBE_MULTI_RETURN = 42, 1
NAME_BYTES = 16

# enum bpf_link_type
LINK_TRACING, LINK_KPROBE_MULTI, LINK_TRACING_MULTI = 2, 8, 15

# offsets in struct bpf_link_info, whose first word is the type
LINK_INFO_BYTES, LINK_ATTACH_TYPE, LINK_COUNT, LINK_COOKIE, LINK_IDS, LINK_COOKIES = 64, 16, 20, 32, 32, 48
KPROBE_ADDRESSES, KPROBE_COUNT, KPROBE_FLAGS, KPROBE_COOKIES = 16, 24, 28, 40

# offsets in struct bpf_prog_info and struct bpf_btf_info
PROG_INFO_BYTES, PROG_ID, PROG_TAG, PROG_NR_KSYMS, PROG_KSYMS = 128, 4, 8, 104, 112
TAG_BYTES, PROG_MISSES = 8, 208
BTF_INFO_BYTES, BTF_NAME, BTF_NAME_BYTES = 32, 16, 24
MODULE_NAME_BYTES = 64
BTFS_AT_ONCE = 16

JIT_LIMIT = "/proc/sys/net/core/bpf_jit_limit"
CAPABILITY_VERSION = 0x20080522
CAP_SYS_ADMIN, CAP_BPF, ALL_CAPABILITIES = 21, 39, (1 << 64) - 1

LICENSE = b"GPL\0"

Descriptor = int | Ref


@dataclass(slots=True)
class _Attribute:
    """A union bpf_attr, or another struct that the kernel reads, while it is filled in."""

    size: int
    data: bytearray = field(init=False)
    pointers: dict[int, bytes | Out | Struct] = field(default_factory=dict)
    refs: dict[int, Ref] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.data = bytearray(self.size)

    def words(self, at: int, *values: Descriptor) -> _Attribute:
        """32-bit fields from an offset on."""
        for offset, value in enumerate(values):
            if isinstance(value, Ref):
                self.refs[at + 4 * offset] = value
            else:
                struct.pack_into("<I", self.data, at + 4 * offset, value & 0xFFFFFFFF)
        return self

    def number(self, at: int, value: int) -> _Attribute:
        """A 64-bit field."""
        struct.pack_into("<Q", self.data, at, value % (1 << 64))
        return self

    def pointer(self, at: int, target: bytes | Out | Struct) -> _Attribute:
        """The address of a buffer."""
        self.pointers[at] = target
        return self

    def build(self, *, out: bool = False) -> Struct:
        """The finished struct, as a batch takes it."""
        return Struct(bytes(self.data), self.pointers, self.refs, out)


def _bpf(batch: Batch, command: int, attribute: _Attribute) -> int:
    return batch.syscall("bpf", command, attribute.build(), attribute.size)


def close(batch: Batch, fd: Descriptor) -> int:
    """Close a descriptor. The last descriptor of a link detaches it, before the call returns."""
    return batch.syscall("close", fd)


def close_all(guest: Guest, fds: Iterable[int]) -> None:
    """Close descriptors in one frame."""
    batch = Batch()
    for fd in fds:
        close(batch, fd)
    guest.submit(batch)


def create_array(batch: Batch, value_bytes: int) -> int:
    """A one-entry array map that may be mapped into memory."""
    attribute = _Attribute(48).words(0, MAP_TYPE_ARRAY, 4, value_bytes, 1, MMAPABLE)
    return _bpf(batch, MAP_CREATE, attribute)


def load_program(
    batch: Batch,
    instructions: bytes,
    attach_type: int,
    name: str,
    *,
    sleepable: bool = False,
    btf_id: int = 0,
    btf_fd: Descriptor = 0,
    kfunc_btf: Descriptor = 0,
) -> int:
    """BPF_PROG_LOAD of a program of a trampoline: a tracing program, or with BPF_LSM_MAC one of LSM's.

    attach_type: one of recorders.ATTACH_TYPES. name: as it is in kallsyms. btf_id: its target, 0 for a program of
    several functions. btf_fd: the BTF that has the target, or all functions of the program; 0 for vmlinux's. kfunc_btf:
    entry 1 of fd_array, the BTF of a module whose kfuncs it calls.
    """
    program_type = PROG_TYPE_LSM if attach_type == LSM_MAC else PROG_TYPE_TRACING
    attribute = _fill_load(instructions, program_type, attach_type, name)
    attribute.words(44, SLEEPABLE if sleepable else 0).words(108, btf_id, btf_fd)
    if kfunc_btf:
        attribute.pointer(120, _Attribute(8).words(4, kfunc_btf).build())
    return _bpf(batch, PROG_LOAD, attribute)


def load_kprobe(batch: Batch, instructions: bytes, name: str = "kprobe", *, sleepable: bool = False) -> int:
    """A program for create_kprobe_multi()."""
    attribute = _fill_load(instructions, PROG_TYPE_KPROBE, TRACE_KPROBE_MULTI, name)
    return _bpf(batch, PROG_LOAD, attribute.words(44, SLEEPABLE if sleepable else 0))


def _fill_load(instructions: bytes, program_type: int, attach_type: int, name: str) -> _Attribute:
    attribute = _Attribute(144).words(0, program_type, len(instructions) // BYTES)
    attribute.pointer(8, instructions).pointer(16, LICENSE).words(68, attach_type)
    attribute.data[48 : 48 + NAME_BYTES] = name.encode()[: NAME_BYTES - 1].ljust(NAME_BYTES, b"\0")
    return attribute


def open_link(batch: Batch, program: Descriptor) -> int:
    """BPF_RAW_TRACEPOINT_OPEN: attach a program to its target."""
    return _bpf(batch, RAW_TRACEPOINT_OPEN, _Attribute(16).words(8, program))


def create_link(batch: Batch, program: Descriptor, attach_type: int, cookie: int) -> int:
    """BPF_LINK_CREATE: attach a program to its target, with a cookie."""
    attribute = _Attribute(32).words(0, program).words(8, attach_type).number(24, cookie)
    return _bpf(batch, LINK_CREATE, attribute)


def create_multi_link(
    batch: Batch,
    program: Descriptor,
    attach_type: int,
    btf_ids: Sequence[int],
    cookies: Sequence[int] | None = None,
) -> int:
    """BPF_LINK_CREATE: attach a program to functions of the BTF that it was loaded with, a cookie for each or none."""
    attribute = _Attribute(40).words(0, program).words(8, attach_type).words(32, len(btf_ids))
    attribute.pointer(16, struct.pack(f"<{len(btf_ids)}I", *btf_ids))
    if cookies is not None:
        attribute.pointer(24, _pack_quads(cookies))
    return _bpf(batch, LINK_CREATE, attribute)


def first_link(batch: Batch) -> int:
    """BPF_LINK_GET_NEXT_ID from the beginning: the entry's value is -ENOENT if no link has an id."""
    return _bpf(batch, LINK_NEXT_ID, _Attribute(12).words(0, 0))


def create_kprobe_multi(
    batch: Batch,
    program: Descriptor,
    functions: Sequence[int] | Sequence[str],
    cookies: Sequence[int] | None = None,
    *,
    at_return: bool = False,
) -> int:
    """BPF_LINK_CREATE: a fprobe over functions by their addresses or symbols, at their entry or their return."""
    attribute = _Attribute(48).words(0, program).words(8, TRACE_KPROBE_MULTI)
    attribute.words(16, KPROBE_MULTI_RETURN if at_return else 0, len(functions))
    symbols = [name for name in functions if isinstance(name, str)]
    if symbols:
        array = _Attribute(8 * len(symbols))
        for place, name in enumerate(symbols):
            array.pointer(8 * place, name.encode() + b"\0")
        attribute.pointer(24, array.build())
    else:
        attribute.pointer(32, _pack_quads([number for number in functions if isinstance(number, int)]))
    if cookies is not None:
        attribute.pointer(40, _pack_quads(cookies))
    return _bpf(batch, LINK_CREATE, attribute)


def _pack_quads(values: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(values)}Q", *(value % (1 << 64) for value in values))


@dataclass(frozen=True, slots=True)
class LoadedProgram:
    """A program in the kernel: its id, its tag as in bpf_prog_TAG_NAME, and the address that images call."""

    id: int
    tag: str
    address: int


@dataclass(frozen=True, slots=True)
class ToldLink:
    """A link as it describes itself. attach_type: one of recorders.ATTACH_TYPES. btf: a module, or `vmlinux`.

    strange: what no such link can say, as another type; empty if it says nothing of the kind.

    cookies: the BTF id of each function, and its cookie, or 0 where the kernel has no place for it.
    """

    attach_type: int
    btf: str
    cookies: tuple[tuple[int, int], ...]
    strange: str


def ask_link(guest: Guest, link: int, *, multi: bool) -> ToldLink:
    """BPF_OBJ_GET_INFO_BY_FD: struct bpf_link_info, whose union has `tracing_multi` or `tracing`; OSError."""
    if not multi:
        info = _get_link_info(guest, link, _Attribute(LINK_INFO_BYTES)).data[0]
        attach_type, btf, target = struct.unpack_from("<III", info, LINK_ATTACH_TYPE)
        pair = target, _read_quad(info, LINK_COOKIE)
        return ToldLink(attach_type, _name_btf(guest, btf), (pair,), _tell_type(info, LINK_TRACING))
    first = _get_link_info(guest, link, _Attribute(LINK_INFO_BYTES)).data[0]
    count = _read_word(first, LINK_COUNT)
    wanted = _Attribute(LINK_INFO_BYTES).words(LINK_COUNT, count)
    wanted.pointer(LINK_IDS, Out(4 * count)).pointer(LINK_COOKIES, Out(8 * count))
    info, ids, cookies = _get_link_info(guest, link, wanted).data
    attach_type, _, btf = struct.unpack_from("<III", info, LINK_ATTACH_TYPE)
    pairs = zip(struct.unpack(f"<{count}I", ids), struct.unpack(f"<{count}Q", cookies), strict=True)
    same = first[:LINK_IDS] == info[:LINK_IDS]
    strange = _tell_type(info, LINK_TRACING_MULTI) or ("" if same else "a link that tells other things without arrays")
    return ToldLink(attach_type, _name_btf(guest, btf), tuple(pairs), strange)


def ask_kprobe_multi(guest: Guest, link: int) -> tuple[int, tuple[tuple[int, int], ...], str]:
    """BPF_OBJ_GET_INFO_BY_FD of a fprobe's link: its flags, and each address with its cookie; OSError.

    The last is as in ToldLink.
    """
    count = _read_word(_get_link_info(guest, link, _Attribute(LINK_INFO_BYTES)).data[0], KPROBE_COUNT)
    wanted = _Attribute(LINK_INFO_BYTES).words(KPROBE_COUNT, count)
    if count:
        wanted.pointer(KPROBE_ADDRESSES, Out(8 * count)).pointer(KPROBE_COOKIES, Out(8 * count))
    info, *arrays = _get_link_info(guest, link, wanted).data
    addresses, cookies = (struct.unpack(f"<{count}Q", array) for array in arrays) if count else ((), ())
    pairs = tuple(zip(addresses, cookies, strict=True))
    return _read_word(info, KPROBE_FLAGS), pairs, _tell_type(info, LINK_KPROBE_MULTI)


def _tell_type(info: bytes, usual: int) -> str:
    number = _read_word(info, 0)
    return "" if number == usual else f"link type {number}"


def _get_link_info(guest: Guest, link: int, info: _Attribute) -> Reply:
    batch = Batch()
    index = _get_info(batch, link, info)
    reply = guest.submit(batch)[index]
    if reply.value < 0:
        raise OSError(-reply.value, "BPF_OBJ_GET_INFO_BY_FD")
    return reply


def _name_btf(guest: Guest, number: int) -> str:
    batch = Batch()
    opened = _open_btf(batch, number)
    replies = guest.submit(batch)
    if replies[opened].value < 0:
        return f"BTF {number}"
    close_all(guest, [replies[opened].value])
    return _read_btf_name(replies[opened + 1])


def program_info(batch: Batch, program: Descriptor) -> int:
    """BPF_OBJ_GET_INFO_BY_FD; its reply is for loaded_program()."""
    info = _Attribute(PROG_INFO_BYTES).words(PROG_NR_KSYMS, 1).pointer(PROG_KSYMS, Out(8))
    return _get_info(batch, program, info)


def read_misses(batch: Batch, program: Descriptor) -> int:
    """BPF_OBJ_GET_INFO_BY_FD; its reply is for recursion_misses()."""
    return _get_info(batch, program, _Attribute(PROG_MISSES + 8))


def recursion_misses(reply: Reply) -> int:
    """How often the program did not run because it was running, of a reply to read_misses()."""
    return int.from_bytes(reply.data[0][PROG_MISSES : PROG_MISSES + 8], "little")


def loaded_program(reply: Reply) -> LoadedProgram:
    """The program of a reply to program_info()."""
    info, addresses = reply.data
    tag = info[PROG_TAG : PROG_TAG + TAG_BYTES].hex()
    return LoadedProgram(_read_word(info, PROG_ID), tag, int.from_bytes(addresses, "little"))


def open_btfs(guest: Guest, names: Collection[str]) -> dict[str, int]:
    """Open the BTF of modules that are loaded, or of `vmlinux`: descriptors by name. The caller closes them."""
    found: dict[str, int] = {}
    first, more = 1, True
    while more and len(found) < len(names):
        batch = Batch()
        opened = [_open_btf(batch, number) for number in range(first, first + BTFS_AT_ONCE)]
        first += BTFS_AT_ONCE
        following = _bpf(batch, BTF_NEXT_ID, _Attribute(12).words(0, first - 1))
        replies = guest.submit(batch)
        there = [
            (replies[index].value, _read_btf_name(replies[index + 1])) for index in opened if replies[index].value >= 0
        ]
        found |= {name: fd for fd, name in there if name in names}
        close_all(guest, [fd for fd, name in there if name not in names])
        more = replies[following].value >= 0
    return found


def _open_btf(batch: Batch, number: int) -> int:
    """BPF_BTF_GET_FD_BY_ID; the next entry asks for its name."""
    index = _bpf(batch, BTF_FD_BY_ID, _Attribute(12).words(0, number))
    info = _Attribute(BTF_INFO_BYTES).pointer(BTF_NAME, Out(MODULE_NAME_BYTES)).words(BTF_NAME_BYTES, MODULE_NAME_BYTES)
    _get_info(batch, Ref(index), info)
    return index


def _read_btf_name(reply: Reply) -> str:
    """The name of a module, `vmlinux`, or nothing for the BTF of a program."""
    _, name = reply.data
    return name.split(b"\0", 1)[0].decode()


def _get_info(batch: Batch, fd: Descriptor, info: _Attribute) -> int:
    attribute = _Attribute(16).words(0, fd, info.size).pointer(8, info.build(out=True))
    return _bpf(batch, GET_INFO, attribute)


def _read_word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _read_quad(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def without_jit_charge(batch: Batch, add: Callable[[Batch], int], restore: bytes, limit: int = 1) -> int:
    """Add the call that `add` adds, under a limit of JIT memory in bytes that refuses an image its memory (-EPERM).

    The limit does not bind those who have CAP_BPF or CAP_SYS_ADMIN, so that the call is made without them; commands
    that need them (BPF_MAP_CREATE, BPF_PROG_LOAD) are -EPERM in any case. restore: the present text of the limit.
    """
    batch.write_file(JIT_LIMIT, str(limit).encode())
    _set_effective(batch, ALL_CAPABILITIES & ~(1 << CAP_BPF | 1 << CAP_SYS_ADMIN))
    index = add(batch)
    _set_effective(batch, ALL_CAPABILITIES)
    batch.write_file(JIT_LIMIT, restore)
    return index


def _set_effective(batch: Batch, capabilities: int) -> None:
    """Set the effective capabilities by capset(2); all are permitted."""
    low, high = capabilities & 0xFFFFFFFF, capabilities >> 32
    header = struct.pack("<2I", CAPABILITY_VERSION, 0)
    batch.syscall("capset", header, struct.pack("<6I", low, 0xFFFFFFFF, 0, high, 0xFFFFFFFF, 0))
