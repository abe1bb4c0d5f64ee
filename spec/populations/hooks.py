"""The hooks of LSM that BPF may be attached to: lists of kernel/bpf/bpf_lsm.c, without `bpf_lsm_` (LSM-2, LSM-3).

Each of Debian's three kernels was asked for every function of these names, and sleepably.
"""

from __future__ import annotations

from typing import Final

__all__ = ["BOOL", "PREFIX", "REFUSED", "SLEEPABLE"]

PREFIX: Final = "bpf_lsm_"
"""Of every hook, and of a few functions that are none."""

_FUNCTIONS: Final = (
    "find_cgroup_shim func_proto get_retval_range has_d_inode_locked hook_returns_errno init is_sleepable_hook "
    "is_trusted verify_prog"
)
_DISABLED: Final = (
    "audit_rule_match getprocattr getselfattr inode_copy_up_xattr inode_getsecurity inode_listsecurity "
    "inode_need_killpriv ismaclabel key_getsecurity setprocattr vm_enough_memory xfrm_decode_session"
)
REFUSED: Final = frozenset(f"{_FUNCTIONS} {_DISABLED}".split())
"""Those that are no hook, and those of bpf_lsm_disabled_hooks; 7.3 has one more."""

BOOL: Final = frozenset("audit_rule_known inode_xattr_skipcap xfrm_state_pol_flow_match".split())
"""bool_lsm_hooks, since there is such a list."""

SLEEPABLE: Final = frozenset(
    (
        "bpf bpf_map bpf_map_alloc_security bpf_map_create bpf_map_free bpf_map_free_security bpf_prog bpf_prog_load "
        "bpf_token_capable bpf_token_cmd bpf_token_create bpf_token_free bprm_check_security bprm_committed_creds "
        "bprm_committing_creds bprm_creds_for_exec bprm_creds_from_file capget capset cred_prepare "
        "current_getsecid_subj file_ioctl file_lock file_open file_post_open file_receive inode_create "
        "inode_free_security inode_getattr inode_getxattr inode_mknod inode_post_setxattr inode_readlink inode_rename "
        "inode_rmdir inode_setattr inode_setxattr inode_symlink inode_unlink kernel_module_request kernel_read_file "
        "kernfs_init_security key_free mmap_file netlink_send path_notify release_secctx sb_alloc_security "
        "sb_eat_lsm_opts sb_kern_mount sb_mount sb_remount sb_set_mnt_opts sb_show_options sb_statfs sb_umount settime "
        "socket_accept socket_bind socket_connect socket_create socket_getpeername socket_getpeersec_dgram "
        "socket_getsockname socket_getsockopt socket_listen socket_post_create socket_recvmsg socket_sendmsg "
        "socket_shutdown socket_socketpair syslog task_alloc task_getsecid_obj task_prctl task_setscheduler "
        "userns_create"
    ).split()
)
"""Those of sleepable_lsm_hooks that are so in every kernel that has them."""
