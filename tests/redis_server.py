"""A real Redis on a loopback port for the length of a block."""

import subprocess
from collections.abc import Generator
from contextlib import contextmanager

import redis
from support import free_port, need

needs_redis = need("redis-server", "redis-server")


class RedisServer:
    """One redis-server without a disk; it can be ended and started again on its port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(
            ["redis-server", *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout is not None
        printed: list[str] = []
        for line in self.process.stdout:
            printed.append(line)
            if "Ready to accept connections" in line:
                return
        raise AssertionError(f"redis-server ended: {printed}")

    def stop(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def keys(self) -> list[str]:
        """Every key it holds."""
        with redis.Redis.from_url(self.url) as client:  # pyright: ignore[reportUnknownMemberType]
            return sorted(key.decode() for key in client.keys("*"))  # pyright: ignore


@contextmanager
def redis_server() -> Generator[RedisServer]:
    """A Redis that answers."""
    server = RedisServer()
    try:
        yield server
    finally:
        server.stop()
