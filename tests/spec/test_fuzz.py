"""Untrusted input, damaged: each mutation of a valid file is used or refused in one sentence, and nothing else happens.

Every mutation comes from a generator with a fixed seed, so a failure names a number that makes it again.
"""

from __future__ import annotations

import copy
import gzip
import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from properties.plan.probes import parse_probe
from properties.systems.naming import world_named
from spec import populations
from spec.errors import BadInputError
from spec.operations import FLAVOURS, KINDS, OPERATIONS, POINTS
from spec.seeds import parse_operation, parse_seed, print_operation, print_seed, read_seed
from spec.worlds import synthetic

ROOT = Path(__file__).parents[2]
SEEDS = sorted((ROOT / "properties" / "runs" / "seeds").rglob("*.seed"))
SEED_ROUNDS, SEED_MUTATIONS = 16, 125
POPULATION_ROUNDS, POPULATION_MUTATIONS = 8, 250
REPLAYED = 10

# One line for every verb, so that mutations reach every form of field.
EVERY_VERB = """# every verb once
world synthetic # or a file
semantics linux-6.1
---
ftrace_ops o1 save_regs dynamic
ftrace_set_filter_ip o1 foo1
ftrace_set_filter_ips o1 foo1 foo2 reset
ftrace_set_filter o1 foo[12]* reset
ftrace_set_notrace o1 !foo2
register_ftrace_function o1 -> 0
unregister_ftrace_function o1 -> 0
ftrace_free_filter o1
register_ftrace_direct foo1 T1 -> 0
modify_ftrace_direct foo1 T1 T2 -> 0
unregister_ftrace_direct foo1 T2 -> -ENODEV
register_ftrace_direct_multi o2 T1 -> -EBUSY WARN
modify_ftrace_direct_multi o2 T2
unregister_ftrace_direct_multi o2 T2 free
update_ftrace_direct_add o3 foo1=T1 foo2=T2
update_ftrace_direct_mod o3 foo1=T3
update_ftrace_direct_del o3 foo1=T3 foo2=T2
register_ftrace_graph g filter=foo* function=outer notrace=foo2 depth=3
call outer -1 -> graph>g fentry:p1 body foo1[ body =1 ] <graph:g =3
set_ftrace_filter g foo1
set_ftrace_notrace g
set_graph_function g !outer
set_graph_notrace g foo*
ftrace_enabled 1
unregister_ftrace_graph g
livepatch foo1
unlivepatch foo1
bpf_prog_load p1 fexit target=foo1 sleepable func_ip
bpf_prog_load p2 fmod_ret returns=0x10 calls=foo2
bpf_raw_tracepoint_open l1 p1
bpf_raw_tracepoint_open l2 p2 foo1 cookie=7
bpf_link_create l3 p3 foo1:5 foo2 bar*:18446744073709551615
bpf_link_detach l1
init_module mod1
delete_module mod1
site foo1 -> trampoline:fentry:p1,fexit:p2
fail jit_charge 3
settle
task t1 foo2 1 2
step t1 3
step t1 to=body
finish t1
poke register_ftrace_function o1
poke_step
await bpf_link_detach l1 -> pending
step t1 to=before:p1 how=sleep -> before:p1
grace_period rcu_tasks_rude
"""

TOKENS = [
    *OPERATIONS,
    *KINDS,
    *POINTS,
    *FLAVOURS,
    *("->", "---", "#", "0", "-EBUSY", "WARN", "nop", "=1", "absent", "body", "]", "foo1[", "world", "semantics"),
    *("reset", "remove", "multi", "target=", "depth=x", "cookie=-1", "cookie=99999999999999999999", "foo1=T1"),
    *("foo1:", ":", "=", "0x", "0xg", "-0", "--1", "1e9", "\u0661", "\u00a0", "\u2028", "\x00", "\x1b[2J", "\ufeff"),
    *("\U0001f600", "a" * 5000),
]

Mutation = Callable[[random.Random, bytes], bytes]


def flipped(rng: random.Random, data: bytes) -> bytes:
    """Some bits are wrong."""
    found = bytearray(data)
    for _ in range(rng.randrange(1, 4) if found else 0):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def truncated(rng: random.Random, data: bytes) -> bytes:
    """The end, or the start, is missing."""
    at = rng.randrange(len(data) + 1)
    return data[:at] if rng.random() < 0.7 else data[at:]


def spliced(rng: random.Random, data: bytes) -> bytes:
    """A piece of the file stands once more, elsewhere."""
    start, at = rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)
    return data[:at] + data[start : start + rng.randrange(1, 60)] + data[at:]


def lines_moved(rng: random.Random, data: bytes) -> bytes:
    """Lines are swapped, lost or doubled."""
    lines = data.split(b"\n")
    for _ in range(rng.randrange(1, 4)):
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        match rng.randrange(3):
            case 0:
                lines[at], lines[other] = lines[other], lines[at]
            case 1:
                lines.insert(at, lines[other])
            case _ if len(lines) > 1:
                del lines[at]
    return b"\n".join(lines)


def tokens_edited(rng: random.Random, data: bytes) -> bytes:
    """Words are replaced, lost, or added, in places where they mean something else."""
    words = re.split(rb"( |\n)", data)
    for _ in range(rng.randrange(1, 4)):
        token = rng.choice(TOKENS).encode()
        at = rng.randrange(len(words))
        words[at : at + rng.randrange(2)] = [token] if rng.random() < 0.8 else []
        words = words or [token]
    return b"".join(words)


MUTATIONS: tuple[Mutation, ...] = (flipped, truncated, spliced, lines_moved, tokens_edited, tokens_edited)


def mutated(rng: random.Random, data: bytes) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(MUTATIONS)(rng, data)
    return data


def valid_seeds() -> list[bytes]:
    return [EVERY_VERB.encode(), *(path.read_bytes() for path in SEEDS)]


def attempt(use: Callable[..., Any], *arguments: object) -> tuple[Any, str]:
    """What came of it, or None and the text of BadInputError, which is one line."""
    try:
        return use(*arguments), ""
    except BadInputError as error:
        text = str(error)
    assert text.strip()
    assert text == " ".join(text.split("\n")) == " ".join(text.split("\r"))
    return None, text


def test_the_files_that_are_mutated_are_valid() -> None:
    """A fuzzer that starts from broken files tests nothing."""
    seed = parse_seed(EVERY_VERB)

    assert set(OPERATIONS.values()) == {type(step.operation) for step in seed.steps}
    assert all(read_seed(path).steps for path in SEEDS)


@pytest.mark.parametrize("number", range(SEED_ROUNDS))
def test_a_damaged_seed_is_parsed_or_refused_in_one_sentence(tmp_path: Path, number: int) -> None:
    """2,000 mutations of seeds: what is parsed can be printed and parsed again, what is not names the file."""
    rng = random.Random(f"seed {number}")
    path = tmp_path / "damaged.seed"
    files = valid_seeds()
    for _ in range(SEED_MUTATIONS):
        path.write_bytes(mutated(rng, rng.choice(files)))
        seed, mistake = attempt(read_seed, path)
        again = parse_seed(print_seed(seed)) if seed else None

        assert seed is not None or mistake.startswith(str(path))
        assert again is None or [step.operation for step in seed.steps] == [step.operation for step in again.steps]


def test_a_soup_of_words_is_an_operation_or_refused() -> None:
    """20,000 random lines of words that belong to the language, mostly in the wrong places."""
    rng = random.Random(6)
    parsed = 0
    for _ in range(20_000):
        words = [rng.choice(list(OPERATIONS)), *rng.choices([*TOKENS, "o1", "foo1", "p1"], k=rng.randrange(5))]
        operation, _ = attempt(parse_operation, " ".join(words))
        parsed += operation is not None

        assert operation is None or operation == parse_operation(print_operation(operation))
    assert parsed > 500


POPULATION: dict[str, Any] = {
    "kernel": "6.12",
    "release": "6.12.1",
    "source": "made up",
    "types": [["INT", 4, "int"], ["PTR", 8, "void *"], ["STRUCT", 16, "struct pair"], ["VOID", 0, "void"]],
    "functions": [
        {"name": "first", "address": "ffffffff81000100", "btf_id": 1, "args": [], "ret": 3},
        {"name": "second", "address": "ffffffff81000200", "btf_id": 2, "args": [0, 1], "ret": 0},
        {"name": "second", "address": "ffffffff81000200", "btf_id": 2, "args": [0, 1], "ret": 0},
        {"name": "in_b", "address": None, "module": "b", "btf_id": 3, "args": [2], "ret": 0, "attributes": ["deny"]},
        {"name": "printf", "address": "0xffffffff81000300", "btf_id": 4, "args": [1], "ret": 0, "variadic": True},
        {"name": "nameless", "address": None, "module": "a"},
    ],
}
SCRAPS: list[Any] = [
    *(None, True, False, 0, -1, 1, 7, 2**31, 2**64, 2**70, 1.5, float("nan"), float("inf"), 1e308),
    *("", "INT", "second", "x" * 600, "a b", "\u0661", "\ud800", "\n", "6.1", "999.999", "ffffffffffffffffff", "deny"),
    *([], [[]], [0] * 100, {}, {"name": "second"}, ["INT", 4, "int"], ["deny"], [None], [["INT", 4]]),
]


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value, as a container and its key."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, child in items for found in ((value, key), *nodes(child))]


def restructured(rng: random.Random, population: dict[str, Any]) -> dict[str, Any]:
    """The same JSON with values replaced, lost, doubled or under another name."""
    found = copy.deepcopy(population)
    for _ in range(rng.choice((1, 1, 2, 4))):
        places = nodes(found)
        if not places:
            break
        container, key = rng.choice(places)
        match rng.randrange(4):
            case 0:
                del container[key]
            case 1 if isinstance(container, list):
                container.insert(key, copy.deepcopy(rng.choice((container[key], *SCRAPS))))
            case 2 if isinstance(container, dict):
                container[rng.choice(("name", "btf_id", "args", "surprise"))] = container.pop(key)
            case _:
                container[key] = copy.deepcopy(rng.choice(SCRAPS))
    return found


def damaged_population(rng: random.Random) -> bytes:
    data = json.dumps(POPULATION, indent=rng.choice((None, 1))).encode()
    match rng.randrange(5):
        case 0:
            return mutated(rng, data)
        case 1:
            return mutated(rng, gzip.compress(data, mtime=0))
        case 2:
            return gzip.compress(mutated(rng, data), mtime=0)
        case _:
            return json.dumps(restructured(rng, POPULATION)).encode()


@pytest.mark.parametrize("number", range(POPULATION_ROUNDS))
def test_a_damaged_population_is_loaded_or_refused_in_one_sentence(tmp_path: Path, number: int) -> None:
    """2,000 mutations of a population, compressed or not: what is loaded is a world, what is not names the file."""
    rng = random.Random(f"population {number}")
    path = tmp_path / "damaged.json"
    for _ in range(POPULATION_MUTATIONS):
        path.write_bytes(damaged_population(rng))
        world, mistake = attempt(populations.read_population, path)
        functions = world.functions if world else ()

        assert world is not None or mistake.startswith(str(path))
        assert len(functions) == len({function.name for function in functions})
        assert all(function.prototype.slots is not None for function in functions if function.prototype)


@pytest.mark.parametrize("make", [parse_probe, world_named], ids=["pattern", "world"])
def test_a_word_of_the_command_line_is_understood_or_refused(make: Callable[..., Any]) -> None:
    """Patterns and names of worlds, 2,000 random ones each, are sentences when they are wrong."""
    rng = random.Random(7)
    pieces = ["fentry", "kfunc", ":", ":", "foo*", "*", "[", "!", "1", "..", "/", "\x00", "\ud800", "\x1b", "synthetic"]
    arguments = (1, synthetic()) if make is parse_probe else ()
    for _ in range(2_000):
        made, mistake = attempt(make, "".join(rng.choices(pieces, k=rng.randrange(5))), *arguments)

        assert (made is None) == bool(mistake)


def replayed(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "properties", "replay", str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(REPLAYED))
def test_the_front_door_replays_a_damaged_seed_or_exits_with_2(tmp_path: Path, number: int) -> None:
    """The command answers 0, 1 or 2 and never a traceback; 2 comes with a sentence that names the file."""
    rng = random.Random(f"replay {number}")
    path = tmp_path / "damaged.seed"
    data = rng.choice(valid_seeds())
    path.write_bytes(mutated(rng, data) if number % 2 else lines_moved(rng, data))
    done = replayed(path)

    assert done.returncode in {0, 1, 2}, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode != 2 or path.name in done.stderr
