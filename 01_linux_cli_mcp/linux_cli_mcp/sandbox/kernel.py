"""The system calls that Python has no door to, for x86-64 and arm64. Each raises OSError on failure."""

import ctypes
import os
import platform

X86_64 = platform.machine() == "x86_64"

PR_SET_PDEATHSIG = 1
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
AT_RECURSIVE = 0x8000

_MOUNT_SETATTR = 442
_CAPSET = 126 if X86_64 else 91
_LAST_CAPABILITY = 63

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def syscall(number: int, *arguments: object) -> int:
    """One raw system call; integers are passed as 64 bits."""
    passed = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return _checked(int(_libc.syscall(ctypes.c_long(number), *passed)))


def prctl(option: int, value: int = 0, third: int | ctypes.Array[ctypes.c_char] = 0) -> int:
    """prctl(2) with the unused arguments zero."""
    pointer = ctypes.c_ulong(third) if isinstance(third, int) else third
    return _checked(int(_libc.prctl(option, ctypes.c_ulong(value), pointer, ctypes.c_ulong(0), ctypes.c_ulong(0))))


def unshare(flags: int) -> None:
    """Leave the namespaces in `flags`."""
    _checked(int(_libc.unshare(flags)))


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    _checked(
        int(_libc.mount(*(text.encode() for text in (source, target, kind)), ctypes.c_ulong(flags), data.encode()))
    )


def set_mount_flags(path: str, *, add: int = 0, remove: int = 0, recursive: bool = False) -> None:
    """Set and clear flags of the mount at `path`; needs Linux 5.12."""
    attributes = (ctypes.c_uint64 * 4)(add, remove, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    syscall(_MOUNT_SETATTR, -100, ctypes.c_char_p(path.encode()), flags, attributes, ctypes.sizeof(attributes))


def drop_capabilities() -> None:
    """Give up every capability, for this process and all that it will start."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            break  # past the last one this kernel knows, or there is none to drop
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    syscall(_CAPSET, header, (ctypes.c_uint32 * 6)())


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
