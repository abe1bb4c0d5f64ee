"""Features of a kernel's BPF, each tried in the guest, on functions that the kernel has for tests."""

from __future__ import annotations

from dataclasses import dataclass

from impl.linux.bpf.commands import (
    close,
    create_kprobe_multi,
    create_link,
    create_multi_link,
    load_kprobe,
    load_program,
)
from impl.linux.bpf.instructions import encode, exit_program, move
from impl.linux.bpf.recorders import ATTACH_TYPES
from impl.linux.guest.batch import Batch, Ref
from impl.linux.guest.guest import Guest

__all__ = ["EMPTY", "Features", "load_empty", "probe"]

# a program that returns 0
EMPTY = encode([*move(0, 0), exit_program()])


@dataclass(frozen=True, slots=True)
class Features:
    """Whether single links take cookies, sessions exist, and one link may have many functions or many fprobes."""

    cookies: bool
    fsession: bool
    tracing_multi: bool
    kprobe_multi: bool


def load_empty(
    batch: Batch, kind: str, btf_id: int = 0, *, multi: bool = False, sleepable: bool = False, btf_fd: int = 0
) -> int:
    """Load a program that returns 0, for one function of a BTF or with `multi` for several."""
    attach_type = ATTACH_TYPES[kind, multi]
    return load_program(batch, EMPTY, attach_type, "empty", sleepable=sleepable, btf_id=btf_id, btf_fd=btf_fd)


def probe(guest: Guest, btf_id: int, address: int) -> Features:
    """Try everything on one function of the kernel, bpf_fentry_test1 for example: its BTF id and its address."""
    batch = Batch()
    loaded = load_empty(batch, "fentry", btf_id)
    cookies = create_link(batch, Ref(loaded), ATTACH_TYPES["fentry", False], 1)
    session = load_empty(batch, "fsession", btf_id)
    loaded_multi = load_empty(batch, "fentry", multi=True)
    tracing_multi = create_multi_link(batch, Ref(loaded_multi), ATTACH_TYPES["fentry", True], [btf_id])
    kprobe = load_kprobe(batch, EMPTY)
    kprobe_multi = create_kprobe_multi(batch, Ref(kprobe), [address])
    for index in (cookies, tracing_multi, kprobe_multi, loaded, session, loaded_multi, kprobe):
        close(batch, Ref(index))
    replies = guest.submit(batch)
    tried = (cookies, session, tracing_multi, kprobe_multi)
    return Features(*(replies[index].value >= 0 for index in tried))
