"""A seed as text for a mailing list, in 72 columns: what was done, what must be, what was seen, and by which rules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten, wrap

from properties.export.comments import about
from properties.export.language import templates
from properties.export.recorded import Recorded, RecordedSeed, SeedSetting, record, setting_of
from properties.export.rules import cited_in, rules, rules_of
from properties.lockstep.divergence import Divergence
from properties.lockstep.lockstep import Lockstep
from properties.lockstep.supported import UnsupportedError
from properties.systems.kernels import made_for
from properties.systems.naming import KERNELS
from spec.alphabet import alphabet
from spec.documents import Rule
from spec.errors import BadInputError
from spec.seeds import Step, print_operation
from spec.semantics import PRESETS
from spec.system import SystemFactory

__all__ = ["WIDTH", "Seen", "item", "mail", "paragraph", "shorten_subject", "tell_rules", "tell_steps", "watch"]

WIDTH = 72
INDENT = "    "
MOST_RULES = 4


@dataclass(frozen=True, slots=True)
class Seen:
    """What a system did with a seed. divergence: the first, None if it agreed with the model throughout."""

    system: str
    divergence: Divergence | None


def watch(setting: SeedSetting, system: str, factory: SystemFactory) -> Seen:
    """Run a seed on a system beside the model; BadInputError if the system declines a step."""
    world = made_for([system], setting.world, setting.semantics)
    lockstep = Lockstep(world, setting.semantics, [factory])
    try:
        for step in setting.seed.steps:
            found = _take(lockstep, step, setting.path)
            if found:
                return Seen(system, found)
    finally:
        lockstep.close()
    return Seen(system, None)


def _take(lockstep: Lockstep, step: Step, path: Path) -> Divergence | None:
    try:
        return next(iter(lockstep.step(step).divergences), None)
    except UnsupportedError as error:
        raise BadInputError(str(error), str(path), step.line) from error


def mail(recording: RecordedSeed, seen: Seen | None) -> str:
    """The text, each line at most WIDTH columns wide."""
    setting = recording.setting
    said = about(setting.path)
    values = {
        "subject": shorten_subject(said.partition(": ")[0].partition(". ")[0].rstrip(".") or setting.name),
        "about": paragraph(said),
        "setting": paragraph(_tell_setting(setting)),
        "steps": tell_steps(recording),
        "disagreements": [line for r in recording.steps if not r.agrees for line in _tell_disagreement(r)],
        "kernels": [line for name in KERNELS for line in item(_compare_kernel(recording, name))],
        "seen": _tell_seen(seen, len(recording.steps)),
        "rules": tell_rules(_choose_rules(recording, said, seen)),
    }
    return templates().get_template("mail.txt").render(values)


def paragraph(text: str, indent: str = "") -> list[str]:
    """A text in lines of the mail's width."""
    return wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def item(text: str) -> list[str]:
    """A text whose first line stands out."""
    return wrap(text, WIDTH, initial_indent="  ", subsequent_indent=INDENT, break_on_hyphens=False)


def shorten_subject(text: str) -> str:
    """As much of a text as a subject has room for."""
    return shorten(text, WIDTH - len("Subject: "), placeholder=" ...")


def tell_steps(recording: RecordedSeed) -> list[str]:
    """The steps of a seed, each with what must come of it."""
    return [line for recorded in recording.steps for line in _tell_step(recorded)]


def tell_rules(numbers: Iterable[str]) -> list[str]:
    """Rules of spec/README.md with their sources."""
    return [line for rule in rules_of(numbers) for line in _tell_rule(rule)]


def _tell_setting(setting: SeedSetting) -> str:
    functions = "fooN takes N longs and returns their sum" if setting.world.name == "synthetic" else "those it names"
    return f"World {setting.seed.world} ({functions}), by the rules of {setting.semantics.name}:"


def _tell_step(recorded: Recorded) -> list[str]:
    """A step as the seed has it, behind its line's number, with what must come of it."""
    text = f"{print_operation(recorded.step.operation)} -> {recorded.expected}"
    note = f" # by the harness, {recorded.harness}" if recorded.harness else ""
    start = f"{recorded.step.line:>4}  "
    return wrap(f"{text}{note}", WIDTH, initial_indent=start, subsequent_indent=" " * 8, break_on_hyphens=False)


def _tell_disagreement(recorded: Recorded) -> list[str]:
    return item(f"line {recorded.step.line}: the seed expects {recorded.expected}, the rules {recorded.predicted}")


def _compare_kernel(recording: RecordedSeed, kernel: str) -> str:
    """Whether another kernel's rules predict the same."""
    setting = recording.setting
    if kernel == setting.semantics.name:
        return f"{kernel}: as above"
    supported = alphabet(PRESETS[kernel])
    for recorded in recording.steps:
        if type(recorded.step.operation) not in supported:
            return f"{kernel}: has no {recorded.step.operation.verb}"
    try:
        other = record(setting_of(setting.path, replace(setting.seed, semantics=kernel)))
    except BadInputError as error:
        # Nobody who gets the mail has the seed in the same place.
        place, _, mistake = str(error).removeprefix(f"{setting.path}:").partition(": ")
        return f"{kernel}: line {place}: {mistake}" if place.isdigit() else f"{kernel}: {error}"
    for here, there in zip(recording.steps, other.steps, strict=True):
        if here.predicted != there.predicted:
            return f"{kernel}: line {here.step.line} gives {there.predicted}"
    return f"{kernel}: the same"


def _tell_seen(seen: Seen | None, steps: int) -> list[str]:
    if seen is None:
        return []
    if seen.divergence is None:
        return paragraph(f"{seen.system} did so in all {steps} steps.")
    found = seen.divergence
    lines = paragraph(f"{seen.system} differs in {found.aspect} at line {found.line}: {found.step}")
    for title, text in (("expected:", found.expected), ("seen:", found.observed)):
        lines += [f"  {title}", *(line for row in text.splitlines() for line in paragraph(row, INDENT) or [""])]
    return lines


def _choose_rules(recording: RecordedSeed, said: str, seen: Seen | None) -> tuple[str, ...]:
    """The most specific one of the step that differs, and those that the seed cites; or that of the last step."""
    cited = cited_in(said)
    if seen is not None and seen.divergence is not None:
        cited = (*_last_rule(seen.divergence.rules), *cited)
    elif not cited and recording.steps:
        cited = _last_rule(recording.steps[-1].rules)
    return tuple(dict.fromkeys(cited))[:MOST_RULES]


def _last_rule(numbers: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(number for number in numbers if number in rules())[-1:]


def _tell_rule(rule: Rule) -> list[str]:
    return [*item(f"{rule.id}: {rule.text}"), *paragraph(f"[{rule.source}]", INDENT)]
