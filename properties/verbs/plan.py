"""The verb `plan`: what wildcard attaches would do to a world, function by function, and what they would cost."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from properties.plan.expanding import Expansion, expansions
from properties.plan.explaining import Reason, find_endless, find_lost
from properties.plan.planning import Plan, plan
from properties.plan.probes import KINDS, SINGLE, Probe, is_program, parse_probes, snoop
from properties.plan.programs import LISTS, Typed, list_probes, read_word, unquote
from properties.plan.recording import make_record
from properties.plan.selecting import parse_lists
from properties.report.show import Screen, log_width
from properties.report.writing import write_record, write_whole
from properties.systems.naming import semantics_named, world_named
from spec.costs import POKE_BATCH, Cost
from spec.errors import BadInputError
from spec.semantics import PRESETS
from spec.sharing import LEVELS
from spec.worlds import Function, World

__all__ = ["add_arguments", "run"]


WIDTH = 100
EXAMPLES = 3
MOST_SETS = 24
MOST_LEFT_OUT = 40

SPELLINGS = """
Probes are written as bpftrace or libbpf write them. A word may hold a whole program, whose blocks are passed over, the
path of a script, or a whole command line of bpftrace or retsnoop:

  fentry:vfs_*   kfunc:vmlinux:ksys_*   fexit.multi/tcp_*   'f:tcp_*,fr:tcp_* { @[probe] = count(); }'   opens.bt
  "bpftrace -e 'kfunc:x86* { @[func] = count(); }'"   "retsnoop -e '*sys_bpf' -d 'bpf_lsm_*'"

Globs are those of ftrace; one call is also planned as libbpf expands them, for which only * and ? are wild.
Functions with an argument of a type, as BTF or C spell it; of several types, all:

  'fentry:*(struct sk_buff *)'   'fentry:ip_*(struct net *, struct sock *)'

retsnoop's lists, which its -F takes by fentry and fexit: GLOB, 'GLOB [MODULE]', or @FILE with such globs. -d also holds
for probes:

  -e '*sys_bpf' -a '*bpf*' -a '*btf*' -d 'bpf_lsm_*' -d @noisy.txt

One call fails for one function that is refused. What to leave out is told, and written in full by --left-out:

  'fexit:do_*' --left-out skip.txt     'fexit:do_*' -d @skip.txt

Exit status: 0 planned, 2 bad input; 141 if what reads the output went away.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `plan`."""
    parser.epilog = SPELLINGS
    parser.add_argument(
        "pattern",
        nargs="*",
        metavar="KIND:[MODULE:]GLOB[(TYPE)]",
        help=f"KIND is one of {', '.join(KINDS)}; with commas and blocks, as bpftrace has it",
    )
    for option, name, functions in LISTS:
        parser.add_argument(option, name, action="append", default=[], metavar="GLOB", help=functions)
    parser.add_argument("--world", default="linux-7.3", metavar="W", help="a built-in world or a population file")
    parser.add_argument("--semantics", metavar="X", help=f"one of {', '.join(PRESETS)}; default: each of them")
    parser.add_argument(
        "--left-out", type=Path, metavar="FILE", help="write what one call has to leave out, for -d @FILE"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the plan as a record for `report`, too")


def run(arguments: argparse.Namespace) -> int:
    """Print the plan and return 0; BadInputError if a pattern is malformed or matches nothing."""
    presets = [semantics_named(arguments.semantics)] if arguments.semantics else list(PRESETS.values())
    world = world_named(arguments.world)
    probes = _read_probes(arguments, world)
    console = Screen(highlight=False, width=log_width(WIDTH))
    plans = [plan(probes, semantics) for semantics in presets]
    expanded = _expand(world, probes, plans)
    _print(console, world, probes, plans, expanded)
    if arguments.left_out:
        _write_left_out(expanded, arguments.left_out)
    if arguments.json:
        write_record(make_record(world, probes, plans), arguments.json)
    return 0


def _read_probes(arguments: argparse.Namespace, world: World) -> list[Probe]:
    typed = _read_typed(arguments)
    denied = parse_lists("-d", typed.deny)
    entry = parse_lists("-e", typed.entry)
    allowed = parse_lists("-a", typed.allow)
    probes = parse_probes(typed.probes, world, denied)
    if entry:
        return [*probes, *snoop(entry, allowed, denied, len(probes) + 1, world)]
    if allowed:
        raise BadInputError("-a names what retsnoop traces beside its entry functions: write -e GLOB, too")
    if not probes:
        raise BadInputError("there is nothing to plan: write a probe, such as fentry:vfs_*, or retsnoop's -e GLOB")
    return probes


def _read_typed(arguments: argparse.Namespace) -> Typed:
    """What the words ask for, and the options; of -e programs are told from globs."""
    typed = sum((read_word(text) for text in arguments.pattern), Typed())
    entry = [unquote(text) for text in arguments.entry]
    programs = [text for text in entry if is_program(text)]
    probes = tuple(chain.from_iterable(list_probes(text) for text in programs))
    globs = tuple(text for text in entry if text not in programs)
    return typed + Typed(probes, globs, tuple(arguments.allow), tuple(arguments.deny))


def _print(
    console: Console,
    world: World,
    probes: Sequence[Probe],
    plans: Sequence[Plan],
    expanded: Sequence[tuple[str, Expansion]],
) -> None:
    named = sum(function.btf_id is not None for function in world.functions)
    console.print(f"World {escape(world.name)}: {len(world.functions):,} functions, BTF names {named:,} of them.")
    console.print("Each column applies one kernel's rules to these functions.\n")
    console.print(_attach_table(probes, plans))
    for same in _alike(plans):
        console.print()
        console.print(_mixing_table(probes, same))
    console.print()
    console.print(_image_table(plans))
    console.print()
    console.print(_cost_table(plans))
    notes = _notes(probes, plans), _endless_notes(probes), _lost_notes(world, probes)
    for note in (*chain.from_iterable(notes), *_expansion_notes(expanded)):
        console.print()
        console.print(note)


def _plain(title: str) -> Table:
    """A table without lines, so that it reads the same in a log; its first column has no heading."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    return table


def _table(title: str, plans: Sequence[Plan]) -> Table:
    """A table with one column for each kernel's rules."""
    table = _plain(title)
    for each in plans:
        table.add_column(each.semantics.name.replace("-", "\n", 1), justify="right")
    return table


def _attach_table(probes: Sequence[Probe], plans: Sequence[Plan]) -> Table:
    table = _table("What is attached, and what is refused, and why", plans)
    for number, probe in enumerate(probes):
        table.add_row(
            f"[bold]{probe.name} {escape(probe.pattern)}[/]: {len(probe.matched):,} match, attached",
            *(f"[bold]{len(each.attached[number]):,}[/]" for each in plans),
        )
        for reason, found in _reasons([each.refused[number] for each in plans]).items():
            table.add_row(f"  {reason.rule} {reason.text}", *(_count(len(functions)) for functions in found))
            table.add_row(Padding(_examples(next(filter(None, found))), (0, 0, 0, 4)))
    return table


def _reasons(refused: Sequence[dict[Reason, list[Function]]]) -> dict[Reason, list[list[Function]]]:
    """The functions refused for each reason, by kernel; the most frequent reason first."""
    reasons = dict.fromkeys(reason for each in refused for reason in each)
    found = {reason: [each.get(reason, []) for each in refused] for reason in reasons}
    return dict(sorted(found.items(), key=lambda item: -max(map(len, item[1]))))


def _alike(plans: Iterable[Plan]) -> list[list[Plan]]:
    """Plans in groups: in each, the same programs meet on the same functions."""
    groups: list[list[Plan]] = []
    for each in plans:
        same = next((group for group in groups if group[0].sets == each.sets), None)
        if same is None:
            groups.append([each])
        else:
            same.append(each)
    return groups


def _mixing_table(probes: Sequence[Probe], plans: Sequence[Plan]) -> Table | str:
    """Which programs meet on which functions: each line is a trampoline, for as many shapes as it has to serve."""
    where = ", ".join(each.semantics.name for each in plans)
    sets = plans[0].sets
    if not sets:
        return f"[bold]Mixing trampolines on {where}[/]: nothing is attached"
    table = _plain(f"Mixing trampolines on {where}")
    for probe in probes:
        table.add_column(probe.name, justify="center")
    for heading in ("functions", "shapes"):
        table.add_column(heading, justify="right")
    table.add_column("such as")
    shown = set(sorted(sets, key=lambda numbers: -len(sets[numbers]))[:MOST_SETS])
    for line, (numbers, functions) in enumerate(sets.items(), 1):
        if numbers in shown:
            marks = ("●" if number in numbers else "○" for number in range(len(probes)))
            shapes = plans[0].images("per_shape", numbers)
            table.add_row(f"TRAMPOLINE{line}", *marks, f"{len(functions):,}", f"{shapes:,}", _examples(functions))
    left = [len(functions) for numbers, functions in sets.items() if numbers not in shown]
    if left:
        table.caption = f"{len(left):,} smaller sets of probes, on {sum(left):,} functions, are left out"
    return table


def _image_table(plans: Sequence[Plan]) -> Table:
    table = _table("Trampoline images that are needed, by how they are shared", plans)
    meaning = {
        "per_function": "one a function",
        "per_shape": "one a set of programs and shape of signature",
        "generic": "one a set of programs, more for arguments on the stack",
    }
    for level in LEVELS:
        totals = (sum(each.images(level, numbers) for numbers in each.sets) for each in plans)
        table.add_row(f"{level}: {meaning[level]}", *(_count(total) for total in totals))
    return table


def _cost_table(plans: Sequence[Plan]) -> Table:
    table = _table("Cost", plans)
    for way in plans[0].costs:
        costs = [each.costs[way] for each in plans]
        if any(costs):
            table.add_row(f"[bold]{way}[/]")
            for label, figures in _figures(costs):
                table.add_row(f"  {label}", *("—" if figure is None else f"{figure:,}" for figure in figures))
    return table


def _figures(costs: Sequence[Cost | None]) -> Iterator[tuple[str, list[int | None]]]:
    """The rows of one way of attaching: a count by each kernel's rules. A wait that no kernel has is left out."""
    yield "text-poke rounds", [None if cost is None else cost.poke_rounds for cost in costs]
    yield "sites patched", [None if cost is None else cost.sites_patched for cost in costs]
    for flavour in ("rcu_tasks", "rcu_tasks_rude"):
        waits = [None if cost is None else cost.grace_periods.get(flavour, 0) for cost in costs]
        if any(waits):
            yield f"waits for {flavour}", waits
    built = [None if cost is None else cost.images_built for cost in costs]
    if any(built):
        yield "images built, unshared", built


def _notes(probes: Sequence[Probe], plans: Sequence[Plan]) -> Iterator[str]:
    yield (
        f"A text-poke round is at most {POKE_BATCH} sites, and three synchronisations of all cores. "
        "Links are closed in the order given. Nothing else is taken to be attached."
    )
    for probe in probes:
        if probe.passed_over:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(probe.passed_over.items()))
            yield f"{probe.name}: retsnoop leaves out of itself: {reasons}."
    single = [each.semantics.name for each in plans if not each.semantics.tracing_multi]
    if single:
        yield (
            f"{', '.join(single)}: there is no batch attach for BPF. For comparison, the cost of one "
            "register_ftrace_direct_multi of an allocated ops with one raw trampoline on all these functions."
        )
    for kind in sorted(SINGLE.intersection(probe.kind for probe in probes)) if len(single) < len(plans) else ():
        yield f"There is no batch attach of {kind} programs: they always go one function a call (PROG-1)."
    for each in plans:
        yield from _batch_notes(each)


def _batch_notes(each: Plan) -> Iterator[str]:
    """Sentences about what makes a whole batch fail."""
    name = each.semantics.name
    rules = {reason.rule for refused in each.refused for reason in refused} & {"LINK-3", "LINK-4"}
    if each.semantics.tracing_multi and rules:
        which = " or ".join(sorted(rules))
        yield f"{name}: a call with a function that {which} refuses fails as a whole: leave it out."
    for probe, met in each.cut.items():
        limit = each.semantics.parts_limit
        yield f"{name}: {probe} in one call is -EBUSY, for it meets {met} parts and the limit is {limit} (LINK-11)."


def _endless_notes(probes: Sequence[Probe]) -> Iterator[str]:
    """What is attached, and may end the kernel that is asked for it."""
    for probe in probes:
        if endless := find_endless(probe.matched):
            yield escape(
                f"{probe.name}: leave out {_list_names(endless)}: trampolines reach it themselves, before they know "
                "that a program runs, so that a program there may end the kernel."
            )


def _lost_notes(world: World, probes: Sequence[Probe]) -> Iterator[str]:
    """Which functions a kernel may call attached without touching their sites."""
    for probe in probes:
        if lost := find_lost(probe.matched, world):
            yield escape(
                f"{probe.name}: a kernel with CONFIG_X86_KERNEL_IBT, such as Debian's 6.12 and 7.3, may answer 0 and "
                f"trace nothing of {_list_names(lost)}: the record of an overridden weak function follows (DEFECT-22)."
            )


def _expand(world: World, probes: Sequence[Probe], plans: Sequence[Plan]) -> list[tuple[str, Expansion]]:
    """What one call a pattern does, each with the name of the kernel."""
    return [
        (each.semantics.name, one)
        for each in plans
        for probe, attached in zip(probes, each.attached, strict=True)
        for one in expansions(probe, attached, world, each.semantics)
    ]


def _expansion_notes(expanded: Iterable[tuple[str, Expansion]]) -> Iterator[str]:
    """What one call a pattern answers, by who expands it, and what to leave out."""
    for kernel, one in expanded:
        call = f"{kernel}: {one.probe} in one call over {one.btf}, {one.how}"
        answer = f"-{one.errno}. {_leave_out(one)}" if one.errno else "attached."
        yield escape(f"{call}: {one.count:,} functions, {answer}")


def _leave_out(one: Expansion) -> str:
    """What to leave out, by reason."""
    if len(one.left_out) == one.count:
        return f"None of them can be attached: {'; '.join(f'{r.rule} {r.text}' for r in one.refused)}."
    reasons = (
        f"\n  {each.rule} {each.text} ({len(found):,}): {_list_names(found)}" for each, found in one.refused.items()
    )
    return f"It attaches without these {len(one.left_out):,}:{''.join(reasons)}"


def _write_left_out(expanded: Iterable[tuple[str, Expansion]], path: Path) -> None:
    """All that one call or another has to leave out, as a file for -d @FILE."""
    left_out = {function for _, one in expanded for function in one.left_out}
    globs = {f"{function.symbol}[{function.module}]" if function.module else function.symbol for function in left_out}
    write_whole("".join(f"{glob}\n" for glob in sorted(globs)).encode(), path)


def _list_names(functions: Sequence[Function]) -> str:
    """In full as long as somebody can read them."""
    shown = ", ".join(function.symbol for function in functions[:MOST_LEFT_OUT])
    return shown + (f" and {len(functions) - MOST_LEFT_OUT:,} more" if len(functions) > MOST_LEFT_OUT else "")


def _count(number: int) -> str:
    return f"{number:,}" if number else "—"


def _examples(functions: Sequence[Function]) -> Text:
    names = [function.name for function in functions[:EXAMPLES]]
    return Text(", ".join(names) + (", …" if len(functions) > EXAMPLES else ""), style="dim")
