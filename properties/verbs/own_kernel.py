"""A kernel of the user's own on the command line: how it is named, and whose rules it follows."""

from __future__ import annotations

import argparse
import sys

from properties.systems.naming import OWN_KERNEL, own_files

__all__ = ["add_own_kernel", "find_semantics"]


def add_own_kernel(parser: argparse.ArgumentParser) -> None:
    """Declare `--bzimage FILE`, which is short for `--system bzimage:FILE`."""
    parser.add_argument(
        "--bzimage",
        action="append",
        dest="system",
        type=_name,
        metavar="FILE[,MODULES]",
        help="a kernel of your own, a bzImage or a vmlinux, and its lib/modules/RELEASE, if it needs modules to boot",
    )


def find_semantics(name: str) -> str:
    """The preset nearest to a kernel of the user's own, found by trying; a line says which, and how near."""
    # What drives a virtual machine is loaded where one is wanted.
    from impl import linux  # noqa: PLC0415
    from properties.kernels.nearest import nearest  # noqa: PLC0415

    kernel = linux.own(*own_files(name))
    found = nearest(kernel)
    sys.stderr.write(f"{kernel.name}, release {kernel.release}: semantics {found.semantics.name}, {found}\n")
    return found.semantics.name


def _name(text: str) -> str:
    """The system's name, by which processes in whatever directory find the files."""
    image, modules = own_files(f"{OWN_KERNEL}{text}")
    return f"{OWN_KERNEL}{image.resolve()}" + (f",{modules.resolve()}" if modules else "")
