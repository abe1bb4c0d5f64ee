"""The laboratories: worlds that a running kernel can be given, one for each kernel.

Some of the kernel's own functions, then those of the synthetic world and some more, which a module of ours holds.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from spec import populations
from spec.prototypes import Prototype, Type
from spec.worlds import CHAR, INT, LONG, PAIR, Function, World, synthetic

__all__ = ["BESIDE", "HOOKS", "LABORATORIES", "laboratory"]

LABORATORIES = {f"laboratory-{name.removeprefix('linux-')}": name for name in populations.built_in()}
"""The population of the kernel that a laboratory belongs to, by the laboratory's name."""

OWN = tuple(
    (
        "bpf_fentry_test1 bpf_fentry_test2 bpf_fentry_test5 bpf_fentry_test6 bpf_modify_return_test "
        "security_binder_set_context_mgr security_sb_remount make_task_dead xen_mc_extend_args panic umip_printk "
        "branches_show branches_show@2 start_thread_common.constprop.0 __traceiter_percpu_alloc_percpu "
        "bpf_lsm_binder_transaction bpf_lsm_quotactl bpf_lsm_settime bpf_lsm_audit_rule_known bpf_lsm_sctp_sk_clone "
        "bpf_lsm_inode_post_setxattr bpf_lsm_key_getsecurity"
    ).split(),
)
"""The kernel's own functions in a laboratory: some that BPF's own tests call, one or two for each reason for which the
verifier refuses, and hooks of LSM of every kind. Nothing calls them while the harness works."""

HOOKS = tuple(name for name in OWN if name.startswith("bpf_lsm_"))
"""Their bodies return LSM_RET_DEFAULT, which is 0 for these, and do nothing else, so that they can be called."""

BESIDE = ("sched_clock", "t_show", "vfs_caches_init", "ksys_semctl", "early_memremap_pgprot_adjust", "security_init")
"""The kernel's own functions in a laboratory that have no site, for each reason; not every kernel has each."""

UNSIGNED = Type("unsigned long", "INT", 8)
POINTER = Type("void *", "PTR", 8)
STATE = Type("enum state", "ENUM", 4)
SHAPES: dict[str, tuple[tuple[Type, ...], Type]] = {
    "unsigneds": (
        (Type("unsigned char", "INT", 1), Type("unsigned short", "INT", 2), Type("unsigned int", "INT", 4)),
        LONG,
    ),
    "kinds": ((POINTER, STATE, UNSIGNED), LONG),
    "pieces": ((Type("struct s3", "STRUCT", 3), Type("struct s12", "STRUCT", 12), INT), LONG),
    "beyond": ((LONG,) * 5 + (PAIR, PAIR, LONG, CHAR), LONG),
    "gives_char": ((LONG, LONG), CHAR),
    "gives_int": ((LONG, LONG), INT),
    "gives_unsigned": ((LONG,), Type("unsigned int", "INT", 4)),
    "gives_bool": ((LONG,), Type("bool", "INT", 1)),
    "gives_pointer": ((POINTER,), POINTER),
    "gives_nothing": ((LONG, LONG), Type("void", "VOID", 0)),
    "gives_pair": ((LONG,), PAIR),
}
GUARDED = tuple(f"security_lab{count}" for count in range(4))
"""fmod_ret programs may attach to any function whose name begins with security_ (check_attach_modify_return())."""

SLEEPY = tuple(f"sleepy{count}" for count in (0, 1, 2, 6))
"""A module registers these as an fmodret set with KF_SLEEPABLE, if the kernel has such sets (5b481acab4ce, v6.2)."""


@cache
def laboratory(name: str) -> World:
    """The laboratory of this name, one of LABORATORIES."""
    own = populations.load(LABORATORIES[name])
    kernel = tuple(map(_empty, (function for function in own.functions if function.name in OWN)))
    beside = tuple(function for function in own.others if function.name in BESIDE)
    sets = any(function.name == "bpf_modify_return_test2" for function in own.functions)
    return World(name, (*kernel, *_number(_module_functions(sets=sets), own)), beside)


def _empty(function: Function) -> Function:
    """A function of the kernel's own, which is `empty` if it is a hook of LSM."""
    return replace(function, attributes=function.attributes | {"empty"}) if function.name in HOOKS else function


def _module_functions(*, sets: bool) -> tuple[Function, ...]:
    """The functions of our modules; those of the module mod1 come last."""
    plain = tuple(replace(function, attributes=frozenset()) for function in synthetic().functions)
    shaped = tuple(_function(name, arguments, returns) for name, (arguments, returns) in SHAPES.items())
    guarded = tuple(_function(name, (LONG,) * count, LONG, "fmod_ret") for count, name in enumerate(GUARDED))
    marks = ("fmod_ret", "sleepable") if sets else ()
    sleepy = tuple(_function(name, (LONG,) * int(name.removeprefix("sleepy")), LONG, *marks) for name in SLEEPY)
    base = (*(f for f in plain if f.module is None), *shaped, *guarded, *sleepy)
    return (*base, *(f for f in plain if f.module))


def _function(name: str, arguments: tuple[Type, ...], returns: Type, *attributes: str) -> Function:
    return Function(name, Prototype(arguments, returns), None, attributes=frozenset(attributes))


def _number(functions: tuple[Function, ...], own: World) -> tuple[Function, ...]:
    """The functions with the ids of a module's BTF, which go on behind vmlinux's."""
    last = max(function.btf_id or 0 for function in (*own.functions, *own.others) if function.module is None)
    return tuple(replace(function, btf_id=last + place) for place, function in enumerate(functions, 1))
