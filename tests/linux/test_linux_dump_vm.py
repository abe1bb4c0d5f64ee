"""Dumps of real kernels: what they accept and refuse, what is in the images, session cookies, and the verb."""

from __future__ import annotations

import argparse
import json
import struct
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from impl.linux.guest.batch import Batch
from impl.linux.guest.guest import Guest, boot
from impl.linux.instruments.dumping import Attaching, Dumper
from impl.linux.probes.symbols import parse_kallsyms
from impl.linux.station import Station
from properties.__main__ import main
from properties.kernels.shapes import label, matching, population, predicted
from properties.proofs.image_files import parse_image
from properties.proofs.judging import judge
from properties.prover.proving import prove
from properties.verbs import dump
from spec import populations
from spec.images import print_image_file
from spec.reading import encode
from spec.semantics import PRESETS
from spec.worlds import World
from tests.support.stations import KERNELS, kernel_or_skip

BOTH = Attaching(("fentry", "fexit"))


@pytest.fixture(scope="module")
def dumper(shared_station: Station) -> Dumper:
    """It goes back to the station's snapshot by itself, which it replaces by one of the same state."""
    shared_station.fresh()
    return Dumper(shared_station.guest, shared_station.kernel.name)


@pytest.fixture
def guest(shared_station: Station) -> Guest:
    return shared_station.guest


@pytest.fixture(scope="module")
def world(dumper: Dumper, shared_station: Station) -> World:
    return population(dumper.population(), shared_station.kernel.name)


def running_order(kinds: Sequence[str]) -> list[str]:
    """Of the programs' names, without their tags: TRAMP-1, TRAMP-2."""
    places = list(enumerate(kinds))[::-1]
    lists = (("fentry", "fsession"), ("fmod_ret",), ("fexit", "fsession"))
    return [f"c{place}_{kind}" for members in lists for place, kind in places if kind in members]


def check_image(found: Mapping[str, Any], attaching: Attaching) -> None:
    """Its programs are called in running order, each at its address, by the machine code itself."""
    code, start = bytes.fromhex(found["image_hex"]), int(found["image_address"], 16)
    programs = {program["symbol_address"]: program["name"] for program in found["programs"]}
    called = [call for call in found["calls"] if call["target"] in programs]
    offset, site = found["fentry_offset"], bytes.fromhex(found["function_prologue_bytes"])
    distances = [struct.unpack_from("<i", code, call["off"] + 1)[0] + call["off"] + 5 for call in called]

    assert running_order(attaching.kinds) == [programs[call["target"]].split("_", 3)[3] for call in called]
    assert [int(call["target"], 16) - start for call in called] == distances
    assert found["used_bytes"] == len(code)
    assert site[offset] in b"\xe8\xe9"
    assert start == int(found["function_address"], 16) + offset + 5 + struct.unpack_from("<i", site, offset + 1)[0]
    assert found["im"] in heap_of(found) or not {"fexit", "fmod_ret", "fsession"} & set(attaching.kinds)
    assert {one["pointer"] for one in found["programs"]} <= heap_of(found)
    assert len(attaching.kinds) == len({one["pointer"] for one in found["programs"]})
    pointers = {program["name"].split("_", 3)[3]: program["pointer"] for program in found["programs"]}
    jumps = [patch.get("pointer") for patch in found["patches"]]
    # Of each run that is skipped, or the one behind the original.
    original = any(call["sym"] == "__bpf_tramp_enter" for call in found["calls"])
    assert jumps in ([pointers[name] for name in running_order(attaching.kinds)], [None] * original)
    assert [False] * len(attaching.kinds) == [one["sleepable"] for one in found["programs"]]
    assert list(attaching.kinds) == found["attach_order"]
    assert json.loads(encode(attaching.attached.options)) == found["options"]


def heap_of(found: Mapping[str, Any]) -> set[str]:
    """What the image has of pointers to programs and itself."""
    return {call["target"] for call in found["calls"] if call["sym"] == "heap"}


@pytest.mark.vm
def test_sleepable_programs_are_told(guest: Guest, dumper: Dumper, world: World) -> None:
    """A dump of sleepable programs says so of each, and the proof demands that they enter so."""
    functions = [one for one in world.functions if one.btf_id is not None and "sleepable" in one.attributes][:1]
    if not functions:
        pytest.skip(f"the population of {guest.kernel.name} has no function that may sleep")
    image = dumper.answers(functions, Attaching(("fentry", "fexit"), sleepable=True))[0].image
    assert image is not None
    found = parse_image(print_image_file(image), "x.json")

    assert [True, True] == [program.sleepable for program in found.goal.programs]
    assert "proved" == prove(found.image, found.goal).outcome


@pytest.mark.vm
@pytest.mark.parametrize(
    "attaching",
    [
        BOTH,
        Attaching(("fentry", "fentry", "fexit", "fexit"), cookie=True, ip=True),
        Attaching(("fsession", "fentry")),
        Attaching(("fsession", "fsession"), ip=True, session_cookie=True),
        Attaching(("fexit",) * 38),
    ],
    ids=label,
)
def test_answers_of_a_kernel(guest: Guest, dumper: Dumper, world: World, attaching: Attaching) -> None:
    """Functions of all arities: as predicted; images call what was attached, and kallsyms has the names in them."""
    functions = [*matching(world, "bpf_fentry_test*"), *matching(world, "vfs_*")][: 38 // len(attaching.kinds)]
    answers = dumper.answers(functions, attaching)
    batch = Batch()
    listing = batch.read_file("/proc/kallsyms")
    symbols = parse_kallsyms(guest.submit(batch)[listing].data[0])
    semantics = PRESETS[guest.kernel.name]

    assert [predicted(f, attaching, semantics) for f in functions] == [(one.loads, one.attaches) for one in answers]
    accepted = [one.image for one in answers if not any((*one.loads, *one.attaches))]
    for image in accepted:
        assert image is not None
        found = json.loads(print_image_file(image))
        check_image(found, attaching)
        assert found["trampoline_symbol"] == str(symbols.at(int(found["image_address"], 16)))
        names = [str(symbols.at(int(program["symbol_address"], 16))) for program in found["programs"]]
        assert names == [program["name"] for program in found["programs"]]


@pytest.mark.vm
def test_refusals_of_a_kernel(guest: Guest, dumper: Dumper, world: World) -> None:
    """Loads are refused for prototypes and attributes, attaches for slots, each with the errno that the spec says."""
    named = [f for f in world.functions if f.btf_id is not None and f.prototype and f.prototype.describable]
    odd = [f for f in world.functions if f.btf_id is not None and f.prototype and len(f.prototype.arguments) > 12]
    long = [f for f in named if f.prototype and 6 < len(f.prototype.slots) <= 12]
    functions = [*odd[:2], *long[:3], *(f for f in named if f.attributes & {"deny", "noreturn"})]
    semantics = PRESETS[guest.kernel.name]
    answers = dumper.answers(functions, BOTH)

    assert {"EINVAL"} <= {name for one in answers for name in one.loads}
    assert [predicted(f, BOTH, semantics) for f in functions] == [(one.loads, one.attaches) for one in answers]


@pytest.mark.vm
def test_fmod_ret_of_a_kernel(guest: Guest, dumper: Dumper, world: World) -> None:
    """Security hooks take all three kinds."""
    attaching = Attaching(("fentry", "fmod_ret", "fmod_ret", "fexit"))
    functions = matching(world, "security_inode_*")[:8]
    answers = dumper.answers(functions, attaching)

    assert [predicted(f, attaching, PRESETS[guest.kernel.name]) for f in functions] == [
        (one.loads, one.attaches) for one in answers
    ]
    for one in answers:
        assert one.image is not None
        check_image(json.loads(print_image_file(one.image)), attaching)


@pytest.mark.vm
def test_session_cookies_of_a_kernel(guest: Guest, dumper: Dumper, world: World) -> None:
    """Sessions that ask have cookies of their own, which the images keep; those that do not ask have none."""
    kinds = ("fsession", "fentry", "fsession")
    if not PRESETS[guest.kernel.name].fsession:
        pytest.skip(f"{guest.kernel.name} has no sessions")
    (function,) = matching(world, "vfs_read")

    for asks, expected in ((False, set()), (True, {"session 0", "session 2"})):
        (answer,) = dumper.answers([function], Attaching(kinds, session_cookie=asks))
        assert answer.image is not None
        found = parse_image(print_image_file(answer.image), "x.json")
        verdict = prove(found.image, found.goal)
        bound = {name: value for name, value in verdict.bindings.items() if name.startswith("session ")}

        assert "proved" == verdict.outcome
        assert expected == set(bound)
        assert len(bound) == len(set(bound.values()))


@pytest.mark.vm
@pytest.mark.parametrize("system", KERNELS)
def test_the_verb(system: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A glob on each kernel: every function has a file for each way of attaching, and each is a whole image, proved."""
    kernel_or_skip(system)
    parser = argparse.ArgumentParser()
    dump.add_arguments(parser)
    status = dump.run(parser.parse_args(["--system", system, "--functions", "vfs_re*", "--prove", str(tmp_path)]))
    printed = capsys.readouterr().out
    documents = [json.loads(path.read_bytes()) for path in sorted(tmp_path.iterdir())]

    assert 0 == status, printed
    assert f"{len(documents)} image files written" in printed
    assert f"Images: {len(documents)} proved; 0 refused by the kernel as predicted." in printed
    assert 3 * len({found["function"] for found in documents}) == len(documents) >= 15
    for found in documents:
        check_image(found, Attaching(tuple(found["attach_order"])))


@pytest.mark.vm
def test_a_kernel_of_ones_own_is_dumped(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """--bzimage: the rules that predict are found by trying, and no modules need be compiled."""
    kernel = kernel_or_skip("linux-6.12")
    words = ["--bzimage", f"{kernel.vmlinux},{kernel.modules}", "--functions", "vfs_rea*", str(tmp_path)]
    status = main(["dump", *words])
    told, files = capsys.readouterr(), sorted(path.name for path in tmp_path.iterdir())

    assert 0 == status, told
    assert f"release {kernel.release}: semantics linux-6.12, " in told.err
    assert f"{len(files)} image files written" in told.out
    assert "vmlinux.vfs_read.fentry1.json" in files


# QEMU's name of a processor, what the kernel is told, and the return thunk that it then takes.
HOSTS = {
    "linux-6.12": (
        ("Skylake-Client", "retbleed=stuff", "call_depth_return_thunk"),
        ("EPYC", "", "srso_return_thunk"),
    ),
    "linux-7.3": (
        ("Skylake-Client", "retbleed=stuff", "call_depth_return_thunk"),
        ("EPYC", "", "retbleed_return_thunk"),
    ),
}


@pytest.mark.vm
@pytest.mark.parametrize(("system", "host"), [(system, host) for system, hosts in HOSTS.items() for host in hosts])
def test_hosts_that_need_mitigations(system: str, host: tuple[str, str, str]) -> None:
    """On processors for which the kernel takes return thunks, or counts calls, its trampolines are proved as well."""
    processor, told, thunk = host
    kernel = kernel_or_skip(system)
    architecture = kernel.architecture
    machine, command_line = (*architecture.machine, "-cpu", processor), f"{architecture.command_line} {told}"
    functions = matching(populations.load(system), "vfs_f*")[:4]
    found: list[tuple[str, bool]] = []
    other = replace(kernel, architecture=replace(architecture, machine=machine, command_line=command_line))
    with closing(boot(other)) as guest:
        dumper = Dumper(guest, system)
        for kinds in (("fentry",), ("fexit",), ("fentry", "fexit")):
            for answer in dumper.answers(functions, Attaching(kinds)):
                assert answer.image is not None, answer
                text = print_image_file(answer.image)
                found.append((judge(text, "x.json").told, any(call.sym == thunk for call in answer.image.calls)))

    assert [("", True)] * 3 * len(functions) == found
