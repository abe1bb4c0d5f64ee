"""One call a pattern, as tools expand it: what it answers, and what must be left out so that it attaches (GLOB-6).

libbpf passes every FUNC of one BTF that matches; a tool that reads available_filter_functions first leaves out what has
no site by its name, as retsnoop always does. Each expansion is attached on `batched`, alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain

from impl.batched import per_function
from properties.plan.attaching import attach_singly, world_of
from properties.plan.explaining import Reason
from properties.plan.planning import explain_refusals
from properties.plan.probes import SINGLE, Probe
from properties.plan.selecting import VMLINUX
from spec import operations as op
from spec.outcomes import Errno
from spec.semantics import Semantics
from spec.worlds import Function, World

__all__ = ["Expansion", "expansions"]

HOWS = {"": "as libbpf expands it", "traceable": "as available_filter_functions has it"}


@dataclass(frozen=True, slots=True)
class Expansion:
    """One call. btf: vmlinux, or a module. how: who expands the pattern, in words. count: functions that are passed.

    errno: what the call answers, empty if it attaches. refused: the fewest functions without which it attaches, by the
    reason for which each is refused when it is attached alone.
    """

    probe: str
    btf: str
    how: str
    count: int
    errno: str
    refused: dict[Reason, list[Function]]

    @property
    def left_out(self) -> tuple[Function, ...]:
        """Those functions, whatever the reason."""
        return tuple(chain.from_iterable(self.refused.values()))


def expansions(probe: Probe, attached: Collection[Function], world: World, semantics: Semantics) -> Iterator[Expansion]:
    """What one call with the probe's glob does in each BTF, expanded both ways; attached: what takes the probe."""
    if not semantics.tracing_multi or semantics.has_parts or probe.kind in SINGLE:
        return
    taking = frozenset(function.name for function in attached)
    hows = {how: words for how, words in HOWS.items() if how or not probe.selection.by_retsnoop}
    for btf in _list_btfs(probe, world):
        for how, words in hows.items():
            found = probe.selection.expand(world, how, btf)
            if found:
                errno = _attach(probe, found, semantics)
                refusing = tuple(function for function in found if function.name not in taking) if errno else ()
                yield Expansion(probe.name, btf, words, len(found), errno, _explain(probe, refusing, semantics))


def _explain(probe: Probe, refusing: tuple[Function, ...], semantics: Semantics) -> dict[Reason, list[Function]]:
    """Why each of these functions refuses a program of its own."""
    alone = replace(probe, matched=refusing)
    return explain_refusals(alone, attach_singly([alone], semantics), semantics)


def _list_btfs(probe: Probe, world: World) -> Sequence[str]:
    present = {function.module or VMLINUX for function in probe.matched}
    return [btf for btf in (VMLINUX, *world.modules) if btf in present]


def _attach(probe: Probe, functions: Sequence[Function], semantics: Semantics) -> str:
    """The errno of a link over these functions, in a world of nothing else."""
    with closing(per_function(world_of(functions), semantics)) as system:
        system.apply(op.BpfProgLoad(probe.name, probe.kind, multi=True))
        targets = tuple((function.name, None) for function in functions)
        outcome = system.apply(op.BpfLinkCreate(probe.name, probe.name, targets))
    return outcome.name if isinstance(outcome, Errno) else ""
