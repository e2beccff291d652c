"""Finding a spoke's package by its row: the hub knows spokes by name only.

Every spoke, built in or installed from elsewhere, is announced by an entry point of the group `mcp_fleet.spokes`:
`name = package:spoke`. One without (a checkout that was not installed again) is looked for by its usual name.
"""

from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from fleetkit import names
from fleetkit.errors import Unavailable
from fleetkit.spoke import Spoke

GROUP = "mcp_fleet.spokes"


def find_module(name: str, part: str = "") -> ModuleType:
    """A spoke's package, or a module of it; raises Unavailable naming what to install."""
    package = package_of(name)
    try:
        return import_module(f"{package}.{part}" if part else package)
    except ModuleNotFoundError as error:
        if error.name == package:
            raise Unavailable(f"package {package} is not installed: `fleet install {name}`") from error
        raise Unavailable(f"{name} needs the package {error.name}: `fleet install {name}`") from error


def find_spoke(name: str) -> Spoke:
    """The spoke object of a row; raises Unavailable saying what is missing."""
    found = getattr(find_module(name), _attribute(name), None)
    if not isinstance(found, Spoke):
        raise Unavailable(f"package {package_of(name)} exports no `{_attribute(name)}`")
    return found


def package_of(name: str) -> str:
    """The package that holds a spoke. Raises Unavailable when several installed packages claim its name."""
    announced = _announced().get(name, ())
    if len(announced) > 1:
        owners = ", ".join(sorted(_owner(point) for point in announced))
        raise Unavailable(f"several packages bring a spoke {name!r} ({owners}): uninstall all but one")
    return announced[0].module if announced else names.import_name(name)


def _attribute(name: str) -> str:
    announced = _announced().get(name, ())
    return announced[0].attr if announced and announced[0].attr else "spoke"


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


@lru_cache(maxsize=1)
def _announced() -> dict[str, tuple[EntryPoint, ...]]:
    """Every announcement by name, read once: looking through what is installed takes tens of milliseconds."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=GROUP):
        others = tuple(one for one in found.get(point.name, ()) if one.value != point.value)
        found[point.name] = (*others, point)
    return found
