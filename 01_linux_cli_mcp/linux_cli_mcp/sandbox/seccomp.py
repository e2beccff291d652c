"""The system-call filter of every command, as a BPF program for `seccomp(2)` and `bwrap --seccomp`.

It closes what paths and namespaces leave open: sockets that reach a daemon on this machine, other
processes' memory, new namespaces, kernel interfaces. It denies by list: programs must run unchanged.
"""

import ctypes
import errno
import struct

from linux_cli_mcp.sandbox import kernel

# Numbers on x86-64 and arm64; None where the call does not exist.
_CALLS: dict[str, tuple[int | None, int | None]] = {
    **{"ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272)},
    **{"pidfd_getfd": (438, 438), "process_madvise": (440, 440), "process_mrelease": (448, 448)},
    **{"mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51)},
    **{"move_mount": (429, 429), "open_tree": (428, 428), "fsopen": (430, 430), "fsconfig": (431, 431)},
    **{"fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "open_tree_attr": (467, 467)},
    **{"setns": (308, 268), "unshare": (272, 97), "open_by_handle_at": (304, 265), "fanotify_init": (300, 262)},
    **{"bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "syslog": (103, 116)},
    **{"keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218)},
    **{"init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106)},
    **{"kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142)},
    **{"swapon": (167, 224), "swapoff": (168, 225), "iopl": (172, None), "ioperm": (173, None)},
    **{"acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443), "vhangup": (153, 58)},
    **{"settimeofday": (164, 170), "clock_settime": (227, 112), "sethostname": (170, 161), "setdomainname": (171, 162)},
    **{"adjtimex": (159, 171), "clock_adjtime": (305, 266)},
}
# Where there are no namespaces and no mounts of our own: these reach into other processes, and Landlock
# does not judge who changes modes, owners and attributes.
_SHARED: dict[str, tuple[int | None, int | None]] = {
    **{"shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "msgget": (68, 186), "msgsnd": (69, 189)},
    **{"msgrcv": (70, 188), "msgctl": (71, 187), "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191)},
    **{"semtimedop": (220, 192), "mq_open": (240, 180), "mq_unlink": (241, 181)},
    **{"chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452)},
    **{"chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54)},
    **{"setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463)},
    **{"removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "removexattrat": (466, 466)},
    **{"utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "file_setattr": (469, 469)},
}
# For oneself (0), not for others.
_OWN_ONLY: dict[str, tuple[tuple[int, int], int]] = {
    **{"prlimit64": ((302, 261), 0), "sched_setaffinity": ((203, 122), 0), "sched_setscheduler": ((144, 119), 0)},
    **{"sched_setparam": ((142, 118), 0), "sched_setattr": ((314, 274), 0)},
    **{"setpriority": ((141, 140), 1), "ioprio_set": ((251, 30), 1)},
}
# Programs fall back when these are missing; their arguments cannot be filtered.
_ABSENT = {"clone3": (435, 435), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426)} | {
    "io_uring_register": (427, 427)
}
_CLONE, _IOCTL, _SOCKET, _SOCKETPAIR = (56, 220), (16, 29), (41, 198), (53, 199)
_SETPRIORITY, _IOPRIO_SET, _UTIMENSAT = (141, 140), (251, 30), (280, 88)

_WHOLE = 0xFFFFFFFF
_NAMESPACES = 0x7E020080  # every CLONE_NEW* flag, time included
_IOCTLS = [0x5412, 0x541C, 0x40086602, 0x401C5820]  # type into somebody's terminal; set a file's attributes
_AF_INET, _AF_INET6, _AF_NETLINK = 2, 10, 16
_STREAM, _SEQPACKET, _TYPE_MASK = 1, 5, 0xF

_ARCH = 0xC000003E if kernel.X86_64 else 0xC00000B7
_KILL, _ALLOW, _ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16

Pair = tuple[int | None, int | None]


def program(*, sockets: bool, shared: bool) -> bytes:
    """The filter. `sockets`: internet and netlink sockets may be opened (they may still lead nowhere).
    `shared`: processes outside the sandbox share our process and IPC namespaces.
    """
    families = [_AF_INET, _AF_INET6, _AF_NETLINK] if sockets else []
    rows = [_row(_LOAD, _ARCH_AT), _row(_EQUAL, _ARCH, 1, 0), _row(_RETURN, _KILL), _row(_LOAD, _NUMBER_AT)]
    if kernel.X86_64:  # the x32 calls are the same kernel by other numbers
        rows += [_row(_AT_LEAST, 0x40000000, 0, 1), _row(_RETURN, _KILL)]
    for call in (_CALLS | (_SHARED if shared else {})).values():
        rows += _deny(call, errno.EPERM)
    for call in _ABSENT.values():
        rows += _deny(call, errno.ENOSYS)
    rows += _only_own() if shared else []
    rows += _deny_unless(_CLONE, 0, _NAMESPACES, [0], errno.EPERM)
    rows += _deny_if(_IOCTL, 1, _IOCTLS, errno.EPERM)
    # A datagram pair can be connected again, to any socket file of the machine; a stream pair cannot.
    rows += _deny_unless(_SOCKETPAIR, 1, _TYPE_MASK, [_STREAM, _SEQPACKET], errno.EPERM)
    rows += _deny_unless(_SOCKET, 0, _WHOLE, families, errno.EACCES)
    return b"".join([*rows, _row(_RETURN, _ALLOW)])


def install(filter_program: bytes) -> None:
    """Put this process and all it starts under the filter, for good."""
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    code = ctypes.create_string_buffer(filter_program, len(filter_program))
    head = struct.pack("HxxxxxxQ", len(filter_program) // 8, ctypes.addressof(code))
    kernel.prctl(kernel.PR_SET_SECCOMP, 2, ctypes.create_string_buffer(head, len(head)))


def _row(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _number(call: Pair) -> int | None:
    return call[0] if kernel.X86_64 else call[1]


def _deny(call: Pair, error: int) -> list[bytes]:
    number = _number(call)
    return [] if number is None else [_row(_EQUAL, number, 0, 1), _row(_RETURN, _ERRNO | error)]


def _only_own() -> list[bytes]:
    """What is harmless on oneself: limits and priorities, and the times of a file one has opened."""
    rows = [row for call, which in _OWN_ONLY.values() for row in _deny_unless(call, which, _WHOLE, [0], errno.EPERM)]
    rows += _deny_unless(_SETPRIORITY, 0, _WHOLE, [0], errno.EPERM)
    rows += _deny_unless(_IOPRIO_SET, 0, _WHOLE, [1], errno.EPERM)
    rows += _deny_unless(_UTIMENSAT, 1, _WHOLE, [0], errno.EPERM)
    return rows + _deny_unless(_UTIMENSAT, 1, _WHOLE, [0], errno.EPERM, upper=True)


def _deny_unless(
    call: Pair, argument: int, mask: int, allowed: list[int], error: int, *, upper: bool = False
) -> list[bytes]:
    """Deny `call` unless the masked lower (or upper) half of its argument is one of `allowed`."""
    test = [_row(_LOAD, _ARGUMENTS_AT + 8 * argument + (4 if upper else 0)), _row(_AND, mask)]
    test += [_row(_EQUAL, value, len(allowed) - index, 0) for index, value in enumerate(allowed)]
    return _block(call, [*test, _row(_RETURN, _ERRNO | error)])


def _deny_if(call: Pair, argument: int, denied: list[int], error: int) -> list[bytes]:
    test = [_row(_LOAD, _ARGUMENTS_AT + 8 * argument)]
    for value in denied:
        test += [_row(_EQUAL, value, 0, 1), _row(_RETURN, _ERRNO | error)]
    return _block(call, test)


def _block(call: Pair, test: list[bytes]) -> list[bytes]:
    """`test` for one call; afterwards the call's number is loaded again for the next block."""
    number = _number(call)
    if number is None:
        return []
    return [_row(_EQUAL, number, 0, len(test)), *test, _row(_LOAD, _NUMBER_AT)]
