"""The map that recorder programs write to. It is mapped into the agent's memory, so that only its used part is read."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from impl.linux.bpf.commands import create_array
from impl.linux.bpf.recorders import (
    COUNT_AT,
    HEADER_BYTES,
    NESTED_AT,
    NESTED_BYTES,
    NESTED_ENTRIES,
    RECORD_BYTES,
    RECORDS,
    VALUE_BYTES,
    RunRecord,
    decode,
)
from impl.linux.guest.batch import Batch, Out, Ref, Reply, Struct
from impl.linux.guest.errnos import errno_name
from impl.linux.guest.guest import Guest
from spec.abi import SLOT_BYTES
from spec.errors import BadInputError

__all__ = ["RecordMap", "Recording"]

READ_WRITE, SHARED = 3, 1
# how many records of a call come with the frame that makes the call
AT_ONCE = 16
IOVEC = struct.Struct("<QQ")


@dataclass(frozen=True, slots=True)
class Recording:
    """Records in the order in which the runs began. runs: how many there were; more than RECORDS are not recorded."""

    records: tuple[RunRecord, ...]
    runs: int


@dataclass(frozen=True, slots=True)
class RecordMap:
    """The map: its descriptor, to which programs are bound, and its address in the memory of the agent, a process."""

    map_fd: int
    address: int
    process: int

    @classmethod
    def create(cls, guest: Guest) -> RecordMap:
        """Make it; it stays as long as the guest, or until the guest goes back to an earlier snapshot."""
        batch = Batch()
        made = create_array(batch, VALUE_BYTES)
        mapped = batch.syscall("mmap", 0, VALUE_BYTES, READ_WRITE, SHARED, Ref(made), 0)
        process = batch.syscall("getpid")
        replies = guest.submit(batch)
        _check(replies[made], "make an array map")
        _check(replies[mapped], "map an array into memory")
        found = cls(replies[made].value, replies[mapped].value, replies[process].value)
        found._try_access(guest)
        return found

    def clear(self, batch: Batch) -> None:
        """Forget all records."""
        self._write(batch, COUNT_AT, 0)

    def _try_access(self, guest: Guest) -> None:
        # without CONFIG_CROSS_MEMORY_ATTACH both are -ENOSYS, and every program would seem not to have run
        batch = Batch()
        self.clear(batch)
        self.read(batch)
        for reply, what in zip(guest.submit(batch), ("process_vm_writev", "process_vm_readv"), strict=True):
            _check(reply, f"carry out {what}")

    def set_nested(self, batch: Batch, entry: int, address: int) -> None:
        """Let programs whose `nested` is this entry call the function at an address, or with 0 none."""
        if not 0 <= entry < NESTED_ENTRIES:
            raise ValueError(f"entry {entry} of functions that programs call: there are {NESTED_ENTRIES}")
        self._write(batch, NESTED_AT + NESTED_BYTES * entry, address)

    def read(self, batch: Batch) -> int:
        """Read the first records; the reply is for recording()."""
        return self._read(batch, 0, HEADER_BYTES + AT_ONCE * RECORD_BYTES)

    def recording(self, guest: Guest, reply: Reply) -> Recording:
        """The records since clear(); a second frame fetches what did not fit into the reply."""
        _check(reply, "read what programs recorded")
        data = reply.data[0]
        runs = int.from_bytes(data[:8], "little")
        count = min(runs, RECORDS)
        if count > AT_ONCE:
            batch = Batch()
            self._read(batch, HEADER_BYTES + AT_ONCE * RECORD_BYTES, (count - AT_ONCE) * RECORD_BYTES)
            (more,) = guest.submit(batch)
            _check(more, "read what programs recorded")
            data += more.data[0]
        return Recording(decode(data[HEADER_BYTES : HEADER_BYTES + count * RECORD_BYTES]), runs)

    def _write(self, batch: Batch, at: int, word: int) -> None:
        local = Struct(IOVEC.pack(0, SLOT_BYTES), {0: word.to_bytes(SLOT_BYTES, "little")})
        batch.syscall("process_vm_writev", self.process, local, 1, self._remote(at, SLOT_BYTES), 1, 0)

    def _read(self, batch: Batch, at: int, size: int) -> int:
        local = Struct(IOVEC.pack(0, size), {0: Out(size)})
        return batch.syscall("process_vm_readv", self.process, local, 1, self._remote(at, size), 1, 0)

    def _remote(self, at: int, size: int) -> Struct:
        return Struct(IOVEC.pack(self.address + at, size))


def _check(reply: Reply, what: str) -> None:
    if -4096 < reply.value < 0:
        raise BadInputError(f"the kernel does not {what}: {errno_name(reply.value)}")
