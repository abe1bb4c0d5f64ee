"""Image files: what the project has is read, and printed as it was; what a file may leave out, and what it may add."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

import properties.proofs
from spec.errors import BadInputError
from spec.images import KINDS, Address, Code, ImageFile, Options, parse_image_file, print_image_file, read_image_file
from spec.prototypes import Type

FILES = sorted(Path(properties.proofs.__file__).parent.glob("images/*.json"))
ARM = sorted((Path(__file__).parents[1] / "support" / "images").glob("*.json"))
# What design contract 3.3 names.
CONTRACT = {
    "kernel", "release", "function", "prototype", "args", "ret", "attach_order", "options", "function_address",
    "fentry_offset", "function_prologue_bytes", "callsite_target", "image_address", "image_hex", "used_bytes", "calls",
    "programs",
}  # fmt: skip


@pytest.mark.parametrize("path", [*FILES, *ARM], ids=lambda path: path.stem)
def test_a_file_is_printed_as_it_was_read(path: Path) -> None:
    """Every member of every file is known, in its order, and printing is the inverse of reading."""
    image = read_image_file(path)
    printed = print_image_file(image)

    assert list(json.loads(path.read_text()).items()) == list(json.loads(printed).items())
    assert image == parse_image_file(printed, "x.json")


def test_the_fields_are_those_of_the_contract() -> None:
    """None of design contract 3.3 is missing, and files of the project have all of them."""
    assert set(ImageFile.__struct_fields__) >= CONTRACT
    assert all(json.loads(path.read_text()).keys() >= CONTRACT for path in FILES)


def test_what_is_read_has_types() -> None:
    """Addresses are numbers, code is bytes, types are those of the spec; kinds are in the order of attaching."""
    image = read_image_file(next(path for path in FILES if path.stem == "linux-6.12.bpf_fentry_test1.fexit1.ip"))

    assert ("x86-64", 0xFFFFFFFF81B020B0, Options(ip=True)) == (image.arch, image.function_address, image.options)
    assert bytes.fromhex("f30f1efa") == image.function_prologue_bytes[: image.fentry_offset]
    assert (Type("int", "INT", 4),) == image.types.arguments
    assert ("fexit",) == image.kinds
    assert set(image.kinds) < set(KINDS)
    assert "arm64" == read_image_file(ARM[0]).arch


def test_what_a_file_need_not_have() -> None:
    """What is proved needs no more than these members; those that nobody knows are ignored."""
    needed = {field.name for field in msgspec.structs.fields(ImageFile) if field.required}
    whole = json.loads(FILES[0].read_text())
    short = {name: value for name, value in whole.items() if name in needed}
    image = parse_image_file(json.dumps(short | {"colour": "red"}), "x.json")

    assert "release prototype callsite_target".split() == [name for name in whole if name in CONTRACT - needed]
    assert short == json.loads(print_image_file(image))
    with pytest.raises(BadInputError, match="x.json: image_hex: is missing"):
        parse_image_file(json.dumps({name: short[name] for name in short if name != "image_hex"}), "x.json")


def test_what_is_made_is_checked_as_what_is_read() -> None:
    """Members that contradict each other are told where an image is made, too."""
    image = read_image_file(FILES[0])
    with pytest.raises(ValueError, match="used_bytes: expected at most 1, the bytes of image_hex"):
        replace(image, image_hex=Code(b"\xc3"))

    assert "0x10" == json.loads(print_image_file(replace(image, image_address=Address(16))))["image_address"]


def test_of_what_a_file_is() -> None:
    """Another dump has the same subject, whatever addresses it has; other programs, options or kernels are another."""
    image = read_image_file(FILES[0])

    assert image.subject == replace(image, function_address=Address(0), kernel="6").subject
    for change in ({"release": "7"}, {"function": "g"}, {"options": Options(flags=16)}, {"arch": "arm64"}):
        assert image.subject != replace(image, **change).subject
