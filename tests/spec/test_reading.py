"""The one JSON reader: what is wrong is one sentence with its place, and no input costs more than its bound."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from msgspec import Meta, Struct

from spec import reading
from spec.errors import BadInputError
from spec.reading import matching, one_of


@dataclass(frozen=True)
class Inner:
    """A dataclass of a file."""

    number: Annotated[int, Meta(ge=1, le=9)]
    names: tuple[Annotated[str, one_of(["b", "a"])], ...] = ()


class Outer(Struct, forbid_unknown_fields=True):
    """A file."""

    inner: list[Inner]
    word: Annotated[str, matching("a word of letters", "[a-z]+")] | None = None
    by_name: dict[str, Inner] = {}


GOOD = b'{"inner": [{"number": 1, "names": ["a", "b"]}], "word": "abc"}'


def mistake(data: bytes) -> str:
    with pytest.raises(BadInputError) as caught:
        reading.decode(data, Outer, "x.json")
    return str(caught.value)


def test_a_value_is_read_and_written() -> None:
    """Reading is the inverse of writing."""
    value = reading.decode(GOOD, Outer)

    assert Outer([Inner(1, ("a", "b"))], "abc") == value
    assert value == reading.decode(reading.encode(value), Outer)
    assert value == reading.convert({"inner": [{"number": 1, "names": ["a", "b"]}], "word": "abc"}, Outer)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[]", "x.json: expected an object, not a list"),
        ("{}", "x.json: inner: is missing"),
        ('{"inner": null}', "x.json: inner: expected a list, not null"),
        ('{"inner": [{}]}', "x.json: inner[0].number: is missing"),
        ('{"inner": [{"number": 1}, {"number": 0}]}', "x.json: inner[1].number: expected an integer >= 1"),
        ('{"inner": [{"number": true}]}', "x.json: inner[0].number: expected an integer, not true or false"),
        ('{"inner": [{"number": 1.0}]}', "x.json: inner[0].number: expected an integer, not a float"),
        ('{"inner": [{"number": "1"}]}', "x.json: inner[0].number: expected an integer, not a string"),
        ('{"inner": [{"number": 1, "names": ["c"]}]}', "x.json: inner[0].names[0]: expected one of a, b"),
        ('{"inner": [], "word": "a\\n"}', "x.json: word: expected a word of letters"),
        ('{"inner": [], "word": "a b"}', "x.json: word: expected a word of letters"),
        ('{"inner": [], "word": 5}', "x.json: word: expected a string or null, not an integer"),
        ('{"inner": [], "wrd": 5}', "x.json: wrd: is no member that is known here"),
        ('{"inner": [], "%s": 5}' % ("y" * 500), f"x.json: {'y' * 40}: is no member that is known here"),
        ('{"inner": [], "\\u001b[2J": 5}', "x.json: \\x1b[2J: is no member that is known here"),
        ('{"inner": [], "by_name": {"f": {}}}', "x.json: by_name[...].number: is missing"),
        ('{"inner": [{"number": %s}]}' % ("9" * 30), "x.json: inner[0].number: expected an integer <= 9"),
        ('{"inner": [{"number": %s}]}' % ("9" * 5_000), "x.json: inner[0].number: Integer value out of range"),
        ('{"inner": [{"number": NaN}]}', "x.json:1: is no JSON: invalid character"),
        ("", "x.json:1: is no JSON: Input data was truncated"),
        ('{"inner":\n [\n', "x.json:3: is no JSON: Input data was truncated"),
        ('{"inner":\n [],, ', "x.json:2: is no JSON: object keys must be strings"),
        ('{"inner": []} {}', "x.json:1: is no JSON: trailing characters"),
        ('{"inner": ' + "[" * 100_000, "x.json: inner[0]: expected an object, not a list"),
    ],
)
def test_a_mistake_is_one_sentence(text: str, sentence: str) -> None:
    """It names the file, the line where JSON itself is broken, otherwise the place, and what is expected there."""
    assert sentence == mistake(text.encode())


def test_what_nobody_reads_is_bounded_too() -> None:
    """What msgspec skips is still text in UTF-8 that is not nested without an end."""
    with pytest.raises(BadInputError, match="x.json: is nested too deeply"):
        reading.decode(b'{"number": 1, "other": ' + b"[" * 100_000, Inner, "x.json")
    with pytest.raises(BadInputError, match="x.json: is not UTF-8 text"):
        reading.decode(b'{"number": 1, "other": "\xff"}', Inner, "x.json")


def test_the_place_of_a_part() -> None:
    """What is parsed already is read like a text, and the place goes on from that of the part."""
    with pytest.raises(BadInputError) as caught:
        reading.convert([{"number": 0}], list[Inner], "answer.inner")

    assert "answer.inner[0].number: expected an integer >= 1" == str(caught.value)


class Even(int):
    """What msgspec does not know."""


def test_a_hook_tells_what_it_expects() -> None:
    """A type of one's own is read by a hook, whose ValueError is the mistake; places inside it are told whole."""

    def hook(_: Any, value: Any) -> Even:
        if value % 2:
            raise ValueError("expected an even number")
        return Even(value)

    assert [2] == reading.decode(b"[2]", list[Even], hook=hook)
    with pytest.raises(BadInputError) as caught:
        reading.decode(b'{"a": [2, 3]}', dict[str, list[Even]], "x.json", hook)
    assert "x.json: [...][1]: expected an even number" == str(caught.value)


def test_a_file(tmp_path: Path) -> None:
    """It may be gzipped, whatever it is called."""
    plain, packed = tmp_path / "plain.gz", tmp_path / "packed.json"
    plain.write_bytes(GOOD)
    packed.write_bytes(gzip.compress(GOOD))

    assert reading.load(plain, Outer, 100) == reading.load(packed, Outer, 100)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b" " * 101, "is larger than 100 bytes"),
        (gzip.compress(b" " * 101), "is larger than 100 bytes"),
        (gzip.compress(b" " * (100 << 20)), "is larger than 100 bytes"),
        (gzip.compress(GOOD)[:-9], "is damaged: it starts like gzip but does not decompress"),
        (b"\x1f\x8b", "is damaged: it starts like gzip but does not decompress"),
        (b"\xff\xfe", "is not UTF-8 text"),
    ],
    ids=lambda value: str(len(value)),
)
def test_a_file_that_cannot_be_used(tmp_path: Path, content: bytes, sentence: str) -> None:
    """Size counts as it is and unpacked, and unpacking stops at the bound."""
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(BadInputError) as caught:
        reading.load(path, Outer, 100)

    assert f"{path}: {sentence}" == str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """What the system says is the mistake."""
    for path, sentence in ((tmp_path / "x", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(BadInputError) as caught:
            reading.load(path, Outer, 100)

        assert f"{path}: cannot be read: {sentence}" == str(caught.value)
    with pytest.raises(BadInputError, match="cannot be read: embedded null byte"):
        reading.load(Path("a\0b"), Outer, 100)
