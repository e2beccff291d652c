"""What this room needs to know of a tool: the catalog's own type satisfies it."""

from typing import Protocol


class CacheRule(Protocol):
    """How long answers of a tool may be given again."""

    @property
    def ttl_s(self) -> float:
        """In seconds."""
        ...

    @property
    def by_caller(self) -> bool:
        """Whether they differ by who asks."""
        ...


class Tool(Protocol):
    """A tool that is called."""

    @property
    def id(self) -> str:
        """Its canonical id."""
        ...

    @property
    def service(self) -> str:
        """The name of its spoke."""
        ...

    @property
    def cache(self) -> CacheRule | None:
        """How long its answers may be given again; None: never."""
        ...

    @property
    def definition_hash(self) -> str:
        """A word that changes with its definition."""
        ...
