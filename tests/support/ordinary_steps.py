"""Seventeen ordinary steps of the synthetic world, of most kinds, for systems and the wire to them."""

from __future__ import annotations

__all__ = ["STEPS"]

STEPS = """
ftrace_ops o1 save_regs
ftrace_set_filter o1 foo*
register_ftrace_function o1
bpf_prog_load p1 fsession multi func_ip
bpf_prog_load p2 fexit target=outer
bpf_link_create l1 p1 foo1:7 outer traceable(spl*)
bpf_raw_tracepoint_open l2 p2
register_ftrace_graph g1 depth=2
livepatch foo2
fail register
bpf_link_detach l1
call outer 3
call split 1 2 3 4
site foo1
bpf_prog_load p1 fentry
update_ftrace_direct_add o2 foo3=T1
delete_module mod1
"""
