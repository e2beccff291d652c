"""A real DNS server on loopback that a test tells what to answer, and a resolver that asks it."""

import asyncio
import itertools
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import cast


class NameServer(asyncio.DatagramProtocol):
    """Answers each A question with the next of `addresses`, the last one for ever; `asked` remembers the names."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = list(addresses)
        self._next: Iterator[str] = itertools.chain(addresses, itertools.repeat(addresses[-1]))
        self._transport: asyncio.DatagramTransport | None = None
        self.asked: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        question, at = data[12:], 0
        labels: list[str] = []
        while question[at]:
            labels.append(question[at + 1 : at + 1 + question[at]].decode("latin-1"))
            at += 1 + question[at]
        self.asked.append(".".join(labels))
        head = data[:2] + struct.pack("!HHHHH", 0x8580, 1, 1, 0, 0)
        record = struct.pack("!HHHIH", 0xC00C, 1, 1, 0, 4) + socket.inet_aton(next(self._next))
        self._transport.sendto(head + question[: at + 5] + record, addr)


class _Asking(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        del addr
        self.answer.set_result(data)


@asynccontextmanager
async def name_server(*addresses: str) -> AsyncGenerator[tuple[NameServer, Callable[[str], Awaitable[list[str]]]]]:
    """A server that gives these answers in turn, and the look-up that asks it over UDP."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(
        lambda: NameServer(list(addresses)), local_addr=("127.0.0.1", 0)
    )
    where = transport.get_extra_info("sockname")

    async def resolve(host: str) -> list[str]:
        name = b"".join(bytes([len(label)]) + label.encode() for label in host.split("."))
        question = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + name + b"\0" + struct.pack("!HH", 1, 1)
        asking, protocol = await loop.create_datagram_endpoint(_Asking, remote_addr=where)
        try:
            asking.sendto(question)
            return [socket.inet_ntoa((await asyncio.wait_for(protocol.answer, 20))[-4:])]
        finally:
            asking.close()

    try:
        yield server, resolve
    finally:
        transport.close()
