"""The verb `dump`: which functions it takes, what it expects of the kernel, its files, and what it proves."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace
from rich.console import Console

import properties.proofs
from impl.linux.guest.guest import GuestDiedError
from impl.linux.instruments.dumping import Answer, Attaching, Dumper, kernel_of
from properties import __main__ as front_door
from properties.kernels import dumped
from properties.kernels.shapes import label, matching, parse_programs, population, predicted, representatives, shape
from properties.verbs import dump
from spec.errors import BadInputError
from spec.images import ImageFile, parse_image_file, read_image_file
from spec.prototypes import Prototype, Type
from spec.reading import encode
from spec.semantics import PRESETS
from spec.worlds import BOOL, CHAR, INT, LONG, PAIR, Function, World

IMAGE = Path(properties.proofs.__file__).parent / "images" / "linux-6.12.bpf_fentry_test1.fexit1.ip.json"
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


def image(attaching: Attaching = FENTRY, **different: object) -> ImageFile:
    """An image file of the project, as that of other programs."""
    attached = attaching.attached
    return replace(read_image_file(IMAGE), attach_order=attached.order, options=attached.options, **different)


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
        (Attaching(("fsession",), session_cookie=True), "fsession1.session_cookie", {"session_cookie": True}),
    ],
)
def test_names(attaching: Attaching, name: str, options: dict[str, object]) -> None:
    """A file's name tells kernel, function, programs and options; the options are those of the design contract."""
    assert name == label(attaching)
    assert f"linux-6.1.f.{name}.json" == dumped.file_name("linux-6.1", function("f"), attaching)
    assert options == json.loads(encode(attaching.attached.options))


def test_cookies() -> None:
    """A file tells the cookies of links that have some, in the order of attaching."""
    assert None is BOTH.attached.cookies
    assert (0x100000000, 0x100000001) == Attaching(BOTH.kinds, cookie=True).attached.cookies


def test_what_a_file_calls_its_kernel() -> None:
    """A long-term series by the series' name, another kernel by its version, as the images at hand do."""
    releases = {"linux-6.1": "6.1.0-56-amd64", "linux-6.12": "6.12.117+deb12-amd64", "linux-7.3": "7.3.4+deb13-amd64"}

    assert ["6.1", "6.12", "7.3.4"] == [kernel_of(name, release) for name, release in releases.items()]


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
    tally, other = dumped.DumpTally(BOTH), dumped.DumpTally(FENTRY)
    f, accepted = function("f"), (("", ""), ("", ""))
    refused = Answer(("", "EINVAL"), ("", None))
    tally.add(f, Answer(*accepted, image=image()), accepted)
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

    assert "written" == dumped.keep(path, image(trampoline_symbol="first"))
    assert "kept" == dumped.keep(path, image(trampoline_symbol="second"))
    assert "first" == read_image_file(path).trampoline_symbol
    assert "replaced" == dumped.keep(path, image(release="6.13"))
    assert "replaced" == dumped.keep(path, image(Attaching(FENTRY.kinds, ip=True), release="6.13"))
    path.write_text('{"release":')
    assert "replaced" == dumped.keep(path, image())
    assert image() == read_image_file(path)
    assert [path] == list(tmp_path.iterdir())


def test_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stops the writing, neither a part of the file nor a scratch file is left."""

    def stopped(self: Path, text: str, **_: object) -> int:
        self.write_bytes(text[:3].encode())
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", stopped)
    with pytest.raises(KeyboardInterrupt):
        dumped.keep(tmp_path / "f.json", image())

    assert [] == list(tmp_path.iterdir())


def test_directory_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file in its place is bad input, and so is a name that is too long; nothing is booted."""
    place = tmp_path / "file"
    place.write_text("")
    status = front_door.main(["dump", "--system", "linux-6.12", str(place)])

    assert 2 == status
    assert f"{place}: is no directory, and cannot be made: File exists\n" == capsys.readouterr().err
    with pytest.raises(BadInputError, match="cannot be written: File name too long"):
        dumped.keep(tmp_path / ("f" * 300), image())


class _Fake:
    """A guest and a dumper of two functions, of which the kernel refuses the second; `stop` is Ctrl-C at the first."""

    stop = False
    refuses = "g"
    image: str | None = None
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
            else Answer(accepted.loads, accepted.attaches, self.built(f.name, attaching))
            for f in functions
        ]

    def built(self, name: str, attaching: Attaching) -> ImageFile:
        return parse_image_file(self.image, "x.json") if self.image else image(attaching, function=name)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[_Fake]:
    class Mine(_Fake):
        name = "linux-6.12"

    kernel = type("Kernel", (), {"name": "linux-6.12", "release": "6.12.117"})
    for name, replacement in (("boot", Mine()), ("Dumper", Mine()), ("fetch", lambda _: kernel)):
        monkeypatch.setattr(dump, name, replacement)
    return Mine


def run(*words: str) -> int:
    return front_door.main(["dump", "--system", "linux-6.12", *words])


def test_which_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    """One of Debian's, or a file; nothing else, and not both."""
    assert 2 == front_door.main(["dump", "--system", "linux-5.10", "out"])
    assert "--system linux-5.10: write linux-6.1, linux-6.12, linux-7.3 or bzimage:FILE" in capsys.readouterr().err
    assert 2 == front_door.main(["dump", "--bzimage", "/nowhere/bzImage", "out"])
    assert "/nowhere/bzImage: the kernel cannot be read: No such file or directory" in capsys.readouterr().err


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


def test_run_with_proofs(fake: type[_Fake], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is proved of which functions is told, beside what the kernel refused; without DIR nothing is left."""
    fake.image = IMAGE.read_text()
    first, second = run("--prove", "--programs", "fexit=1"), run("--prove", "--functions", "f", str(tmp_path))
    printed = capsys.readouterr().out

    assert (0, 0) == (first, second)
    assert (
        "linux-6.12: all 2 shapes of arguments and return value that 2 functions have, "
        "each with programs attached in 1 way.\n"
        "Images: 1 proved; 1 refused by the kernel as predicted (1 load -EINVAL).\n"
    ) in printed
    assert "linux-6.12: 1 function matching f, each with programs attached in 3 ways.\n" in printed
    assert "no image files" not in printed
    assert 3 == len(list(tmp_path.iterdir()))


@pytest.mark.parametrize("change", [("c9", "90", 1), ("0f1f440000", "0f1f440001", 3)])
def test_run_with_a_proof_that_fails(
    change: tuple[str, str, int],
    fake: type[_Fake],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without DIR such images stay, and are named; the status tells refuted from undecided."""
    old, new, status = change
    whole = json.loads(IMAGE.read_text())
    fake.image = json.dumps(whole | {"image_hex": whole["image_hex"].replace(old, new, 1)})
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = run("--prove", "--programs", "fexit=1")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("f fexit1: "))
    (kept,) = tmp_path.rglob("*.json")

    assert status == found
    assert line.endswith(f" ({kept})")
    assert whole["function"] == json.loads(kept.read_bytes())["function"]


def test_run_without_a_directory(capsys: pytest.CaptureFixture[str]) -> None:
    """Only --prove does without; nothing is booted."""
    assert 2 == run("--programs", "fexit=1")
    assert "DIR: write where the image files go, or --prove\n" == capsys.readouterr().err


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
