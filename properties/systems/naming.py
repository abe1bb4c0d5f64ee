"""Names on the command line and in seeds become systems, worlds and semantics here, and nowhere else."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import cast

from properties.systems.exec_system import exec_factory
from properties.systems.guard import SystemCrashError, guarded
from spec.border import behind_border
from spec.errors import BadInputError
from spec.laboratory import LABORATORIES, laboratory
from spec.semantics import PRESETS, Semantics
from spec.sharing import LEVELS
from spec.system import SystemFactory
from spec.worlds import World, large, synthetic

__all__ = [
    "BUILT_IN",
    "DEFAULT_SYSTEMS",
    "INTERLEAVED_SYSTEMS",
    "OWN_KERNEL",
    "SystemCrashError",
    "own_files",
    "resolve",
    "semantics_named",
    "world_named",
]

TIME_LIMIT = 10.0
BUILT_IN = {
    "model": ("model", "system"),
    "batched": ("impl.batched", "system"),
    "batched:per_function": ("impl.batched", "per_function"),
    "batched:per_shape": ("impl.batched", "per_shape"),
    "batched:generic": ("impl.batched", "generic"),
}
MADE = {"synthetic": synthetic, "synthetic-1500": large}
KERNELS = ("linux-6.1", "linux-6.12", "linux-7.3")
DEFAULT_SYSTEMS = tuple(f"batched:{level}" for level in LEVELS)
INTERLEAVED_SYSTEMS = DEFAULT_SYSTEMS[:1]
"""Those of them that have tasks which stand in calls."""

OWN_KERNEL = "bzimage:"
"""What the name of a developer's own kernel starts with; its files follow."""

PATIENT = "impl.linux."
"""What names of factories start with whose guests boot for longer than a plug-in may take; they have a patience."""

FORMS = (
    f"{', '.join((*BUILT_IN, *KERNELS))}, {OWN_KERNEL}FILE[,MODULES], module:factory, path/to/file.py:factory "
    "or exec:COMMAND"
)


def resolve(name: str, time_limit: float = TIME_LIMIT) -> SystemFactory:
    """The factory that a name stands for.

    Built-in names, `bzimage:FILE`, `module:factory`, `path/to/file.py:factory`, `exec:COMMAND`. time_limit: seconds
    that one answer of a plug-in may take; a plug-in's systems raise SystemCrashError where they fail. BadInputError: no
    such system.
    """
    if name in BUILT_IN:
        module, attribute = BUILT_IN[name]
        return cast("SystemFactory", getattr(importlib.import_module(module), attribute))
    if name in KERNELS:
        from impl import linux  # noqa: PLC0415  # the code for virtual machines is loaded if one is wanted

        return linux.factory(name)
    if name.startswith(OWN_KERNEL):
        from impl import linux  # noqa: PLC0415  # the same

        return linux.own_factory(linux.own(*own_files(name)))
    place, colon, attribute = name.partition(":")
    if place == "exec" and colon:
        return behind_border(exec_factory(attribute, time_limit))
    place, colon, attribute = name.rpartition(":")
    if not (place and attribute):
        raise BadInputError(f"unknown system '{name}': write {FORMS}")
    factory = getattr(_plug_in(place), attribute, None)
    if not callable(factory):
        found = "is not callable" if factory is not None else "is not there"
        hint = f"write a function '{attribute}(world, semantics)' that returns a System"
        raise BadInputError(f"'{attribute}' of {place} {found}: {hint}")
    made = cast("SystemFactory", factory)
    return made if place.startswith(PATIENT) else behind_border(guarded(made, time_limit))


def own_files(name: str) -> tuple[Path, Path | None]:
    """The image and the lib/modules/RELEASE of `bzimage:FILE[,MODULES]`; BadInputError without a file."""
    image, _, modules = name.removeprefix(OWN_KERNEL).partition(",")
    if not image:
        raise BadInputError(f"'{name}' names no file: write {OWN_KERNEL}FILE, or {OWN_KERNEL}FILE,MODULES")
    return Path(image), Path(modules) if modules else None


def world_named(name: str, base: Path | None = None) -> World:
    """A world by its built-in name, or from a population file whose path is relative to base (default: the cwd)."""
    from spec import populations  # noqa: PLC0415  # the synthetic worlds need no population

    if name in MADE:
        return MADE[name]()
    if name in populations.built_in():
        return populations.load(name)
    if name in LABORATORIES:
        return laboratory(name)
    path = (base or Path()) / name
    if not path.is_file():
        known = ", ".join((*MADE, *populations.built_in(), *LABORATORIES))
        raise BadInputError(f"unknown world '{name}': write one of {known}, or the path of a population file")
    return populations.read_population(path)


def semantics_named(name: str) -> Semantics:
    """One of the presets; BadInputError if there is none of this name."""
    if name not in PRESETS:
        raise BadInputError(f"unknown semantics '{name}': write one of {', '.join(PRESETS)}")
    return PRESETS[name]


def _plug_in(place: str) -> ModuleType:
    """The module at a dotted name or a path; whatever goes wrong while it is imported is bad input."""
    try:
        return _from_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except BadInputError:
        raise
    except ModuleNotFoundError as error:
        raise BadInputError(f"cannot import '{place}', there is no module '{error.name}': write {FORMS}") from error
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        raise BadInputError(f"cannot import '{place}': {type(error).__name__}: {text}") from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise BadInputError(f"there is no file {path}: write path/to/file.py:factory")
    # One name per file, so that two plug-ins of the same file name do not meet, and dataclasses find their module.
    name = f"massattach_plugin_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadInputError(f"{path} is no Python file: write path/to/file.py:factory")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
