"""The verb `dump`: which functions it takes, what it expects of the kernel, its files; and real kernels."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from impl.linux.dumping import Answer, Attaching, Dumper
from impl.linux.frames import Batch
from impl.linux.guest import Guest, GuestDiedError, boot
from impl.linux.packages import fetch
from impl.linux.symbols import parse_kallsyms
from properties import __main__ as front_door
from properties import dump
from properties.kernels.shapes import label, matching, parse_programs, population, predicted, representatives, shape
from spec.errors import BadInputError
from spec.prototypes import Prototype, Type
from spec.semantics import PRESETS
from spec.worlds import BOOL, CHAR, INT, LONG, PAIR, Function, World

KERNELS = ("linux-6.1", "linux-6.12", "linux-7.3")
VOID = Type("void", "VOID", 0)
POINTER = Type("void *", "PTR", 8)
WRAPPED = Type("struct wrapped", "STRUCT", 8)
EITHER = Type("union either", "UNION", 8)
FENTRY, FEXIT, BOTH = Attaching(("fentry",)), Attaching(("fexit",)), Attaching(("fentry", "fexit"))
OLD, NEW = PRESETS["linux-6.1"], PRESETS["linux-6.12"]


def function(
    name: str, *arguments: Type, returns: Type = LONG, attributes: str = "", number: int | None = 1
) -> Function:
    return Function(name, Prototype(arguments, returns), number, attributes=frozenset(attributes.split()))


def document(attaching: Attaching = FENTRY, **different: object) -> dict[str, Any]:
    order = list(attaching.kinds)
    return {"release": "6.12", "function": "f", "attach_order": order, "options": attaching.options} | different


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fentry=1", ("fentry",)),
        ("fentry=2,fexit=1", ("fentry", "fentry", "fexit")),
        ("fexit=1,fentry=1", ("fexit", "fentry")),
        ("fmod_ret=1,fsession=2", ("fmod_ret", "fsession", "fsession")),
    ],
)
def test_programs(text: str, expected: tuple[str, ...]) -> None:
    """Kinds come in the order in which they are written, each as often as it says."""
    assert expected == parse_programs(text)


@pytest.mark.parametrize(
    "text", ["", "fentry", "fentry=0", "fentry=100", "fentry=-1", "lsm=1", "fentry=1,fentry=1", "fentry=1,", "fentry=²"]
)
def test_programs_that_are_none(text: str) -> None:
    """What is no KIND=N,... is bad input, and is told before any kernel is fetched."""
    with pytest.raises(BadInputError, match="write KIND=N"):
        parse_programs(text)


@pytest.mark.parametrize(
    ("attaching", "name", "options"),
    [
        (BOTH, "fentry1_fexit1", {}),
        (Attaching(("fexit", "fexit", "fentry"), cookie=True), "fexit2_fentry1.cookie", {"cookie": True}),
        (Attaching(("fentry",), ip=True, sleepable=True), "fentry1.ip.flags16", {"ip": True, "flags": 16}),
    ],
)
def test_names(attaching: Attaching, name: str, options: dict[str, object]) -> None:
    """A file's name tells kernel, function, programs and options; the options are those of the design contract."""
    assert name == label(attaching)
    assert f"linux-6.1.f.{name}.json" == dump.file_name("linux-6.1", function("f"), attaching)
    assert options == attaching.options


def test_shape() -> None:
    """Sizes, and what is passed by value, make a shape; names and kinds of one size do not."""
    assert shape(function("f", LONG, POINTER)) == shape(function("g", POINTER, LONG, returns=POINTER))
    arguments = (LONG, INT, WRAPPED, EITHER, PAIR)
    different = [*((argument, VOID) for argument in arguments), (LONG, LONG), (LONG, BOOL)]

    assert len(different) == len({shape(function("f", argument, returns=returned)) for argument, returned in different})
    assert shape(function("f")) != shape(Function("f", Prototype((), LONG, variadic=True), 1))


def test_one_function_for_each_shape() -> None:
    """It is the last one with a name of its own that takes the programs; one that BTF does not name is never taken."""
    functions = (
        function("first", LONG),
        function("taken", LONG),
        function("twice", LONG),
        function("exits", LONG, attributes="noreturn"),
        function("unnamed", LONG, number=None),
        function("alone", INT, attributes="deny"),
        function("twice_alone", CHAR),
    )
    chosen = representatives(World("w", functions), FENTRY, lambda f: not f.name.startswith("twice"))

    assert ["taken", "alone", "twice_alone"] == [f.name for f in chosen]


def test_functions_that_take_the_programs_come_first() -> None:
    """A function for fmod_ret, or for sleepable programs, is one that allows them, where its shape has such."""
    functions = (function("modified", attributes="fmod_ret"), function("sleeps", attributes="sleepable"), function("f"))

    def chosen(attaching: Attaching) -> list[str]:
        return [f.name for f in representatives(World("w", functions), attaching, lambda _: True)]

    assert ["f"] == chosen(FENTRY)
    assert ["modified"] == chosen(Attaching(("fmod_ret",)))
    assert ["sleeps"] == chosen(Attaching(("fentry",), sleepable=True))


def test_functions_by_glob() -> None:
    """A glob selects as ftrace's filters do, what BTF does not name excepted; a glob that selects none is bad input."""
    world = World("w", (function("vfs_read"), function("vfs_write", number=None), function("ksys_read")))

    assert ["vfs_read"] == [f.name for f in matching(world, "vfs_*")]
    with pytest.raises(BadInputError, match=r"--functions vfs_w\*: none"):
        matching(world, "vfs_w*")


def test_population() -> None:
    """What the kernel says of its functions becomes a world, with the attributes that its release's lists give."""
    rows = [{"name": name, "btf_id": number, "args": [0], "ret": 0} for number, name in enumerate(("do_exit", "f"), 1)]
    world = population({"kernel": "6.12.117+deb12", "types": [["INT", 8, "long"]], "functions": rows}, "linux-6.12")

    assert "linux-6.12" == world.name
    assert (function("do_exit", LONG, attributes="noreturn"), function("f", LONG, number=2)) == world.functions


def test_prediction() -> None:
    """The model tells the step and the errno: prototypes fail loads, slots the attach, and each program counts."""
    narrow, wide = function("f", LONG), function("g", *(LONG,) * 7)
    many = Attaching(("fentry",) * 39)

    assert ((("", ""), ("", ""))) == predicted(narrow, BOTH, OLD)
    assert (("EINVAL",), (None,)) == predicted(function("h", *(LONG,) * 13), FENTRY, NEW)
    assert (("EINVAL",), (None,)) == predicted(function("u", EITHER), FENTRY, NEW)
    assert (("",), ("",)) == predicted(function("u", EITHER), FENTRY, PRESETS["linux-7.3"])
    assert (("",), ("ENOTSUPP",)) == predicted(wide, FENTRY, OLD)
    assert (("",), ("",)) == predicted(wide, FENTRY, NEW)
    assert (("EINVAL",), (None,)) == predicted(narrow, Attaching(("fsession",)), NEW)
    assert (("", "EINVAL"), ("", None)) == predicted(function("f", LONG, attributes="noreturn"), BOTH, NEW)
    assert ((*[""] * 38, "E2BIG")) == predicted(narrow, many, NEW)[1]


def test_sleepable_prediction() -> None:
    """The options are part of the question."""
    sleepable = Attaching(("fentry",), cookie=True, ip=True, sleepable=True)

    assert (("",), ("",)) == predicted(function("f", attributes="sleepable"), sleepable, NEW)
    assert (("EINVAL",), (None,)) == predicted(function("f"), sleepable, NEW)


def test_counts() -> None:
    """A row for each way of attaching, a column for each refusal; what the spec does not say is named."""
    tally, other = dump.Tally(BOTH), dump.Tally(FENTRY)
    f, accepted = function("f"), (("", ""), ("", ""))
    refused = Answer(("", "EINVAL"), ("", None))
    tally.add(f, Answer(*accepted, document={}), accepted)
    tally.add(f, refused, (refused.loads, refused.attaches))
    tally.add(f, refused, accepted)
    tally.add(f, Answer((), (), trouble="the guest died"), accepted)
    other.add(f, Answer(("",), ("ENOTSUPP",)), (("",), ("ENOTSUPP",)))
    console = Console(width=120)
    with console.capture() as capture:
        console.print(dump.table("linux-6.12", [tally, other]))

    did, expected = "load fexit -EINVAL, attach fentry 0", "load fexit 0, attach fentry 0, attach fexit 0"
    assert [
        f"f fentry1_fexit1: load fentry 0, {did}; the spec says: load fentry 0, {expected}",
        "f fentry1_fexit1: the guest died",
    ] == tally.surprises
    rows = [line.replace("│", " ").replace("┃", " ").split() for line in capture.get().splitlines()]
    assert "programs functions images attach -ENOTSUPP load -EINVAL not as predicted".split() in rows
    assert ["fentry1_fexit1", "4", "1", "0", "2", "2"] in rows
    assert ["fentry1", "1", "0", "1", "0", "0"] in rows


def test_files(tmp_path: Path) -> None:
    """The file of the same release, function and programs stays as it is; another or a broken one is replaced."""
    path = tmp_path / "f.json"

    assert "written" == dump.keep(path, document(image_hex="00"))
    assert "kept" == dump.keep(path, document(image_hex="01"))
    assert "00" == json.loads(path.read_bytes())["image_hex"]
    assert "replaced" == dump.keep(path, document(release="6.13"))
    assert "replaced" == dump.keep(path, document(release="6.13", options={"ip": True}))
    path.write_text('{"release":')
    assert "replaced" == dump.keep(path, document())
    assert document() == json.loads(path.read_bytes())
    assert [path] == list(tmp_path.iterdir())


def test_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stops the writing, neither a part of the file nor a scratch file is left."""

    def stopped(self: Path, text: str, **_: object) -> int:
        self.write_bytes(text[:3].encode())
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", stopped)
    with pytest.raises(KeyboardInterrupt):
        dump.keep(tmp_path / "f.json", document())

    assert [] == list(tmp_path.iterdir())


def test_directory_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file in its place is bad input, and so is a name that is too long; nothing is booted."""
    place = tmp_path / "file"
    place.write_text("")
    status = front_door.main(["dump", "--system", "linux-6.12", str(place)])

    assert 2 == status
    assert f"{place}: is no directory for images: File exists\n" == capsys.readouterr().err
    with pytest.raises(BadInputError, match="cannot be written: File name too long"):
        dump.keep(tmp_path / ("f" * 300), document())


class _Fake:
    """A guest and a dumper of two functions, of which the kernel refuses the second; `stop` is Ctrl-C at the first."""

    stop = False
    refuses = "g"
    closed = 0

    def close(self) -> None:
        type(self).closed += 1

    def __call__(self, *_: object) -> _Fake:
        return self

    def population(self) -> dict[str, object]:
        slots = {"f": 1, "g": 13}
        rows = [{"name": name, "btf_id": count, "args": [0] * count, "ret": 0} for name, count in slots.items()]
        return {"kernel": "6.12", "types": [["INT", 8, "long"]], "functions": rows}

    def is_unique(self, _: Function) -> bool:
        return True

    def answers(self, functions: Sequence[Function], attaching: Attaching) -> list[Answer]:
        if self.stop:
            raise KeyboardInterrupt
        count = len(attaching.kinds)
        refused, accepted = Answer(("EINVAL",) * count, (None,) * count), Answer(("",) * count, ("",) * count)
        return [
            refused
            if f.name in self.refuses
            else Answer(accepted.loads, accepted.attaches, document(attaching, function=f.name))
            for f in functions
        ]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[_Fake]:
    class Mine(_Fake):
        pass

    kernel = type("Kernel", (), {"name": "linux-6.12", "release": "6.12.117"})
    for name, replacement in (("boot", Mine()), ("Dumper", Mine()), ("fetch", lambda _: kernel)):
        monkeypatch.setattr(dump, name, replacement)
    return Mine


def run(*words: str) -> int:
    return front_door.main(["dump", "--system", "linux-6.12", *words])


def test_run(fake: type[_Fake], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All as the spec says: the status is 0, and the files, the counts and what became of old files are told."""
    directory = tmp_path / "new" / "images"
    first, second = run(str(directory)), run(str(directory), "--programs", "fentry=1", "--functions", "f")
    printed = capsys.readouterr().out

    assert (0, 0, 2) == (first, second, fake.closed)
    labels = ("fentry1", "fentry1_fexit1", "fexit1")
    assert [f"linux-6.12.f.{each}.json" for each in labels] == sorted(path.name for path in directory.iterdir())
    assert "fentry1_fexit1: 1 images of 2 functions\n" in printed
    assert f"{directory}: 3 image files written\n" in printed
    assert printed.endswith(f"{directory}: 1 image file kept that were there already\n")


def test_run_with_a_surprise(fake: type[_Fake], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An answer that the spec does not give is named, and the status is 1."""
    fake.refuses = "f"
    status = run(str(tmp_path), "--programs", "fexit=1", "--functions", "f")
    printed = capsys.readouterr().out

    assert 1 == status
    assert "not as predicted: f fexit1: load fexit -EINVAL; the spec says: load fexit 0, attach fexit 0\n" in printed
    assert printed.endswith(f"{tmp_path}: no image files\n")


def test_interrupted(fake: type[_Fake], tmp_path: Path) -> None:
    """Ctrl-C ends the guest and leaves whole files only."""
    fake.stop = True

    assert (130, 1, []) == (run(str(tmp_path)), fake.closed, list(tmp_path.iterdir()))


class Fragile(Dumper):
    """A kernel that dies of one function."""

    def __init__(self) -> None:
        self.tries: list[int] = []

    def _answers(self, functions: Sequence[Function], _: Attaching) -> list[Answer]:
        self.tries.append(len(functions))
        if any(f.name == "killer" for f in functions):
            raise GuestDiedError("Kernel panic", "")
        return [Answer(("",), ("",))] * len(functions)


def test_function_that_kills_the_guest() -> None:
    """It is found by halves, and the others get their answers."""
    dumper = Fragile()
    found = dumper.answers([function(name) for name in ("a", "b", "killer", "c", "d")], FENTRY)

    assert ["", "", "Kernel panic", "", ""] == [answer.trouble for answer in found]
    assert [5, 2, 3, 1, 2] == dumper.tries


@pytest.fixture(scope="module", params=KERNELS)
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    try:
        guest = boot(fetch(request.param))
    except BadInputError as error:
        pytest.skip(str(error))
    try:
        yield guest
    finally:
        guest.close()


@pytest.fixture(scope="module")
def dumper(guest: Guest) -> Dumper:
    return Dumper(guest, guest.kernel.name)


@pytest.fixture(scope="module")
def world(guest: Guest, dumper: Dumper) -> World:
    return population(dumper.population(), guest.kernel.name)


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
    assert (list(attaching.kinds), attaching.options) == (found["attach_order"], found["options"])


@pytest.mark.vm
@pytest.mark.parametrize(
    "attaching",
    [
        BOTH,
        Attaching(("fentry", "fentry", "fexit", "fexit"), cookie=True, ip=True),
        Attaching(("fsession", "fentry")),
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
    accepted = [one.document for one in answers if not any((*one.loads, *one.attaches))]
    for found in accepted:
        assert found is not None
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
        assert one.document is not None
        check_image(one.document, attaching)


@pytest.mark.vm
@pytest.mark.parametrize("system", KERNELS)
def test_the_verb(system: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A glob on each kernel: every function has a file for each way of attaching, and each file is a whole image."""
    try:
        fetch(system)
    except BadInputError as error:
        pytest.skip(str(error))
    status = front_door.main(["dump", "--system", system, "--functions", "vfs_re*", str(tmp_path)])
    printed = capsys.readouterr().out
    documents = [json.loads(path.read_bytes()) for path in sorted(tmp_path.iterdir())]

    assert 0 == status, printed
    assert f"{len(documents)} image files written" in printed
    assert 3 * len({found["function"] for found in documents}) == len(documents) >= 15
    for found in documents:
        check_image(found, Attaching(tuple(found["attach_order"])))
