"""What makers share: pools of names, biased draws, and the setting in which an operation is drawn."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from spec import operations as op
from spec.globs import link_pattern
from spec.inventory import Inventory
from spec.semantics import Semantics
from spec.worlds import World

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
MOST_RECENT = 6
MOST_CALLING_PROGRAMS = 2

GLOBS = tuple("foo1 foo* *2 foo[12] bar* bar1 foo? bar? out* *a* * 5 nowhere* 2 0x3 06x".split())
NOTRACE_GLOBS = tuple("foo1 foo2 foo[12] bar* *2 foo* !foo1 nowhere".split())
PATTERNS = ((1, 2, 3), (0,), (-1,), (1 << 63, 255, 256), ((1 << 32) + 1, 128, -2, 1 << 31))
COOKIES = (1, 2, 3, (1 << 64) - 1)
RETURNS = (None, 1, 0, -22, 1 << 32)


@dataclass(frozen=True)
class Setting:
    """What a maker draws from: what exists, whose rules, and which operations the systems can carry out.

    past: the operations so far, without those that only observe.
    """

    inventory: Inventory
    semantics: Semantics
    supports: frozenset[type[op.Operation]]
    past: tuple[op.Operation, ...] = ()

    @cached_property
    def recent(self) -> tuple[str, ...]:
        """The functions that were covered last, newest first, and not very many."""
        found: dict[str, None] = {}
        for operation in reversed(self.past):
            found |= dict.fromkeys(covered_functions(operation))
            if len(found) >= MOST_RECENT:
                break
        return tuple(found)[:MOST_RECENT]

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
    found = (name.text for name in op.names_of(operation, "names") if name.covers)
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


def rarely(draw: DrawFn, count: int = 16) -> bool:
    """Draw whether something rare happens, once in so many."""
    return draw(one_in(count))


def fresh(draw: DrawFn, pool: tuple[str, ...], used: tuple[str, ...]) -> str:
    """Draw the first name that is not in use; any name if there is none, and rarely otherwise."""
    free = [name for name in pool if name not in used]
    return free[0] if free and not rarely(draw) else pick(draw, pool)


def all_used(pool: tuple[str, ...], used: Container[str]) -> bool:
    """Whether no name of the pool is free."""
    return all(name in used for name in pool)


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


@lru_cache(maxsize=4096)
def _pool(favourites: tuple[str, ...], touched: tuple[str, ...], shared: tuple[str, ...]) -> tuple[str, ...]:
    """The functions to draw from. Those used last, and those that are shared, occur several times; one is nowhere."""
    known = [name for name in touched if name != UNKNOWN]
    return (*favourites, *(3 * known), *(3 * shared), *favourites, UNKNOWN)


def functions_at(at: Setting) -> tuple[str, ...]:
    """The functions to draw from."""
    return _pool(favourites(at.inventory.world), at.recent, at.shared)


def a_function(draw: DrawFn, at: Setting) -> str:
    """Draw one function."""
    return pick(draw, functions_at(at))


def some_functions(draw: DrawFn, at: Setting) -> tuple[str, ...]:
    """Draw one to four functions, rarely one of them twice."""
    drawn = draw(_short_lists(functions_at(at)))
    return tuple(drawn) if rarely(draw) else tuple(dict.fromkeys(drawn))


@lru_cache(maxsize=4096)
def _short_lists(pool: tuple[str, ...]) -> SearchStrategy[list[str]]:
    return st.lists(one_of(pool), min_size=1, max_size=4)
