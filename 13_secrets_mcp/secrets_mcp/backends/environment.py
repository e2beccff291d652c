"""Variables of this process that an operator has named: read-only, for containers that get secrets so."""

from fleetkit import settings
from fleetkit.errors import NotFound, Refused
from secrets_mcp.backends.port import Item, NewSecret, Status


class Environment:
    """`secret://environment/NAME` is the variable `prefix + NAME`, when NAME is on the list."""

    name = "environment"
    default_field = "value"
    writable = False

    def __init__(self, names: list[str], prefix: str) -> None:
        self._names = {name: prefix + name for name in names}

    def status(self) -> Status:
        if not self._names:
            return Status("not_configured", "set spokes.secrets.environment_names to the variables to offer")
        return Status("ready", f"{len(self.items())} of {len(self._names)} named variables are set")

    def items(self) -> list[Item]:
        present = settings.environment(*self._names.values())
        return [Item(name, ("value",)) for name, variable in sorted(self._names.items()) if variable in present]

    def item(self, path: str) -> Item:
        self.value(path, self.default_field)
        return Item(path, ("value",))

    def value(self, path: str, field: str) -> str:
        variable = self._names.get(path)
        if variable is None:
            raise NotFound(
                f"{path} is not among spokes.secrets.environment_names: add it there, or use another backend"
            )
        if field != self.default_field:
            raise NotFound("a variable has only the field value")
        present = settings.environment(variable)
        if not present.get(variable):
            raise NotFound(f"the variable {variable} is not set where the secrets service runs")
        return present[variable]

    def create(self, new: NewSecret, value: str) -> Item:
        raise _read_only()

    def replace(self, path: str, field: str, value: str) -> Item:
        raise _read_only()

    def restore(self, path: str, field: str) -> Item:
        raise _read_only()


def _read_only() -> Refused:
    return Refused("variables cannot be changed from here: use the backend files or keepass")
