"""What tests of the verb `plan` share: plans made without it, and what it prints."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from properties.__main__ import main
from properties.plan.planning import Plan, plan
from properties.plan.probes import Probe, parse_probe, parse_probes
from properties.plan.programs import read_word
from spec.prototypes import Prototype
from spec.semantics import PRESETS
from spec.sharing import LEVELS
from spec.worlds import LONG, Function, World, synthetic


def planned(semantics: str, *patterns: str, world: World | None = None) -> Plan:
    world = world or synthetic()
    return plan(parsed(world, patterns), PRESETS[semantics])


def parsed(world: World, patterns: Sequence[str]) -> list[Probe]:
    return [parse_probe(pattern, number, world) for number, pattern in enumerate(patterns, 1)]


def read(*words: str, world: World | None = None) -> list[Probe]:
    """The probes of words, as the verb reads them."""
    return parse_probes([probe for word in words for probe in read_word(word).probes], world or synthetic())


def named(*functions: tuple[str, int]) -> World:
    """A world of these functions, each with a prototype of so many words."""
    return World(
        "named",
        tuple(
            Function(name, Prototype((LONG,) * words, LONG), number)
            for number, (name, words) in enumerate(functions, 1)
        ),
    )


def reasons(of: Plan, program: int) -> dict[tuple[str, str], list[str]]:
    return {
        (reason.rule, reason.text): [function.name for function in functions]
        for reason, functions in of.refused[program].items()
    }


def attached(of: Plan) -> list[int]:
    return [len(functions) for functions in of.attached]


def images(of: Plan) -> list[int]:
    return [sum(of.images(level, numbers) for numbers in of.sets) for level in LEVELS]


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["plan", *words]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
