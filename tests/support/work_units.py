"""Units of work for tests: they double a number, or fail in each way in which a unit can."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spec.errors import BadInputError

__all__ = ["Double", "Doubled", "Failing", "Way"]

Way = Literal["raises", "refuses", "exits", "crashes", "sleeps"]


@dataclass(frozen=True, slots=True)
class Doubled:
    """Twice the number. process: who has done it."""

    number: int
    process: int


@dataclass(frozen=True, slots=True)
class Double:
    """A number to be doubled, which takes so many seconds. It prints, too, which nobody must take for a reply."""

    number: int
    seconds: float = 0.0

    def work(self, _: Path) -> Doubled:
        """Double it."""
        print('{"seconds": 1}')
        sys.stderr.write("doubling\n")
        time.sleep(self.seconds)
        return Doubled(2 * self.number, os.getpid())


@dataclass(frozen=True, slots=True)
class Failing:
    """A unit that comes to no value. Its journal says `seed`."""

    way: Way

    def work(self, journal: Path) -> int:
        """Fail."""
        journal.write_text("seed", encoding="utf-8")
        if self.way == "raises":
            raise ValueError("two\nlines")
        if self.way == "refuses":
            raise BadInputError("is bad", "x.seed", 3)
        if self.way == "exits":
            sys.stderr.write("the last words\n")
            sys.stderr.flush()
            os._exit(7)
        if self.way == "crashes":
            ctypes.string_at(0)
        time.sleep(1000)
        return 0
