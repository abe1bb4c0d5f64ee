"""The verb `population`: writes the functions of a kernel as a world, which other verbs take by `--world FILE`."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from impl.linux.guest import packages
from impl.linux.probes.population import Survey
from properties.kernels.population import MODULES, of_guest, of_host, write
from properties.systems.naming import KERNELS
from spec.errors import BadInputError
from spec.populations import make_world

__all__ = ["add_arguments", "run"]

DETAILS = """
A world has the records of ftrace, and what BTF names beside: functions that are notrace, inlined everywhere, or whose
memory was given back after the start. Modules are those that are loaded. What cannot be read is told, and left out.

--host needs root, and no virtual machine; then `plan --world FILE` speaks of the kernel that runs here.

Exit status: 0 the file is written, 2 bad input, or something that it cannot do without is missing.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `population`."""
    parser.epilog = DETAILS
    kernel = parser.add_mutually_exclusive_group()
    kernel.add_argument(
        "--system", choices=KERNELS, help=f"Debian's, booted in QEMU, with some modules (default: {KERNELS[-1]})"
    )
    kernel.add_argument("--bzimage", type=Path, metavar="IMAGE", help="a kernel of your own: a bzImage, or a vmlinux")
    kernel.add_argument("--host", action="store_true", help="the kernel that runs on this machine")
    parser.add_argument(
        "--modules", type=Path, metavar="DIR", help="lib/modules/RELEASE of the kernel of your own, if it has modules"
    )
    parser.add_argument(
        "--load", action="append", metavar="MODULE", help="load this module before, and what it depends on; repeatable"
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="JSON; compressed if the name ends in .gz")


def run(arguments: argparse.Namespace) -> int:
    """Write the file and return 0; BadInputError if it cannot be made."""
    found = _survey(arguments)
    # What is written can be read: a mistake here is one of ours, and must not become a file.
    make_world(str(arguments.file), found.population)
    write(found, arguments.file)
    for complaint in found.complaints:
        print(complaint, file=sys.stderr)
    print(_summarize(found, arguments.file))
    return 0


def _survey(arguments: argparse.Namespace) -> Survey:
    if arguments.host and arguments.load:
        raise BadInputError("--load is for a guest: on this machine the modules are those that are loaded")
    if arguments.modules and not arguments.bzimage:
        raise BadInputError("--modules belongs to a kernel of your own: write --bzimage IMAGE, too")
    if arguments.host:
        return of_host()
    if arguments.bzimage:
        return of_guest(packages.from_files(arguments.bzimage, arguments.modules), arguments.load or ())
    name = arguments.system or KERNELS[-1]
    return of_guest(packages.fetch(name), arguments.load or MODULES[name])


def _summarize(found: Survey, file: Path) -> str:
    functions, others = found.population["functions"], found.population["others"]
    modules = Counter(row["module"] for row in functions if "module" in row)
    reasons = Counter(row["attributes"][0] for row in others)
    told = ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()))
    return (
        f"{file}: Linux {found.population['release']}, {len(functions):,} functions that ftrace has records of, "
        f"{modules.total():,} of them in {len(modules):,} modules; {len(others):,} more that BTF names ({told})"
    )
