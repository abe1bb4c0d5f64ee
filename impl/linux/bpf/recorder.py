"""The map that recorder programs write to: mapped into the agent's memory, so that its unused part need not be read."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from impl.linux.bpf.calls import create_array
from impl.linux.bpf.programs import (
    COUNT_AT,
    HEADER_BYTES,
    NESTED_AT,
    NESTED_BYTES,
    NESTED_ENTRIES,
    RECORD_BYTES,
    RECORDS,
    VALUE_BYTES,
    Record,
    decode,
)
from impl.linux.guest.errnos import errno_name
from impl.linux.guest.frames import Batch, Out, Ref, Reply, Struct
from impl.linux.guest.guest import Guest
from spec.abi import SLOT_BYTES
from spec.errors import BadInputError

__all__ = ["Recorder", "Recording"]

MMAP, GETPID, PROCESS_VM_READV, PROCESS_VM_WRITEV = 9, 39, 310, 311
READ_WRITE, SHARED = 3, 1
# of a call's runs, so many come with the frame that makes the call
AT_ONCE = 16
IOVEC = struct.Struct("<QQ")
WORD = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Recording:
    """Records in the order in which the runs began. runs: how many there were; more than RECORDS are not recorded."""

    records: tuple[Record, ...]
    runs: int


@dataclass(frozen=True, slots=True)
class Recorder:
    """The map: its descriptor, which programs are bound to, and where the agent, a process, has it in memory."""

    map_fd: int
    address: int
    process: int

    @classmethod
    def create(cls, guest: Guest) -> Recorder:
        """Make it; as long as the guest lives, or until it goes back to a snapshot taken before."""
        batch = Batch()
        made = create_array(batch, VALUE_BYTES)
        mapped = batch.syscall(MMAP, 0, VALUE_BYTES, READ_WRITE, SHARED, Ref(made), 0)
        process = batch.syscall(GETPID)
        replies = guest.submit(batch)
        for index, what in ((made, "make an array map"), (mapped, "map an array into memory")):
            if -4096 < replies[index].value < 0:
                raise BadInputError(f"the kernel does not {what}: {errno_name(replies[index].value)}")
        return cls(replies[made].value, replies[mapped].value, replies[process].value)

    def clear(self, batch: Batch) -> None:
        """Forget all records."""
        self._write(batch, COUNT_AT, 0)

    def set_nested(self, batch: Batch, entry: int, address: int) -> None:
        """Let programs whose `nested` is this entry call the function at an address, or with 0 none."""
        if not 0 <= entry < NESTED_ENTRIES:
            raise ValueError(f"entry {entry} of functions that programs call: there are {NESTED_ENTRIES}")
        self._write(batch, NESTED_AT + NESTED_BYTES * entry, address)

    def read(self, batch: Batch) -> int:
        """Read the first records; the reply is for recording()."""
        return self._read(batch, 0, HEADER_BYTES + AT_ONCE * RECORD_BYTES)

    def recording(self, guest: Guest, reply: Reply) -> Recording:
        """What was recorded since clear(); a second frame fetches it if it is much."""
        data = reply.data[0]
        runs = int.from_bytes(data[:8], "little")
        count = min(runs, RECORDS)
        if count > AT_ONCE:
            batch = Batch()
            self._read(batch, HEADER_BYTES + AT_ONCE * RECORD_BYTES, (count - AT_ONCE) * RECORD_BYTES)
            data += guest.submit(batch)[0].data[0]
        return Recording(decode(data[HEADER_BYTES : HEADER_BYTES + count * RECORD_BYTES]), runs)

    def _write(self, batch: Batch, at: int, word: int) -> None:
        local = Struct(IOVEC.pack(0, SLOT_BYTES), {0: WORD.pack(word)})
        batch.syscall(PROCESS_VM_WRITEV, self.process, local, 1, self._remote(at, SLOT_BYTES), 1, 0)

    def _read(self, batch: Batch, at: int, size: int) -> int:
        local = Struct(IOVEC.pack(0, size), {0: Out(size)})
        return batch.syscall(PROCESS_VM_READV, self.process, local, 1, self._remote(at, size), 1, 0)

    def _remote(self, at: int, size: int) -> Struct:
        return Struct(IOVEC.pack(self.address + at, size))
