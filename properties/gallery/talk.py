"""The pictures of the talk: trampolines for sets of programs that split where links overlap, and merge back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Final

from impl.batched import Batched
from properties.gallery.states import Drawer, take
from properties.report.pictures import StateFrame
from spec.border import bordered
from spec.populations import load
from spec.seeds import parse_operation
from spec.semantics import PRESETS
from spec.worlds import World

__all__ = ["KERNEL", "LEVEL", "SCENES", "draw_talk"]

KERNEL: Final = "linux-7.3"
LEVEL: Final = "per_shape"
OPENING: Final = ("vfs_open", "vfs_truncate", "vfs_utimes")
ATTRIBUTES: Final = ("vfs_get_fsid", "vfs_fileattr_get")
LOCKING: Final = ("vfs_test_lock", "vfs_cancel_lock", "vfs_dedupe_file_range")
"""Functions of one shape: two arguments of 8 bytes, and a value of 4."""

PROGRAMS: Final = {"P1": "fentry", "P2": "fexit", "P3": "fentry", "P4": "fentry", "P5": "fentry", "P6": "fexit"}


def _links(prefix: str, programs: tuple[str, ...], functions: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"bpf_link_create {prefix}{program} {program} {' '.join(functions)}" for program in programs)


SCENES: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    (
        "Six programs linked to three sets of functions that do not overlap: three images.",
        (
            *(f"bpf_prog_load {name} {kind} multi" for name, kind in PROGRAMS.items()),
            *_links("first-", ("P1", "P2"), OPENING),
            *_links("first-", ("P3",), ATTRIBUTES),
            *_links("first-", ("P4", "P5", "P6"), LOCKING),
        ),
    ),
    (
        "Further links overlap them: the images split into exactly the combinations that occur.",
        (
            *_links("second-", ("P3",), ("vfs_truncate", "vfs_utimes")),
            *_links("second-", ("P4", "P5", "P6"), ("vfs_utimes", "vfs_fileattr_get")),
        ),
    ),
    (
        "The further links go, and the images merge back into three.",
        tuple(f"bpf_link_detach second-P{number}" for number in range(3, 7)),
    ),
)


def draw_talk() -> Iterator[StateFrame]:
    """One frame for each scene, on functions of a real kernel, as `batched` shares images by shape."""
    known = load(KERNEL).by_name
    functions = tuple(known[name] for name in (*OPENING, *ATTRIBUTES, *LOCKING))
    world, semantics = World(KERNEL, functions), PRESETS[KERNEL]
    drawer = Drawer(world, LEVEL)
    with closing(bordered(Batched(world, semantics, LEVEL), world, semantics)) as system:
        for caption, lines in SCENES:
            steps = []
            for line in lines:
                operation = parse_operation(line)
                drawer.hear(operation)
                steps.append(f"{line} -> {take(system, operation)}")
            yield StateFrame(caption, tuple(steps), drawer.draw(system))
