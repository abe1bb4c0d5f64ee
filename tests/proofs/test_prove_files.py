"""Image files: those dumped from running kernels are proved; a malformed one is named in a sentence; none hangs."""

from __future__ import annotations

import copy
import json
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import properties.proofs
from properties.proofs.image_files import parse_image, read_image
from properties.proofs.judging import DETACHING, NO_PLACE, judge, variants
from properties.prover.arm64 import ARM64
from properties.prover.detaching import while_detaching
from properties.prover.image import Image
from properties.prover.proving import prove
from properties.prover.show import counterexample_lines, summary
from properties.prover.tools import disassembler
from properties.prover.x86_64 import X86_64
from spec.errors import BadInputError
from tests.support import prover_cases
from tests.support.prove_images import (
    Edit,
    Instruction,
    Trampoline,
    file_of,
    goal_of,
    long,
    of_kinds,
    sized,
)

IMAGES = sorted(Path(properties.proofs.__file__).parent.glob("images/*.json"))
CASES = Path(prover_cases.__file__).parent
GOOD = next(
    path for path in IMAGES if path.name == "linux-6.12.bpf_modify_return_test2.fentry1_fmod_ret1_fexit1.cookie.ip.json"
)

# Their functions' only stack argument is of at most 4 bytes, and its upper half is cleared: clean_stack_garbage().
CLEANED = {
    "linux-6.12.HUF_fillDTableX2ForWeight.fentry1_fexit1",
    "linux-6.12.bpf_modify_return_test2.fentry1_fmod_ret1_fexit1.cookie.ip",
    "linux-6.12.bpf_modify_return_test2.fentry2_fmod_ret2_fexit2",
    "linux-7.3.HUF_fillDTableX2ForWeight.fentry1_fexit1",
    "linux-7.3.bpf_modify_return_test2.fmod_ret1.ip",
}


def test_there_are_images_of_every_kernel() -> None:
    """Three kernels, all arities, and kinds but fsession."""
    dumps = [read_image(path) for path in IMAGES]

    assert {"6.1", "6.12", "7.3.4"} == {dump.kernel for dump in dumps}
    assert set(range(13)) == {len(dump.goal.prototype.arguments) for dump in dumps}
    assert {"fentry", "fexit", "fmod_ret", "lsm"} == {kind for dump in dumps for kind in dump.attached}
    assert {"call", "jmp"} == {dump.goal.site for dump in dumps}


@pytest.mark.parametrize("path", IMAGES, ids=[path.stem for path in IMAGES])
def test_an_image_of_a_running_kernel_is_proved(path: Path) -> None:
    """As it is, and as it is while programs are detached, without a question to z3."""
    dump = read_image(path)
    verdict = prove(dump.image, dump.goal)

    assert ("proved", 1, 0) == (verdict.outcome, verdict.figures.paths, verdict.figures.asked)
    patched = while_detaching(dump.image, dump.goal, X86_64)
    if patched is None:
        assert not dump.goal.calls_original
        assert not dump.kernel.startswith("7")
    else:
        assert ("proved", 0) == ((verdict := prove(*patched)).outcome, verdict.figures.asked)


@pytest.mark.parametrize("path", IMAGES, ids=[path.stem for path in IMAGES])
def test_by_whole_words_only_a_cleaned_argument_differs(path: Path) -> None:
    """In the strict reading all but those with a narrow stack argument are proved, and these differ above it."""
    dump = read_image(path)
    verdict = prove(dump.image, dump.goal.read("strict"))

    assert ("refuted" if path.stem in CLEANED else "proved") == verdict.outcome
    if verdict.counterexample is not None:
        found = verdict.counterexample
        assert "ctx[6] is argument 6" == found.obligation.partition(": ")[2]
        assert found.got is not None
        assert found.expected is not None
        assert found.got == found.expected % (1 << 32)


@pytest.mark.proof
@pytest.mark.parametrize("path", IMAGES, ids=[path.stem for path in IMAGES])
def test_z3_alone_proves_it(path: Path) -> None:
    """With every decision by z3 the images are proved as well."""
    dump = read_image(path)
    verdict = prove(dump.image, dump.goal, thorough=True)

    assert ("proved", 0) == (verdict.outcome, verdict.figures.plain)


def test_what_the_file_leaves_open_is_bound() -> None:
    """Pointers to struct bpf_prog and bpf_tramp_image, and cookies, become constants, which a copy must then have."""
    dump = read_image(GOOD)
    verdict = prove(dump.image, dump.goal)
    pinned = dump.goal.pinned(verdict.bindings)
    other = copy.deepcopy(json.loads(GOOD.read_text()))
    other["image_hex"] = other["image_hex"].replace("007766554433221148", "017766554433221148", 1)
    moved = parse_image(json.dumps(other), "x.json")

    assert {"im", *(f"{what} {place}" for what in ("prog", "cookie") for place in range(3))} == set(verdict.bindings)
    assert 0x1122334455667700 == verdict.bindings["cookie 0"]
    assert "proved" == prove(dump.image, pinned).outcome
    assert "proved" == prove(moved.image, moved.goal).outcome
    assert "refuted" == prove(moved.image, pinned).outcome


def test_cookies_that_the_file_tells() -> None:
    """Each program has its own: those of two programs exchanged are refuted; without the option all are 0."""
    bound = prove((dump := read_image(GOOD)).image, dump.goal).bindings
    first, second, third = (f"{bound[f'cookie {place}']:#x}" for place in range(3))

    def outcome(**fields: Any) -> str:
        dump = parse_image(changed(**fields), "x.json")
        return prove(dump.image, dump.goal).outcome

    assert "proved" == outcome(cookies=[first, second, third])
    assert "refuted" == outcome(cookies=[second, first, third])
    assert "refuted" == outcome(cookies=[first, second, third], options={"ip": True})


def changed(**fields: Any) -> str:
    """The good file with other fields; `...` leaves one out."""
    value = json.loads(GOOD.read_text()) | fields
    return json.dumps({name: field for name, field in value.items() if field is not ...})


def inside(where: str, index: int | None = None, **fields: Any) -> str:
    """The good file with other fields in an object of it."""
    whole = json.loads(GOOD.read_text())
    member = whole[where] if index is None else whole[where][index]
    member |= fields
    return json.dumps(whole)


MALFORMED: dict[str, tuple[str, str]] = {
    "no JSON": ("{", "x.json:1: is no JSON: "),
    "no JSON later": ('{"kernel":\n "6.1",,', "x.json:2: is no JSON: "),
    "deep": ('{"x":' + "[" * 100_000, "x.json: is nested too deeply"),
    "a list": ("[]", "x.json: expected an object, not a list"),
    "a surrogate": ('"\ud800"', "x.json: is not UTF-8 text"),
    "no image": (changed(image_hex=...), "x.json: image_hex: is missing"),
    "half a byte": (changed(image_hex="abc"), "x.json: image_hex: expected a string of hexadecimal digits, two a byte"),
    "a number for digits": (changed(image_hex=5), "x.json: image_hex: expected a string of hexadecimal digits"),
    "an empty image": (changed(image_hex=""), "x.json: image_hex: expected 1 to 65536 bytes"),
    "a huge image": (changed(image_hex="90" * 65537), "x.json: image_hex: expected 1 to 65536 bytes"),
    "used too much": (changed(used_bytes=4096), "x.json: used_bytes: expected at most 470, the bytes of image_hex"),
    "used nothing": (changed(used_bytes=0), "x.json: used_bytes: expected an integer >= 1"),
    "true for a number": (changed(used_bytes=True), "x.json: used_bytes: expected an integer, not true or false"),
    "a fraction": (changed(used_bytes=4.0), "x.json: used_bytes: expected an integer, not a float"),
    "a bare address": (changed(image_address="ffff"), "x.json: image_address: expected an address such as"),
    "a number for an address": (changed(image_address=5), "x.json: image_address: expected an address such as"),
    "the end of memory": (
        changed(image_address="0xffffffffffffffff"),
        "x.json: image_address: must be in the kernel's text",
    ),
    "unprintable": (changed(function="\x1b"), "x.json: function: expected a string of printable ASCII characters"),
    "another architecture": (changed(arch="mips"), "x.json: arch: the prover knows x86-64 and arm64, not 'mips'"),
    "no architecture": (changed(arch=None), "x.json: arch: expected a string, not null"),
    "no kind": (changed(attach_order=[]), "x.json: attach_order: expected a list of length >= 1"),
    "another kind": (
        changed(attach_order=["fexit", "kprobe"]),
        "x.json: attach_order[1]: expected one of fentry, fexit, fmod_ret, fsession, lsm",
    ),
    "too many kinds": (changed(attach_order=["fexit"] * 257), "x.json: attach_order: expected a list of length <= 256"),
    "too few programs": (changed(programs=[]), "x.json: programs: has 0 of the 3 programs in attach_order"),
    "unplaced": (inside("programs", 1, name="bpf_prog_x"), "x.json: programs[1].name: must end in its place"),
    "misplaced": (
        inside("programs", 1, name="p_c1_fexit"),
        "x.json: programs[1].name: attach_order has no fexit in place 1",
    ),
    "out of place": (
        inside("programs", 1, name="p_c7_fexit"),
        "x.json: programs[1].name: attach_order has no fexit in place 7",
    ),
    "twice in a place": (
        inside("programs", 1, name="p_c0_fentry"),
        "x.json: programs[1].name: two programs have the same",
    ),
    "an argument too wide": (inside("args", 0, size=17), "x.json: args[0].size: expected an integer <= 16"),
    "an argument of nothing": (inside("args", 0, size=0), "x.json: args[0]: expected a size of 0 for VOID"),
    "a void argument": (inside("args", 0, kind="VOID"), "x.json: args[0]: expected a size of 0 for VOID"),
    "an argument of void": (inside("args", 0, kind="VOID", size=0), "x.json: args: expected arguments of 1 byte"),
    "another type": (inside("args", 0, kind="LIST"), "x.json: args[0].kind: expected one of ARRAY, CONST, DATASEC"),
    "a struct returned": (inside("ret", kind="STRUCT"), "x.json: args: no trampoline can serve this prototype"),
    "no call": (
        changed(function_prologue_bytes="90" * 16),
        "x.json: function_prologue_bytes: there is no call or jmp",
    ),
    "a short prologue": (changed(function_prologue_bytes="e8"), "x.json: fentry_offset: expected at most 1, the"),
    "far before it": (changed(fentry_offset=-1), "x.json: fentry_offset: expected an integer >= 0"),
    "far into it": (changed(fentry_offset=17), "x.json: fentry_offset: expected at most 16, the prologue's bytes"),
    "a helper twice": (inside("calls", 1, sym="__bpf_tramp_exit"), "x.json: calls[19].sym: __bpf_tramp_exit has two"),
    "calls are numbers": (changed(calls=[5]), "x.json: calls[0]: expected an object, not an integer"),
    "no options": (changed(options=None), "x.json: options: expected an object, not null"),
    "an option": (changed(options={"ip": 1}), "x.json: options.ip: expected true or false, not an integer"),
    "flags": (changed(options={"flags": "16"}), "x.json: options.flags: expected an integer, not a string"),
    "many flags": (changed(options={"flags": 1 << 32}), "x.json: options.flags: expected an integer <= 4294967295"),
    "cookies": (changed(cookies=[1, 2, 3]), "x.json: cookies[0]: expected an address such as '0xffffffff81000000'"),
    "too few cookies": (changed(cookies=["0x1"]), "x.json: cookies: has 1 for 3 programs in attach_order"),
    "no lines": (changed(enabled_functions=[5]), "x.json: enabled_functions[0]: expected a string, not an integer"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_named_with_its_mistake(case: str) -> None:
    """One sentence tells the file, the field, and the mistake."""
    text, sentence = MALFORMED[case]
    with pytest.raises(BadInputError) as caught:
        parse_image(text, "x.json")

    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a folder, and one that is no text or too large are named as well."""
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe")
    large = tmp_path / "large.json"
    large.write_bytes(b" " * (1 << 22 | 1))
    for path, mistake in (
        (tmp_path / "none.json", "cannot be read: No such file or directory"),
        (tmp_path, "cannot be read: Is a directory"),
        (binary, "is not UTF-8 text"),
        (large, "is larger than 4194304 bytes"),
    ):
        with pytest.raises(BadInputError) as caught:
            read_image(path)

        assert f"{path}: {mistake}" == str(caught.value)


def test_how_the_site_reaches_the_image() -> None:
    """By its own byte; where ftrace stands at the site, as its list of direct calls says; and who shares it."""
    whole = json.loads(GOOD.read_text())
    lines = ["f (2) R I D   M \ttramp: x", "\tdirect-->y"]
    jumps = ["f (2) R   D   M \ttramp: x", "\tdirect(jmp)-->y"]
    elsewhere = whole["function_prologue_bytes"].replace("e857ce", "e858ce")

    def goal(**fields: Any) -> Any:
        return parse_image(changed(**fields), "x.json").goal

    assert ("call", False) == ((made := goal()).site, made.shares_ipmodify)
    assert "jmp" == goal(function_prologue_bytes=whole["function_prologue_bytes"].replace("e857", "e957")).site
    assert "call" == goal(enabled_functions=jumps).site
    assert "jmp" == goal(enabled_functions=jumps, function_prologue_bytes=elsewhere).site
    assert ("call", True) == ((made := goal(enabled_functions=lines)).site, made.shares_ipmodify)


ARM = sorted((Path(__file__).parents[1] / "support" / "images").glob("arm64.*.json"))


def test_the_file_tells_the_architecture() -> None:
    """Without the field it is x86-64; an image of arm64 is judged by arm64's rules, and by no others."""
    fentry, fexit = map(read_image, ARM)
    broken = json.loads(ARM[0].read_text())
    # str x1, [sp, 0x20] becomes str x2.
    broken["image_hex"] = broken["image_hex"].replace("e11300f9", "e21300f9")
    verdict = variants(parse_image(json.dumps(broken), "x.json"))[0].prove()

    assert X86_64 is parse_image(changed(arch=...), "x.json").architecture
    assert X86_64 is parse_image(changed(arch="x86-64"), "x.json").architecture
    assert ARM64 is fentry.architecture is fexit.architecture
    assert ["proved"] == [variant.prove().outcome for variant in variants(fentry)]
    assert ["proved", "proved"] == [variant.prove().outcome for variant in variants(fexit)]
    assert "refuted: fentry 1: ctx[1] is argument 1" == summary(verdict)
    with pytest.raises(BadInputError, match="x.json: image_address: must be in the kernel's text, from 0xffff8000"):
        parse_image(changed(arch="arm64"), "x.json")


def outcome(text: str) -> str:
    """The verdict on the image of a file, as it was built, with the obligation that is broken."""
    return summary(variants(parse_image(text, "x.json"))[0].prove()).partition(",")[0]


def pointed(**bound: int) -> str:
    """The good file with pointers of programs and image, as the image has them, but for those that are given."""
    verdict = prove(read_image(GOOD).image, read_image(GOOD).goal)
    whole = json.loads(GOOD.read_text())
    for listed in whole["programs"]:
        place = re.search(r"_c([0-9])_", listed["name"])
        assert place is not None
        listed |= {"pointer": hex(bound.get(f"prog{place[1]}", verdict.bindings[f"prog {place[1]}"]))}
    return json.dumps(whole | {"im": hex(bound.get("im", verdict.bindings["im"]))})


def test_pointers_that_the_file_tells() -> None:
    """A file that tells the pointers of programs and image has them demanded: none may change places with another."""
    bound = prove(read_image(GOOD).image, read_image(GOOD).goal).bindings
    swapped = pointed(prog0=bound["prog 1"], prog1=bound["prog 0"])

    assert "proved" == outcome(pointed())
    assert "refuted: fentry 1: enter: its program is passed" == outcome(swapped)
    assert "refuted: tramp_enter: its image is passed" == outcome(pointed(im=bound["im"] + 8))


def test_who_may_sleep() -> None:
    """With the flag some program must enter as one that may sleep; where the file tells which, these and no others."""
    flags = {"cookie": True, "ip": True, "flags": 16}
    told = json.loads(GOOD.read_text())
    for listed in told["programs"]:
        listed |= {"sleepable": False}
    none = json.dumps(told | {"options": flags})
    one = json.loads(changed(options=flags))
    one["programs"][0]["sleepable"] = False
    told["programs"][0]["sleepable"] = True

    assert "refuted: some program is entered as one that may sleep" == outcome(changed(options=flags))
    assert "refuted: some program is entered as one that may sleep" == outcome(json.dumps(one))
    assert "proved" == outcome(none)
    with pytest.raises(BadInputError, match="x.json: calls: has no __bpf_prog_enter_sleepable_recur, which an"):
        outcome(json.dumps(told))


def test_a_helper_that_is_not_listed_is_bad_input() -> None:
    """Where `calls` does not tell an address, nothing can be demanded of the call."""
    whole = json.loads(GOOD.read_text())
    for name in ("__bpf_tramp_enter", "__bpf_tramp_exit", "__bpf_prog_enter_recur", "__bpf_prog_exit_recur"):
        calls = [call for call in whole["calls"] if call["sym"] != name]
        with pytest.raises(BadInputError, match=f"x.json: calls: has no {name}, which an image of"):
            parse_image(changed(calls=calls), "x.json")


RETPOLINE = CASES / "wrong-refuted-01-return-thunk.json"


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("__x86_return_thunk", "proved"),
        ("srso_alias_return_thunk", "proved"),
        ("call_depth_return_thunk", "proved"),
        ("its_return_thunk", "proved"),
        ("__x86_indirect_thunk_rax", "refuted: leave: the caller is reached"),
    ],
)
def test_a_return_thunk_returns(symbol: str, expected: str) -> None:
    """A jump to what `calls` names as one of the return thunks is a return."""
    assert expected == outcome(RETPOLINE.read_text().replace("__x86_return_thunk", symbol))


def test_a_kernel_that_counts_calls() -> None:
    """`sarq $5` on one per-CPU variable before calls is allowed; which one the file may say."""
    goal = goal_of(long(3), *of_kinds("fentry", "fexit"))
    count, other = (bytes.fromhex(f"6548c13c25{place}05") for place in ("c8a10300", "c0a10300"))
    image = Trampoline(goal).image(before_calls(count))
    mixed = Trampoline(goal).image(before_calls(count, count, other))
    told = json.loads(file_of(goal, image)) | {"counters": {"__x86_call_depth": "0x3a1c0"}}

    assert "proved" == outcome(file_of(goal, image))
    assert "refuted: no load outside the frame and the arguments" == outcome(file_of(goal, mixed))
    assert "refuted: no load outside the frame and the arguments" == outcome(json.dumps(told))
    for code in ("6548c12425c8a1030005", "6548ff0425c8a10300", "6548c72425c8a1030000000000"):
        assert outcome(file_of(goal, Trampoline(goal).image(before_calls(count, bytes.fromhex(code))))) != "proved"


def before_calls(*codes: bytes) -> Edit:
    """Puts one of these instructions before each call, the last one before all that follow."""

    def edit(code: list[Instruction]) -> None:
        left = list(codes)
        for place in reversed(range(len(code))):
            if code[place].code == b"\xe8":
                added = left.pop(0) if len(left) > 1 else left[0]
                code.insert(place, Instruction(added, None, code[place].label))
                code[place + 1].label = None

    return edit


@pytest.mark.parametrize(
    ("arguments", "mistake"),
    [
        ([{"type": "double", "kind": "FLOAT", "size": 8}], "args[0].kind: the prover knows INT, PTR, ENUM, ENUM64"),
        ([{"type": "long []", "kind": "ARRAY", "size": 16}], "args[0].kind: the prover knows INT"),
        ([{"type": "int", "kind": "INT", "size": 3}], "args[0].size: no INT has 3 bytes"),
        ([{"type": "void *", "kind": "PTR", "size": 4}], "args[0].size: no PTR has 4 bytes"),
        ([{"type": "int", "kind": "INT", "size": 4, "alignment": 3}], "args[0].alignment: "),
    ],
)
def test_a_type_that_no_convention_here_covers(arguments: list[object], mistake: str) -> None:
    """Floating point and what is no type of an argument is bad input."""
    with pytest.raises(BadInputError, match=re.escape(f"x.json: {mistake}")):
        parse_image(changed(args=arguments), "x.json")


def test_an_image_without_a_place_to_patch_is_undecided() -> None:
    """arm64's original is called by `adr` and `ret`, behind which is the place; without its nop there is none."""
    whole = judge(ARM[1].read_text(), "x.json")
    # nop becomes mov x11, x11.
    cut = judge(ARM[1].read_text().replace("1f2003d5", "eb030baa"), "x.json")

    assert "proved" == judge(ARM[0].read_text(), "x.json").outcome
    assert ("proved", True) == (whole.outcome, whole.detaching)
    assert ("undecided", True) == (cut.outcome, cut.detaching)
    assert cut.told == f"{DETACHING}: undecided: {NO_PLACE}: there is no nop behind the original"


def test_what_no_file_here_has() -> None:
    """Sessions with cookies of their own, IPMODIFY sharing, many programs: read from a file, and proved."""
    sessions = tuple(
        replace(program, session_cookie=True) for program in of_kinds("fsession", "fsession", cookies=True)
    )
    goals = [
        goal_of(long(3), *sessions, *of_kinds("fentry", "fexit", cookies=True), site="jmp", func_ip=True),
        goal_of(long(9), *of_kinds("fexit", "lsm", cookies=True), shares_ipmodify=True),
        goal_of(sized([16, 4, 16, 8, 12, 1]), *of_kinds(*["fentry"] * 12, *["fmod_ret"] * 12, *["fsession"] * 6)),
    ]
    for goal in goals:
        dump = parse_image(file_of(goal, Trampoline(goal, skips=True).image()), "x.json")
        patched = while_detaching(dump.image, dump.goal, X86_64)

        assert (goal.site, goal.shares_ipmodify, goal.body) == (
            dump.goal.site,
            dump.goal.shares_ipmodify,
            dump.goal.body,
        )
        assert "proved" == prove(dump.image, dump.goal).outcome
        assert patched is not None
        assert "proved" == prove(*patched).outcome


MOST_INSTRUCTIONS = 200_000
LONGEST_SENTENCE = 300


def random_bytes(count: int, seed: int) -> Iterator[Image]:
    """Images of random bytes; half of them begin like a trampoline."""
    draw = random.Random(seed)
    for number in range(count):
        code = draw.randbytes(draw.randrange(1, 400))
        code = bytes.fromhex("554889e54883ec48") + code if number % 2 else code
        yield Image(0xFFFFFFFFC0210000, code, len(code))


@pytest.mark.parametrize("count", [60, pytest.param(1_000, marks=pytest.mark.proof)])
def test_random_bytes_get_a_verdict(count: int) -> None:
    """Bytes that loop, jump away, write everywhere or are undefined are refuted or undecided, in bounded steps."""
    goal = read_image(GOOD).goal
    for image in random_bytes(count, seed=count):
        verdict = prove(image, goal)

        assert verdict.outcome in {"refuted", "undecided"}
        assert verdict.figures.instructions <= MOST_INSTRUCTIONS


def spoilt(draw: random.Random) -> str:
    """A file with some of its fields spoilt."""
    whole = any_file(draw)
    for _ in range(draw.randrange(1, 4)):
        _spoil(draw, whole)
    return json.dumps(whole)


def any_file(draw: random.Random) -> Any:
    return json.loads(draw.choice(IMAGES).read_text())


def _spoil(draw: random.Random, value: Any) -> None:
    """Changes, removes or doubles something somewhere below a value."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = draw.choice(keys)
        if isinstance(value[key], dict | list) and draw.randrange(4):
            value = value[key]
            continue
        break
    odd: tuple[Any, ...] = (
        None,
        True,
        -1,
        1 << 70,
        0.5,
        "",
        "0x0",
        "0xffffffffffffffff",
        "fexit",
        [],
        {},
        [[]],
        "\ud800",
        "e9" * 8,
    )
    action: Callable[[], None] = draw.choice(
        (
            lambda: value.__delitem__(key),
            lambda: value.__setitem__(key, draw.choice(odd)),
            lambda: value.__setitem__(key, _altered(draw, value[key])),
            lambda: value.__setitem__(key, copy.deepcopy(value[draw.choice(keys)])),
        )
    )
    action()


def _altered(draw: random.Random, value: Any) -> Any:
    if isinstance(value, str) and value:
        at = draw.randrange(len(value))
        return value[:at] + draw.choice("0123456789abcdefx_ ") + value[at + 1 :]
    return value + draw.choice((-1, 1, 8)) if isinstance(value, int) else value


def coded(*codes: str) -> Callable[[random.Random], str]:
    """Files in whose image one of these stands somewhere, each `?` of it a random digit."""

    def make(draw: random.Random) -> str:
        whole = any_file(draw)
        code = bytearray.fromhex(whole["image_hex"])
        put = bytes.fromhex(re.sub("[?]", lambda _: draw.choice("0123456789abcdef"), draw.choice(codes)))
        at = draw.choice(starts(bytes(code[: whole["used_bytes"]])))
        code[at : at + len(put)] = put
        return json.dumps(whole | {"image_hex": code.hex()})

    return make


def starts(code: bytes) -> list[int]:
    """Where instructions begin."""
    return [instruction.address for instruction in disassembler(X86_64).disasm(code, 0)]


def torn(draw: random.Random) -> str:
    """A file cut off, or with a piece missing or put in."""
    text = json.dumps(any_file(draw))
    at = draw.randrange(len(text))
    return draw.choice((text[:at], text[at:], text[:at] + draw.choice(("", "}", '"', "\\", "0")) + text[at + 2 :]))


def nested(draw: random.Random) -> str:
    """A field that is lists in lists, or objects in objects."""
    whole = any_file(draw)
    key, depth = draw.choice(list(whole)), draw.choice((5, 500, 50_000))
    opening, closing = draw.choice((("[", "]"), ('{"a":', "}")))
    return json.dumps(whole | {key: 0}).replace(f'"{key}": 0', f'"{key}": {opening * depth}0{closing * depth}', 1)


def huge(draw: random.Random) -> str:
    """A field that is a number of any size, or as long as a string, or no number at all."""
    whole = any_file(draw)
    key = draw.choice(list(whole))
    number = draw.choice(("9" * 30, "9" * 5_000, "-1e999", "NaN", '"0x' + "f" * 17 + '"', f'"{"90" * 70_000}"'))
    return json.dumps(whole | {key: 0}).replace(f'"{key}": 0', f'"{key}": {number}', 1)


DAMAGE: dict[str, Callable[[random.Random], str]] = {
    "fields": spoilt,
    "torn": torn,
    "nested": nested,
    "huge": huge,
    "loops": coded("ebfe", "eb??", "75f?", "e9????ffff", "e2f?", "f348ab", "f3a4", "488d6424f8ebf9"),
    "jumps away": coded("e9????????", "e8????????", "ffe?", "ffd?", "c3", "c2????", "ff25????????", "0f84????????"),
    "writes": coded(
        "48890425????????", "48890?", "4889a5????????", "f348ab", "488d2425????????", "65488904??", "f048ff0?"
    ),
    "undefined": coded("0f0b", "06", "d6", "0fff", "62??????", "c5??????", "0f38????", "f4", "0f01f8", "cd80", "0f05"),
    "bytes": coded("??", "????", "????????", "????????????????", "????????????????????????????????"),
}
SLOWEST = 60
"""Seconds of the processor that one file may take; z3's budget is a part of it."""


@pytest.mark.parametrize("count", [135, pytest.param(2_700, marks=pytest.mark.proof)])
def test_a_damaged_file_gets_a_verdict_or_a_sentence(count: int) -> None:
    """Whatever the damage, the answer is one of the three verdicts or BadInputError, in bounded time."""
    draw = random.Random(count)
    answers = {name: dict.fromkeys(ANSWERS, 0) for name in DAMAGE}
    slowest = 0.0
    for number in range(count):
        name = list(DAMAGE)[number % len(DAMAGE)]
        before = time.process_time()
        answers[name][judged(DAMAGE[name](draw))] += 1
        slowest = max(slowest, time.process_time() - before)
    print(*(f"{name}: {found}" for name, found in answers.items()), f"slowest: {slowest:.2f} s", sep="\n")

    assert slowest < SLOWEST
    assert not any(found["bad input"] for name, found in answers.items() if name in IN_CODE)
    assert all(found["refuted"] for name, found in answers.items() if name in IN_CODE)
    assert all(any(found[answer] for found in answers.values()) for answer in ("proved", "bad input"))


ANSWERS = ("proved", "refuted", "undecided", "bad input")
IN_CODE = {"loops", "jumps away", "writes", "undefined", "bytes"}


def judged(text: str) -> str:
    """The verdict on a file; or that it is bad input, as one sentence says that names it."""
    try:
        dump = parse_image(text, "x.json")
    except BadInputError as error:
        told = str(error)
        assert re.match(r"x\.json(:[0-9]+)?: ", told)
        assert "\n" not in told
        assert len(told) < LONGEST_SENTENCE
        return "bad input"
    outcomes = []
    for variant in variants(dump):
        verdict = variant.prove()
        assert verdict.figures.instructions <= MOST_INSTRUCTIONS
        if verdict.counterexample is not None:
            shown = counterexample_lines(verdict.counterexample, variant.image, variant.goal, variant.architecture)
            assert "in" in list(shown)
        outcomes.append(verdict.outcome)
    return outcomes[0]


def test_a_truncated_image_is_not_proved() -> None:
    """An image without its end runs out of itself, or stops in an instruction."""
    dump = read_image(GOOD)
    for used in range(1, dump.image.used, 7):
        image = replace(dump.image, used=used)

        assert prove(image, dump.goal).outcome in {"refuted", "undecided"}, used
