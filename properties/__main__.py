"""The front door without tox: `python -m properties VERB ...`, or `massattach VERB ...` where that is installed.

A verb is a module of properties.verbs with add_arguments(parser) and run(arguments), imported when it is asked for.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from properties.verbs import SUMMARIES, module_name
from properties.work.ending import TerminatedError, give_back_when_terminated
from spec.errors import BadInputError

__all__ = ["main", "start"]

BAD_INPUT = 2
INTERRUPTED, PIPE_BROKEN, TERMINATED = 130, 141, 143
HERE = "python -m properties"


class VerbModule(Protocol):
    """What a verb's module provides."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare its options."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do the work, and return the exit status. Bad input is raised as BadInputError."""


def start(command: str) -> int:
    """Run the verb of the process's own arguments as `main` does; SIGTERM ends it in order. command: as in main."""
    give_back_when_terminated()
    return main(sys.argv[1:], command)


def main(words: Sequence[str], command: str = HERE) -> int:
    """Run one verb and return the exit status. command: how the user has called it, for help texts.

    The status is the verb's own, 2 for bad input, 130 after Ctrl-C, 141 if nobody reads its output, 143 after SIGTERM.
    """
    if not words or words[0] in {"-h", "--help"}:
        print(_help(command), file=sys.stdout if words else sys.stderr)
        return 0 if words else BAD_INPUT
    if words[0] not in SUMMARIES:
        print(f"there is no verb '{words[0]}': write one of {', '.join(SUMMARIES)}", file=sys.stderr)
        return BAD_INPUT
    try:
        return _run(command, words[0], words[1:])
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
        # The reader, such as head, has gone: every verb ends as what SIGPIPE ends does. The signal itself
        # stays ignored, as systems and guests are behind pipes too; and what Python flushes at exit goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_BROKEN
    except MemoryError:
        print("there is not enough memory", file=sys.stderr)
        return BAD_INPUT


def _run(command: str, verb: str, words: Sequence[str]) -> int:
    module = cast("VerbModule", importlib.import_module(module_name(verb)))
    parser = argparse.ArgumentParser(
        prog=f"{command} {verb}",
        description=SUMMARIES[verb],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    status = module.run(parse(module, parser, words))
    sys.stdout.flush()
    return status


def parse(module: VerbModule, parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """The verb's arguments. Options may stand between others, unless what follows belongs to another verb."""
    if getattr(module, "TAKES_A_VERB", False):
        return parser.parse_args(words)
    return parser.parse_intermixed_args(words)


def _help(command: str) -> str:
    verbs = "\n".join(f"  {verb:12} {summary}" for verb, summary in SUMMARIES.items())
    return f"usage: {command} VERB ...\n\n{verbs}\n\nEach verb explains itself: {command} VERB --help"


if __name__ == "__main__":
    sys.exit(start(HERE))
