"""The verb `report`: one HTML file of what the last runs found, made of the records in a directory alone."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from properties.gallery.record import read_gallery
from properties.kernels.tables import known_rules
from properties.report.html.page import Known, make_page
from properties.report.records import read_records
from properties.report.writing import write_whole
from spec.documents import defects, rules

__all__ = ["PAGE", "add_arguments", "make", "run"]

PAGE: Final = "report.html"
BUILD: Final = Path("build")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `report`."""
    parser.epilog = "Exit status: 0 the report is written, 2 a record is damaged, or there is no such directory."
    help_text = "what verify, linux, bench and the tests of power wrote to; the report goes there (default: build)"
    parser.add_argument("directory", nargs="?", type=Path, default=BUILD, metavar="DIR", help=help_text)


def run(arguments: argparse.Namespace) -> int:
    """Write the report and return 0."""
    print(f"Report: {make(arguments.directory)}")
    return 0


def make(directory: Path) -> Path:
    """Write the report of the records in a directory, and return its path; BadInputError if one is damaged."""
    known = Known(rules(), defects(), known_rules(), read_gallery())
    page = make_page(read_records(directory), known)
    path = directory / PAGE
    write_whole(page.encode(), path)
    return path
