"""Finding a spoke's package by its row: the hub knows spokes by name only."""

from importlib import import_module
from types import ModuleType

from fleetkit import names
from fleetkit.errors import Unavailable
from fleetkit.spoke import Spoke


def find_module(name: str, part: str = "") -> ModuleType:
    """A spoke's package, or a module of it; raises Unavailable naming what to install."""
    package = names.import_name(name)
    try:
        return import_module(f"{package}.{part}" if part else package)
    except ModuleNotFoundError as error:
        if error.name == package:
            raise Unavailable(f"package {package} is not installed: `fleet install {name}`") from error
        raise Unavailable(f"{name} needs the package {error.name}: `fleet install {name}`") from error


def find_spoke(name: str) -> Spoke:
    """The spoke object of a row; raises Unavailable saying what is missing."""
    found = getattr(find_module(name), "spoke", None)
    if not isinstance(found, Spoke):
        raise Unavailable(f"package {names.import_name(name)} exports no `spoke`")
    return found
