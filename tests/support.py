"""What several test folders need: system programs and free ports."""

import shutil
import socket

import pytest


def need(program: str, package: str) -> pytest.MarkDecorator:
    """Skip a test when `program` is missing, naming the Debian or npm package that brings it."""
    found = shutil.which(program, path="/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin")
    return pytest.mark.skipif(found is None, reason=f"needs {program}: install the package {package}")


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
