"""Landlock: what this process may do below which paths, enforced by the kernel, without privileges."""

import ctypes
import os
import stat
import struct

from linux_cli_mcp.sandbox import kernel

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL = 1, 2, 4, 8, 1 << 14, 1 << 15
READ = _EXECUTE | _READ_FILE | _READ_DIR
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
_ALL_TCP = 3
_ALL_SCOPES = 3  # abstract Unix sockets and signals

SCOPES_ABI = 6  # from here on signals cannot leave the sandbox


def abi() -> int:
    """The version this kernel speaks; 0 when it has no Landlock."""
    try:
        return kernel.syscall(_CREATE, ctypes.c_void_p(None), 0, 1)
    except OSError:
        return 0


def all_rights() -> int:
    """Every file right this kernel knows: what has no rule is denied."""
    version = abi()
    known = 13 + sum(version >= since for since in (2, 3, 5))  # refer, truncate, ioctl came later
    return (1 << known) - 1


def restrict(rules: list[tuple[str, int]], *, network: bool) -> None:
    """Confine this process and all it starts to `rules`: rights (bits) below each path. Missing paths are skipped."""
    version = abi()
    handled = struct.pack(
        "QQQ",
        all_rights(),
        0 if network or version < 4 else _ALL_TCP,
        _ALL_SCOPES if version >= SCOPES_ABI else 0,
    )
    size = 24 if version >= SCOPES_ABI else 16 if version >= 4 else 8
    ruleset = kernel.syscall(_CREATE, ctypes.create_string_buffer(handled, 24), size, 0)
    try:
        for path, rights in rules:
            _allow(ruleset, path, rights & all_rights())
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        kernel.syscall(_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISDIR(mode):
            rights &= _FILE_RIGHTS
        if not stat.S_ISLNK(mode):
            rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, handle), 12)
            kernel.syscall(_ADD, ruleset, _BENEATH, rule, 0)
    finally:
        os.close(handle)
