"""Files by which a guest can run the project: the interpreter at hand, and what it loads."""

from __future__ import annotations

import json
import py_compile
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["ENCODINGS", "files_for"]

ROOT = Path(__file__).parents[2]
LIBRARY = re.compile(r"(?:^|=>)\s*(?P<path>/\S+)(?: \(0x[0-9a-f]+\))?:?$", re.MULTILINE)
ENCODINGS = ("encodings.ascii", "encodings.utf_8", "encodings.idna", "encodings.latin_1")
LOADED = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps([
    sorted({module.__file__ for module in [*sys.modules.values()] if getattr(module, "__file__", None)}),
    sorted({line.split()[-1] for line in open("/proc/self/maps") if ".so" in line.rpartition("/")[2]}),
]))
"""


def files_for(*modules: str) -> Mapping[str, bytes]:
    """What the interpreter needs for these modules and what they import, by the paths of this machine; ours from /.

    Modules are compiled, as that takes an emulated processor long.
    """
    done = subprocess.run([sys.executable, "-c", LOADED, *modules], cwd=ROOT, capture_output=True, check=True)
    sources, mapped = json.loads(done.stdout)
    found = {sys.executable: Path(sys.executable).resolve().read_bytes()}
    settings = Path(sys.prefix) / "pyvenv.cfg"
    if settings.is_file():
        found[str(settings)] = settings.read_bytes()
    with tempfile.TemporaryDirectory() as scratch:
        for source in map(Path, sources):
            found |= {_place(source, compiled=True): _compile(source, Path(scratch))} if source.suffix == ".py" else {}
    binaries = [path for path in {*sources, *mapped} if ".so" in Path(path).name]
    found |= {_place(Path(path)): Path(path).read_bytes() for path in binaries}
    return found | {path: Path(path).read_bytes() for path in _list_libraries([sys.executable, *binaries])}


def _place(path: Path, *, compiled: bool = False) -> str:
    # An environment of tox is in the checkout, and stays where the interpreter looks for it.
    ours = path.is_relative_to(ROOT) and not path.is_relative_to(sys.prefix)
    place = Path("/") / path.relative_to(ROOT) if ours else path
    return str(place.with_suffix(".pyc") if compiled else place)


def _compile(source: Path, scratch: Path) -> bytes:
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    made = py_compile.compile(str(source), str(scratch / "made.pyc"), doraise=True, invalidation_mode=mode)
    return Path(made).read_bytes()


def _list_libraries(binaries: list[str]) -> Iterator[str]:
    """Libraries by the names that the loader looks for, and the loader."""
    told = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=True).stdout
    yield from {found["path"] for found in LIBRARY.finditer(told) if not found[0].endswith(":")}
