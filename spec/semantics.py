"""Rules that differ between kernels, as named facts.

Code asks for the fact, never for a version (design contract 3.4).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["PRESETS", "Semantics"]


@dataclass(frozen=True, slots=True)
class Semantics:
    """One kernel's facts. Each cites the commit that changed it; hashes are upstream's."""

    name: str

    lenient_index: bool
    """A record's number ends where its digits do, and is taken modulo 2^64 (GLOB-4).

    Until "ftrace: Replaces simple_strtoul in ftrace", v6.10; then kstrtoul() refuses what is malformed.
    """

    set_filter_splits: bool
    """ftrace_set_filter() and ftrace_set_notrace() look for GLOB:mod:MODULE, and refuse it but to tracers (FILTER-14).

    Since 31f505dc7033 ("ftrace: Implement :mod: cache filtering on kernel command line"), v6.14.
    """

    single_direct: bool
    """register_ftrace_direct(ip, addr) exists.

    Gone since 8788ca164eb4 ("ftrace: Remove the legacy _ftrace_direct API"), v6.4.
    """

    hash_direct: bool
    """update_ftrace_direct_add/del/mod exist ("ftrace: Add update_ftrace_direct_add
    function"), which 7.3 has and 6.12 has not."""

    failed_direct_reusable: bool
    """A failed direct registration resets func and trampoline, so it can be retried.

    Since 56b3c85e153b, which is in 6.12.117 and not in 6.1.192, where the retry is -EINVAL.
    """

    growth_waits: bool
    """Growing direct_functions waits for rcu_tasks.

    Until d05cb470663a ("ftrace: Fix modification of direct_function hash while in use"), v6.7, which frees the
    old table by call_rcu_tasks.
    """

    filter_unchecked: bool
    """register_fentry() does not look at what ftrace_set_filter_ip() answers: the ops then has no filter, which is
    -EINVAL (LINK-4). In 6.1.192, not in 6.12.117."""

    single_direct_ops: bool
    """One static direct_ops serves every BPF trampoline (CONFIG_HAVE_SINGLE_FTRACE_DIRECT_OPS, in 7.3).

    Before, each trampoline had a kzalloc'd ops of its own, whose unregistration waits.
    """

    notrace_leaves_regs: bool
    """R also stays where an ops leaves by its notrace hash (SITE-6).

    In 6.12.117 and 7.3.4, whose __ftrace_hash_rec_update() looks at both hashes; that of 6.1.192 counts the sites that
    a new notrace hash holds down after it is in place.
    """

    share_ipmodify: bool
    """DIRECT and IPMODIFY may share a site through ops_func.

    Since 53cd885bc5c3 ("ftrace: Allow IPMODIFY and DIRECT ops on the same function"), v6.0; before, a direct ops
    was itself IPMODIFY.
    """

    free_filters: bool
    """unregister_ftrace_direct(ops, addr, free_filters) has its third argument.

    Since 59495740f795 ("ftrace: Let unregister_ftrace_direct_multi() call ftrace_free_filter()"), v6.4.
    """

    free_filter_warns: bool
    """ftrace_free_filter() of an enabled ops warns, and leaves it alone (NAME-5). In 7.3.4, not in 6.12.117."""

    max_links: int
    """BPF_MAX_TRAMP_LINKS on x86-64: 38, and 36 since v7.2."""

    max_slots: int
    """Argument slots that the JIT's trampolines take.

    6 until 473e3150e30a ("bpf, x86: allow function arguments up to 12 for TRACING"), v6.6.
    """

    charge_before_slots: bool
    """The image is charged before the slots are counted.

    Until 26ef208c209a ("bpf: Use arch_bpf_trampoline_size"), v6.8.
    """

    wide_return_refused: bool
    """Return values over 8 bytes are refused where the program reads them.

    Since c48796aa6c39, which is in 6.12.117 and 7.3.
    """

    union_arguments: bool
    """A union by value is an argument like a struct (ARG-4).

    In 7.3.4; __get_type_size() of 6.1.192 and 6.12.117 takes structs alone (__btf_type_is_struct()).
    """

    noreturn_refused: bool
    """fexit and its kin are refused on __noreturn functions.

    Since cfe816d469dc ("bpf: Reject attaching fexit/fmod_ret to __noreturn functions"), which is in 6.12.117.
    """

    fmod_ret: bool
    """fmod_ret programs exist (ae24082331d9, v5.7); the proposal left them out."""

    freplace: bool
    """freplace programs exist (be8704ff07d2, v5.6); the proposal left them out."""

    lsm: bool
    """lsm programs exist (fc611f47f218, v5.7), with CONFIG_BPF_LSM, which Debian has; the proposal left them out."""

    lsm_return_checked: bool
    """What an lsm program returns is looked at (LSM-3).

    Since 5d99e198be27 ("bpf, lsm: Add check for BPF LSM return value"), v6.12.
    """

    fsession: bool
    """fsession programs exist. Since v7.0 ("bpf: add fsession support")."""

    cookies: bool
    """Tracing links take a cookie.

    Since 2fcc82411e74 ("bpf, x86: Attach a cookie to fentry/fexit/fmod_ret/lsm."), v5.19.
    """

    single_cookie_told: bool
    """A link to one function describes itself with its cookie (LINK-18). In 7.3.4; the struct bpf_link_info of
    6.1.192 and 6.12.117 has no place for it, nor has the proposal's."""

    tracing_multi: bool
    """One link may attach to many functions. c1d32dea5d46 ("bpf: Add support for tracing multi link"), v7.2; and the
    proposal of 2021."""

    parts_limit: int | None
    """How many parts one attach may meet in the proposal (RFC v5: 20); None where there are no parts (LINK-11)."""

    fprobes: bool
    """A link attaches a kprobe program to many functions (KPROBE-2): CONFIG_FPROBE, which Debian's 6.1 lacks.

    Since 0dcac2725406 ("bpf: Add multi kprobe link"), v5.18.
    """

    fprobes_shared: bool
    """Fprobes at entries share one ftrace_ops, and those at returns one user of the graph tracer (KPROBE-4, KPROBE-5).

    In 7.3.4; in 6.12.117 each has an ops of its own, which saves regs, and hooks returns by rethook.
    """

    prog_pins_module: bool
    """A loaded program holds its target's module. Since 31bf1dbccfb0 ("bpf: Fix attaching fentry/fexit/fmod_ret/lsm to
    modules"), v6.4; before, an attached trampoline held it."""

    foreign_direct: str
    """The errno of attaching BPF where a direct call of somebody else stands.

    EBUSY, EINVAL since update_ftrace_direct_add.
    """

    rude_waits: bool
    """synchronize_rcu_tasks_rude() waits (OPS-8).

    In 7.3.4 it has a body only for architectures that do not mark their noinstr code, which x86 does; in 6.1.192 and
    6.12.117 it always has.
    """

    graph_users: int
    """Graph tracer users at a time.

    1 until c132be2c4fcc ("function_graph: Have the instances use their own ftrace_ops for filtering") and its
    series, v6.11; then 16.
    """

    graph_rebuilds: bool
    """Where the graph tracer takes several users, both hashes of graph_ops are made anew from all of its users' hashes
    when one changes (GRAPH-12).

    add_first_hash() and rebuild_hashes() in 7.3.4; 6.12.117 has append_hashes() and intersect_hashes() in their place.
    """

    sysctl_stops: bool
    """kernel.ftrace_enabled takes 0 (SYSCTL-1). In 6.1.192 and 6.12.117; 7.3.4 refuses it."""

    skips_detached: bool
    """A program that leaves a function is patched out of the images that were made with it (IMAGE-2, TASK-4).

    bpf_trampoline_skip_prog() in 7.3.4; in 6.1.192 and 6.12.117 an image that stays after a failed detach goes on
    calling a program that has been freed.
    """

    jmp_sites: bool
    """The site of an image that calls the original by its address jumps to it, so that no return address into the
    function is on the stack. bpf_trampoline_use_jmp() with CONFIG_DYNAMIC_FTRACE_WITH_JMP in 7.3.4; not in 6.12.117."""

    image_put_skips_fexit: bool
    """A task that is in a body when its image is put runs none of the image's fexit programs (TASK-5).

    bpf_tramp_image_put() of 6.1.192 and 6.12.117 lets ip_after_call jump to the epilogue. 7.3.4 skips single programs.
    """

    programs_wait_for_tasks: bool
    """A program that was linked to a trampoline is freed behind call_rcu_tasks (TASK-10).

    `tramp_linked` in 7.3.4; not in 6.1.192 and 6.12.117 (DEFECT-17).
    """

    slot0_returns: bool
    """With several graph users, slot 0's user records the return of frames it did not enter, because its bit marks the
    frame. function_graph_enter() in v6.11..v6.12; since v6.13 the tracer keeps data a frame and finds none."""

    @property
    def has_parts(self) -> bool:
        """Whether a trampoline serves a set of functions, a part, and not one function: in the proposal alone."""
        return self.parts_limit is not None


_LINUX_6_1 = Semantics(
    name="linux-6.1",
    lenient_index=True,
    set_filter_splits=False,
    single_direct=True,
    hash_direct=False,
    failed_direct_reusable=False,
    growth_waits=True,
    filter_unchecked=True,
    single_direct_ops=False,
    notrace_leaves_regs=False,
    share_ipmodify=True,
    free_filters=False,
    free_filter_warns=False,
    max_links=38,
    max_slots=6,
    charge_before_slots=True,
    wide_return_refused=False,
    union_arguments=False,
    noreturn_refused=False,
    fmod_ret=True,
    freplace=True,
    lsm=True,
    lsm_return_checked=False,
    fsession=False,
    cookies=True,
    single_cookie_told=False,
    tracing_multi=False,
    parts_limit=None,
    fprobes=False,
    fprobes_shared=False,
    prog_pins_module=False,
    foreign_direct="EBUSY",
    rude_waits=True,
    graph_users=1,
    graph_rebuilds=False,
    sysctl_stops=True,
    skips_detached=False,
    jmp_sites=False,
    image_put_skips_fexit=True,
    programs_wait_for_tasks=False,
    slot0_returns=False,
)

_LINUX_6_12 = replace(
    _LINUX_6_1,
    name="linux-6.12",
    lenient_index=False,
    single_direct=False,
    failed_direct_reusable=True,
    growth_waits=False,
    filter_unchecked=False,
    notrace_leaves_regs=True,
    free_filters=True,
    max_slots=12,
    charge_before_slots=False,
    wide_return_refused=True,
    noreturn_refused=True,
    lsm_return_checked=True,
    fprobes=True,
    prog_pins_module=True,
    graph_users=16,
    slot0_returns=True,
)

_LINUX_7_3 = replace(
    _LINUX_6_12,
    name="linux-7.3",
    set_filter_splits=True,
    hash_direct=True,
    single_direct_ops=True,
    free_filter_warns=True,
    max_links=36,
    union_arguments=True,
    fsession=True,
    single_cookie_told=True,
    tracing_multi=True,
    fprobes_shared=True,
    foreign_direct="EINVAL",
    rude_waits=False,
    graph_rebuilds=True,
    sysctl_stops=False,
    skips_detached=True,
    jmp_sites=True,
    image_put_skips_fexit=False,
    programs_wait_for_tasks=True,
    slot0_returns=False,
)

_PROPOSAL_2021 = replace(
    _LINUX_6_1,
    name="proposal-2021",
    filter_unchecked=False,
    failed_direct_reusable=True,
    share_ipmodify=False,
    fmod_ret=False,
    freplace=False,
    lsm=False,
    cookies=False,
    tracing_multi=True,
    parts_limit=20,
)

PRESETS: dict[str, Semantics] = {
    preset.name: preset for preset in (_LINUX_6_1, _LINUX_6_12, _LINUX_7_3, _PROPOSAL_2021)
}
