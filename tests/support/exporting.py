"""The project's seeds as they are exported, compiled, and run in guests."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from impl.linux.guest.batch import AT_FDCWD, Batch, Ref
from impl.linux.guest.guest import Guest, boot
from impl.linux.guest.packages import Kernel
from impl.linux.host import cache
from impl.linux.laboratory.module_btf import read_base
from impl.linux.laboratory.tuning import shorten_grace_periods
from impl.linux.probes.btf import VMLINUX_BTF, Btf
from impl.linux.probes.symbols import KALLSYMS, parse_kallsyms
from properties.export.files import write_files
from properties.export.recorded import RecordedSeed, record, setting_of
from properties.kernels.directed import SEEDS as OF_KERNELS
from properties.runs.corpus import EVERY, SEEDS
from properties.systems.kernels import laboratory_of
from properties.systems.naming import KERNELS
from spec.seeds import Seed, read_seed
from spec.semantics import PRESETS

__all__ = [
    "HOME",
    "Ended",
    "Exports",
    "compile_c",
    "paths",
    "recorded",
    "seeds_of",
]

HOME = "/tmp"
"""Where programs are in a guest."""

STRICT = ("-Wall", "-Wextra", "-Werror")


def paths() -> list[Path]:
    """Every seed file of the project."""
    return sorted(path for folder in (SEEDS, EVERY, OF_KERNELS) for path in folder.glob("*.seed"))


def seeds_of(kernel: str) -> list[Path]:
    """The seeds that speak of a kernel, and those that speak of all."""
    return [path for path in paths() if path.parent != SEEDS or read_seed(path).semantics == kernel]


def recorded(path: Path, kernel: str, **changes: object) -> RecordedSeed:
    """A seed as the model runs it by a kernel's rules; one that speaks of all kernels stands for this one."""
    seed = read_seed(path)
    if path.parent != SEEDS:
        world = laboratory_of(PRESETS[kernel]).name if path.parent == OF_KERNELS else seed.world
        seed = replace(seed, semantics=kernel, world=world)
    changed: Seed = replace(seed, **changes)  # type: ignore[arg-type]
    assert changed.semantics in (*KERNELS, "proposal-2021")
    return record(setting_of(path, changed))


def compile_c(source: Path, target: Path | None, *flags: str) -> str:
    """Compile a program without a warning; what gcc complains of. Without a target only its syntax is looked at."""
    output = ("-fsyntax-only",) if target is None else ("-O2", "-s", "-static", "-o", str(target))
    command = ["gcc", *STRICT, *output, str(source), *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended in a guest, and what it printed."""

    status: int
    output: str


class Exports:
    """A guest of one kernel, in which programs are run from its snapshot on."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._guest: Guest = boot(kernel)
        kallsyms, blob = self._guest.read(KALLSYMS, VMLINUX_BTF)
        shorten_grace_periods(self._guest, parse_kallsyms(kallsyms), Btf(blob))
        self._guest.snapshot()

    def close(self) -> None:
        """End the guest."""
        self._guest.close()

    def run(self, name: str, files: Mapping[str, str], *, modules: bool = True) -> Ended:
        """Compile an exported program and its modules by their Makefile, and run it."""
        with tempfile.TemporaryDirectory() as scratch:
            directory = Path(scratch)
            write_files(directory, files)
            complaints = compile_c(directory / f"{name}.c", directory / name)
            assert complaints == ""
            return self.run_file(directory / name, self._modules(directory, files) if modules else {})

    def run_file(
        self,
        program: Path,
        others: Mapping[str, bytes] = MappingProxyType({}),
        words: Sequence[str] = (HOME,),
        timeout: float = 300,
    ) -> Ended:
        """Run a program, with other files beside it; GuestDiedError if the kernel dies or it does not end in time."""
        self._guest.restore()
        for file, content in {"program": program.read_bytes(), **others}.items():
            self._put(f"{HOME}/{file}", content)
        batch = Batch()
        ended = batch.spawn(f"{HOME}/program", words, f"{HOME}/output")
        output = batch.read_file(f"{HOME}/output")
        replies = self._guest.submit(batch, timeout)
        return Ended(replies[ended].value, replies[output].data[0].decode())

    def _put(self, path: str, content: bytes) -> None:
        batch = Batch()
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        file = batch.syscall("openat", AT_FDCWD, path.encode() + b"\0", flags, 0o755)
        batch.syscall("write", Ref(file), content, len(content))
        batch.syscall("close", Ref(file))
        self._guest.submit(batch)

    def _modules(self, directory: Path, files: Mapping[str, str]) -> dict[str, bytes]:
        """The modules of an exported program, which most programs of a kernel have in common."""
        texts = [files["Makefile"].partition("\nmodules := ")[2].partition("\n")[0], self.kernel.release]
        texts += [text for name, text in sorted(files.items()) if name.startswith("module/")]
        key = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
        made = cache.entry(f"exported-{key}", lambda target: self._make(directory, target))
        return {path.name: path.read_bytes() for path in sorted(made.glob("*.ko"))}

    def _make(self, directory: Path, target: Path) -> None:
        base = directory / "vmlinux.btf"
        read_base(self.kernel.vmlinux, base)
        command: Sequence[str] = ["make", "-C", str(directory), f"KDIR={self.kernel.headers}", f"BTF={base}", "modules"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        for path in (directory / "module").glob("*.ko"):
            shutil.copy(path, target)
