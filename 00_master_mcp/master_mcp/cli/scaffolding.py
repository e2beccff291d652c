"""What `fleet new` writes."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from string import Template

from fleetkit import names, settings
from fleetkit.errors import Conflict, Invalid
from fleetkit.settings import SpokeRow

TEMPLATES = Path(__file__).with_name("scaffold")
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_ARRAY = re.compile(r"\[[^\[\]]*\]")


@dataclass(frozen=True)
class _Words:
    """What one spoke is called in pyproject.toml."""

    folder: str
    package: str

    def all(self) -> tuple[str, ...]:
        return self.folder, self.package, f"{self.folder}/{self.package}"


class Scaffold:
    """A spoke to be. Raises Invalid or Conflict when it cannot be one in this checkout."""

    def __init__(self, checkout: Path, number: int, name: str, namespace: str | None = None) -> None:
        if not _NAME.fullmatch(name):
            raise Invalid(f"name {name!r}: use lower-case words joined by _, such as time_series")
        self._checkout = checkout
        self._number = number
        self._name = name
        self._namespace = namespace or names.camel(name)
        self.folder = names.folder(number, name)
        self.package = names.import_name(name)
        self._rows = _rows(checkout)
        self._check()

    def _check(self) -> None:
        try:
            names.canonical(self._namespace, "get_free_space")
        except ValueError as error:
            raise Invalid(f"--namespace {self._namespace}: {error}") from error
        for other, row in self._rows.items():
            clash = {"name": other == self._name, "number": row.number == self._number}
            clash["namespace"] = row.namespace == self._namespace
            for what, taken in clash.items():
                if taken:
                    raise Conflict(f"{what} is taken by the spoke {other} ({row.number}, {row.namespace}): use another")
        if (self._checkout / self.folder).exists():
            raise Conflict(f"{self.folder} exists: move it away or use another number")

    def write(self) -> list[str]:
        """Write everything; the paths, relative to the checkout. fleet.yaml comes last: it makes the spoke real."""
        pyproject = self._pyproject()
        row = self._fleet_yaml()
        files = self._files()
        for path, text in files.items():
            target = self._checkout / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        (self._checkout / self.folder / "entrypoint.sh").chmod(0o755)
        (self._checkout / "pyproject.toml").write_text(pyproject, encoding="utf-8")
        (self._checkout / "config" / "fleet.yaml").write_text(row, encoding="utf-8")
        return [*files, "pyproject.toml", "config/fleet.yaml"]

    def _files(self) -> dict[str, str]:
        inside = f"{self.folder}/{self.package}"
        modules = ("__init__", "tools", "client", "models", "policy")
        return {
            f"{self.folder}/Dockerfile": self._filled("Dockerfile"),
            f"{self.folder}/entrypoint.sh": self._filled("entrypoint.sh"),
            f"{self.folder}/mcp_server.py": self._filled("mcp_server.py.txt"),
            f"{self.folder}/requirements.txt": self._filled("requirements.txt"),
            **{f"{inside}/{module}.py": self._filled(f"{module}.py.txt") for module in modules},
            f"{inside}/py.typed": "",
            f"tests/{self.folder}/test_{self._name}.py": self._filled("test.py.txt"),
        }

    def _filled(self, template: str) -> str:
        text = Template((TEMPLATES / template).read_text(encoding="utf-8")).substitute(
            name=self._name,
            title=self._name.replace("_", " ").capitalize(),
            short=self._name.partition("_")[0],
            namespace=self._namespace,
            folder=self.folder,
            package=self.package,
            port=names.port(self._number),
            two=f"{self._number:02d}",
        )
        return _with_sorted_imports(text, self.package)

    def _pyproject(self) -> str:
        """pyproject.toml with the new spoke in every list that names the last one."""
        text = (self._checkout / "pyproject.toml").read_text(encoding="utf-8")
        last = max(self._rows, key=lambda name: self._rows[name].number)
        model = _Words(names.folder(self._rows[last].number, last), names.import_name(last))
        text = _extend_arrays(text, model, _Words(self.folder, self.package))
        extra = f'{last} = ["{model.folder}/requirements.txt"]\n'
        text = text.replace(extra, f'{extra}{self._name} = ["{self.folder}/requirements.txt"]\n')
        announced = f'{last} = "{model.package}:spoke"\n'
        text = text.replace(announced, f'{announced}{self._name} = "{self.package}:spoke"\n')
        tomllib.loads(text)
        return text

    def _fleet_yaml(self) -> str:
        text = (self._checkout / "config" / "fleet.yaml").read_text(encoding="utf-8")
        return f"{text.rstrip()}\n  {self._name}: {{number: {self._number}, namespace: {self._namespace}}}\n"


def _rows(checkout: Path) -> dict[str, SpokeRow]:
    path = checkout / "config" / "fleet.yaml"
    if not path.is_file() or not (checkout / "pyproject.toml").is_file():
        raise Invalid(f"{checkout} is no checkout: `fleet new` writes source files, run it from one")
    return {name: SpokeRow.model_validate(row) for name, row in settings.read_yaml(path)["spokes"].items()}


def _extend_arrays(text: str, model: _Words, new: _Words) -> str:
    """After each item that names `model` in an array, the same for `new`, in the array's own layout."""
    pairs = dict(zip(model.all(), new.all(), strict=True))
    item = re.compile(rf'(\s*)"({"|".join(map(re.escape, pairs))})"')

    def extended(array: re.Match[str]) -> str:
        return item.sub(lambda found: f'{found[0]},{found[1] or " "}"{pairs[found[2]]}"', array[0])

    return _ARRAY.sub(extended, text)


def _with_sorted_imports(text: str, package: str) -> str:
    """The block of first-party imports in the order that the linter wants, whatever the spoke's name."""
    ours = [line for line in text.splitlines() if line.startswith(("from fleetkit", f"from {package}"))]
    if not ours:
        return text
    ordered = sorted(ours, key=lambda line: line.split()[1])
    return text.replace("\n".join(ours), "\n".join(ordered))
