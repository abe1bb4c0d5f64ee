"""bpf(2) and what goes with it, as entries of a frame: maps, programs, links, BTF objects.

Every function adds entries to a batch, and returns the index of the reply whose value is the new descriptor, or -errno.
A descriptor may be that of an earlier entry of the batch. Layouts are those of union bpf_attr in
include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from impl.linux.bpf.instructions import BYTES
from impl.linux.bpf.programs import Program
from impl.linux.guest.frames import Batch, Out, Ref, Reply, Struct
from impl.linux.guest.guest import Guest

__all__ = [
    "JIT_LIMIT",
    "BtfObject",
    "LoadedProgram",
    "btf_object",
    "btf_objects",
    "close",
    "create_array",
    "create_kprobe_multi",
    "create_link",
    "create_multi_link",
    "find_btf",
    "load_kprobe",
    "load_program",
    "loaded_program",
    "open_link",
    "prog_test_run",
    "program_info",
    "without_jit_charge",
]

CLOSE, CAPSET, BPF = 3, 126, 321

# enum bpf_cmd
MAP_CREATE, PROG_LOAD, TEST_RUN, GET_INFO, RAW_TRACEPOINT_OPEN = 0, 5, 10, 15, 17
BTF_FD_BY_ID, BTF_NEXT_ID, LINK_CREATE = 19, 23, 28
MAP_TYPE_ARRAY, MMAPABLE = 2, 1 << 10
PROG_TYPE_KPROBE, PROG_TYPE_TRACING = 2, 26
SLEEPABLE = 1 << 4
TRACE_KPROBE_MULTI, KPROBE_MULTI_RETURN = 42, 1
NAME_BYTES = 16
LOG_BYTES = 1 << 18

# offsets in struct bpf_prog_info and struct bpf_btf_info
PROG_INFO_BYTES, PROG_ID, PROG_TAG, PROG_NR_KSYMS, PROG_KSYMS = 128, 4, 8, 104, 112
TAG_BYTES = 8
BTF_INFO_BYTES, BTF_ID, BTF_NAME, BTF_NAME_BYTES = 32, 12, 16, 24
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

    def made(self, *, out: bool = False) -> Struct:
        """What a batch takes."""
        return Struct(bytes(self.data), self.pointers, self.refs, out)


def _bpf(batch: Batch, command: int, attribute: _Attribute, *, out: bool = False) -> int:
    return batch.syscall(BPF, command, attribute.made(out=out), attribute.size)


def close(batch: Batch, fd: Descriptor) -> int:
    """Close a descriptor. The last descriptor of a link detaches it, before the call returns."""
    return batch.syscall(CLOSE, fd)


def create_array(batch: Batch, value_bytes: int) -> int:
    """A one-entry array map that may be mapped into memory."""
    attribute = _Attribute(48).words(0, MAP_TYPE_ARRAY, 4, value_bytes, 1, MMAPABLE)
    return _bpf(batch, MAP_CREATE, attribute)


def load_program(
    batch: Batch,
    program: Program,
    instructions: bytes,
    *,
    btf_id: int = 0,
    btf_fd: Descriptor = 0,
    nested_btf: Descriptor = 0,
    log: bool = False,
) -> int:
    """BPF_PROG_LOAD of a recorder.

    btf_id: its target, 0 for a program of several functions. btf_fd: the BTF that has the target, or for a program of
    several functions all of them, 0 for vmlinux. nested_btf: the BTF that has massattach_nested. log: what the verifier
    says becomes data[0], and a load that would succeed may be -ENOSPC.
    """
    attribute = _load_attribute(instructions, PROG_TYPE_TRACING, program.attach_type, f"m{program.number}")
    attribute.words(44, SLEEPABLE if program.sleepable else 0).words(108, btf_id, btf_fd)
    if nested_btf:
        attribute.pointer(120, _Attribute(8).words(4, nested_btf).made())
    if log:
        attribute.words(24, 1, LOG_BYTES).pointer(32, Out(LOG_BYTES))
    return _bpf(batch, PROG_LOAD, attribute)


def load_kprobe(batch: Batch, instructions: bytes) -> int:
    """A program for create_kprobe_multi()."""
    return _bpf(batch, PROG_LOAD, _load_attribute(instructions, PROG_TYPE_KPROBE, TRACE_KPROBE_MULTI, "kprobe"))


def _load_attribute(instructions: bytes, program_type: int, attach_type: int, name: str) -> _Attribute:
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
        attribute.pointer(24, _quads(cookies))
    return _bpf(batch, LINK_CREATE, attribute)


def create_kprobe_multi(
    batch: Batch,
    program: Descriptor,
    addresses: Sequence[int],
    cookies: Sequence[int] | None = None,
    *,
    at_return: bool = False,
) -> int:
    """BPF_LINK_CREATE: a fprobe over functions by their addresses, at their entry or their return."""
    attribute = _Attribute(48).words(0, program).words(8, TRACE_KPROBE_MULTI)
    attribute.words(16, KPROBE_MULTI_RETURN if at_return else 0, len(addresses)).pointer(32, _quads(addresses))
    if cookies is not None:
        attribute.pointer(40, _quads(cookies))
    return _bpf(batch, LINK_CREATE, attribute)


def _quads(values: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(values)}Q", *(value % (1 << 64) for value in values))


def prog_test_run(batch: Batch, program: Descriptor) -> int:
    """BPF_PROG_TEST_RUN: the kernel calls functions that it has for tests, whatever is attached to them.

    Of a fentry, fexit or fsession program these are bpf_fentry_test1 and its successors, of a fmod_ret program
    bpf_modify_return_test and the like; the kernel's verdict is the 32-bit word at 4 of data[0].
    """
    return _bpf(batch, TEST_RUN, _Attribute(80).words(0, program), out=True)


@dataclass(frozen=True, slots=True)
class LoadedProgram:
    """A program in the kernel: its id, its tag as in bpf_prog_TAG_NAME, and the address that images call."""

    id: int
    tag: str
    address: int


def program_info(batch: Batch, program: Descriptor) -> int:
    """BPF_OBJ_GET_INFO_BY_FD; its reply is for loaded_program()."""
    info = _Attribute(PROG_INFO_BYTES).words(PROG_NR_KSYMS, 1).pointer(PROG_KSYMS, Out(8))
    return _info(batch, program, info)


def loaded_program(reply: Reply) -> LoadedProgram:
    """What program_info() found out."""
    info, addresses = reply.data
    tag = info[PROG_TAG : PROG_TAG + TAG_BYTES].hex()
    return LoadedProgram(_word(info, PROG_ID), tag, int.from_bytes(addresses, "little"))


@dataclass(frozen=True, slots=True)
class BtfObject:
    """A BTF in the kernel: its id, and its module's name, `vmlinux`, or nothing for a program's.

    fd: its descriptor here, where find_btf() found it.
    """

    id: int
    name: str
    fd: int = -1


def find_btf(guest: Guest, name: str, after: int = 0) -> BtfObject | None:
    """The BTF of a loaded module, or of vmlinux; `after` is an id known to be lower. Its descriptor is the caller's."""
    while True:
        objects, more = _opened(guest, after)
        after += BTFS_AT_ONCE
        found = next((each for each in objects if each.name == name), None)
        batch = Batch()
        for each in objects:
            if each is not found:
                close(batch, each.fd)
        guest.submit(batch)
        if found or not more:
            return found


def _opened(guest: Guest, after: int) -> tuple[list[BtfObject], bool]:
    """Those with the next ids, and whether there are further ones."""
    batch = Batch()
    entries = [btf_object(batch, number) for number in range(after + 1, after + 1 + BTFS_AT_ONCE)]
    more = _bpf(batch, BTF_NEXT_ID, _Attribute(12).words(0, after + BTFS_AT_ONCE))
    replies = guest.submit(batch)
    there = [entry for entry in entries if replies[entry].value >= 0]
    return [replace(btf_objects(replies[at + 1]), fd=replies[at].value) for at in there], replies[more].value >= 0


def btf_object(batch: Batch, number: int) -> int:
    """BPF_BTF_GET_FD_BY_ID, then its info: the next reply, which is for btf_objects()."""
    index = _bpf(batch, BTF_FD_BY_ID, _Attribute(12).words(0, number))
    info = _Attribute(BTF_INFO_BYTES).pointer(BTF_NAME, Out(MODULE_NAME_BYTES)).words(BTF_NAME_BYTES, MODULE_NAME_BYTES)
    _info(batch, Ref(index), info)
    return index


def btf_objects(reply: Reply) -> BtfObject:
    """What btf_object() found out."""
    info, name = reply.data
    return BtfObject(_word(info, BTF_ID), name.split(b"\0", 1)[0].decode())


def _info(batch: Batch, fd: Descriptor, info: _Attribute) -> int:
    attribute = _Attribute(16).words(0, fd, info.size).pointer(8, info.made(out=True))
    return _bpf(batch, GET_INFO, attribute)


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def without_jit_charge(batch: Batch, add: Callable[[Batch], int], restore: bytes, limit: int = 1) -> int:
    """What `add` adds, under a limit of JIT memory in bytes that refuses the charge for an image (-EPERM).

    The limit does not bind who has CAP_BPF or CAP_SYS_ADMIN, so the call is made without them; commands that want them
    for themselves (BPF_MAP_CREATE, BPF_PROG_LOAD) are -EPERM in any case. restore: the limit's present text.
    """
    batch.write_file(JIT_LIMIT, str(limit).encode())
    _set_effective(batch, ALL_CAPABILITIES & ~(1 << CAP_BPF | 1 << CAP_SYS_ADMIN))
    index = add(batch)
    _set_effective(batch, ALL_CAPABILITIES)
    batch.write_file(JIT_LIMIT, restore)
    return index


def _set_effective(batch: Batch, capabilities: int) -> None:
    """capset(2); the permitted set stays as it is, full."""
    low, high = capabilities & 0xFFFFFFFF, capabilities >> 32
    header = struct.pack("<2I", CAPABILITY_VERSION, 0)
    batch.syscall(CAPSET, header, struct.pack("<6I", low, 0xFFFFFFFF, 0, high, 0xFFFFFFFF, 0))
