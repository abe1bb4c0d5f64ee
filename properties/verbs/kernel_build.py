"""The verb `kernel-build`: builds a kernel that the other verbs take by `--bzimage`, for changes to be tried in."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from impl.linux.guest.building import BuildError, build, configure, fetch_source, require_tools, unmet
from properties.verbs.options import count_of
from properties.work.crew import processors
from spec.errors import BadInputError

__all__ = ["add_arguments", "run"]

DOES_NOT_COMPILE = 1
DETAILS = """
The source is Debian's newest, and stays in DIR: change what you like in it, and run the same command again. The kernel
is built beside it, with the fragment that `linux --config` prints, in a directory for each fragment; only what has
changed is compiled.

Exit status: 0 the kernel is built, 1 it does not compile, 2 a tool is missing or DIR cannot be used.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `kernel-build`."""
    parser.epilog = DETAILS
    parser.add_argument("directory", type=Path, metavar="DIR", help="where source and kernel go: 2.5 GB")
    parser.add_argument("--debug", action="store_true", help="with sanitizers, lockdep and fault injection")
    jobs = "of make (default: one for each processor)"
    parser.add_argument("--jobs", type=count_of("jobs"), default=processors(), metavar="N", help=jobs)


def run(arguments: argparse.Namespace) -> int:
    """Build, and print where the kernel is; see DETAILS."""
    require_tools()
    directory: Path = arguments.directory.resolve()
    output = directory / ("build-debug" if arguments.debug else "build-plain")
    started = time.monotonic()
    try:
        source = fetch_source(directory, _tell)
        _tell(f"configuring {source} in {output}")
        configure(source, output, debug=arguments.debug)
        for option in unmet(output, debug=arguments.debug):
            _tell(f"not as the fragment asks for: {option}")
        _tell(f"compiling with {arguments.jobs} jobs")
        image = build(source, output, arguments.jobs)
    except OSError as error:
        raise BadInputError(f"cannot be used: {error.strerror}", str(error.filename or directory)) from error
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        return DOES_NOT_COMPILE
    print(f"{image}: built in {time.monotonic() - started:.0f} s; try it by: linux --bzimage {image}")
    return 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
