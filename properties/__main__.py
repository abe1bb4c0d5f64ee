"""The front door without tox: `python -m properties VERB ...`.

A verb is a module of properties.verbs with add_arguments(parser) and run(arguments), imported when it is asked for.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn, Protocol, cast

from properties.verbs import SUMMARIES
from spec.errors import BadInputError

__all__ = ["main"]

BAD_INPUT = 2
INTERRUPTED, PIPE_BROKEN, TERMINATED = 130, 141, 143
USAGE = "python -m properties VERB ..."


class VerbModule(Protocol):
    """What a verb's module provides."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare its options."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do the work, and return the exit status. Bad input is raised as BadInputError."""


class TerminatedError(KeyboardInterrupt):
    """SIGTERM: everything is given back, as after Ctrl-C."""


def main(words: Sequence[str]) -> int:
    """Run one verb and return the exit status.

    That is the verb's own, 2 for bad input, 130 after Ctrl-C, 141 if nobody reads its output, 143 after SIGTERM.
    """
    if not words or words[0] in {"-h", "--help"}:
        print(_help(), file=sys.stdout if words else sys.stderr)
        return 0 if words else BAD_INPUT
    if words[0] not in SUMMARIES:
        print(f"there is no verb '{words[0]}': write one of {', '.join(SUMMARIES)}", file=sys.stderr)
        return BAD_INPUT
    try:
        return _run(words[0], words[1:])
    except BadInputError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except TerminatedError:
        print("terminated", file=sys.stderr)
        return TERMINATED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader, such as head, has gone; what Python flushes at exit must go nowhere too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_BROKEN
    except MemoryError:
        print("there is not enough memory", file=sys.stderr)
        return BAD_INPUT


def _run(verb: str, words: Sequence[str]) -> int:
    module = cast("VerbModule", importlib.import_module(f"properties.verbs.{verb}"))
    parser = argparse.ArgumentParser(
        prog=f"python -m properties {verb}",
        description=SUMMARIES[verb],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    return module.run(parser.parse_intermixed_args(words))


def _help() -> str:
    verbs = "\n".join(f"  {verb:8} {summary}" for verb, summary in SUMMARIES.items())
    return f"usage: {USAGE}\n\n{verbs}\n\nEach verb explains itself: python -m properties VERB --help"


def _terminate(_signal: int, _frame: object) -> NoReturn:
    raise TerminatedError


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(main(sys.argv[1:]))
