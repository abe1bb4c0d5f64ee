"""x86-64, as Debian's amd64 kernels have it."""

from __future__ import annotations

from types import MappingProxyType

from impl.linux.architectures import Architecture
from impl.linux.architectures.x86_64 import code, mutating
from impl.linux.architectures.x86_64.bzimage import extract

__all__ = ["X86_64"]

# arch/x86/entry/syscalls/syscall_64.tbl
SYSCALLS = {
    "read": 0,
    "write": 1,
    "close": 3,
    "poll": 7,
    "mmap": 9,
    "pread64": 17,
    "pwrite64": 18,
    "writev": 20,
    "nanosleep": 35,
    "getpid": 39,
    "wait4": 61,
    "kill": 62,
    "sysinfo": 99,
    "capset": 126,
    "init_module": 175,
    "delete_module": 176,
    "openat": 257,
    "mkdirat": 258,
    "unlinkat": 263,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "bpf": 321,
    "pidfd_open": 434,
}

X86_64 = Architecture(
    name="x86_64",
    debian="amd64",
    multiarch="x86_64-linux-gnu",
    loader="lib64/ld-linux-x86-64.so.2",
    compiler="gcc",
    objcopy="objcopy",
    make=("ARCH=x86_64",),
    qemu="qemu-system-x86_64",
    qemu_package="qemu-system-x86",
    machine=("-machine", "pc"),
    command_line="console=ttyS0 tsc=reliable",
    boot_image="arch/x86/boot/bzImage",
    unpack_kernel=extract,
    syscalls=MappingProxyType(SYSCALLS),
    kernel_addresses=0xFFFF800000000000,
    page_bytes=4096,
    site_offset=code.ENDBR_BYTES,
    site_bytes=code.ENDBR_BYTES + code.CALL_BYTES,
    trap=code.TRAP,
    decode_site=code.decode_site,
    read_image=code.read_image,
    read_flow=code.read_flow,
    mutate=mutating.mutate,
    mask=mutating.mask,
    saved_arguments=(112, 104, 96, 88, 72, 64),
    saved_result=80,
    leave_at_once=code.leave_at_once,
)
