"""Process accounting: what a whole family of processes used, also those that are gone."""

import os
import subprocess
import sys
from collections.abc import Generator

import pytest
from account import usage

SPENDER = """
import subprocess, sys, time
spend = "import time\\nwhile time.process_time() < 0.3: pass"
if sys.argv[1] == "ended":
    subprocess.run([sys.executable, "-c", spend])
else:
    child = subprocess.Popen([sys.executable, "-c", spend + "\\nprint('spent', flush=True)\\ninput()"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
print("ready", flush=True)
sys.stdin.readline()
if sys.argv[1] == "alive":
    child.communicate(b"\\n")
"""


@pytest.fixture(params=["ended", "alive"])
def family(request: pytest.FixtureRequest) -> Generator[subprocess.Popen[str]]:
    """A process that spent next to nothing itself, over a child that spent 0.3 s."""
    command = [sys.executable, "-c", SPENDER, request.param]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.communicate("\n")


def test_the_time_of_a_child_counts_whether_it_ended_or_runs(family: subprocess.Popen[str]):
    assert usage(family.pid).cpu_s >= 0.3


def test_a_process_counts_its_own_time():
    own = sum(os.times()[:4])
    assert usage(os.getpid()).cpu_s >= own - 0.05


def test_memory_is_counted_in_mebibytes():
    block = bytearray(os.urandom(64)) * (1024 * 1024)
    assert len(block) // 2**20 <= usage(os.getpid()).rss_mib <= 64 * 1024


def test_a_process_that_is_gone_used_nothing_more():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert usage(process.pid).cpu_s == 0
