"""What attaching to many functions costs on real kernels, beside what the model says of the same operations.

Grace periods have the length that the kernel gives them. Each way of attaching is one case: how it is measured, and the
operations that the model carries out for it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from rich.console import Console

from impl.linux.guest import packages
from impl.linux.guest.guest import GuestDiedError
from impl.linux.instruments import bpftrace, measure
from impl.linux.instruments.measure import OPS, STUB, Bench, Measured
from model import system
from properties.kernels.cost_rows import Costs, Prediction, Row
from spec import operations as op
from spec import populations
from spec.errors import BadInputError
from spec.globs import matcher
from spec.names import names_of
from spec.operations import Operation
from spec.outcomes import Errno
from spec.semantics import PRESETS, Semantics
from spec.system import System
from spec.worlds import Function, World

__all__ = ["Case", "Steps", "cases", "client_case", "cold", "measured_rows", "predict", "run"]

SIZES = (10, 50, 200)
LARGE = (1000, 5000)

COLD = ("acpi_*", "pci_*", "tcp_*", "__ia32_*", "intel_*", "*_store", "*_show")
"""Functions that an idle guest and its agent do not run through, whatever reads tracefs."""

SHORTEST = 9
"""Shorter names, such as t_show and m_show, are those of the files that the agent reads."""

ALLOWED, DENIED = ("udp_*", "migrate_*", "do_[eg]*"), ("udp_v6_*", "migrate_p*")
WILDCARDS = ("vfs_*", "x86*")
CLIENT_SUITES = {"linux-6.1": "bookworm", "linux-6.12": "bookworm", "linux-7.3": "trixie"}
CLIENT_ARGUMENTS = 6
"""bpftrace leaves functions with more arguments out."""

FPROBE_OPS_DYNAMIC = {"linux-6.12": True, "linux-7.3": False}
"""Whether a fprobe on entries has an ops of its own, which goes with it; in 7.3 fprobe_ftrace_ops, which is static,
serves all. Debian's 6.1 has no fprobe. Source: kernel/trace/fprobe.c."""

FPROBE_SITE = "bpf_fentry_test1"


@dataclass(frozen=True, slots=True)
class Steps:
    """The model's operations: those before, those that attach, those that detach. also: further functions in them."""

    before: tuple[Operation, ...] = ()
    attach: tuple[Operation, ...] = ()
    detach: tuple[Operation, ...] = ()
    also: tuple[Function, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """A way of attaching: its name, its functions, how it is measured, and the model's steps, if the kernel has it.

    group: the other cases of a group are compared with its first. chosen: the client itself leaves out the functions
    that cannot be attached.
    """

    what: str
    functions: tuple[Function, ...]
    measure: Callable[[Bench], Measured]
    steps: Steps | None
    group: str = ""
    chosen: bool = False


def run(kernels: Sequence[str], console: Console) -> Costs:
    """Measure everything on these kernels, and print each row. BadInputError: something is missing."""
    started = time.monotonic()
    rows: list[Row] = []
    for kernel in kernels:
        for row in measured_rows(kernel):
            rows.append(row)
            console.print(str(row), highlight=False, markup=False, soft_wrap=True)
    return Costs(tuple(rows), time.monotonic() - started)


def measured_rows(kernel: str) -> Iterator[Row]:
    """Measure the rows of one kernel: our own programs first, then bpftrace."""
    if kernel not in CLIENT_SUITES:
        raise BadInputError(f"no costs are known for '{kernel}': write one of {', '.join(CLIENT_SUITES)}")
    world, semantics = populations.load(kernel), PRESETS[kernel]
    with _bench(measure.prepare(packages.fetch(kernel))) as bench:
        for case in cases(world, semantics, bench.has):
            bench.fresh()
            yield _row(case, bench, world, semantics)
    fetched = packages.fetch(kernel)
    client = bpftrace.fetch(CLIENT_SUITES[kernel], fetched.architecture)
    prepared = measure.prepare(fetched, memory=bpftrace.MEMORY, files=client.files)
    with _bench(prepared) as bench:
        for pattern in WILDCARDS:
            bench.fresh()
            yield _row(client_case(world, client, pattern), bench, world, semantics)


@contextmanager
def _bench(bench: Bench) -> Iterator[Bench]:
    try:
        yield bench
    finally:
        bench.guest.close()


def _row(case: Case, bench: Bench, world: World, semantics: Semantics) -> Row:
    steps, functions = case.steps, case.functions
    expected = predict((*functions, *steps.also), semantics, steps) if steps else Prediction.nothing()
    try:
        measured, trouble = case.measure(bench), ""
    except (BadInputError, GuestDiedError) as error:
        measured, trouble = None, str(error).partition("\n")[0]
    return Row(world.name, case.what, len(functions), measured, expected, case.group, case.chosen, trouble)


def cold(world: World, has: Callable[[str], bool]) -> list[Function]:
    """Functions for a mass attach: they are idle, their names are unique, and every kernel takes all kinds on them."""
    named = Counter(function.symbol for function in world.functions)
    matches = [matcher(pattern) for pattern in COLD]
    return [
        function
        for function in world.functions
        if function.module is None
        and named[function.symbol] == 1
        and len(function.symbol) >= SHORTEST
        and any(match(function.symbol) for match in matches)
        and _takes_all(function)
        and has(function.symbol)
    ]


def _takes_all(function: Function) -> bool:
    prototype = function.prototype
    plain = prototype is not None and prototype.describable and len(prototype.slots) <= CLIENT_ARGUMENTS
    return plain and bool(function.btf_id) and not function.attributes & {"deny", "noreturn", "disabled"}


def cases(world: World, semantics: Semantics, has: Callable[[str], bool]) -> Iterator[Case]:
    """Every way of attaching that a kernel has, in every size."""
    pool = cold(world, has)
    for size in SIZES:
        yield _one_by_one("BPF links, one by one", ("fentry",), _spread(pool, size), str(size))
    for size in (*SIZES, *LARGE) if semantics.tracing_multi else ():
        yield _tracing_multi("one tracing_multi link", {"fentry": _spread(pool, size)}, str(size))
    for size in SIZES if world.name in FPROBE_OPS_DYNAMIC else SIZES[:1]:
        yield _kprobe_multi(world.name, _spread(pool, size))
    for size in SIZES:
        yield from _through_module(semantics, _spread(pool, size))
    yield from _snooping(world, semantics)


def _spread(functions: Sequence[Function], count: int) -> tuple[Function, ...]:
    return tuple(functions[:: max(1, len(functions) // count)][:count])


def _one_by_one(what: str, kinds: tuple[str, ...], functions: tuple[Function, ...], group: str) -> Case:
    symbols = [function.symbol for function in functions]
    measuring = partial(measure.one_by_one, kinds=kinds, functions=symbols)
    return Case(what, functions, measuring, _single_links(kinds, symbols), group)


def _single_links(kinds: Sequence[str], symbols: Sequence[str]) -> Steps:
    wanted = [(f"{kind}:{symbol}", kind, symbol) for symbol in symbols for kind in kinds]
    return Steps(
        tuple(op.BpfProgLoad(name, kind, target=symbol) for name, kind, symbol in wanted),
        tuple(op.BpfRawTracepointOpen(name, name) for name, _, _ in wanted),
        tuple(op.BpfLinkDetach(name) for name, _, _ in wanted),
    )


def _tracing_multi(what: str, wanted: dict[str, tuple[Function, ...]], group: str) -> Case:
    symbols = {kind: [function.symbol for function in functions] for kind, functions in wanted.items()}
    steps = Steps(
        tuple(op.BpfProgLoad(kind, kind, multi=True) for kind in wanted),
        tuple(op.BpfLinkCreate(kind, kind, tuple((name, None) for name in names)) for kind, names in symbols.items()),
        tuple(op.BpfLinkDetach(kind) for kind in wanted),
    )
    functions = tuple(dict.fromkeys(function for some in wanted.values() for function in some))
    return Case(what, functions, partial(measure.tracing_multi, wanted=symbols), steps, group)


def _kprobe_multi(kernel: str, functions: tuple[Function, ...]) -> Case:
    symbols = [function.symbol for function in functions]
    steps = _fprobe(kernel, symbols) if kernel in FPROBE_OPS_DYNAMIC else None
    measuring = partial(measure.kprobe_multi, functions=symbols)
    return Case("one kprobe_multi link", functions, measuring, steps, str(len(symbols)))


def _fprobe(kernel: str, symbols: Sequence[str]) -> Steps:
    """The operations of a fprobe, which registers an ops."""
    return Steps(
        (op.FtraceOps("fprobe", dynamic=FPROBE_OPS_DYNAMIC[kernel]),),
        (op.FtraceSetFilterIps("fprobe", tuple(symbols)), op.RegisterFtraceFunction("fprobe")),
        (op.UnregisterFtraceFunction("fprobe"),),
    )


def _through_module(semantics: Semantics, functions: tuple[Function, ...]) -> Iterator[Case]:
    """The interfaces of ftrace itself, with a dynamic ops: so is that of each BPF trampoline where each has one."""
    symbols = tuple(function.symbol for function in functions)
    declared, filled = op.FtraceOps(OPS, dynamic=True), op.FtraceSetFilterIps(OPS, symbols)
    pairs = tuple((symbol, STUB) for symbol in symbols)
    ways = {
        "register_ftrace_direct_multi": Steps(
            (declared,),
            (filled, op.RegisterFtraceDirectMulti(OPS, STUB)),
            (op.UnregisterFtraceDirectMulti(OPS, STUB),),
        ),
        "register_ftrace_function": Steps(
            (declared,), (filled, op.RegisterFtraceFunction(OPS)), (op.UnregisterFtraceFunction(OPS),)
        ),
    }
    if semantics.hash_direct:
        adding, deleting = op.UpdateFtraceDirectAdd(OPS, pairs), op.UpdateFtraceDirectDel(OPS, pairs)
        ways["update_ftrace_direct_add"] = Steps((declared,), (adding,), (deleting,))
    if semantics.single_direct:
        ways["register_ftrace_direct, one by one"] = Steps(
            (),
            tuple(op.RegisterFtraceDirect(*pair) for pair in pairs),
            tuple(op.UnregisterFtraceDirect(*pair) for pair in pairs),
        )
    for what, steps in ways.items():
        measuring = partial(measure.through_module, before=steps.before, attaching=steps.attach, detaching=steps.detach)
        yield Case(what, functions, measuring, steps, str(len(symbols)))


def _snooping(world: World, semantics: Semantics) -> Iterator[Case]:
    """What retsnoop does: fentry and fexit on functions that globs allow and none denies; one by one it tries all."""
    kinds = ("fentry", "fexit")
    functions = _matching(world, ALLOWED, DENIED)
    what = "fentry and fexit on allowed globs minus denied ones"
    yield _one_by_one(f"{what}, one by one", kinds, functions, "globs")
    if semantics.tracing_multi:
        refused = predict(functions, semantics, _single_links(kinds, [f.symbol for f in functions])).refused
        wanted = {kind: tuple(f for f in functions if f"{kind}:{f.symbol}" not in refused) for kind in kinds}
        yield _tracing_multi(f"{what}, two tracing_multi links", wanted, "globs")


def _matching(world: World, allowed: Sequence[str], denied: Sequence[str] = ()) -> tuple[Function, ...]:
    """Functions of the kernel proper by their symbols; of several with one symbol the first."""
    left_out = [matcher(pattern) for pattern in denied]
    found = [function for pattern in allowed for function in world.matching(pattern, frozenset())]
    return tuple(
        function
        for function in dict.fromkeys(found)
        if function.name == function.symbol and not any(match(function.symbol) for match in left_out)
    )


def client_case(world: World, client: bpftrace.Client, pattern: str) -> Case:
    """A wildcard of bpftrace, which begins by trying kprobe_multi on one function, where the kernel has it."""
    functions = tuple(
        function
        for function in _matching(world, (pattern,))
        if function.prototype is None or len(function.prototype.arguments) <= CLIENT_ARGUMENTS
    )
    links = _single_links(("fentry",), [function.symbol for function in functions])
    trying = _fprobe(world.name, [FPROBE_SITE]) if world.name in FPROBE_OPS_DYNAMIC else Steps()
    tried = (*trying.attach, *trying.detach)
    also = tuple(world.by_name[name] for name in (FPROBE_SITE,) if tried)
    steps = Steps((*links.before, *trying.before), (*tried, *links.attach), links.detach, also)
    program = f"kfunc:{pattern} {{ @[probe] = count(); }}"
    what = f"bpftrace {client.version} kfunc:{pattern}"
    return Case(what, functions, partial(bpftrace.trace, script=program), steps, chosen=True)


def predict(functions: Sequence[Function], semantics: Semantics, steps: Steps) -> Prediction:
    """What the model says of a steps, in a world of these functions alone."""
    model = system(World("measured", tuple(dict.fromkeys(functions))), semantics)
    refused: dict[str, str] = {}
    for operation in steps.before:
        _apply(model, operation, refused)
    before = model.cost().grace_periods
    for operation in steps.attach:
        _apply(model, operation, refused)
    attached, between = frozenset(model.sites()), model.cost().grace_periods
    for operation in steps.detach:
        _apply(model, operation, refused)
    after = model.cost().grace_periods
    return Prediction(_difference(before, between), _difference(between, after), attached, refused)


def _apply(model: System, operation: Operation, refused: dict[str, str]) -> None:
    """Apply an operation, unless what it needs was refused; the first errno is noted by program, or by no name."""
    if {name.text for name in names_of(operation) if name.space in {"prog", "link"}} & refused.keys():
        return
    outcome = model.apply(operation)
    if isinstance(outcome, Errno):
        name = operation.prog if isinstance(operation, op.BpfProgLoad | op.BpfRawTracepointOpen) else ""
        refused.setdefault(name, outcome.name)


def _difference(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return dict(Counter(after) - Counter(before))
