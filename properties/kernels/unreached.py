"""The reasons why no operation of the alphabet reaches some blocks of the kernel's code.

Functions and callees are named, never addresses, so that the reasons hold for other builds and releases. What leads to
nothing but such blocks, and what only such blocks lead to, is out of reach for the same reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Final

from impl.linux.instruments.code import Block, CodeFunction

__all__ = ["obstacles"]

_WARNS: Final = "a WARN or a BUG"
_NO_MEMORY: Final = "an allocation that fails"
_STATISTICS: Final = "kernel.bpf_stats_enabled"
_LSM: Final = "LSM programs"
_CGROUP: Final = "cgroup LSM programs"
_UNMANAGED: Final = "targets that ftrace does not manage, such as BPF programs"
_EXTENSIONS: Final = "freplace of a BPF program"
_UNWINDER: Final = "an unwinder, in a function whose return the graph tracer took"
_PIDS: Final = "set_ftrace_pid and set_ftrace_notrace_pid"
_EVERYTHING: Final = "a module that is loaded while everything is traced"
_INSTANCES: Final = "instances of the tracers, which are made before the runs"
_BOOT: Final = "the kernel's boot"
_FILES: Final = "files of tracefs that nothing here opens"

_CALLS: Final[Mapping[str, str]] = {
    "__ubsan_handle_*": "what UBSAN finds",
    "refcount_warn_saturate __list_*_valid_or_report ftrace_bug _printk __warn_printk": _WARNS,
    "preempt_schedule_*thunk": "preemption at that instant",
    "__stack_chk_fail": "a smashed stack",
    "sched_clock": _STATISTICS,
}
"""By patterns of what a block calls, in whatever function."""

_FUNCTIONS: Final[Mapping[str, str]] = {
    # kernel/bpf/trampoline.c
    "cgroup_shim_find bpf_shim_tramp_link_* bpf_trampoline_*link_cgroup_shim __bpf_prog_*_lsm_cgroup": _CGROUP,
    "__bpf_prog_enter __bpf_prog_exit __bpf_prog_enter_sleepable __bpf_prog_exit_sleepable": _LSM,
    "bpf_attach_type_to_tramp bpf_prog_has_trampoline": _LSM,
    "bpf_trampoline_enter bpf_trampoline_exit": "LSM, iterator and struct_ops programs",
    "register_fentry>bpf_arch_text_poke modify_fentry>bpf_arch_text_poke": _UNMANAGED,
    "unregister_fentry>bpf_arch_text_poke bpf_trampoline_set_flags": _UNMANAGED,
    "bpf_trampoline_update>bpf_arch_text_poke": _UNMANAGED,
    "*bpf_trampoline_link_prog>bpf_arch_text_poke *bpf_trampoline_unlink_prog>bpf_arch_text_poke": _EXTENSIONS,
    "__bpf_trampoline_link_prog>mutex_lock": _EXTENSIONS,
    "bpf_trampoline_update>arch_free_bpf_trampoline hash_from_ip>free_ftrace_hash": _NO_MEMORY,
    "bpf_trampoline_multi_attach>update_ftrace_direct_del bpf_trampoline_lookup>kfree": _NO_MEMORY,
    "bpf_trampoline_update>-E2BIG": "an image of more than a page",
    "update_prog_stats": _STATISTICS,
    "bpf_image_ksym_*": "the dispatcher of XDP",
    "bpf_tramp_arena_base": "programs with an arena",
    "bpf_tramp_ftrace_ops_func>msleep": "a trampoline that another task is changing",
    "__bpf_tramp_enter>__rcu_read_unlock __bpf_tramp_exit>*": "a task in an image that goes",
    # kernel/trace/fgraph.c
    "ftrace_graph_get_ret_stack ftrace_graph_top_ret_addr ftrace_graph_ret_addr": _UNWINDER,
    "ftrace_graph_init_task ftrace_graph_exit_task": "a task that forks or ends under the graph tracer",
    "ftrace_graph_probe_sched_switch": "a task that was switched away while its functions are timed",
    "ftrace_suspend_notifier_call": "suspending the machine",
    "ftrace_graph_init_idle_task fgraph_cpu_init": "a CPU that comes online",
    "fgraph_pid_func fgraph_update_pid_func": _PIDS,
    "ftrace_graph_stop": _WARNS,
    "return_run entry_run ftrace_graph_entry_stub ftrace_graph_ret_stub": "nothing: stubs of slots without a user",
    "function_graph_enter_regs>ftrace_graph_entry_stub": "nothing: stubs of slots without a user",
    "ftrace_return_to_handler>static_key_enable": _WARNS,
    "fgraph_init_ops": _INSTANCES,
    "fgraph_reserve_data fgraph_retrieve_data fgraph_retrieve_parent_data": "graph users that keep data, as fprobe",
    "ftrace_graph_sleep_time_control": "the tracer's option graph-time or sleep-time",
    "register_ftrace_graph>-ENOSPC": "more graph users than the guest has instances",
    "register_ftrace_graph>unregister_pm_notifier register_ftrace_graph>fgraph_lru_release_index": _NO_MEMORY,
    # kernel/trace/ftrace.c
    "fpid_* fnpid_* ftrace_pid_* ftrace_no_pid_* ftrace_clear_pids clear_ftrace_pids ignore_task_cpu pid_write": _PIDS,
    "ftrace_filter_pid_sched_switch_probe ftrace_pids_enabled ftrace_update_pid_func": _PIDS,
    "function_trace_probe_call release_probe t_probe_* *func_mapper* *function_probe*": "commands in set_ftrace_filter",
    "g_start g_next g_stop g_show __g_next ftrace_avail_* ftrace_touched_open": _FILES,
    "ftrace_lookup_symbols kallsyms_callback symbols_cmp": "kprobe_multi links",
    "ftrace_text_reserved": "kprobes",
    "__ftrace_replace_code ftrace_make_call": _EVERYTHING,
    "__ftrace_modify_code ftrace_run_stop_machine ftrace_modify_call": "nothing: x86 patches text in its own way",
    "prepare_ftrace_return": "nothing: an ops of its own runs the graph tracer (FTRACE_WITH_ARGS)",
    "ftrace_sync_ipi": "a second CPU",
    "ftrace_kill ftrace_is_dead ftrace_free_pages": "text patching that fails",
    "save_ftrace_mod_rec ftrace_mod_get_kallsym": "reading kallsyms behind a module whose init text was freed",
    "ftrace_create_filter_files ftrace_destroy_filter_files ftrace_*_array* ftrace_init_tracefs": _INSTANCES,
    "ftrace_pid_follow_* ftrace_ops_set_global_filter ftrace_set_global_*": _INSTANCES,
    "modify_ftrace_direct_nolock": "a caller that holds direct_mutex, of which this kernel may have none",
    # arch/x86/kernel/ftrace.c and ftrace_64.S
    "set_ftrace_ops_ro": _BOOT,
    "ftrace_stub ftrace_stub_graph __fentry__ ftrace_stub_direct_tramp": "nothing: addresses of no callee",
    # kernel/bpf/syscall.c and kernel/trace/bpf_trace.c
    "bpf_link_by_id bpf_link_get_from_fd bpf_link_inc bpf_link_put": "ids and descriptors of links",
    "*_fill_link_info *_show_fdinfo": "link info and fdinfo",
}
"""By patterns of functions without their suffixes, of FUNCTION>CALLEE for the blocks that call something, or of
FUNCTION>-ERRNO for those that load an error."""


def obstacles(function: CodeFunction, executed: Collection[int]) -> dict[int, str]:
    """What would reach blocks that were not executed, in words that follow `by`, by their starts."""
    missing = {block.start: block for block in function.blocks if block.start not in executed}
    found = {start: reason for start, block in missing.items() if (reason := _judge(function, block))}
    while spread := dict(_spread(function, missing, found)):
        found |= spread
    return found


def _judge(function: CodeFunction, block: Block) -> str:
    stem = function.name.partition(".")[0]
    names = (stem, *(f"{stem}>{call}" for call in block.calls), *(f"{stem}>-{errno}" for errno in block.errnos))
    reason = next(filter(None, (_look_up(_FUNCTIONS, name) for name in names)), "")
    reason = reason or next(filter(None, (_look_up(_CALLS, call) for call in block.calls)), "")
    return reason or (_WARNS if block.traps else _NO_MEMORY if "ENOMEM" in block.errnos else "")


def _look_up(reasons: Mapping[str, str], name: str) -> str:
    return next((why for names, why in reasons.items() for each in names.split() if fnmatchcase(name, each)), "")


def _spread(
    function: CodeFunction, missing: Mapping[int, Block], found: Mapping[int, str]
) -> Iterator[tuple[int, str]]:
    """Blocks that come only behind blocks out of reach, or lead only to such blocks."""
    before: dict[int, list[int]] = {}
    for block in function.blocks:
        for start in block.behind:
            before.setdefault(start, []).append(block.start)
    for start, block in missing.items():
        if start not in found:
            for around in (before.get(start, []), block.behind):
                if around and all(each in found for each in around):
                    yield start, found[around[0]]
                    break
