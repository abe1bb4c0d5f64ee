"""BPF programs and links of a run: what a seed's names stand for in the kernel.

A program without a target is loaded for each function that it is attached to, and given back with the last link to it;
a program of several functions is loaded for each BTF that has some.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from impl.linux import kprobes
from impl.linux.allocations import Allocations
from impl.linux.bpf import commands
from impl.linux.bpf.recorders import ATTACH_TYPES, RecorderProgram, load
from impl.linux.directory import Directory
from impl.linux.guest.batch import Batch, Reply
from impl.linux.guest.errnos import errno_name
from impl.linux.probes.disassembly import ProgramCall
from impl.linux.run import RunState
from spec import operations as op
from spec.errors import BadInputError
from spec.globs import link_pattern
from spec.outcomes import Errno, Ok, Outcome
from spec.worlds import Function

__all__ = ["Attachments", "Loaded"]

TRIALS = {"fmod_ret": "security_sb_remount", op.LSM: "bpf_lsm_quotactl"}
OTHER_TRIAL = "bpf_fentry_test1"
"""Functions of vmlinux for which a program without a target is tried out when it is declared.

What an lsm program may return depends on its hook, so that it is tried with 0 (LSM-3).
"""

Attach = Callable[[Batch], int]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A program in the kernel: its descriptor, the address of its code, and for which function or BTF it is."""

    prog: str
    code: RecorderProgram
    fd: int
    address: int
    place: str


@dataclass(slots=True)
class Attachments:
    """State: programs by name and function (or BTF), links by name; and all programs there ever were, by number.

    allocations: of the operation, of which one may fail. _named_fds: of programs that stay, since they were loaded when
    they were declared. _missed: what each program's own count was, by its number. _late: what no link uses any more,
    and a task may be in.
    """

    directory: Directory
    run: RunState
    allocations: Allocations
    numbered: list[Loaded | None] = field(default_factory=list)
    _loaded: dict[tuple[str, str], Loaded] = field(default_factory=dict)
    _late: tuple[Loaded, ...] = ()
    _links: dict[str, tuple[int, tuple[Loaded, ...]]] = field(default_factory=dict)
    _named_fds: dict[str, int] = field(default_factory=dict)
    _nested: dict[str, int] = field(default_factory=dict)
    _missed: Counter[int] = field(default_factory=Counter)

    def apply(
        self, operation: op.BpfProgLoad | op.BpfRawTracepointOpen | op.BpfLinkCreate | op.BpfLinkDetach
    ) -> Outcome:
        """Carry out an operation on programs and links."""
        match operation:
            case op.BpfProgLoad():
                return self.load(operation)
            case op.BpfRawTracepointOpen():
                return self.open(operation)
            case op.BpfLinkCreate():
                return self.create(operation)
            case op.BpfLinkDetach():
                return self.detach(operation)

    def load(self, declared: op.BpfProgLoad) -> Outcome:
        """BPF_PROG_LOAD; without a target for a function that takes any program of the kind, as a trial."""
        if declared.kind in op.KPROBES:
            if declared.multi or declared.target is not None:
                return Errno("EINVAL", harness="PROG-1")
            return self._keep(declared, self._load(declared, None, None, declares=True))
        if (declared.kind, declared.multi) not in ATTACH_TYPES or (declared.multi and declared.target is not None):
            return Errno("EINVAL", harness="PROG-1")
        if declared.multi:
            return self._keep(declared, self._load(declared, None, self.directory.home(self._first()), declares=True))
        if declared.target is not None:
            function = self._find(declared.target)
            return self._keep(declared, self._load(declared, function, declared.target, declares=True))
        return self._try_loading(declared)

    def _find(self, name: str) -> Function | None:
        return self.directory.station.world.find(name)

    def _first(self) -> Function:
        """A function of our own module, where programs of several functions are loaded first."""
        functions = self.directory.station.world.functions
        return next((f for f in functions if f.name not in self.directory.station.own), functions[0])

    def _try_loading(self, declared: op.BpfProgLoad) -> Outcome:
        vmlinux = self.directory.station.btfs[None]
        name = TRIALS.get(declared.kind, OTHER_TRIAL)
        target = vmlinux.functions.get(name)
        if target is None:
            raise BadInputError(f"the kernel's BTF has no {name}, on which {declared.kind} programs are tried")
        code = RecorderProgram(
            0,
            declared.kind,
            slots=len(vmlinux.prototype(target).slots),
            func_ip=declared.func_ip,
            returns=0 if declared.kind == op.LSM else declared.returns or 0,
        )
        bindings = self.directory.station.bindings
        loaded, replies = self.allocations.submit(lambda batch: load(batch, code, bindings, btf_id=target))
        fd = replies[loaded].value
        if fd < 0:
            return Errno(errno_name(fd))
        self._close([fd])
        return Ok()

    def _keep(self, declared: op.BpfProgLoad, loaded: Loaded | Errno) -> Outcome:
        if isinstance(loaded, Errno):
            return loaded
        self._loaded[declared.prog, loaded.place] = loaded
        self._named_fds[declared.prog] = loaded.fd
        return Ok()

    def _load(
        self, declared: op.BpfProgLoad, function: Function | None, place: str | None, *, declares: bool = False
    ) -> Loaded | Errno:
        """Load a program; declares: that is the operation, in which an allocation may fail."""
        code = self._code(declared, function)
        fd, btf = (self.directory.btf_fd(function), self.directory.btf_id(function)) if function else (0, 0)
        if function is None and declared.multi and place:
            fd = self.directory.btf_fds.get(place, 0)
        nested = self.directory.btf_fds.get("massattach", 0) if code.nested is not None else 0
        bindings = self.directory.station.bindings

        def add(batch: Batch) -> int:
            return load(batch, code, bindings, btf_id=btf, btf_fd=fd, nested_btf=nested)

        index, replies = (self.allocations.submit if declares else self._act)(add)
        program = replies[index].value
        if program < 0:
            return Errno(errno_name(program))
        batch = Batch()
        commands.program_info(batch, program)
        address = commands.loaded_program(self._submit(batch)[0]).address
        loaded = Loaded(declared.prog, code, program, address, place or "")
        self.numbered[code.number] = loaded
        return loaded

    def _code(self, declared: op.BpfProgLoad, function: Function | None) -> RecorderProgram:
        self.numbered.append(None)
        btf_id = self.directory.btf_id(function) if function else 0
        btf = self.directory.station.btfs[self.directory.home(function)] if function else None
        prototype = function.prototype if function else None
        return RecorderProgram(
            len(self.numbered) - 1,
            declared.kind,
            loads=btf.loadable(btf_id) if btf and btf_id and self._is_plain(function) else (),
            slots=None if declared.multi else len(prototype.slots) if prototype else 0,
            sleepable=declared.sleepable,
            func_ip=declared.func_ip,
            returns=declared.returns or 0,
            nested=self._entry(declared) if declared.calls else None,
        )

    def _is_plain(self, function: Function | None) -> bool:
        return bool(function and function.prototype and function.prototype.describable)

    def _entry(self, declared: op.BpfProgLoad) -> int:
        return self._nested.setdefault(declared.prog, len(self._nested))

    def program_at(self, address: int) -> str | None:
        """The program whose code is at an address, or was there last."""
        return next((one.prog for one in reversed(self.numbered) if one and one.address == address), None)

    def keep_promise(self, promised: int, fd: int) -> None:
        """The descriptor of a link whose making was held up is known."""
        self._links = {name: (fd if held == promised else held, one) for name, (held, one) in self._links.items()}

    def callees(self) -> Iterable[tuple[int, int]]:
        """Of each program that calls a function: the entry of the map's header, and the address, 0 for none."""
        for prog, entry in self._nested.items():
            program = self.run.inventory.programs.get(prog)
            callee = program.calls if program else None
            present = callee is not None and self.run.inventory.loaded(callee)
            yield entry, self.directory.address(callee) if callee and present else 0

    def add_misses(self, batch: Batch) -> Callable[[Sequence[Reply]], Counter[str]]:
        """Add questions to a batch; the replies tell how often each program was missed since they were last asked.

        Only programs that call a function can be running already, and those in which a task stands.
        """
        asked = [(one, commands.read_misses(batch, one.fd)) for one in self._loaded.values() if self._may_run(one)]

        def read(replies: Sequence[Reply]) -> Counter[str]:
            found = Counter[str]()
            for one, index in asked:
                total = commands.recursion_misses(replies[index])
                found[one.prog] += total - self._missed[one.code.number]
                self._missed[one.code.number] = total
            return +found

        return read

    def _may_run(self, one: Loaded) -> bool:
        program = self.run.inventory.programs.get(one.prog)
        once = program is not None and (program.multi or program.target is not None)
        return one.code.nested is not None or (self.run.interleaved and once)

    def open(self, wanted: op.BpfRawTracepointOpen) -> Outcome:
        """BPF_RAW_TRACEPOINT_OPEN, or with a cookie BPF_LINK_CREATE (LINK-1)."""
        return self._attach_one(wanted.link, wanted.prog, wanted.function, wanted.cookie, create=False)

    def create(self, wanted: op.BpfLinkCreate) -> Outcome:
        """BPF_LINK_CREATE (LINK-2, LINK-6)."""
        program = self.run.inventory.programs[wanted.prog]
        if program.kind in op.KPROBES:
            return self._attach_kprobe(wanted)
        if program.multi:
            return self._attach_many(wanted)
        (function, cookie), *more = wanted.targets
        if more or link_pattern(function):
            return Errno("EINVAL", harness="LINK-2")
        return self._attach_one(wanted.link, wanted.prog, function, cookie, create=True)

    def _attach_one(self, link: str, prog: str, function: str | None, cookie: int | None, *, create: bool) -> Outcome:
        declared = self.run.inventory.programs[prog]
        place = declared.target or function or ""
        if not declared.multi and (not place or (function and declared.target and function != declared.target)):
            return Errno("EINVAL", harness="LINK-1")
        home = self.directory.home(self._first()) or ""
        loaded = self._instance(declared, home if declared.multi else place)
        if isinstance(loaded, Errno):
            return loaded

        def attach(batch: Batch) -> int:
            if cookie is None and not create:
                return commands.open_link(batch, loaded.fd)
            return commands.create_link(batch, loaded.fd, loaded.code.attach_type, cookie or 0)

        return self._link(link, attach, (loaded,))

    def _instance(self, declared: op.BpfProgLoad, place: str) -> Loaded | Errno:
        """The program, loaded for a function, or for all functions of a BTF."""
        known = self._loaded.get((declared.prog, place))
        return known or self._load(declared, None if declared.multi else self._find(place), place)

    def _attach_many(self, wanted: op.BpfLinkCreate) -> Outcome:
        named = [self._expand_target(name, cookie, wanted.prog) for name, cookie in wanted.targets]
        if not all(named):
            return Errno("EINVAL", harness="LINK-6")
        targets = [target for many in named for target in many]
        functions = [self._find(name) for name, _ in targets]
        home = self.directory.home_of_link(self.run.inventory, wanted)
        loaded = self._instance(self.run.inventory.programs[wanted.prog], home or "")
        if isinstance(loaded, Errno):
            return loaded
        ids = [self.directory.btf_id(function) if function else 0 for function in functions]
        cookies = [cookie or 0 for _, cookie in targets] if any(c is not None for _, c in targets) else None

        def attach(batch: Batch) -> int:
            return commands.create_multi_link(batch, loaded.fd, loaded.code.attach_type, ids, cookies)

        return self._link(wanted.link, attach, (loaded,))

    def _attach_kprobe(self, wanted: op.BpfLinkCreate) -> Outcome:
        """KPROBE-2: a fprobe over the functions."""
        inventory, loaded = self.run.inventory, self._loaded[wanted.prog, ""]
        # A kernel without fprobes says so whatever it is given, and KPROBE-2 has that first.
        stands = all(inventory.kprobe_targets((target,)) for target in wanted.targets)
        if inventory.semantics.fprobes and not stands:
            return Errno("EINVAL", harness="KPROBE-2")
        return self._link(wanted.link, kprobes.attaching(self.directory, inventory, wanted, loaded.fd), (loaded,))

    def _expand_target(self, name: str, cookie: int | None, prog: str) -> list[tuple[str, int | None]]:
        """What a target of a link stands for: a pattern for the functions that a tool would name, perhaps none."""
        if not link_pattern(name):
            return [(name, cookie)]
        functions = map(self._find, self.run.inventory.expand(prog, name))
        return [(found.name, cookie) for found in functions if found and self.directory.btf_id(found)]

    def _link(self, link: str, attach: Attach, loaded: tuple[Loaded, ...]) -> Outcome:
        index, replies = self.allocations.submit(lambda batch: self._add_charged(batch, attach))
        fd = replies[index].value
        if fd >= 0:
            for one in loaded:
                self._loaded[one.prog, one.place] = one
            self._links[link] = fd, loaded
            return Ok()
        self._release(loaded)
        return Errno(errno_name(fd))

    def info(self, link: str) -> str:
        """Ask a link by BPF_OBJ_GET_INFO_BY_FD (LINK-18); BTF's ids become the functions of the world."""
        fd, (loaded, *_) = self._links[link]
        if loaded.code.kind in op.KPROBES:
            return kprobes.info(self.directory, fd)
        multi = self.run.inventory.programs[loaded.prog].multi
        try:
            told = commands.ask_link(self.directory.station.guest, fd, multi=multi)
        except OSError as error:
            return f"-{errno_name(-(error.errno or 0))}"
        kinds = {number: kind for (kind, _), number in ATTACH_TYPES.items()}
        names = self.directory.names_of_ids(told.btf)
        targets = {names.get(number, f"{told.btf}:#{number}"): cookie for number, cookie in told.cookies}
        words = sorted(f"{name}:{cookie}" if cookie else name for name, cookie in targets.items())
        kind = told.strange or kinds.get(told.attach_type, f"attach type {told.attach_type}")
        return " ".join([kind, *words])

    def detach(self, wanted: op.BpfLinkDetach) -> Outcome:
        """Close the link's only descriptor; then programs that nothing else uses."""
        fd, loaded = self._links.pop(wanted.link)
        closed = self.allocations.submit(
            lambda batch: self._add_charged(batch, lambda batch: commands.close(batch, fd))
        )
        index, replies = closed
        value = replies[index].value
        inventory = self.run.inventory
        if inventory.tasks and any(inventory.programs[one.prog].multi for one in loaded):
            self._late += loaded
        else:
            self._release(loaded)
        return Errno(errno_name(value)) if value < 0 else Ok()

    def release_late(self) -> None:
        """Close what a task may have been in that has come home: a multi program lives as long as its name."""
        late, self._late = self._late, ()
        self._release(late)

    def give_back(self) -> None:
        """Close every program; no link is left by then."""
        self._close({one.fd for one in self._loaded.values()} | set(self._named_fds.values()))

    def _add_charged(self, batch: Batch, add: Attach) -> int:
        """Add a call, which is refused the memory of an image if `fail jit_charge` is armed."""
        if not self.run.charge_fails:
            return add(batch)
        return commands.without_jit_charge(batch, add, self.directory.station.jit_limit)

    def _release(self, loaded: tuple[Loaded, ...]) -> None:
        """Close programs that were loaded for one function only, and that no link uses."""
        used = {one.fd for _, many in self._links.values() for one in many}
        unused = [one for one in loaded if one.fd not in used and one.fd != self._named_fds.get(one.prog)]
        for one in unused:
            self._loaded.pop((one.prog, one.place), None)
        self._close([one.fd for one in unused])

    def _close(self, fds: Iterable[int]) -> None:
        batch = Batch()
        for fd in fds:
            commands.close(batch, fd)
        if len(batch):
            self._submit(batch)

    def _act(self, add: Attach) -> tuple[int, tuple[Reply, ...]]:
        batch = Batch()
        index = add(batch)
        return index, self._submit(batch)

    def _submit(self, batch: Batch) -> tuple[Reply, ...]:
        return self.directory.station.guest.submit(batch)

    def spelled(self, call: ProgramCall) -> str | None:
        """KIND:PROG of a program's call in an image; None for a program that is not ours."""
        found = next((one for one in reversed(self.numbered) if one and one.address == call.program), None)
        return f"{found.code.kind}:{found.prog}" if found else None
