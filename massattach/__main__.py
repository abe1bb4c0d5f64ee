"""The command `massattach VERB ...`, and `python -m massattach`: the front door of properties, from any directory."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

__all__ = ["main"]

HOUSE = str(Path(__file__).parent)


def main() -> int:
    """Put the folder of spec, model, impl and properties first on the path, run a verb, and return the exit status.

    In a checkout they stand beside this package, and the directory or an editable install has put them there.
    """
    if HOUSE not in sys.path:
        sys.path.insert(0, HOUSE)
    status: int = importlib.import_module("properties.__main__").start("massattach")
    return status


if __name__ == "__main__":
    sys.exit(main())
