"""Finding the route of a path: exact paths first, then templates."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from master_mcp.rest.route import Route

_PARAMETER = re.compile(r"{(\w+)}")


@dataclass(frozen=True)
class Place:
    """Everything that stands at one path, by method, and the path's parameters."""

    methods: Mapping[str, Route]
    path: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def allow(self) -> str:
        """The value of an `Allow` header."""
        names = {*self.methods, "OPTIONS"}
        if "GET" in names:
            names.add("HEAD")
        return ", ".join(sorted(names))


class Table:
    """Routes by path. Raises ValueError when two share a method and a path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        by_path: dict[str, dict[str, Route]] = {}
        for route in self.routes:
            here = by_path.setdefault(route.path, {})
            if route.method in here:
                raise ValueError(f"{route.method} {route.path} is registered twice")
            here[route.method] = route
        self._exact = {path: Place(methods) for path, methods in by_path.items() if "{" not in path}
        self._templates = [(_pattern(path), methods) for path, methods in by_path.items() if "{" in path]

    def find(self, path: str) -> Place | None:
        """What stands at `path`, None for nothing. `/a/` is not `/a`."""
        exact = self._exact.get(path)
        if exact is not None:
            return exact
        for pattern, methods in self._templates:
            found = pattern.fullmatch(path)
            if found is not None:
                return Place(methods, found.groupdict())
        return None


def parameters(path: str) -> list[str]:
    """The names in a template."""
    return _PARAMETER.findall(path)


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(_PARAMETER.sub(r"(?P<\1>[^/]+)", path))
