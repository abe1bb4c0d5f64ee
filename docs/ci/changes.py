#!/usr/bin/env python3
"""What a kernel does otherwise than in the last run: changes.py LAST.json THIS.json, two linux.json of massattach.

It needs nothing but Python. It decides nothing: `massattach linux` has, by its exit code.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def changes(last: dict[str, Any], this: dict[str, Any]) -> Iterator[str]:
    """A line for each rule whose standing is another, and for each answer that was never given before, or no more."""
    for rule, kernels in this["rules"].items():
        before = last["rules"].get(rule, {})
        for kernel, now in kernels.items():
            was = before.get(kernel, now)["state"]
            if was != now["state"]:
                yield f"{kernel}: {rule} was {was}, and is {now['state']}"
    for kernel, now in this["kernels"].items():
        known, given = answers(last["kernels"].get(kernel, now)), answers(now)
        yield from (f"{kernel}: {answer} is new" for answer in sorted(given - known))
        yield from (f"{kernel}: {answer} was not seen again" for answer in sorted(known - given))


def answers(kernel: dict[str, Any]) -> set[str]:
    """Every operation with an answer that it gave."""
    return {f"{verb} -> {outcome}" for verb, outcomes in kernel["outcomes"].items() for outcome in outcomes}


def main() -> None:
    """Print the changes of two files, or that there are none."""
    last, this = (json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:3])
    print("\n".join(f"- {line}" for line in changes(last, this)) or "- nothing changed since the last run")


if __name__ == "__main__":
    main()
