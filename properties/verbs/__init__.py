"""The verbs of the front door: arguments, printing and exit codes.

Each is a module with add_arguments(parser) and run(arguments). No other package of properties imports this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["SUMMARIES", "module_name"]

SUMMARIES: Final[Mapping[str, str]] = {
    "verify": "check every property on the real populations, then a summary and a report",
    "explore": "search for a divergence and write down the shrunk seed",
    "replay": "replay seeds, and print each step with both sides where they differ",
    "plan": "tell what wildcard attaches would do, and what they would cost",
    "population": "write the functions of a kernel as a world: a guest's, a built kernel's, or this machine's",
    "bench": "measure the performance figures, as ratios within one run, against their bounds",
    "dump": "dump trampolines of a running kernel, prove them, and check what it accepts and refuses",
    "prove": "prove trampoline images, or show a counterexample that has been executed",
    "campaign": "have the work of another verb done by many machines, and go on where it was ended",
    "export": "write a seed as a program for a kernel, as a kernel selftest, or as a text for a mailing list",
    "linux": "run real kernels against the model, and tell which rules each confirmed",
    "mutants": "change a kernel's own machine code, one instruction at a time, and tell which changes nobody sees",
    "faults": "let each allocation of each operation of a real kernel fail, and tell what it makes of that",
    "sweep": "let a task stand at each instruction of each kind of image, while an operation changes what it is in",
    "kernel-build": "build a kernel of Debian's newest source, for changes to be tried in",
    "report": "write one HTML file of what the last runs found",
}
"""The verbs, in the order in which help lists them."""


def module_name(verb: str) -> str:
    """The name of a verb's module."""
    return f"{__name__}.{verb.replace('-', '_')}"
