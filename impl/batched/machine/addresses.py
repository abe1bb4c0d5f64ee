"""The address map of the emulated kernel. All of it lies in the top 2 GiB, as the kernel's text and modules do."""

from __future__ import annotations

from typing import Final

TEXT: Final = 0xFFFFFFFF81000000
"""The functions' entries, FUNCTION_BYTES each, in the order of their indices."""

PATCHED: Final = 0xFFFFFFFF83000000
"""The livepatched functions' entries, as far from here as the function from TEXT."""

FUNCTION_BYTES: Final = 16

ROUTINES: Final = 0xFFFFFFFF85000000
"""The kernel proper: the callers, the graph tracer, entering and leaving programs, the helpers."""

BODIES: Final = 0xFFFFFFFF86000000
"""The bodies, which the functions' entries jump to."""

OPS_TRAMPOLINES: Final = 0xFFFFFFFF88000000
"""The ops' own copies of ftrace_caller and ftrace_regs_caller."""

PROGRAMS: Final = 0xFFFFFFFF89000000
"""The programs' code."""

RAW_TRAMPOLINES: Final = 0xFFFFFFFF8A000000
"""Direct trampolines that are not BPF's."""

STOP: Final = 0xFFFFFFFF8B000000
"""The return address of calls that the harness makes."""

GLOBALS: Final = 0xFFFFFFFF90000000
PROGRAM_OBJECTS: Final = 0xFFFFFFFF91000000
IMAGE_OBJECTS: Final = 0xFFFFFFFF92000000
LOADED: Final = 0xFFFFFFFF9B000000
"""A byte a function: whether it is loaded."""

SLOT_COUNTS: Final = 0xFFFFFFFF9B800000
"""A byte a function: its context words."""

DIRECT_FUNCTIONS: Final = 0xFFFFFFFF9C000000
"""A word a function: the target of its direct call."""

OPS_OBJECTS: Final = 0xFFFFFFFF9D000000
"""struct ftrace_ops: function, number, coverage."""

COVERAGE: Final = 0xFFFFFFFF9E000000
"""A byte a function, for each hash or ops."""

TRACE: Final = 0xFFFFFFFFA8000000
"""The records of a call."""

VECTORS: Final = 0xFFFFFFFFAC000000
"""Arguments and results of calls in bulk."""

IMAGES: Final = 0xFFFFFFFFB0000000
"""BPF trampolines."""

STACK: Final = 0xFFFFC90000000000
"""The stack of calls that run to their end."""

TASKS: Final = 0xFFFFC90100000000
"""Of each task that stands in a call, its stack and the records of its call."""
