"""Every image that the generator makes is proved: for every arity, kind, form and shape, whole and while detaching."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, pairwise, product
from typing import Any, Literal

import pytest
from rich.console import Console
from rich.table import Table

from impl.batched.jit.plan import MOST_LINKS, PlanError
from properties.proofs.generated import generated, while_detaching
from properties.prover.goal import Goal, Kind, Program
from properties.prover.proving import prove
from spec.abi import SYSTEM_V
from spec.populations import built_in
from spec.prototypes import Prototype, Type
from tests.support.prove_images import shapes_of_populations

KINDS: tuple[Kind, ...] = ("fentry", "fexit", "fmod_ret", "fsession")
MIXES = tuple(mix for size in range(1, 5) for mix in combinations(KINDS, size))
ARITIES = range(13)
COOKIE = 0x1122334455667700
LONG = Type("long", "INT", 8)
VOID = Type("void", "VOID", 0)
Level = Literal["per function", "shared", "generic"]
LEVELS: tuple[Level, ...] = ("per function", "shared", "generic")


@dataclass(frozen=True)
class Case:
    """One image to be proved. mix, count: its programs, so many of each kind, attached in turn."""

    prototype: Prototype
    mix: tuple[Kind, ...]
    count: int
    level: Level
    options: tuple[tuple[str, Any], ...] = ()
    sleepable: bool = False
    cookies: bool = False

    @property
    def programs(self) -> tuple[Program, ...]:
        """If sleepable, every other program is; with cookies, the others have one."""
        return tuple(
            Program(
                kind,
                0,
                cookie=COOKIE + place if self.cookies and place % 2 == 0 else 0,
                sleepable=self.sleepable and place % 2 == 0,
            )
            for place, kind in enumerate(self.mix * self.count)
        )

    def verdicts(self, *goals: Literal["width", "strict", "detaching"]) -> Counter[str]:
        """How many of these goals are met: each must be; or that there is no image, which the plan's maker says."""
        wanted: dict[str, Any] = {"shared": self.level == "shared", "generic": self.level == "generic"}
        try:
            image, goal = generated(self.prototype, self.programs, **(wanted | dict(self.options)))
        except PlanError as error:
            return Counter({re.sub(r"[0-9][0-9, ]* ", "N ", f"none: {error}"): 1})
        for name in goals:
            verdict = prove(image, _of(goal, name))

            assert verdict.outcome == "proved", (self, name, verdict.reason, verdict.counterexample)
        return Counter(goals)


def _of(goal: Goal, name: str) -> Goal:
    return while_detaching(goal) if name == "detaching" else goal.read("strict" if name == "strict" else "width")


def long(count: int) -> Prototype:
    """A function of so many long arguments, that returns one."""
    return Prototype((LONG,) * count, LONG)


def matrix(level: Level) -> Iterator[Case]:
    """Every arity, mix of kinds, number of programs and form; a generic image serves all arities up to six at once."""
    arities = [len(SYSTEM_V.arguments)] if level == "generic" else ARITIES
    flags = (False, True)
    forms = product(("call", "jmp"), flags, flags, flags, flags) if level == "per function" else _shared_forms()
    for (site, orig_stack, *others), arity, mix, count in product(forms, arities, MIXES, (1, 2, 3)):
        func_ip, sleepable, cookies = others
        options = (("site", site), ("orig_stack", orig_stack), ("func_ip", func_ip))
        yield Case(long(arity), mix, count, level, options, sleepable, cookies)


def _shared_forms() -> Iterator[tuple[Any, ...]]:
    """A shared image is called, and finds the original through the stack as it is."""
    return product(("call",), (False,), (False, True), (False, True), (False, True))


def show(title: str, rows: dict[str, Counter[str]]) -> None:
    """What was covered."""
    columns = sorted({column for counter in rows.values() for column in counter})
    table = Table(title=title, title_justify="left")
    for heading in ("", *columns):
        table.add_column(heading)
    for name, counter in rows.items():
        table.add_row(name, *(str(counter[column]) for column in columns))
    table.add_section()
    table.add_row("sum", *(str(sum(counter[column] for counter in rows.values())) for column in columns))
    Console(width=160, markup=False).print(table)


@pytest.mark.proof
@pytest.mark.parametrize("level", LEVELS)
def test_every_arity(level: Level) -> None:
    """Arities 0 to 12, all mixes of kinds, 1 to 3 programs of each, every form: proved; jmp sites without a stack."""
    rows = {" ".join(mix): Counter[str]() for mix in MIXES}
    for case in matrix(level):
        detached = not (case.sleepable or case.cookies)
        rows[" ".join(case.mix)] += case.verdicts("strict", *(("detaching",) if detached else ()))
    show(f"images of long arguments, {level}", rows)
    total = sum(rows.values(), Counter[str]())

    assert {"per function": 24 * 13, "shared": 8 * 13, "generic": 8}[level] * 15 * 3 == total["strict"]
    assert (level == "per function") == any(column.startswith("none") for column in total)


@pytest.mark.parametrize("level", LEVELS)
def test_some_arities(level: Level) -> None:
    """The same of every 400th, or for all arities at once of every 40th."""
    for case in islice(matrix(level), 7, None, 40 if level == "generic" else 400):
        case.verdicts("strict", "detaching")


def signatures(count: int, seed: int) -> Iterator[Case]:
    """Up to 12 arguments of 1 to 16 bytes, and what may come back; any programs, and any form."""
    draw = random.Random(seed)
    for _ in range(count):
        types = tuple(_argument(draw) for _ in range(draw.randrange(13)))
        size = draw.choice((0, 1, 2, 4, 8, 8, 16))
        returns = Type("returned", "INT" if size else "VOID", size)
        options = (("site", draw.choice(("call", "jmp"))), ("func_ip", draw.random() < 0.5))
        level = draw.choices(LEVELS, (4, 3, 1))[0]
        yield Case(
            Prototype(types, returns),
            draw.choice(MIXES),
            draw.randrange(1, 4),
            level,
            options if level == "per function" else options[1:],
            draw.random() < 0.5,
            draw.random() < 0.5,
        )


def _argument(draw: random.Random) -> Type:
    size = draw.choice((1, 2, 4, 8, 8, draw.randrange(1, 17), draw.randrange(9, 17)))
    return Type("argument", "INT" if size in {1, 2, 4, 8} else "STRUCT", size)


def traits(prototype: Prototype) -> Iterator[str]:
    """What is to be seen of how arguments are passed."""
    slots = prototype.slots
    for slot, following in pairwise(slots):
        if slot.argument == following.argument:
            yield "struct on the stack" if slot.stack is not None else "struct in two registers"
        elif slot.stack is not None and following.register:
            yield "back to a register"
    if prototype.returns.size < 8:
        yield "a narrow return value, or none"
    if any(slot.size not in {1, 2, 4, 8} for slot in slots):
        yield "a word of odd size"


@pytest.mark.proof
def test_random_signatures() -> None:
    """Of 4,000 random signatures, with structs by value, every one with an image is proved in both readings."""
    rows: dict[str, Counter[str]] = {level: Counter() for level in LEVELS}
    seen: Counter[str] = Counter()
    built = 0
    for case in signatures(20_000, seed=2026):
        found = case.verdicts("width", "strict", *(() if built % 4 else ("detaching",)))
        rows[case.level] += found
        if found["strict"]:
            built += 1
            seen.update(set(traits(case.prototype)))
        if built == 4_000:
            break
    show("4,000 random signatures", rows)
    Console(width=160, markup=False).print("among them:", *(f"{count} with {name}" for name, count in seen.items()))

    assert 4_000 == built
    assert 5 == len(seen)
    assert min(seen.values()) > 100


def test_some_random_signatures() -> None:
    """The same of 100 signatures."""
    for case in signatures(100, seed=1):
        case.verdicts("width", "strict")


@pytest.mark.proof
def test_any_number_of_programs() -> None:
    """1 to 38 programs, of each kind and of all in turn: proved."""
    rows: dict[str, Counter[str]] = {}
    for mix in (*((kind,) for kind in KINDS), KINDS):
        row = rows.setdefault(" ".join(mix), Counter())
        for count in range(1, MOST_LINKS + 1):
            programs = islice(_cycled(mix), count)
            case = Case(long(8), tuple(programs), 1, "per function", (("func_ip", True),), sleepable=True, cookies=True)
            row += case.verdicts("strict", "detaching")
        rows[" ".join(mix)] = row
    show("1 to 38 programs", rows)

    assert {MOST_LINKS} == {row["strict"] for row in rows.values()}


def _cycled(mix: Sequence[Kind]) -> Iterator[Kind]:
    while True:
        yield from mix


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("returns", [LONG, VOID], ids=["value", "void"])
def test_hooks(level: Level, returns: Type) -> None:
    """LSM programs on a hook that returns something and on one that does not, alone and among others: proved."""
    hook = Prototype((LONG,) * 3, returns)
    for mix in (("lsm",), ("fentry", "lsm", "fexit"), ("lsm", "fsession")):
        Case(hook, mix, 2, level, sleepable=True, cookies=True).verdicts("strict", "detaching")  # type: ignore[arg-type]


def test_what_has_no_image() -> None:
    """For an image of every arity arguments on the stack: told in a sentence."""
    with pytest.raises(PlanError, match="an image for every arity finds no arguments on the stack"):
        generated(long(7), [Program("fentry", 0)], generic=True)


@pytest.mark.proof
def test_every_shape_of_the_real_populations() -> None:
    """Every shape that a function of three kernels has, and that BPF can describe: fentry, fexit, both: proved."""
    shapes = shapes_of_populations()
    rows: dict[str, Counter[str]] = {}
    for mix, level in product((("fentry",), ("fexit",), ("fentry", "fexit")), LEVELS[:2]):
        row = rows.setdefault(f"{' '.join(mix)}, {level}", Counter())
        for prototype in shapes:
            found = Case(prototype, mix, 1, level, (("func_ip", True),)).verdicts("width", "strict")  # type: ignore[arg-type]
            row.update(found)

            assert found["strict"] or not prototype.describable, prototype
    show(f"{len(shapes)} shapes of {', '.join(built_in())}", rows)

    assert len(shapes) > 1_500
    assert 6 == len(rows)
