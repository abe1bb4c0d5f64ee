"""Reading trampoline images, as running kernels had them."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from impl.linux.architectures.x86_64 import X86_64
from impl.linux.guest.batch import Batch, Reply
from impl.linux.instruments.image_files import Attached, DumpedTrampoline, image_file
from impl.linux.instruments.objects import NotedJump
from impl.linux.observation import Observer, Spelling
from impl.linux.probes.disassembly import Helpers, Original, ProgramCall, disassemble
from impl.linux.probes.symbols import Symbols, Table
from spec.errors import BadInputError
from spec.images import Options, parse_image_file, print_image_file
from spec.prototypes import Prototype, Type

FENTRY_FMOD_RET_6_1 = (
    0xFFFFFFFFC0219000,
    bytes.fromhex(
        "554889e54883ec3053b802000000488945e048897de8488975f048bf007809068088ffffe8276702c131ff48897dd048bf00d0070000c9"
        "ffff488d75d0e8ae5e02c14889c34885c07409488d7de8e80976deff48bf00d0070000c9ffff4889de488d55d0e8a76002c131c0488945"
        "f831ff48897dd048bf0050080000c9ffff488d75d0e8685e02c14889c34885c0740d488d7de8e8ef75deff488945f848bf0050080000c9"
        "ffff4889de488d55d0e85d6002c148837df8000f8522000000488b7de8488b75f0e82a1b23c1488945f80f1f4400000f1f840000000000"
        "0f1f400048bf007809068088ffffe8916602c1488b45f85bc94883c408c3"
    ),
)
COOKIE_6_12 = (
    0xFFFFFFFFC0000780,
    bytes.fromhex(
        "554889e54883ec2848895de8b801000000488945f048897df848bf007766554433221148897dd848bf00d00a0000c9ffff488d75d8e8d6"
        "d92dc14889c34885c07409488d7df8e881feffff48bf00d00a0000c9ffff4889de488d55d8e84fdc2dc1488b7df8488b5de8c9c3cc0000"
    ),
)
ALL_KINDS_7_3 = (
    0xFFFFFFFFC0000A00,
    bytes.fromhex(
        "554889e54883ec4848895dc8b804000000488945d048897dd8488975e0488955e848894df048bf005883068088ffffe89c4c60c10f1f44"
        "000031ff48897db848bf00901c0000c9ffff488d75b8e84e4260c14889c34885c07409488d7dd8e8fdfbffff48bf00901c0000c9ffff48"
        "89de488d55b8e8974460c131c0488945f80f1f44000031ff48897db848bf0050090000c9ffff488d75b8e8034260c14889c34885c0740d"
        "488d7dd8e86efdffff488945f848bf0050090000c9ffff4889de488d55b8e8484460c148837df8000f851d000000488b7dd8488b75e048"
        "8b55e8488b4df0e8917f92c1488945f80f1f40000f1f44000031ff48897db848bf0050080000c9ffff488d75b8e8924160c14889c34885"
        "c07409488d7dd8e8b9feffff48bf0050080000c9ffff4889de488d55b8e8db4360c148bf005883068088ffffe8dc4b60c1488b45f8488b"
        "5dc8c9c3"
    ),
)
HELPERS = Helpers(
    frozenset({0xFFFFFFFF8123EEF0, 0xFFFFFFFF812DE190, 0xFFFFFFFF81604CA0}),
    frozenset({0xFFFFFFFF8123F110, 0xFFFFFFFF812DE430, 0xFFFFFFFF81604F10}),
    frozenset({0xFFFFFFFF8123F750, 0xFFFFFFFF816056D0}),
    frozenset({0xFFFFFFFF8123F780, 0xFFFFFFFF81605720}),
)


SITE = 0xFFFFFFFF81001000
NOP = bytes.fromhex("0f1f440000")
DISABLED = 0xFFFFFFFF82000000


DIRECTLY = b"""\
foo1 (1) R   D   M \ttramp: ftrace_regs_caller+0x0/0x65 (call_direct_funcs+0x0/0x20)
\tdirect-->bpf_trampoline_1+0x0/0xac
"""


class ShowingImage:
    """A kernel in which one function's site calls an image, or is a nop."""

    def __init__(self) -> None:
        self.attached = True
        self.guest = self
        self.kernel = SimpleNamespace(architecture=X86_64)
        self.taint = 0
        self.helpers = HELPERS

    def console(self) -> str:
        """It says nothing."""
        return ""

    def read_memory(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The site, or the image."""
        start, code = COOKIE_6_12
        site = b"\xe8" + struct.pack("<i", start - SITE - 5) if self.attached else NOP
        memory = {SITE: site, start: code, DISABLED: bytes(4)}
        return [memory[address].ljust(length, b"\xcc") for address, length in ranges]

    def observe(self, observer: Observer) -> str | None:
        """Returns the entry that the site calls directly."""
        line = DIRECTLY if self.attached else b""
        observer.add(Batch())((Reply(0, 0, (line,)), Reply(0, 0, (b"0",))))
        site = observer.sites.get("foo1")
        return site.entry if site else None


def test_an_image_that_comes_to_the_address_of_another_is_read_anew() -> None:
    """Their bytes may be the same, since the programs that they call come to each other's addresses, too."""
    names = ["p1"]
    symbols = SimpleNamespace(at=lambda _: None, address=lambda _: DISABLED)
    station = ShowingImage()
    directory = SimpleNamespace(
        station=station,
        symbols=symbols,
        starts=lambda *_: [SITE],
        named=lambda *_: "foo1",
        address=lambda _: SITE,
        stub=lambda _: None,
    )
    observer = Observer(cast("Any", directory), Spelling(str, str, lambda call: f"{call.kind}:{names[-1]}"))
    seen = [station.observe(observer)]
    names.append("lost while its image stays")
    seen.append(station.observe(observer))
    for station.attached in (False, True):
        names.append("p2")
        seen.append(station.observe(observer))

    assert ["trampoline:fentry:p1", "trampoline:fentry:p1", None, "trampoline:fentry:p2"] == seen


def test_image_of_6_1() -> None:
    """What stands before the comparison of the return slot is fmod_ret, whatever the address of its program."""
    image = disassemble(X86_64, *FENTRY_FMOD_RET_6_1, HELPERS)

    enter = 0xFFFFFFFF8123EEF0
    expected = (
        ProgramCall("fentry", 0xFFFFFFFFC000065C, 0xFFFFC9000007D000, 0, enter),
        ProgramCall("fmod_ret", 0xFFFFFFFFC0000688, 0xFFFFC90000085000, 0, enter),
        Original(0xFFFFFFFF8144ABF5),
    )
    assert expected == image.steps
    assert (True, 250) == (image.skips_frame, image.used)


def test_image_with_cookie() -> None:
    """The constant that is stored before a program is its cookie; an image of fentry programs calls no original."""
    image = disassemble(X86_64, *COOKIE_6_12, HELPERS)

    (program,) = image.programs
    assert (0x1122334455667700, 0xFFFFFFFFC000064C) == (program.cookie, program.program)
    assert (None, False, 107) == (image.original, image.skips_frame, image.used)


def test_image_of_7_3() -> None:
    """An image that is reached by jmp returns to the caller by itself; behind the original come fexit programs."""
    image = disassemble(X86_64, *ALL_KINDS_7_3, HELPERS)

    kinds = ["fentry", "fmod_ret", "original", "fexit"]
    assert kinds == [step.kind if isinstance(step, ProgramCall) else "original" for step in image.steps]
    assert [0xFFFFFFFFC0000660, 0xFFFFFFFFC000081C, 0xFFFFFFFFC00009D8] == [call.program for call in image.programs]
    assert (Original(0xFFFFFFFF81928A79), False, 334) == (image.original, image.skips_frame, image.used)
    assert ["fentry", "fmod_ret", "fexit"] == [call.kind for call in image.programs]


def test_image_with_skipped_program() -> None:
    """A program whose nop has become a jump behind it is skipped, and the others are not."""
    address, code = ALL_KINDS_7_3
    at = code.index(bytes.fromhex("0f1f440000"))
    behind = code.index(bytes.fromhex("31c0488945f8"))
    patched = code[:at] + b"\xe9" + struct.pack("<i", behind - at - 5) + code[at + 5 :]

    assert [True, False, False] == [call.skipped for call in disassemble(X86_64, address, patched, HELPERS).programs]


def test_image_that_takes_the_original_from_its_stack() -> None:
    """ORIG_STACK: the original is what the return address on the stack says."""
    address, code = FENTRY_FMOD_RET_6_1
    call = code.index(bytes.fromhex("e82a1b23c1488945f8"))
    patched = code[:call] + bytes.fromhex("488b5d08ffd3488945f8") + code[call + 9 :]

    assert Original(None) == disassemble(X86_64, address, patched, HELPERS).original


def test_image_without_end() -> None:
    """Bytes that stop before the image does are bad input."""
    address, code = COOKIE_6_12

    with pytest.raises(BadInputError, match="the trampoline image at 0xffffffffc0000780 has no end in its 60 bytes"):
        disassemble(X86_64, address, code[:60], HELPERS)


def test_image_file() -> None:
    """The JSON form has the fields of the design contract; a cookie is no address."""
    symbols = Symbols(
        Table(
            [0xFFFFFFFF812DE190, 0xFFFFFFFF812DE430, 0xFFFFFFFF81B020B0],
            ["__bpf_prog_enter_recur", "__bpf_prog_exit_recur", "bpf_fentry_test1"],
        ),
        {"bpf": Table([0xFFFFFFFFC000064C, COOKIE_6_12[0]], ["bpf_prog_a04f_p1", "bpf_trampoline_6442552603"])},
    )
    lines = [
        "bpf_fentry_test1 (1) R   D   M \ttramp: ftrace_regs_caller+0x0/0x65 (call_direct_funcs+0x0/0x20)",
        "\tdirect-->bpf_trampoline_6442552603+0x0/0xac",
    ]
    trampoline = DumpedTrampoline(
        function="bpf_fentry_test1",
        declaration="int bpf_fentry_test1(int a)",
        prototype=Prototype((Type("int", "INT", 4),), Type("int", "INT", 4)),
        btf_id=101659,
        start=0xFFFFFFFF81B020B0,
        prologue=bytes.fromhex("f30f1efae8c7e64f3e8d4701c3cccccc"),
        image=COOKIE_6_12[0],
        code=COOKIE_6_12[1],
        lines=tuple(lines),
        programs={0xFFFFFFFFC000064C: 0xFFFFC900000AD000},
        im=0xFFFF888004A78000,
        jumps=(
            NotedJump(COOKIE_6_12[0] + 16, COOKIE_6_12[0] + 97, 0xFFFFC900000AD000),
            NotedJump(COOKIE_6_12[0] + 96, 97),
        ),
    )
    attached = Attached(("fentry",), Options(cookie=True), (0x1122334455667788,), sleepable=False)
    image = image_file(X86_64, ("6.12", "6.12.117+deb12-amd64"), attached, trampoline, symbols)
    document = json.loads(print_image_file(image))

    expected = {
        "kernel": "6.12",
        "release": "6.12.117+deb12-amd64",
        "attach": {"fentry": 1},
        "attach_order": ["fentry"],
        "options": {"cookie": True},
        "function": "bpf_fentry_test1",
        "prototype": "int bpf_fentry_test1(int a)",
        "btf_id": 101659,
        "ret": {"type": "int", "kind": "INT", "size": 4},
        "args": [{"type": "int", "kind": "INT", "size": 4}],
        "nregs": 1,
        "trampoline_symbol": "bpf_trampoline_6442552603",
        "function_address": "0xffffffff81b020b0",
        "function_prologue_bytes": "f30f1efae8c7e64f3e8d4701c3cccccc",
        "fentry_offset": 4,
        "callsite_target": "0xffffffffc0000780",
        "callsite_target_sym": "bpf_trampoline_6442552603",
        "enabled_functions": lines,
        "image_address": "0xffffffffc0000780",
        "image_size_ksym": 172,
        "used_bytes": 107,
        "image_hex": COOKIE_6_12[1].hex(),
        "calls": [
            {"off": 39, "insn": "movabs", "target": "0xffffc900000ad000", "sym": "heap"},
            {"off": 53, "insn": "call", "target": "0xffffffff812de190", "sym": "__bpf_prog_enter_recur"},
            {"off": 70, "insn": "call", "target": "0xffffffffc000064c", "sym": "bpf_prog_a04f_p1"},
            {"off": 75, "insn": "movabs", "target": "0xffffc900000ad000", "sym": "heap"},
            {"off": 92, "insn": "call", "target": "0xffffffff812de430", "sym": "__bpf_prog_exit_recur"},
        ],
        "programs": [
            {
                "name": "bpf_prog_a04f_p1",
                "symbol_address": "0xffffffffc000064c",
                "pointer": "0xffffc900000ad000",
                "sleepable": False,
            }
        ],
        "cookies": ["0x1122334455667788"],
        "im": "0xffff888004a78000",
        "patches": [
            {"off": 16, "target": "0xffffffffc00007e1", "pointer": "0xffffc900000ad000"},
            {"off": 96, "target": "0x61"},
        ],
    }
    assert list(expected.items()) == list(document.items())
    assert image == parse_image_file(print_image_file(image), "x.json")
