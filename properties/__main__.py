"""The front door without tox: `python -m properties VERB ...`.

A verb is a module of properties.verbs with SUMMARY, add_arguments(parser) and run(arguments), imported when asked for.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, Protocol, cast

from spec.errors import BadInputError

__all__ = ["VERBS", "main"]

VERBS = ("verify", "explore", "replay", "plan", "bench", "dump", "prove", "linux")
BAD_INPUT = 2
INTERRUPTED, TERMINATED = 130, 143
USAGE = "python -m properties VERB ..."


class Verb(Protocol):
    """What a verb's module provides."""

    SUMMARY: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares its options."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Does the work, and returns the exit status. Bad input is raised as BadInputError."""


class TerminatedError(KeyboardInterrupt):
    """SIGTERM: everything is given back, as after Ctrl-C."""


def main(words: Sequence[str]) -> int:
    """Runs one verb and returns the exit status.

    That is the verb's own, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM.
    """
    if not words or words[0] in {"-h", "--help"}:
        print(_help(), file=sys.stdout if words else sys.stderr)
        return 0 if words else BAD_INPUT
    if words[0] not in VERBS:
        print(f"there is no verb '{words[0]}': write one of {', '.join(VERBS)}", file=sys.stderr)
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
        return 1


def _run(verb: str, words: Sequence[str]) -> int:
    module = cast("Verb", importlib.import_module(f"properties.verbs.{verb}"))
    parser = argparse.ArgumentParser(
        prog=f"python -m properties {verb}",
        description=module.SUMMARY,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    return module.run(parser.parse_args(words))


def _help() -> str:
    verbs = "\n".join(f"  {verb:8} {_summary(verb)}" for verb in VERBS)
    return f"usage: {USAGE}\n\n{verbs}\n\nEach verb explains itself: python -m properties VERB --help"


def _summary(verb: str) -> str:
    """A verb's SUMMARY, read from its text: importing them all takes a second."""
    tree = ast.parse(Path(__file__).parent.joinpath("verbs", f"{verb}.py").read_bytes())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SUMMARY":
            return str(ast.literal_eval(node.value))
    raise ValueError(f"the verb {verb} has no SUMMARY")


def _terminate(_signal: int, _frame: object) -> NoReturn:
    raise TerminatedError


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(main(sys.argv[1:]))
