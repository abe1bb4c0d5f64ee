"""How a kernel of one's own must be configured: the fragments that are printed, and what an image lacks of them."""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path
from typing import Final

__all__ = ["find_options", "fragment", "missing_options", "needed_options"]

FOLDER: Final = Path(__file__).with_name("config")
NEEDED: Final = "# needed"
OPTION: Final = re.compile(r"(CONFIG_\w+)=(.*)")
EMBEDDED: Final = re.compile(rb"IKCFG_ST(\x1f\x8b.*?)IKCFG_ED", re.DOTALL)
"""What CONFIG_IKCONFIG puts into an image: its .config, gzipped."""


def fragment(*, debug: bool) -> str:
    """A fragment for scripts/kconfig/merge_config.sh over `make tinyconfig`; debug: with sanitizers and faults."""
    names = ("plain", "debug") if debug else ("plain",)
    return "".join((FOLDER / f"{name}.config").read_text(encoding="utf-8") for name in names)


def needed_options() -> tuple[str, ...]:
    """The options without which the harness does not work, in the fragment's order."""
    sections = fragment(debug=False).split("\n\n")
    needed = [section for section in sections if section.startswith(NEEDED)]
    return tuple(name for section in needed for name, value in OPTION.findall(section) if value == "y")


def find_options(vmlinux: bytes, *files: Path) -> dict[str, str] | None:
    """The options that a kernel was built with: as it has them itself, or else as the first of these files has them.

    None if neither tells.
    """
    embedded = EMBEDDED.search(vmlinux)
    if embedded:
        try:
            return dict(OPTION.findall(gzip.decompress(embedded[1]).decode(errors="replace")))
        except (OSError, EOFError, zlib.error):
            return None
    beside = next((path for path in files if path.is_file()), None)
    return dict(OPTION.findall(beside.read_text(encoding="utf-8", errors="replace"))) if beside else None


def missing_options(options: dict[str, str], *, modules: bool) -> tuple[str, ...]:
    """The needed options that a kernel lacks. modules: what was built as a module is at hand."""
    present = {"y", "m"} if modules else {"y"}
    return tuple(name for name in needed_options() if options.get(name) not in present)
