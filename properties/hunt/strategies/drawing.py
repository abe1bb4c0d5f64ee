"""What makers share: pools of names, biased draws, and the setting in which an operation is drawn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain, count, cycle, islice
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from spec import operations as op
from spec.abi import SLOT_BYTES
from spec.globs import link_pattern
from spec.inventory import Inventory
from spec.names import names_of
from spec.prototypes import Prototype
from spec.semantics import Semantics
from spec.worlds import Function, World

Value = TypeVar("Value")

OPS = ("o1", "o2", "o3")
PROGRAMS = ("p1", "p2", "p3", "p4", "p5", "p6")
LINKS = ("l1", "l2", "l3", "l4", "l5", "l6")
GRAPH_USERS = ("g1", "g2", "g3")
TRAMPOLINES = ("T1", "T1", "T2", "T3")
FAVOURITES = tuple(
    (
        "foo1 foo2 foo0 bar1 outer bar2 foo6 foo7 foo12 narrow split spill security_lab1 sleepy1 pieces beyond "
        "gives_char gives_nothing gives_pair bpf_fentry_test1 make_task_dead branches_show@2"
    ).split(),
)
UNKNOWN = "nowhere"
MOST_FUNCTIONS = 12
MOST_FORMS = 20
MOST_RECENT = 6
MOST_CALLING_PROGRAMS = 2
PAGE = 256
"""Records of a page: ENTRIES_PER_PAGE of ftrace.c, where a page has 4096 bytes."""

STRETCHES = (5, 9, 17, 40, 300)

GLOBS = tuple("foo1 foo* *2 foo[12] bar* bar1 foo? bar? out* *a* * 5 nowhere* 2 0x3 06x".split())
NOTRACE_GLOBS = tuple("foo1 foo2 foo[12] bar* *2 foo* !foo1 nowhere".split())
LINE_GLOBS = ("bar1", "", "bar*", "bar?", "*", "*1", "foo1", "nowhere", "3")
ODD_MODULES = ("mod*", "!mod1", "!mod*", "", "!", "8021q")
"""MODULE of a line GLOB:mod:MODULE that is no module's name, or cannot be matched."""
COMMANDS = ("foo1:traceon", "foo1:mod", "!foo1:stacktrace:3")

PATTERNS = ((1, 2, 3), (0,), (-1,), (1 << 63, 255, 256), ((1 << 32) + 1, 128, -2, 1 << 31))
COOKIES = (1, 2, 3, (1 << 64) - 1)
RETURNS = (1, 1, 0, -22, 1 << 32)
POWERS = tuple(1 << bits for bits in (7, 8, 15, 16, 31, 32, 63))
ENDS = (1 << 31, (1 << 32) - 1, 1 << 32, 1 << 63, -1)
WORDS = (0, 1, 2, -1, *POWERS, *(power - 1 for power in POWERS), (1 << 64) - 1)


@dataclass(frozen=True, slots=True)
class Past:
    """last: the last operation. recent: the functions that were covered last, newest first, and not very many."""

    last: op.Operation | None = None
    recent: tuple[str, ...] = ()

    def after(self, operation: op.Operation) -> Past:
        """The past once one more operation has been."""
        covered = covered_functions(operation)
        recent = tuple(dict.fromkeys((*covered, *self.recent)))[:MOST_RECENT] if covered else self.recent
        return Past(operation, recent)


@dataclass(frozen=True)
class Setting:
    """What a maker draws from: what exists, whose rules, and which operations the systems can carry out.

    past: what the operations so far did, without those that only observe. wide: from the whole world and the whole
    range, and not from what is there to meet alone; most flaws show where few things meet often. fails_nth: each
    allocation of an operation can be made to fail.
    """

    inventory: Inventory
    semantics: Semantics
    supports: frozenset[type[op.Operation]]
    past: Past = Past()
    wide: bool = True
    fails_nth: bool = False

    @cached_property
    def shared(self) -> tuple[str, ...]:
        """Functions that are livepatched, on which others must agree with the livepatch; not very many."""
        return self.inventory.livepatches[:MOST_RECENT]

    @property
    def batch(self) -> bool:
        """Whether a link may attach to many functions here."""
        return self.semantics.tracing_multi and op.BpfLinkCreate in self.supports


def covered_functions(operation: op.Operation) -> tuple[str, ...]:
    """The functions to which an operation attaches something, as far as it names them, and not very many."""
    found = (name.text for name in names_of(operation, "names") if name.covers)
    return tuple(name for name in islice(found, MOST_RECENT) if not link_pattern(name))


Maker = Callable[[DrawFn, Setting], op.Operation]


@lru_cache(maxsize=4096)
def one_of(values: tuple[Value, ...]) -> SearchStrategy[Value]:
    """A strategy for one of the values; the first is the simplest."""
    return st.sampled_from(values)


@lru_cache(maxsize=32)
def one_in(count: int) -> SearchStrategy[bool]:
    """A strategy that is true once in so many draws."""
    return st.integers(0, count - 1).map(lambda number: number == count - 1)


def pick(draw: DrawFn, values: tuple[Value, ...]) -> Value:
    """Draw one of the values."""
    chosen: Value = draw(one_of(values))
    return chosen


def pick_any(draw: DrawFn, values: Sequence[Value]) -> Value:
    """Draw one of many values, which are not kept."""
    return values[draw(st.integers(0, len(values) - 1))]


def rarely(draw: DrawFn, count: int = 16) -> bool:
    """Draw whether something rare happens, once in so many."""
    return draw(one_in(count))


@lru_cache(maxsize=1)
def argument_words() -> SearchStrategy[int]:
    """A 64-bit argument word: one at the edge of a type, or any."""
    return st.sampled_from(WORDS) | st.integers(-(1 << 63), (1 << 64) - 1)


def a_word(draw: DrawFn, usual: tuple[int, ...]) -> int:
    """Draw one of the usual words; one in three is where 32 or 64 bits end, or any."""
    if not rarely(draw, 3):
        return pick(draw, usual)
    return draw(argument_words()) if rarely(draw, 3) else pick(draw, ENDS)


def arguments_for(draw: DrawFn, prototype: Prototype | None) -> tuple[int, ...]:
    """Draw the words of a call; three for a function without a prototype."""
    number = 3 if prototype is None else len(prototype.slots)
    if number and rarely(draw, 8):
        return tuple(draw(st.lists(argument_words(), min_size=number, max_size=number)))
    return tuple(islice(cycle(pick(draw, PATTERNS)), number))


def a_trampoline(draw: DrawFn) -> str:
    """Draw a direct trampoline."""
    return f"T{draw(st.integers(4, 40))}" if rarely(draw, 8) else pick(draw, TRAMPOLINES)


def numbered(letter: str, first: int = 1) -> Iterator[str]:
    """The names of one kind from a number on, without end."""
    return (f"{letter}{number}" for number in count(first))


def fresh(draw: DrawFn, pool: tuple[str, ...], used: Collection[str]) -> str:
    """Draw the first name that is not in use, one behind the pool if need be; rarely any name of the pool."""
    return pick(draw, pool) if rarely(draw) else next(unused(pool, used))


def unused(pool: tuple[str, ...], used: Collection[str]) -> Iterator[str]:
    """The names that are not in use, those of the pool first, without end."""
    beyond = numbered(pool[0].rstrip("0123456789"), len(pool) + 1)
    return (name for name in chain(pool, beyond) if name not in used)


def all_used(pool: tuple[str, ...], used: Collection[str]) -> bool:
    """Whether as many names are in use as the pool has, so that what exists is mostly used again."""
    return len(used) >= len(pool)


def existing(draw: DrawFn, pool: tuple[str, ...], used: tuple[str, ...]) -> str:
    """Draw a name that is in use; rarely any name."""
    return pick(draw, used if used and not rarely(draw) else pool)


def favourites(world: World) -> tuple[str, ...]:
    """A few functions of a world: those with a favourite name, or else some spread over all of it."""
    known = tuple(name for name in FAVOURITES if name in world.by_name)
    stride = max(1, len(world.functions) // MOST_FUNCTIONS)
    if FAVOURITES[0] in known:
        return known
    return tuple(function.name for function in world.functions[::stride][:MOST_FUNCTIONS])


FEW_HOOKS = 4
"""Where a larger part of the functions are hooks than one in so many, they are met without being sought."""


@lru_cache(maxsize=64)
def hooks_of(world: World) -> tuple[str, ...]:
    """The functions that LSM programs may be attached to, where these are few."""
    found = tuple(function.name for function in world.functions if "lsm" in function.attributes)
    return () if len(found) * FEW_HOOKS > len(world.functions) else found


@lru_cache(maxsize=4096)
def _pool(
    favourites: tuple[str, ...], forms: tuple[str, ...], touched: tuple[str, ...], shared: tuple[str, ...]
) -> tuple[str, ...]:
    """The functions to draw from. Those used last, and those that are shared, occur several times; one is nowhere."""
    known = [name for name in touched if name != UNKNOWN]
    return (*favourites, *(3 * known), *(3 * shared), *favourites, *forms, UNKNOWN)


def functions_at(at: Setting) -> tuple[str, ...]:
    """The functions to draw from."""
    world = at.inventory.world
    return _pool(favourites(world), _other_forms(world) if at.wide else (), at.past.recent, at.shared)


def is_usual(function: Function) -> bool:
    """Whether nothing keeps a program from it, in vmlinux."""
    form = function.prototype
    if form is None or function.btf_id is None or function.module is not None or not function.has_site:
        return False
    return form.describable and form.returns.size <= SLOT_BYTES and function.attributes.isdisjoint({"deny", "noreturn"})


def functions_of(at: Setting, module: str) -> tuple[str, ...]:
    """The functions of a module: all of them, or those to draw from in a narrow example."""
    world = at.inventory.world
    names = world.by_name if at.wide else dict.fromkeys(functions_at(at))
    return tuple(name for name in names if name in world.by_name and world.by_name[name].module == module)


@lru_cache(maxsize=16)
def _other_forms(world: World) -> tuple[str, ...]:
    """The first function of each prototype that no favourite has, as far as there are not very many."""
    found = {world.by_name[name].prototype: "" for name in favourites(world)}
    for function in world.functions:
        found.setdefault(function.prototype, function.name)
    return tuple(filter(None, found.values()))[:MOST_FORMS]


def a_function(draw: DrawFn, at: Setting) -> str:
    """Draw one function; some are any of the world."""
    world = at.inventory.world
    return _anywhere(draw, world) if _goes_beyond(draw, at) else pick(draw, functions_at(at))


def _goes_beyond(draw: DrawFn, at: Setting, large: int = 2) -> bool:
    """Draw whether to go beyond the pools: once in so many where they are a small part of the world, or once in 10."""
    return at.wide and rarely(draw, large if len(at.inventory.world.functions) > PAGE else 10)


def some_functions(draw: DrawFn, at: Setting) -> tuple[str, ...]:
    """Draw one to four functions, rarely one of them twice; rarely a stretch of the world, which may be long."""
    if _goes_beyond(draw, at, 4):
        return _stretch(draw, at.inventory.world)
    drawn = draw(_short_lists(functions_at(at)))
    if at.wide and rarely(draw, 6):
        drawn.append(_anywhere(draw, at.inventory.world))
    return tuple(drawn) if rarely(draw) else tuple(dict.fromkeys(drawn))


@lru_cache(maxsize=4096)
def _short_lists(pool: tuple[str, ...]) -> SearchStrategy[list[str]]:
    return st.lists(one_of(pool), min_size=1, max_size=4)


def _anywhere(draw: DrawFn, world: World) -> str:
    """Draw any function; of a large world mostly one at the edge of something."""
    return world.functions[_place(draw, world)].name


def _place(draw: DrawFn, world: World) -> int:
    if len(world.functions) > PAGE and draw(st.booleans()):
        return pick(draw, _edges(world) if draw(st.booleans()) else _forms(world))
    return draw(st.integers(0, len(world.functions) - 1))


@lru_cache(maxsize=16)
def _edges(world: World) -> tuple[int, ...]:
    """Places in a world: its first and last function, and those of each page and module."""
    functions = world.functions
    last = len(functions) - 1
    pages = (edge for start in range(PAGE, last, PAGE) for edge in (start - 1, start))
    modules = (n for n in range(1, last) if functions[n].module != functions[n - 1].module)
    return (0, last, *pages, *(edge for start in modules for edge in (start - 1, start)))


@lru_cache(maxsize=16)
def _forms(world: World) -> tuple[int, ...]:
    """A place in a world for each prototype with the attributes that go with it."""
    forms = {(f.prototype, f.attributes): place for place, f in reversed(tuple(enumerate(world.functions)))}
    return tuple(forms.values())


def _stretch(draw: DrawFn, world: World) -> tuple[str, ...]:
    """Draw functions that stand beside each other."""
    start = _place(draw, world)
    return tuple(function.name for function in world.functions[start : start + pick(draw, STRETCHES)])


def a_glob(draw: DrawFn, at: Setting, usual: tuple[str, ...] = GLOBS) -> str:
    """Draw a glob; some are made of a function's name, or are its number."""
    if not _goes_beyond(draw, at):
        return pick(draw, usual)
    place = _place(draw, at.inventory.world)
    name = at.inventory.world.functions[place].symbol
    parts = (name, f"{name[:-1]}*", f"*{name[-2:]}", f"{name[:-1]}?", f"{name[0]}*{name[-1]}")
    number = f"{place + 1}"
    return pick(draw, (*parts, number, number))


def a_line(draw: DrawFn, at: Setting, module: str | None = None) -> str:
    """Draw a line GLOB:mod:MODULE of a filter file; without a module given, mostly for one that is to come."""
    if module is None and rarely(draw, 30):
        return pick(draw, COMMANDS)
    modules = at.inventory.world.modules[:MOST_FUNCTIONS]
    gone = tuple(name for name in modules if name not in at.inventory.modules)
    named = module or pick(draw, gone if gone and not rarely(draw, 3) else (*(4 * modules), *ODD_MODULES, UNKNOWN))
    if at.wide and (functions := functions_of(at, named)) and draw(st.booleans()):
        name = pick_any(draw, functions)
        return f"{pick(draw, (name, f'{name[:-1]}*', f'{name[:-1]}?'))}:mod:{named}"
    return f"{pick(draw, LINE_GLOBS)}:mod:{named}"
