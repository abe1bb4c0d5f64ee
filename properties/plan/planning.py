"""What wildcard attaches would do under one kernel's rules, as values: who is refused, who meets, what it costs.

Nothing is run: reasons and costs follow from the rules, so that a tool's author can ask before writing the tool.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from spec.abi import SLOT_BYTES
from spec.costs import POKE_BATCH, Cost
from spec.errors import BadInputError
from spec.globs import record_index, without_bang
from spec.prototypes import MAX_ARGUMENT_BYTES, MAX_ARGUMENTS, Prototype
from spec.semantics import Semantics
from spec.sharing import image_key
from spec.worlds import Function, World

__all__ = ["BATCH", "DIRECT_MULTI", "KINDS", "ONE_BY_ONE", "Plan", "Program", "Reason", "parse_program", "plan"]

KINDS = {
    "fentry": "fentry",
    "kfunc": "fentry",
    "fexit": "fexit",
    "kretfunc": "fexit",
    "fmod_ret": "fmod_ret",
    "fsession": "fsession",
}
READS_RETURN = frozenset({"fexit", "fmod_ret", "fsession"})
PROPOSAL_SLOTS = 6
LEAST_ENTRIES, MOST_BUCKETS = 32, 1 << 12

ONE_BY_ONE = "one function a call"
BATCH = "one call a pattern"
DIRECT_MULTI = "instead of BPF: one raw direct_multi"


@dataclass(frozen=True, slots=True)
class Program:
    """One pattern of the command line: a program, and the functions that its glob matches."""

    name: str
    kind: str
    pattern: str
    matched: tuple[Function, ...]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a function is refused, and the rule that says so."""

    rule: str
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A program and the functions that it is attached to in one call."""

    program: Program
    functions: tuple[Function, ...]


@dataclass(frozen=True)
class Plan:
    """What the programs would do under one kernel's rules.

    attached and refused: by program, in the order given, functions in address order. sets: the functions on which
    exactly these programs meet. costs: of attaching and of detaching, by the way it is done; None where there is none.
    cut: how many parts a link of the proposal meets where they are too many (LINK-11), by program's name.
    """

    semantics: Semantics
    attached: tuple[tuple[Function, ...], ...]
    refused: tuple[dict[Reason, list[Function]], ...]
    sets: dict[tuple[int, ...], list[Function]]
    costs: dict[str, Cost | None]
    cut: dict[str, int]

    def images(self, level: str, programs: tuple[int, ...]) -> int:
        """How many images of these programs a sharing level needs."""
        return len({image_key(level, function) for function in self.sets.get(programs, [])})


def parse_program(text: str, number: int, world: World) -> Program:
    """The number-th program of the command line; BadInputError if the text is no KIND:GLOB or matches nothing."""
    kind, colon, glob = text.partition(":")
    if not (kind and colon and glob):
        raise BadInputError(f"'{text}' is no pattern: write KIND:GLOB, such as fentry:vfs_*")
    if kind not in KINDS:
        raise BadInputError(f"unknown kind '{kind}' in '{text}': write one of {', '.join(KINDS)}")
    if without_bang(glob)[1]:
        raise BadInputError(f"'{text}' asks for removal: write the glob without '!'")
    # A number is ftrace's name for a record; BPF has no such names.
    matched = world.matching(glob) if record_index(glob) is None else ()
    if not matched:
        raise BadInputError(f"'{text}' matches no function of the world {world.name}")
    return Program(f"P{number}", KINDS[kind], text, matched)


def plan(programs: Sequence[Program], semantics: Semantics) -> Plan:
    """What attaching these programs, in this order, would do and cost under one kernel's rules."""
    held = Counter[str]()
    attached: list[tuple[Function, ...]] = []
    refused: list[dict[Reason, list[Function]]] = []
    for program in programs:
        accepted: list[Function] = []
        reasons: dict[Reason, list[Function]] = {}
        for function in program.matched:
            reason = _refusal(function, program.kind, semantics, held[function.name])
            (accepted if reason is None else reasons.setdefault(reason, [])).append(function)
        held.update({function.name: 1 + (program.kind == "fsession") for function in accepted})
        attached.append(tuple(accepted))
        refused.append(reasons)
    calls = [Call(*pair) for pair in zip(programs, attached, strict=True)]
    cut = _cut(calls, semantics)
    costs = _costs(calls, semantics, batched=semantics.tracing_multi and not cut)
    return Plan(semantics, tuple(attached), tuple(refused), _sets(attached), costs, cut)


def _refusal(function: Function, kind: str, facts: Semantics, held: int) -> Reason | None:
    """The first reason in the order of a single attach. held: programs on the function, a session counted twice."""
    if not {"fmod_ret": facts.fmod_ret, "fsession": facts.fsession}.get(kind, True):
        return Reason("PROG-1", "the kernel has no such programs")
    if function.btf_id is None or function.prototype is None:
        again = "@" in function.name
        return Reason("PROG-3", "duplicate symbol: BTF means the first" if again else "no BTF")
    found = _undescribable(function.prototype, facts) or _unfit(function, function.prototype, kind, facts)
    if found is None and len(function.prototype.slots) > facts.max_slots:
        return Reason("LINK-4", "more argument slots than the JIT takes")
    if found is None and held + (kind == "fsession") >= facts.max_links:
        return Reason("LINK-3", "as many programs as a trampoline holds")
    return found


def _undescribable(prototype: Prototype, facts: Semantics) -> Reason | None:
    """ARG-4."""
    if prototype.has_union and not facts.union_arguments:
        return Reason("ARG-4", "a union by value")
    if prototype.describable:
        return None
    if prototype.variadic:
        return Reason("ARG-4", "variable arguments")
    if prototype.returns.by_value:
        return Reason("ARG-4", "returns a struct or union by value")
    if len(prototype.arguments) > MAX_ARGUMENTS:
        return Reason("ARG-4", f"more than {MAX_ARGUMENTS} arguments")
    return Reason("ARG-4", f"an argument of more than {MAX_ARGUMENT_BYTES} bytes")


def _unfit(function: Function, prototype: Prototype, kind: str, facts: Semantics) -> Reason | None:
    """What PROG-4 and PROG-3 say of a function that can be described."""
    if facts.parts_limit is not None and len(prototype.slots) > PROPOSAL_SLOTS:
        return Reason("PROG-4", f"more than {PROPOSAL_SLOTS} argument slots")
    if facts.wide_return_refused and kind in READS_RETURN and prototype.returns.size > SLOT_BYTES:
        return Reason("PROG-3", f"returns more than {SLOT_BYTES} bytes")
    if kind == "fmod_ret" and "fmod_ret" not in function.attributes:
        return Reason("PROG-3", "its return value may not be modified")
    if "deny" in function.attributes:
        return Reason("PROG-3", "denied: trampolines use it themselves")
    if facts.noreturn_refused and kind in READS_RETURN and "noreturn" in function.attributes:
        return Reason("PROG-3", "never returns")
    return None


def _sets(attached: Iterable[tuple[Function, ...]]) -> dict[tuple[int, ...], list[Function]]:
    """Functions by the programs that meet on them, P1 before P1 P2 before P2."""
    meeting: dict[str, tuple[Function, list[int]]] = {}
    for number, functions in enumerate(attached):
        for function in functions:
            meeting.setdefault(function.name, (function, []))[1].append(number)
    sets: dict[tuple[int, ...], list[Function]] = {}
    for function, numbers in meeting.values():
        sets.setdefault(tuple(numbers), []).append(function)
    return dict(sorted(sets.items()))


@dataclass(slots=True)
class _Parts:
    """The proposal's parts: sets of functions with the same trampoline (LINK-11)."""

    of: dict[str, int] = field(default_factory=dict)
    size: Counter[int] = field(default_factory=Counter)
    made: int = 0

    def met(self, functions: Iterable[Function]) -> Counter[int]:
        """How many of the functions lie in each existing part."""
        return Counter(self.of[function.name] for function in functions if function.name in self.of)

    def attach(self, functions: Sequence[Function]) -> None:
        """Cut the parts that are met partly; functions in no part become new ones, by their number of arguments."""
        met = self.met(functions)
        new: dict[tuple[int | None, int], int] = {}
        for function in functions:
            old = self.of.get(function.name)
            if old is not None and met[old] == self.size[old]:
                continue
            key = (old, 0 if old is not None or function.prototype is None else len(function.prototype.arguments))
            if key not in new:
                self.made += 1
                new[key] = self.made
            self.of[function.name] = new[key]
            self.size[new[key]] += 1
        for part, count in met.items():
            self.size[part] -= count if count < self.size[part] else 0

    def end(self, functions: Iterable[Function]) -> int:
        """Take out functions that lost their last program; the number of parts that end with them."""
        return len({self.of.pop(function.name) for function in functions})


@dataclass(slots=True)
class _Meter:
    """What a sequence of calls costs (COST-*), and the state that this depends on where nothing else is attached."""

    semantics: Semantics
    held: Counter[str] = field(default_factory=Counter)
    parts: _Parts = field(default_factory=_Parts)
    entries: int = 0
    buckets: int = 0
    waits: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    sites: int = 0
    built: int = 0

    def taken(self) -> Cost:
        """The cost since this was last asked."""
        cost = Cost(dict(+self.waits), self.rounds, self.sites, self.built, len(+self.held))
        self.waits.clear()
        self.rounds = self.sites = self.built = 0
        return cost

    def attach(self, functions: Sequence[Function]) -> None:
        """COST-4: functions with their first program are added in one pass, the images of others changed in two."""
        first = sum(not self.held[function.name] for function in functions)
        self.patch(first)
        self.patch(len(functions) - first, passes=2)
        self.add_entries(first)
        self.built += len(functions)
        if self.semantics.parts_limit is not None:
            self.parts.attach(functions)
        self.held.update(function.name for function in functions)

    def detach(self, functions: Sequence[Function]) -> None:
        """COST-4 and COST-5: functions that lose their last program are deleted in one pass, others changed in two."""
        last = [function for function in functions if self.held[function.name] == 1]
        self.patch(len(last))
        self.patch(len(functions) - len(last), passes=2)
        self.built += len(functions) - len(last)
        self.entries -= len(last)
        for function in functions:
            self.held[function.name] -= 1
        ended = len(last) if self.semantics.parts_limit is None else self.parts.end(last)
        if not self.semantics.single_direct_ops:
            self.wait_dynamic(ended)

    def patch(self, sites: int, passes: int = 1) -> None:
        """COST-2."""
        self.rounds += passes * -(-sites // POKE_BATCH)
        self.sites += passes * sites

    def wait_dynamic(self, ops: int) -> None:
        """OPS-8, for so many direct ops."""
        self.waits.update(rcu_tasks=ops, rcu_tasks_rude=ops if self.semantics.rude_waits else 0)

    def add_entries(self, count: int) -> None:
        """DIRECT-13: the operation waits once, however often direct_functions is exchanged in it."""
        exchanged = False
        for _ in range(count if self.semantics.growth_waits else 0):
            if self.entries == 0 or self.entries > 2 * self.buckets:
                exchanged = True
                self.buckets = min(MOST_BUCKETS, 1 << (max(LEAST_ENTRIES, self.entries + 1) // 2).bit_length())
            self.entries += 1
        self.waits["rcu_tasks"] += exchanged


def _costs(calls: Sequence[Call], semantics: Semantics, *, batched: bool) -> dict[str, Cost | None]:
    """Of attaching and detaching, by each way to do it. batched: one call a pattern is possible."""
    singles = [single for call in calls for single in _singly(call)]
    batches = [part for call in calls for part in (_singly(call) if call.program.kind == "fmod_ret" else [call])]
    functions = {function.name: function for call in calls for function in call.functions}
    return {
        **_ways(ONE_BY_ONE, _sequence(singles, semantics)),
        **_ways(BATCH, _sequence(batches, semantics) if batched else None),
        **_ways(DIRECT_MULTI, None if semantics.tracing_multi else _direct_multi(len(functions), semantics)),
    }


def _ways(way: str, costs: tuple[Cost, Cost] | None) -> dict[str, Cost | None]:
    attach, detach = costs or (None, None)
    return {f"attach, {way}": attach, f"detach, {way}": detach}


def _singly(call: Call) -> Iterator[Call]:
    return (Call(call.program, (function,)) for function in call.functions)


def _sequence(calls: Sequence[Call], semantics: Semantics) -> tuple[Cost, Cost]:
    """The cost of these attaches, and of closing their links in the same order."""
    meter = _Meter(semantics)
    for call in calls:
        meter.attach(call.functions)
    attach = meter.taken()
    for call in calls:
        meter.detach(call.functions)
    return attach, meter.taken()


def _direct_multi(sites: int, semantics: Semantics) -> tuple[Cost, Cost]:
    """The cost of register_ftrace_direct_multi on so many sites, and of its undoing, with one ops allocated for it."""
    meter = _Meter(semantics)
    meter.patch(sites)
    meter.add_entries(sites)
    attach = meter.taken()
    meter.patch(sites)
    meter.wait_dynamic(1)
    return attach, meter.taken()


def _cut(calls: Iterable[Call], semantics: Semantics) -> dict[str, int]:
    """Links of the proposal that meet too many parts, and how many (LINK-11)."""
    if semantics.parts_limit is None:
        return {}
    parts, cut = _Parts(), {}
    for call in calls:
        met = len(parts.met(call.functions))
        if met > semantics.parts_limit:
            cut[call.program.name] = met
        else:
            parts.attach(call.functions)
    return cut
