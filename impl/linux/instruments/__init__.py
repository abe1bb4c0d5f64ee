"""Measurements that stand beside the runs: dumped trampolines, counted grace periods, costs, bpftrace."""
