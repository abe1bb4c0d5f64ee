"""What a task is parked in, and what is done meanwhile: kinds of images, and operations, as lines of seeds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from spec.alphabet import alphabet
from spec.errors import BadInputError
from spec.seeds import parse_operation
from spec.semantics import Semantics

__all__ = ["ImageKind", "SweptRow", "rows", "rows_of"]


@dataclass(frozen=True, slots=True)
class ImageKind:
    """Lines that make an image of a function, which is then called with these arguments.

    links: those that hold it, the oldest first, with the lines that make them anew. ops: an ops that is on the site.
    """

    name: str
    before: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    call: str = "foo1 1"
    ops: str = ""

    @property
    def function(self) -> str:
        """The function that has the image."""
        return self.call.split()[0]

    @property
    def lines(self) -> tuple[str, ...]:
        """All that makes the image."""
        return (*self.before, *(line for _, line in self.links))


@dataclass(frozen=True, slots=True)
class SweptRow:
    """An image and an operation.

    before: what the operation needs. lines: the operation; where one pends, it is the last. back: what undoes it; empty
    if the links of the image are made anew instead.
    """

    image: ImageKind
    operation: str
    before: tuple[str, ...]
    lines: tuple[str, ...]
    back: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.image.name}: {self.operation}"


def _image(name: str, *programs: str, call: str = "foo1 1", before: tuple[str, ...] = (), ops: str = "") -> ImageKind:
    """An image of these programs, p1, p2 and so on in the order of attaching."""
    function = call.split(maxsplit=1)[0]
    loads = (f"bpf_prog_load p{number} {program}" for number, program in enumerate(programs, 1))
    links = (
        (f"l{number}", f"bpf_link_create l{number} p{number} {function} foo2")
        if "multi" in program
        else (f"l{number}", f"bpf_raw_tracepoint_open l{number} p{number} {function}")
        for number, program in enumerate(programs, 1)
    )
    return ImageKind(name, (*before, *loads), tuple(links), call, ops)


_PLAIN: Final = ("ftrace_ops o1", "ftrace_set_filter_ip o1 foo1", "register_ftrace_function o1")

IMAGES: Final = (
    _image("fentry", "fentry"),
    _image("fexit", "fexit"),
    _image("fmod_ret", "fmod_ret"),
    _image("fmod_ret that answers", "fmod_ret returns=-22"),
    _image("fsession", "fsession"),
    _image("two fentry", "fentry", "fentry"),
    _image("two fexit", "fexit", "fexit"),
    _image("mixed", "fexit", "fmod_ret", "fentry"),
    _image("answered and fexit", "fmod_ret returns=-22", "fexit"),
    _image("session and fexit", "fsession", "fexit"),
    _image("sleepable", "fentry sleepable"),
    _image("sleepable first", "fentry", "fentry sleepable"),
    _image("sleepable fexit", "fexit sleepable", "fexit"),
    _image("func_ip", "fexit func_ip"),
    _image("calls", "fentry calls=foo2 target=foo1", "fexit"),
    _image("no arguments", "fexit", call="foo0"),
    _image("words on the stack", "fentry", "fexit", call="foo7 1 2 3 4 5 6 7"),
    _image("struct", "fexit", call="split 1 2 3 4"),
    _image("site of several", "fentry", "fexit", before=_PLAIN, ops="o1"),
    _image("livepatched", "fentry", "fexit", before=("livepatch foo1",)),
    _image("graph", "fexit", before=("register_ftrace_graph g1 filter=foo1",)),
    _image("tracing_multi", "fexit multi"),
    _image("tracing_multi and fentry", "fexit multi", "fentry"),
)

_NEW_OPS: Final = ("ftrace_ops o9", "ftrace_set_filter_ip o9 {function}")


def rows(semantics: Semantics) -> tuple[SweptRow, ...]:
    """Every row whose operations these semantics have."""
    supported = alphabet(semantics)
    needs = {" multi": semantics.tracing_multi, " fsession": semantics.fsession, " fmod_ret": semantics.fmod_ret}

    def has(row: SweptRow) -> bool:
        lines = (*row.before, *row.image.lines, *row.lines, *row.back)
        kinds = {type(parse_operation(line)) for line in lines}
        return kinds <= supported and all(fact or word not in " ".join(lines) for word, fact in needs.items())

    return tuple(row for image in IMAGES for row in _list_rows(image) if has(row))


def rows_of(every: Iterable[SweptRow], image: str | None, operation: str | None) -> tuple[SweptRow, ...]:
    """Those of one image and one operation, or all; BadInputError if there is none."""
    held = tuple(every)
    found = tuple(row for row in held if image in {None, row.image.name} and operation in {None, row.operation})
    if not found:
        images = dict.fromkeys(row.image.name for row in held)
        operations = dict.fromkeys(row.operation for row in held)
        raise BadInputError(
            f"no row is of '{image or '*'}' and '{operation or '*'}': images are {', '.join(images)}; "
            f"operations are {', '.join(operations)}"
        )
    return found


def _list_rows(image: ImageKind) -> Iterator[SweptRow]:
    """The operations that change what this image is in."""
    function = image.function
    for kind in ("fentry", "fexit"):
        attach = f"bpf_raw_tracepoint_open l9 p9 {function}"
        yield SweptRow(image, f"attach {kind}", (f"bpf_prog_load p9 {kind}",), (attach,), ("bpf_link_detach l9",))
    again = f"bpf_link_create l9 p9 {function} foo3"
    yield SweptRow(image, "attach many", ("bpf_prog_load p9 fentry multi",), (again,), ("bpf_link_detach l9",))
    yield from _detaches(image)
    new = tuple(line.format(function=function) for line in _NEW_OPS)
    yield SweptRow(image, "an ops comes", new, ("register_ftrace_function o9",), ("unregister_ftrace_function o9",))
    if image.ops:
        goes, comes = f"unregister_ftrace_function {image.ops}", f"register_ftrace_function {image.ops}"
        yield SweptRow(image, "the ops goes", (), (goes,), (comes,))
    if image is IMAGES[0]:
        # No system carries these out beside a task (NAME-14): one image is enough to see that.
        graph = "register_ftrace_graph g9 filter=foo1"
        yield SweptRow(image, "the graph tracer comes", (), (graph,), ("unregister_ftrace_graph g9",))
        yield SweptRow(image, "livepatch", (), (f"livepatch {function}",), (f"unlivepatch {function}",))
        yield SweptRow(image, "a module goes", (), ("delete_module mod1",), ("init_module mod1",))


def _detaches(image: ImageKind) -> Iterator[SweptRow]:
    names = [name for name, _ in image.links]
    everything = tuple(f"bpf_link_detach {name}" for name in names)
    if len(names) == 1:
        yield SweptRow(image, "detach the last", (), everything)
        return
    for place, which in ((0, "oldest"), (-1, "newest")):
        yield SweptRow(image, f"detach the {which}", (), (everything[place],))
    yield SweptRow(image, "detach all", (), everything)
