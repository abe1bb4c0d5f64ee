"""Population files made of what a kernel shows: a made-up kernel's files, and what cannot be read of them."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from impl.linux.architectures.x86_64 import X86_64
from impl.linux.probes.population import Survey, survey
from properties.kernels.population import write
from properties.verbs.population import run
from spec.errors import BadInputError
from spec.populations import make_world, read_population
from spec.worlds import Function

INT, PROTO = 1, 2
KALLSYMS = """\
ffffffff81000000 T _stext
ffffffff81000010 t twice
ffffffff81000020 t traced
ffffffff81000020 t alias
ffffffff81000040 t hidden
ffffffff81000060 t twice
ffffffff81000080 T _etext
ffffffff82000000 t init
ffffffffc0000000 t in_mod\t[mod]
ffffffffc0000010 t mod_notrace\t[mod]
"""
ADDRESSES = "ffffffff81000024 traced\nffffffff81000064 twice\nffffffffc0000000 in_mod [mod]\n"
AVAILABLE = "traced\ntwice\nin_mod [mod]\n"
NOP, ENDBR = bytes.fromhex("0f1f440000"), bytes.fromhex("f30f1efa")


def btf(functions: Sequence[str], *, base: bool = True) -> bytes:
    """A BTF of `int f(int)` functions; without base it goes on behind that of vmlinux's own six."""
    strings, offsets = b"\0", {}
    for name in ("int", *functions):
        offsets[name] = len(strings)
        strings += name.encode() + b"\0"
    first = 0 if base else len(btf_strings())
    types = b""
    if base:
        types += struct.pack("<4I", offsets["int"], 1 << 24, 4, 0x01000020)
        types += struct.pack("<5I", 0, 13 << 24 | 1, INT, 0, INT)
    for name in functions:
        types += struct.pack("<3I", offsets[name] + first, 12 << 24, PROTO)
    header = struct.pack("<HBB5I", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return header + types + strings


VMLINUX = ("traced", "twice", "hidden", "inlined", "init", "alias")


def btf_strings() -> bytes:
    blob = btf(VMLINUX)
    return blob[-struct.unpack_from("<I", blob, 20)[0] :]


class Shown:
    """The files of a made-up kernel."""

    def __init__(self, **changed: bytes | None) -> None:
        self.files: dict[str, bytes | None] = {
            "osrelease": b"6.12.1-made-up\n",
            "kallsyms": KALLSYMS.encode(),
            "available_filter_functions": AVAILABLE.encode(),
            "available_filter_functions_addrs": ADDRESSES.encode(),
            "modules": b"mod 4096 0 - Live 0x0\n",
            "vmlinux": btf(VMLINUX),
            "mod": btf(("in_mod", "mod_notrace", "mod_init", "twice"), base=False),
        } | changed
        self.code = {0xFFFFFFFF81000060: ENDBR + NOP}

    def read(self, *paths: str) -> list[bytes]:
        """As a reader does."""
        return [self._read(path) for path in paths]

    def _read(self, path: str) -> bytes:
        found = self.files[path.rpartition("/")[2]]
        if found is None:
            raise BadInputError(f"{path} cannot be read: No such file or directory")
        return found

    def read_memory(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """As a reader does."""
        return [self.code.get(address, b"\x55")[:length] for address, length in places]


def functions(shown: Shown) -> dict[str, Function]:
    world = make_world("made up", survey(shown, X86_64).population)
    return {function.name: function for function in (*world.functions, *world.others)}


def test_every_function_of_btf_is_there_with_what_bpf_finds_by_its_name() -> None:
    """A site, text without one, `__init` text, nothing; in a module only a site is good (PROG-7)."""
    found = functions(Shown())

    assert {name: function.lookup for name, function in found.items()} == {
        "traced": "",
        "twice": "no_site",
        "hidden": "no_site",
        "inlined": "no_symbol",
        "init": "outside",
        "in_mod": "",
        "mod_notrace": "outside",
        "mod_init": "no_symbol",
        "twice@2": "no_symbol",
    }
    assert {"traced", "twice", "in_mod"} == {name for name, function in found.items() if function.has_site}
    assert {"mod"} == {found[name].module for name in ("in_mod", "mod_notrace", "mod_init", "twice@2")}
    assert (3, 9) == (found["traced"].btf_id, found["in_mod"].btf_id)


def test_without_addresses_the_code_tells_which_symbol_has_a_site() -> None:
    """As before 6.5: of two symbols of one name the one with a nop at its start, behind an endbr64, is meant."""
    with_file, without = survey(Shown(), X86_64), survey(Shown(available_filter_functions_addrs=None), X86_64)

    assert with_file.population["functions"] == without.population["functions"]
    assert "ffffffff81000060" == without.population["functions"][1]["address"]
    assert with_file.complaints == without.complaints


def test_what_cannot_be_read_is_told_in_a_sentence() -> None:
    """A module without BTF, symbols that nobody can tell apart, and other names of functions."""
    shown = Shown(available_filter_functions_addrs=None, mod=None)
    shown.code = {}
    found = survey(shown, X86_64)
    btf_of_module, unsure, alias = sorted(found.complaints)

    assert (
        "/sys/kernel/btf/mod cannot be read: No such file or directory: BPF cannot name the functions of"
        in btf_of_module
    )
    assert "1 FUNCs are other names of functions that ftrace calls otherwise, such as alias" in unsure
    assert "of 1 names that several symbols have it is not known" in alias
    assert "btf_id" not in found.population["functions"][2]


@pytest.mark.parametrize(
    ("changed", "mistake"),
    [
        ({"kallsyms": b"0 T _stext\n0 T _etext\n"}, "/proc/kallsyms shows no addresses: read it as root"),
        ({"vmlinux": None}, "/sys/kernel/btf/vmlinux cannot be read"),
        ({"osrelease": b"unknown"}, "'unknown' does not start with a version"),
    ],
)
def test_what_nothing_can_be_said_without_is_an_error(changed: dict[str, bytes | None], mistake: str) -> None:
    """One sentence says what is missing."""
    with pytest.raises(BadInputError, match=mistake.replace("(", r"\(")):
        survey(Shown(**changed), X86_64)


@pytest.mark.parametrize("name", ["world.json", "world.json.gz"])
def test_a_file_is_written_whole(tmp_path: Path, name: str) -> None:
    """What is written can be read, compressed if its name says so; nothing else is left beside it."""
    path = tmp_path / name
    path.write_text("before")
    write(survey(Shown(), X86_64), path)

    assert [path] == list(tmp_path.iterdir())
    assert name.endswith(".gz") == path.read_bytes().startswith(b"\x1f\x8b")
    assert 3 == len(read_population(path).functions)
    data = path.read_bytes()
    assert "6.12.1" == json.loads(gzip.decompress(data) if name.endswith(".gz") else data)["kernel"]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    """The sentence names the file."""
    with pytest.raises(BadInputError, match="cannot be written: No such file or directory"):
        write(survey(Shown(), X86_64), tmp_path / "nowhere" / "world.json")

    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "/", "x" * 300])
def test_what_is_no_name_of_a_file_is_told(name: str) -> None:
    """A directory, nothing, or a name that is too long."""
    with pytest.raises(BadInputError, match="cannot be written: "):
        write(survey(Shown(), X86_64), Path(name))


def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path) -> None:
    """A pipe gets the content, as root's /dev/stdout does; a link stays one, and what it leads to is written."""
    pipe, link, file = tmp_path / "pipe", tmp_path / "link", tmp_path / "file"
    os.mkfifo(pipe)
    link.symlink_to(file)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write(Survey({"kernel": "6.12"}, ()), pipe)

        assert {"kernel": "6.12"} == json.loads(os.read(reader, 100))
    finally:
        os.close(reader)
    write(Survey({"kernel": "6.1"}, ()), link)

    assert pipe.is_fifo()
    assert link.is_symlink()
    assert {"kernel": "6.1"} == json.loads(file.read_bytes())


def test_the_verb_tells_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counts go to stdout, complaints to stderr."""
    monkeypatch.setattr("properties.verbs.population.of_host", lambda: survey(Shown(mod=None), X86_64))
    path = tmp_path / "host.json"
    arguments = argparse.Namespace(file=path, host=True, bzimage=None, modules=None, load=None, system=None)

    assert 0 == run(arguments)
    told = capsys.readouterr()
    assert (
        f"{path}: Linux 6.12.1-made-up, 3 functions that ftrace has records of, 1 of them in 1 modules; 3 more"
        in told.out
    )
    assert "BPF cannot name the functions of module mod" in told.err
