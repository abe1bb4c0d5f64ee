"""What a kernel can do with BPF, found out by trying it in the guest, on functions that the kernel has for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from impl.linux.bpf.calls import close, create_kprobe_multi, create_link, create_multi_link, load_kprobe, load_program
from impl.linux.bpf.instructions import encode, exit_program, move
from impl.linux.bpf.programs import Program
from impl.linux.guest.frames import Batch, Ref
from impl.linux.guest.guest import Guest

__all__ = ["EMPTY", "Features", "attributes", "probe"]

# a program that returns 0
EMPTY = encode([*move(0, 0), exit_program()])


@dataclass(frozen=True, slots=True)
class Features:
    """Whether single links take cookies, sessions exist, and one link may have many functions, or many fprobes."""

    cookies: bool
    fsession: bool
    tracing_multi: bool
    kprobe_multi: bool


def probe(guest: Guest, btf_id: int, address: int) -> Features:
    """Try everything on one function of the kernel, bpf_fentry_test1 for example: its BTF id and its address."""
    batch = Batch()
    fentry, multi = Program(0, "fentry", slots=0), Program(0, "fentry")
    loaded = load_program(batch, fentry, EMPTY, btf_id=btf_id)
    cookies = create_link(batch, Ref(loaded), fentry.attach_type, 1)
    session = load_program(batch, Program(0, "fsession", slots=0), EMPTY, btf_id=btf_id)
    loaded_multi = load_program(batch, multi, EMPTY)
    tracing_multi = create_multi_link(batch, Ref(loaded_multi), multi.attach_type, [btf_id])
    kprobe = load_kprobe(batch, EMPTY)
    kprobe_multi = create_kprobe_multi(batch, Ref(kprobe), [address])
    for index in (cookies, tracing_multi, kprobe_multi, loaded, session, loaded_multi, kprobe):
        close(batch, Ref(index))
    replies = guest.submit(batch)
    tried = (cookies, session, tracing_multi, kprobe_multi)
    return Features(*(replies[index].value >= 0 for index in tried))


def attributes(guest: Guest, functions: Mapping[str, int], btf_fd: int = 0) -> Mapping[str, frozenset[str]]:
    """Which functions of one BTF, by name and id, fmod_ret programs and sleepable ones may be attached to.

    The attributes `fmod_ret` and `sleepable` of spec.worlds.Function. btf_fd: the BTF, 0 for vmlinux's.
    """
    wanted = {"fmod_ret": Program(0, "fmod_ret", slots=0), "sleepable": Program(0, "fentry", slots=0, sleepable=True)}
    batch = Batch()
    tried: list[tuple[str, str, int]] = []
    for name, btf_id in functions.items():
        for attribute, program in wanted.items():
            index = load_program(batch, program, EMPTY, btf_id=btf_id, btf_fd=btf_fd)
            close(batch, Ref(index))
            tried.append((name, attribute, index))
    replies = guest.submit(batch)
    accepted = {(name, attribute) for name, attribute, index in tried if replies[index].value >= 0}
    return {name: frozenset(attribute for attribute in wanted if (name, attribute) in accepted) for name in functions}
