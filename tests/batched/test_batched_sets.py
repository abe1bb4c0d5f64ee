"""The class algebra of `batched`: which programs are on which functions, in bulk, against plain lists."""

from __future__ import annotations

import random

import numpy as np
import pytest

from impl.batched import ProgramSets
from impl.batched.sets import LISTS

FUNCTIONS = 40
EMPTY: tuple[tuple[int, ...], ...] = ((), (), ())
KINDS = tuple(LISTS)


class Lists:
    """The same as ProgramSets, as three lists of (program, node) a function, newest first."""

    def __init__(self) -> None:
        self.of: list[list[list[tuple[int, int]]]] = [[[], [], []] for _ in range(FUNCTIONS)]

    def attach(self, functions: list[int], kind: str, program: int, nodes: list[int]) -> None:
        """Put a node at the head of its kind's lists."""
        for function, node in zip(functions, nodes, strict=True):
            for number in LISTS[kind]:
                self.of[function][number].insert(0, (program, node))

    def detach(self, functions: list[int], program: int) -> None:
        """Take a program off all lists."""
        for function in functions:
            self.of[function] = [[entry for entry in each if entry[0] != program] for each in self.of[function]]

    def contents(self) -> list[tuple[tuple[int, ...], ...]]:
        """The nodes of each function's lists."""
        return [tuple(tuple(node for _, node in each) for each in lists) for lists in self.of]


def contents(sets: ProgramSets) -> list[tuple[tuple[int, ...], ...]]:
    return [tuple(tuple(each) for each in sets.content(int(number))) for number in sets.of]


def node(sets: ProgramSets, program: int, kind: str) -> int:
    return int(sets.new_nodes(program, LISTS[kind])[0])


def assert_interned(sets: ProgramSets) -> None:
    """Equal contents are one class, and no class is counted that has no function."""
    shown = contents(sets)
    distinct = set(shown)

    assert len(distinct) == len(set(sets.of.tolist()))
    assert len(distinct - {EMPTY}) == sets.alive()


def indices(*functions: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    return np.array(functions, np.intp)


def test_overlapping_sets_split_into_what_occurs_and_merge_back() -> None:
    """Three overlapping links make five classes; detaching leaves those that still occur, in whatever order."""
    sets = ProgramSets(FUNCTIONS)
    for program, functions in enumerate(([1, 2, 3], [2, 3, 4], [3, 4, 5]), 1):
        sets.attach(indices(*functions), node(sets, program, "fentry"))

    assert 5 == sets.alive()

    sets.detach(indices(2, 3, 4), 2)

    assert 3 == sets.alive()
    assert sets.of[1] == sets.of[2]
    assert sets.of[4] == sets.of[5]

    sets.detach(indices(1, 2, 3), 1)
    sets.detach(indices(3, 4, 5), 3)

    assert 0 == sets.alive()
    assert [EMPTY] * FUNCTIONS == contents(sets)


def test_each_list_is_newest_first_and_its_order_is_content() -> None:
    """TRAMP-1: the same programs in another order are another class; across kinds the order of attaching is none."""
    sets = ProgramSets(FUNCTIONS)
    first, second, exit_ = node(sets, 1, "fentry"), node(sets, 2, "fentry"), node(sets, 3, "fexit")
    for function, order in enumerate(([first, second, exit_], [second, first, exit_], [exit_, first, second])):
        for each in order:
            sets.attach(indices(function), each)

    assert ([second, first], [], [exit_]) == sets.content(int(sets.of[0]))
    assert sets.of[0] != sets.of[1]
    assert sets.of[0] == sets.of[2]


def test_a_session_stands_in_two_lists() -> None:
    """TRAMP-1: fsession is in the fentry and the fexit list, and counts twice."""
    sets = ProgramSets(FUNCTIONS)
    session = node(sets, 1, "fsession")
    sets.attach(indices(0), session)

    assert ([session], [], [session]) == sets.content(int(sets.of[0]))
    assert 2 == sets.weight[sets.of[0]]


def test_a_held_class_outlives_its_functions() -> None:
    """IMAGE-2: a class that an old image is made of stays, and is the same class when its content comes back."""
    sets = ProgramSets(FUNCTIONS)
    one = node(sets, 1, "fentry")
    sets.attach(indices(0), one)
    kept = sets.of[indices(0)]
    sets.hold(kept)
    sets.detach(indices(0), 1)

    assert ([one], [], []) == sets.content(int(kept[0]))

    sets.attach(indices(0), one)

    assert kept[0] == sets.of[0]

    sets.detach(indices(0), 1)
    sets.release(kept)

    assert 0 == sets.alive()


@pytest.mark.parametrize("seed", range(12))
def test_random_attaches_and_detaches_agree_with_lists(seed: int) -> None:
    """Any sequence, with one node or one for each function, gives the contents that lists give, each one class."""
    choose = random.Random(seed)
    sets, lists = ProgramSets(FUNCTIONS), Lists()
    kinds = {program: choose.choice(KINDS) for program in range(1, 13)}
    nodes = {program: sets.new_nodes(program, LISTS[kind], 3) for program, kind in kinds.items()}
    attached: dict[int, list[int]] = {}
    for _ in range(60):
        program = choose.choice(list(kinds))
        if program in attached:
            functions = attached.pop(program)
            sets.detach(indices(*functions), program)
            lists.detach(functions, program)
        else:
            functions = attached[program] = choose.sample(range(FUNCTIONS), choose.randint(1, FUNCTIONS))
            each = [int(choose.choice(nodes[program])) for _ in functions]
            if choose.random() < 0.5:
                each = [each[0]] * len(each)
                sets.attach(indices(*functions), each[0])
            else:
                sets.attach_each(indices(*functions), np.array(each, np.int32))
            lists.attach(functions, kinds[program], program, each)

        assert lists.contents() == contents(sets)

        assert_interned(sets)


def test_ten_thousand_classes_are_exact_and_vanish() -> None:
    """Sixteen links on random halves of 20,000 functions make one class for each combination that occurs."""
    size, links = 20_000, 16
    sets = ProgramSets(size)
    halves = np.random.default_rng(5).random((links, size)) < 0.5
    for program, half in enumerate(halves, 1):
        sets.attach(np.flatnonzero(half), node(sets, program, KINDS[program % 3]))
    combinations = len(np.unique(halves, axis=1).T)

    assert 10_000 < combinations
    assert combinations == len(np.unique(sets.of))

    for program in np.random.default_rng(6).permutation(links) + 1:
        sets.detach(np.flatnonzero(halves[program - 1]), int(program))

    assert 0 == sets.alive()
