"""A kernel of the user's own on the command line: how it is named, and whose rules it follows."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from properties.systems.naming import OWN_KERNEL, own_files
from spec.semantics import Semantics

if TYPE_CHECKING:
    from impl.linux.guest.packages import Kernel

__all__ = ["add_own_kernel", "find_semantics", "tell_nearest"]


def add_own_kernel(parser: argparse._ActionsContainer, action: Literal["append", "store"] = "append") -> None:
    """Declare `--bzimage FILE`, which is short for `--system bzimage:FILE`."""
    parser.add_argument(
        "--bzimage",
        action=action,
        dest="system",
        type=_name,
        metavar="FILE[,MODULES]",
        help="a kernel of your own, a bzImage or a vmlinux, and its lib/modules/RELEASE, if it needs modules to boot",
    )


def _write(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def find_semantics(name: str) -> str:
    """The preset nearest to a kernel of the user's own, for which modules can be compiled."""
    # What drives a virtual machine is loaded where one is wanted.
    from impl import linux  # noqa: PLC0415

    return tell_nearest(linux.own(*own_files(name))).name


def tell_nearest(kernel: Kernel, tell: Callable[[str], None] = _write) -> Semantics:
    """The preset nearest to a kernel, found by trying; lines say that it is booted, and which, and how near."""
    from properties.kernels.nearest import nearest  # noqa: PLC0415 - the same

    title = f"{kernel.name}, release {kernel.release}"
    tell(f"{title}: booted, to find whose rules it follows")
    found = nearest(kernel)
    tell(f"{title}: semantics {found.semantics.name}, {found}")
    return found.semantics


def _name(text: str) -> str:
    """The system's name, by which processes in whatever directory find the files."""
    image, modules = own_files(f"{OWN_KERNEL}{text}")
    return f"{OWN_KERNEL}{image.resolve()}" + (f",{modules.resolve()}" if modules else "")
