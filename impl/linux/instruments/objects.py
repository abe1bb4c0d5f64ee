"""Finds the kernel's own objects: programs by their ids, and the images of trampolines by their keys.

They are looked up where the kernel looks them up, not in the image that has their addresses: struct bpf_prog in
prog_idr, and struct bpf_trampoline in the hash table of kernel/bpf/trampoline.c. A kernel whose kallsyms does not list
these variables tells nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Final, NamedTuple

from impl.linux.guest.guest import Guest
from impl.linux.probes.btf import Btf
from impl.linux.probes.symbols import Symbols
from spec.abi import SLOT_BYTES
from spec.errors import BadInputError

__all__ = ["KernelObjects", "NotedJump"]

PROGRAMS: Final = "prog_idr"
TABLES: Final = ("trampoline_table", "trampoline_key_table")
LINKS: Final = ("hlist", "hlist_key")
"""The table, and the member by which a trampoline is in it, before and since there is one by address as well."""

HASH_BITS: Final = 10
GOLDEN_RATIO: Final = 0x61C8864680B583EB
MOST_IN_A_BUCKET: Final = 64
NODE_BITS: Final = 6
TAG_BITS: Final = 3
IS_NODE: Final = 2
SMALLEST_NODE: Final = 4096
LARGEST_STRUCT: Final = 512
IMAGE: Final = "bpf_tramp_image"
SKIP: Final = "bpf_tramp_skip"
MOST_SKIPS: Final = 256


class NotedJump(NamedTuple):
    """A place in an image at which its kernel will put a jump while tasks are in the image, and where that goes.

    program: the struct bpf_prog that it jumps over; None: it jumps from behind the original to the epilogue.
    """

    at: int
    target: int
    program: int | None = None


class KernelObjects:
    """Reads the kernel's memory. It is only looked for, never changed."""

    def __init__(self, guest: Guest, symbols: Symbols, btf: Btf) -> None:
        self._guest, self._symbols, self._btf = guest, symbols, btf

    def programs(self, ids: Iterable[int]) -> dict[int, int]:
        """The struct bpf_prog of each program that is found, by id: what prog_idr, an XArray, has for it."""
        head = self._find(PROGRAMS)
        if head is None:
            return {}
        offset = self._offset("idr", "idr_rt") + self._offset("xarray", "xa_head")
        slots = self._offset("xa_node", "slots")
        root = self._read_words([head + offset])[0]
        found = dict.fromkeys(ids, root)
        while any(map(_is_node, found.values())):
            nodes = sorted({entry for entry in found.values() if _is_node(entry)})
            size = slots + (SLOT_BYTES << NODE_BITS)
            read = dict(zip(nodes, self._guest.read_memory([(entry - IS_NODE, size) for entry in nodes]), strict=True))
            found = {
                number: _step(read[entry], slots, number) if entry in read else entry for number, entry in found.items()
            }
        return {number: entry for number, entry in found.items() if entry and not entry & TAG_BITS}

    def images(self, keys: Sequence[int]) -> dict[int, int]:
        """The struct bpf_tramp_image in place of each trampoline that is found, by key."""
        table = next((place for place in map(self._find, TABLES) if place is not None), None)
        if table is None:
            return {}
        link, key_at, image_at = self._locate_trampoline()
        wanted = dict(zip(keys, self._read_words([table + SLOT_BYTES * _hash(key) for key in keys]), strict=True))
        found: dict[int, int] = {}
        for _ in range(MOST_IN_A_BUCKET):
            there = [(key, node) for key, node in wanted.items() if node]
            read = self._guest.read_memory([(node - link, LARGEST_STRUCT) for _, node in there])
            wanted = {}
            for (key, _), content in zip(there, read, strict=True):
                if _word(content, key_at) == key:
                    found[key] = _word(content, image_at)
                else:
                    wanted[key] = _word(content, link)
        return {key: image for key, image in found.items() if image}

    def jumps(self, images: Sequence[int]) -> dict[int, tuple[NotedJump, ...]]:
        """What each struct bpf_tramp_image notes; nothing of a kernel that notes neither kind of jump."""
        return self._read_skips(images) if self._skip_layout else self._read_epilogues(images)

    @cached_property
    def _skip_layout(self) -> tuple[int, int, int, int, int] | None:
        """Where an image has the number of its skips, and the skips; and in one program, place and target."""
        try:
            number, first = (self._offset(IMAGE, name) for name in ("nr_skips", "skips"))
            program, nop, target = (self._offset(SKIP, name) for name in ("prog", "nop", "target"))
        except BadInputError:
            return None
        return number, first, program, nop, target

    def _read_skips(self, images: Sequence[int]) -> dict[int, tuple[NotedJump, ...]]:
        assert self._skip_layout is not None
        number, first, program, nop, target = self._skip_layout
        size = max(program, nop, target) + SLOT_BYTES
        counts = [count & 0xFFFFFFFF for count in self._read_words([image + number for image in images])]
        starts = self._read_words([image + first for image in images])
        if any(count > MOST_SKIPS for count in counts):
            raise BadInputError(f"an image of this kernel has {max(counts)} skips, which are more than programs")
        spans = zip(starts, counts, strict=True)
        places = [start + size * place for start, count in spans for place in range(count)]
        read = iter(self._guest.read_memory([(place, size) for place in places]))
        found = {}
        for image, count in zip(images, counts, strict=True):
            entries = [next(read) for _ in range(count)]
            found[image] = tuple(
                NotedJump(_word(entry, nop), _word(entry, target), _word(entry, program)) for entry in entries
            )
        return found

    def _read_epilogues(self, images: Sequence[int]) -> dict[int, tuple[NotedJump, ...]]:
        try:
            after, epilogue = (self._offset(IMAGE, name) for name in ("ip_after_call", "ip_epilogue"))
        except BadInputError:
            return {}
        words = self._read_words([image + offset for image in images for offset in (after, epilogue)])
        pairs = zip(images, words[::2], words[1::2], strict=True)
        return {image: (NotedJump(at, target),) if at else () for image, at, target in pairs}

    def _locate_trampoline(self) -> tuple[int, int, int]:
        """The places, in struct bpf_trampoline, of its link in the table, of its key and of its image."""
        for name in LINKS:
            try:
                link = self._offset("bpf_trampoline", name)
            except BadInputError:
                continue
            return link, self._offset("bpf_trampoline", "key"), self._offset("bpf_trampoline", "cur_image")
        raise BadInputError(f"this kernel has none of the members {', '.join(LINKS)} in its struct bpf_trampoline")

    @property
    def _offset(self) -> Callable[[str, str], int]:
        return self._btf.member_offset

    def _find(self, name: str) -> int | None:
        found = self._symbols.addresses(name)
        return found[0] if len(found) == 1 else None

    def _read_words(self, places: Sequence[int]) -> list[int]:
        return [_word(content, 0) for content in self._guest.read_memory([(place, SLOT_BYTES) for place in places])]


def _hash(key: int) -> int:
    """hash_64() of include/linux/hash.h."""
    return key * GOLDEN_RATIO % (1 << 64) >> 64 - HASH_BITS


def _is_node(entry: int) -> bool:
    """xa_is_node() of include/linux/xarray.h."""
    return entry & TAG_BITS == IS_NODE and entry > SMALLEST_NODE


def _step(node: bytes, slots: int, number: int) -> int:
    """The entry that a struct xa_node has for an index; its first byte is its shift."""
    place = number >> node[0] & (1 << NODE_BITS) - 1 if node else 0
    return _word(node, slots + SLOT_BYTES * place)


def _word(content: bytes, place: int) -> int:
    """A word of the memory that was read; 0 where nothing was."""
    return int.from_bytes(content[place : place + SLOT_BYTES], "little")
