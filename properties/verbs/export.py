"""The verb `export`: a seed as a program for a kernel, as a kernel selftest, or as a text for a mailing list."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from properties.export.comments import about
from properties.export.files import write_files
from properties.export.language import fold_text
from properties.export.mail import mail, watch
from properties.export.program import program_files
from properties.export.recorded import RecordedSeed, record, setting_of
from properties.export.selftest import selftest_files
from properties.systems.naming import resolve
from properties.verbs.options import SYSTEM_TIME_LIMIT
from spec.errors import BadInputError

__all__ = ["add_arguments", "run"]

COMMENT_WIDTH = 110
DETAILS = """
c: DIR/NAME.c, a program that takes the seed's steps on the kernel that runs, its modules in DIR/module, and a Makefile.
selftest: prog_tests/NAME.c and progs/NAME.c below DIR, as in tools/testing/selftests/bpf.
mail: DIR/NAME.txt, or without DIR on standard output; with --system the seed is replayed there.

Exit status: 0 the files are written; 2 bad input, or a step without a counterpart, whose line is told.
"""
FORMS = ("c", "selftest", "mail")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `export`."""
    parser.epilog = DETAILS
    parser.add_argument("seed", type=Path, metavar="SEED", help="a seed file")
    parser.add_argument("directory", type=Path, nargs="?", metavar="DIR", help="where files go (default: ./NAME)")
    parser.add_argument("--as", required=True, choices=FORMS, dest="form", help="the form")
    parser.add_argument("--system", metavar="S", help="with mail: replay the seed on this system, and tell what it did")


def run(arguments: argparse.Namespace) -> int:
    """0: written."""
    if arguments.system and arguments.form != "mail":
        raise BadInputError("--system: write it with --as mail, which tells what the system did")
    recording = record(setting_of(arguments.seed))
    if arguments.form == "mail":
        return _mail(recording, arguments)
    _write(arguments.directory or Path(recording.setting.name), _files(recording, arguments.form))
    return 0


def _files(recording: RecordedSeed, form: str) -> Mapping[str, str]:
    said = fold_text(about(recording.setting.path), COMMENT_WIDTH)
    return program_files(recording, said) if form == "c" else selftest_files(recording, said)


def _mail(recording: RecordedSeed, arguments: argparse.Namespace) -> int:
    setting, system = recording.setting, arguments.system
    text = mail(recording, watch(setting, system, resolve(system, SYSTEM_TIME_LIMIT)) if system else None)
    if arguments.directory is None:
        sys.stdout.write(text)
    else:
        _write(arguments.directory, {f"{setting.name}.txt": text})
    return 0


def _write(directory: Path, files: Mapping[str, str]) -> None:
    write_files(directory, files)
    print(f"{directory}: {', '.join(name for name in files if '/' not in name or not name.startswith('module/'))}")
