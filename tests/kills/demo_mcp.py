"""The spoke of the demo workflow: whatever its tools did stands in a file, one line each time.

It is embedded in the engine that is killed, and runs as a process of its own beside a hub that is killed.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from fleetkit import Risk, Spoke
from fleetkit.errors import Conflict, Invalid

spoke = Spoke("demo")


def _unwatched(_edge: str) -> None:
    """Nobody counts."""


class Book:
    """The file; `edge` hears of the moments before and after each line."""

    def __init__(self) -> None:
        self.path = Path(os.devnull)
        self.edge: Callable[[str], None] = _unwatched

    def lines(self) -> list[str]:
        """All lines so far."""
        return self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []

    async def add(self, line: str) -> None:
        """One line more; it is held before and after while a file `hold ...` says so."""
        try:
            self.edge(f"tool before {line}")
            await self._held(f"before {line}")
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
            self.edge(f"tool after {line}")
            await self._held(f"after {line}")
        finally:
            self.beside(f"over {line}").touch()

    def beside(self, name: str) -> Path:
        """A file that says something about the book."""
        return self.path.with_name(name)

    async def _held(self, where: str) -> None:
        hold = self.beside(f"hold {where}")
        while hold.exists():
            self.beside(f"held {where}").touch()
            await asyncio.sleep(0.02)


book = Book()


@spoke.tool(risk=Risk.read)
async def has(mark: str) -> bool:
    """Say whether a line stands in the file.

    Args:
        mark: the line.
    """
    return mark in book.lines()


@spoke.tool(risk=Risk.read, deadline_s=50)
async def gather() -> None:
    """Come back when the crowd is not held any more."""
    while book.beside("hold crowd").exists():
        await asyncio.sleep(0.02)


@spoke.tool(risk=Risk.change)
async def append(mark: str) -> str:
    """Write a line.

    Args:
        mark: the line.
    """
    await book.add(mark)
    return mark


@spoke.tool(risk=Risk.destroy)
async def remove(mark: str) -> str:
    """Write that a line is gone.

    Args:
        mark: the line.
    """
    await book.add(f"gone {mark}")
    return mark


@spoke.tool(risk=Risk.read)
async def flaky() -> int:
    """Fail the first time."""
    await book.add("tried")
    if book.lines().count("tried") < 2:
        raise Conflict("not now: try again")
    return 2


@spoke.tool(risk=Risk.read)
async def hang() -> None:
    """Never come back."""
    book.edge("tool hangs")
    await asyncio.Event().wait()


@spoke.tool(risk=Risk.read)
async def even(number: int) -> int:
    """Give an even number back, refuse an odd one.

    Args:
        number: the number.
    """
    book.edge(f"tool even {number}")
    if number % 2:
        raise Invalid(f"{number} is odd: give an even one")
    return number
