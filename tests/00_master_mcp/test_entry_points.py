"""Spokes are announced by entry points, built in or from elsewhere; an installed one runs once it has a row."""

import subprocess
import sys
from collections.abc import Generator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import tree
from hubs import call, running_hub, text_of
from processes import plain_environment

from fleetkit.errors import Unavailable
from fleetkit.settings import FleetSettings, SpokeRow
from master_mcp import finder, supervisor
from master_mcp.finder import GROUP, find_module, find_spoke, package_of

PACKAGE = '''"""A spoke from elsewhere."""

from fleetkit import Risk, Spoke

weather = Spoke("weather")


@weather.tool(risk=Risk.read)
async def get_sky() -> str:
    """The colour of the sky."""
    return "blue"
'''
FORECAST = {"weather": {"number": 71, "namespace": "weather"}}


def distribution(folder: Path, name: str, *announced: str) -> None:
    """A small distribution as an installer leaves it: a package, and its metadata."""
    package = folder / f"{name}_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(PACKAGE)
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *announced, ""]))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """A folder of installed distributions."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    finder._announced.cache_clear()  # pyright: ignore[reportPrivateUsage] - what is installed is read once per process
    yield folder
    finder._announced.cache_clear()  # pyright: ignore[reportPrivateUsage]
    for name in [name for name in sys.modules if name.endswith("_package")]:
        del sys.modules[name]


def test_every_built_in_spoke_is_announced_like_any_other() -> None:
    announced = {point.name: point.value for point in entry_points(group=GROUP)}
    assert announced == {service.name: f"{service.package}:spoke" for service in tree.spokes()}


async def test_an_installed_spoke_runs_once_it_has_a_row(elsewhere: Path, tmp_path: Path) -> None:
    distribution(elsewhere, "sky", "weather = sky_package:weather")
    async with running_hub(tmp_path / "data") as hub:
        assert "weather" not in hub.hub.fleet.members
    async with running_hub(tmp_path / "data", FORECAST) as hub:
        assert text_of(await call(hub, "weather_getSky")) == "blue"


def test_a_spoke_that_two_packages_announce_is_refused_naming_both(elsewhere: Path) -> None:
    distribution(elsewhere, "sky", "weather = sky_package:weather")
    distribution(elsewhere, "squatter", "weather = squatter_package:weather")
    with pytest.raises(Unavailable, match=r"\(sky, squatter\)"):
        find_spoke("weather")


def test_a_package_cannot_take_a_built_in_spokes_place(elsewhere: Path) -> None:
    distribution(elsewhere, "squatter", "cmdb = squatter_package:weather")
    with pytest.raises(Unavailable, match="mcp-fleet, squatter"):
        package_of("cmdb")


def test_a_spoke_that_nobody_announces_is_looked_for_by_its_usual_name(elsewhere: Path) -> None:
    (elsewhere / "plain_mcp").mkdir()
    text = PACKAGE.replace("weather =", "spoke =").replace("@weather", "@spoke")
    (elsewhere / "plain_mcp" / "__init__.py").write_text(text)
    assert find_spoke("plain").name == "weather"
    del sys.modules["plain_mcp"]


BROKEN = [
    ("weather = sky_package:nothing", "exports no `nothing`"),
    ("weather = absent_package:spoke", "package absent_package is not installed"),
    ("weather = sky_package.absent:spoke", "needs the package|is not installed"),
]


@pytest.mark.parametrize(("line", "reason"), BROKEN, ids=[line for line, _ in BROKEN])
def test_a_broken_announcement_says_what_is_missing(elsewhere: Path, line: str, reason: str) -> None:
    distribution(elsewhere, "sky", line)
    with pytest.raises(Unavailable, match=reason):
        find_spoke("weather")


def test_what_is_installed_is_read_once(elsewhere: Path) -> None:
    distribution(elsewhere, "sky", "weather = sky_package:weather")
    assert find_module("weather").__name__ == "sky_package"
    distribution(elsewhere, "late", "late = late_package:weather")
    with pytest.raises(Unavailable, match="late_mcp is not installed"):
        find_module("late")


def test_an_installed_spoke_runs_as_a_process_of_its_own(elsewhere: Path, tmp_path: Path) -> None:
    distribution(elsewhere, "sky", "weather = sky_package:weather")
    config = FleetSettings(spokes={"weather": SpokeRow(number=71, namespace="weather")})
    option, program = supervisor.program_of(config, "weather")
    assert program == "from master_mcp.finder import find_spoke; find_spoke('weather').main()"
    env = plain_environment() | {"PYTHONPATH": str(elsewhere)}
    shown = program.replace("find_spoke('weather').main()", "print(find_spoke('weather').name)")
    done = subprocess.run([sys.executable, option, shown], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "weather\n"
    nobodys = FleetSettings(spokes={"no": SpokeRow(number=72, namespace="no")})
    assert supervisor.program_of(nobodys, "no") == []
