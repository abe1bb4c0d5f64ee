"""Links of kprobe programs: a fprobe over many functions (KPROBE-*)."""

from __future__ import annotations

from collections.abc import Callable

from impl.linux.bpf import commands
from impl.linux.directory import Directory
from impl.linux.guest.batch import Batch
from impl.linux.guest.errnos import errno_name
from spec.inventory import Inventory
from spec.operations import BpfLinkCreate

__all__ = ["attaching", "info"]

AT_RETURN = 1


def attaching(
    directory: Directory, inventory: Inventory, wanted: BpfLinkCreate, program: int
) -> Callable[[Batch], int]:
    """Make what adds BPF_LINK_CREATE to a batch: with symbols, or where one name is a pattern with addresses."""
    pairs = inventory.kprobe_targets(wanted.targets)
    by_address = inventory.by_address(wanted.targets)
    cookies = [cookie or 0 for _, cookie in pairs] if any(cookie is not None for _, cookie in pairs) else None
    functions: list[int] | list[str] = (
        [directory.address(name) for name, _ in pairs]
        if by_address
        else [_symbol(directory, name) for name, _ in pairs]
    )
    at_return = inventory.programs[wanted.prog].kind == "kretprobe"

    def attach(batch: Batch) -> int:
        return commands.create_kprobe_multi(batch, program, functions, cookies, at_return=at_return)

    return attach


def _symbol(directory: Directory, name: str) -> str:
    found = directory.station.world.find(name)
    return found.symbol if found else name


def info(directory: Directory, link: int) -> str:
    """BPF_OBJ_GET_INFO_BY_FD of a link (KPROBE-10)."""
    try:
        flags, pairs, strange = commands.ask_kprobe_multi(directory.station.guest, link)
    except OSError as error:
        return f"-{errno_name(-(error.errno or 0))}"
    kind = strange or ("kretprobe" if flags & AT_RETURN else "kprobe")
    names = ((directory.function_at(address), cookie) for address, cookie in pairs)
    return " ".join([kind, *sorted(f"{name}:{cookie}" if cookie else name for name, cookie in names)])
