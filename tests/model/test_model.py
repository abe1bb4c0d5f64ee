"""The reference model by itself: its size, the seeds, and what must hold of its state whatever is done to it."""

from __future__ import annotations

import ast
import io
import tokenize
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import model
from model.rules import CITATIONS, Citations
from model.sites import covering, sites
from model.state import State, initial
from model.system import step
from properties.hunt.strategies import operations
from spec.alphabet import alphabet
from spec.answers import answers
from spec.border import refusal
from spec.following import follow
from spec.inventory import Inventory
from spec.operations import Call, Fail, ObserveSite
from spec.outcomes import Errno
from spec.semantics import PRESETS, Semantics
from spec.worlds import synthetic

ROOT = Path(model.__file__).parent
MOST_LINES = 2600
STEPS = 25


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank line, comment or docstring."""
    text = path.read_text()
    kept = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
        for line in range(token.start[0], token.end[0] + 1)
        if token.string
    }
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            kept -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(kept)


def test_model_is_short_enough_to_review() -> None:
    """The model has fewer than 2,600 lines of code."""
    assert sum(map(code_lines, ROOT.glob("*.py"))) < MOST_LINES


@pytest.mark.parametrize("semantics", PRESETS.values(), ids=PRESETS)
@given(data=st.data())
@settings(max_examples=40)
def test_state_is_consistent_after_every_step(semantics: Semantics, data: st.DataObject) -> None:
    """Whatever is done, the state's parts agree with one another, and a failed operation changes none of them."""
    world = synthetic()
    state, inventory = initial(world, semantics), Inventory.at_start(world, semantics)
    supports = alphabet(semantics) - {Call, ObserveSite}
    allowed = answers(semantics, world)
    CITATIONS.set(Citations())
    for _ in range(STEPS):
        operation = data.draw(operations(inventory, semantics, supports).filter(lambda drawn: type(drawn) in supports))
        CITATIONS.get().begin()
        before = state
        outcome = refusal(operation, inventory)
        if outcome is None:
            state, outcome = step(state, operation)
        inventory = follow(inventory, operation, outcome)

        assert str(outcome) in allowed[operation.verb]
        if isinstance(outcome, Errno) or isinstance(operation, Fail):
            assert what_stays(before) == what_stays(state)
        check_consistent(state)


def what_stays(state: State) -> State:
    """The state without what a failure may change: points reached, the ops of DIRECT-7, and death."""
    ops = {
        key: replace(ops, func=False, direct=False, save_regs=False, permanent=False) for key, ops in state.ops.items()
    }
    return replace(state, ops=ops, armed={}, dead=False)


def check_consistent(state: State) -> None:
    """Checklist 1, 2 and 7 of what must hold after every operation."""
    assert state.passes == ()
    assert len(state.ops_list) == len(set(state.ops_list))
    assert set(state.ops_list) <= state.ops.keys()
    assert state.direct_functions.keys().isdisjoint(state.images)
    assert state.images.keys() <= state.trampolines.keys()
    for function, trampoline in state.trampolines.items():
        assert len(trampoline.nodes) <= state.semantics.max_links
        assert not (trampoline.extension and trampoline.nodes)
        # The image of a detach that failed stays, an extension may come there (IMAGE-2, LINK-5).
        assert function in state.images or trampoline.extension
    for function, site in sites(state).items():
        assert len(covering(state, function)) == site.count
        assert sum(ops.direct for ops in covering(state, function)) <= 1
        assert sum(ops.ipmodify for ops in covering(state, function)) <= 1
        assert (site.entry is None) == (not site.direct)


@pytest.mark.parametrize("name", [each.name for each in fields(State)])
def test_the_value_of_a_state_has_every_field(name: str) -> None:
    """Two states that differ in one are two, unless it is what is the same throughout a run, or the costs."""
    state = initial(synthetic(), PRESETS["linux-7.3"])
    other = replace(state, **{name: "another"})

    assert (state.value() == other.value()) is (name in {"world", "semantics", "cost", "patched", "former"})
