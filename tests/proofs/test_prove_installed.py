"""What `batched` runs is what is proved: the bytes of its images, wherever random operations have put them."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from impl.batched import Batched
from properties.proofs.installed import installed
from properties.prover.proving import prove
from spec.border import bordered
from spec.seeds import parse_operation
from spec.semantics import PRESETS
from spec.sharing import LEVELS
from spec.worlds import synthetic
from tests.support.random_lines import FORMS, START, Draw

WORLD = synthetic()
EVERY = 12
LOADED = """
    bpf_prog_load q0 fentry func_ip
    bpf_prog_load q1 fexit sleepable
    bpf_prog_load q2 fmod_ret returns=1
    bpf_prog_load q3 fsession func_ip
    bpf_prog_load q4 fexit func_ip
    bpf_prog_load q5 lsm sleepable returns=-1"""
ATTACH = [
    lambda d: f"bpf_raw_tracepoint_open {d.name('k', 30)} {d.name('q', 6)} {d.function()} {d.maybe('cookie=7')}",
    lambda d: f"bpf_link_create {d.name('k', 30)} {d.name('p', 3)} {d.targets()}",
    lambda d: f"bpf_link_detach {d.name('k', 30)}",
] * 10


def assert_proved(system: Batched) -> int:
    """Each image in place does what the function's lists say; how many there are."""
    images = list(installed(system))
    for name, image, goal in images:
        verdict = prove(image, goal)

        assert "proved" == verdict.outcome, (name, verdict.counterexample, verdict.reason)
    return len(images)


def begun(semantics: str, level: str) -> Batched:
    """A system with programs of all kinds that its semantics have, and a few ops."""
    system = bordered(Batched(WORLD, PRESETS[semantics], level), WORLD, PRESETS[semantics])
    for line in (START + LOADED).strip().splitlines():
        operation = parse_operation(line)
        if type(operation) in system.supports:
            system.apply(operation)
    return system


def attach_random(system: Batched, seed: str, steps: int) -> int:
    """Random operations, with a proof of everything every so often; how many images were proved."""
    draw = Draw(random.Random(seed))
    proved = 0
    for number in range(steps):
        line = draw.random.choice(FORMS + ATTACH)(draw)
        operation = parse_operation(line)
        if type(operation) in system.supports:
            system.apply(operation)
        if number % EVERY == EVERY - 1:
            proved += assert_proved(system)
    return proved


@pytest.mark.parametrize("level", LEVELS)
def test_images_in_place_are_proved(level: str) -> None:
    """After 24 random operations that attach, livepatch and fail."""
    assert attach_random(begun("linux-7.3", level), "other", 2 * EVERY) > 2


@pytest.mark.proof
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("semantics", PRESETS)
def test_images_in_place_are_proved_whatever_came_before(semantics: str, level: str) -> None:
    """Over 12 runs of 60 random operations each, with tasks at any instruction of those that the kernel patches."""
    counts: Counter[str] = Counter()
    for seed in range(12):
        system = begun(semantics, level)
        counts["images"] += attach_random(system, f"{semantics} {seed}", 60)
        counts["patched while a task is in them"] += sum(bool(image.patches) for _, image, _ in installed(system))
    print(semantics, level, dict(counts))

    assert counts["images"] > 90


@pytest.mark.parametrize("level", LEVELS)
def test_an_image_whose_detach_failed_is_proved_without_the_program(level: str) -> None:
    """bpf_trampoline_skip_prog(): the image stays, and the run of the program that left is jumped over."""
    system = Batched(WORLD, PRESETS["linux-7.3"], level)
    lines = (
        "bpf_prog_load p1 fentry multi",
        "bpf_prog_load p2 fexit multi",
        "bpf_prog_load p3 fsession multi",
        *(f"bpf_link_create l{number} p{number} foo2" for number in (1, 2, 3)),
        "fail jit_charge",
        "bpf_link_detach l3",
    )
    for line in lines:
        system.apply(parse_operation(line))
    trace = system.call("foo2", (1, 2))

    assert "fentry:p1 body fexit:p2 =3" == str(trace)
    assert "trampoline:fsession:p3,fentry:p1,fsession:p3,fexit:p2" == system.sites()["foo2"].target
    assert 1 == assert_proved(system)


def test_a_byte_of_an_image_in_place_matters() -> None:
    """An image in memory that another number of slots is written into is refuted."""
    system = Batched(WORLD, PRESETS["linux-7.3"], LEVELS[0])
    for line in ("bpf_prog_load p1 fentry multi", "bpf_link_create l1 p1 foo3"):
        system.apply(parse_operation(line))
    ((_, image, goal),) = installed(system)
    place = image.code.index(bytes.fromhex("03000000"))
    system.text.images.write(image.address + place, b"\x02")
    ((_, image, goal),) = installed(system)
    verdict = prove(image, goal)

    assert "refuted" == verdict.outcome
    assert verdict.counterexample is not None
    assert "ctx[-1]" in verdict.counterexample.obligation
