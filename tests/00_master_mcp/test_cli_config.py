"""`fleet config`: what is set and where it comes from."""

from pathlib import Path
from typing import Any

import pytest
from commands import Fleet


def _settings(fleet: Fleet, **env: str) -> dict[str, tuple[Any, str]]:
    rows = fleet.run("config", "show", "--json", **env).data
    return {row["setting"]: (row["value"], row["source"]) for row in rows}


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """A user's file that changes one setting of the hub and one of a spoke."""
    (tmp_path / "fleet.yaml").write_text(
        "hub: {deadline_s: 12}\nspokes: {linux_cli: {max_output_bytes: 2048}}\n", encoding="utf-8"
    )
    return Fleet(tmp_path, 8123)


def test_each_value_names_the_file_or_variable_it_comes_from(fleet: Fleet) -> None:
    found = _settings(fleet)
    assert found["hub.host"] == ("127.0.0.1", "config/fleet.yaml")
    assert found["hub.port"] == (8123, "FLEET_HUB__PORT")
    assert found["hub.deadline_s"] == (12.0, str(fleet.data_dir / "fleet.yaml"))
    assert found["hub.max_inflight"] == (512, "default")


def test_a_spoke_s_own_options_are_shown_with_their_defaults(fleet: Fleet) -> None:
    found = _settings(fleet)
    assert found["spokes.linux_cli.max_output_bytes"] == (2048, str(fleet.data_dir / "fleet.yaml"))
    assert found["spokes.linux_cli.network"] == (False, "default")


def test_a_password_in_a_url_is_not_shown(fleet: Fleet) -> None:
    found = _settings(fleet, FLEET_HUB__DATABASE_URL="postgresql://fleet:hunter2@db/fleet")
    assert found["hub.database_url"] == ("postgresql://********@db/fleet", "FLEET_HUB__DATABASE_URL")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "postgresql+psycopg://fleet@db/fleet?password=hunter2&x=1",
            "postgresql+psycopg://********@db/fleet?password=********&x=1",
        ),
        (
            "postgresql+psycopg://db/fleet?user=a&password=hunter2",
            "postgresql+psycopg://db/fleet?user=a&password=********",
        ),
        ("sqlite+libsql:////var/lib/fleet/hub.db", "sqlite+libsql:////var/lib/fleet/hub.db"),
    ],
)
def test_a_password_among_the_options_of_a_url_is_not_shown_either(fleet: Fleet, url: str, shown: str) -> None:
    assert _settings(fleet, FLEET_HUB__DATABASE_URL=url)["hub.database_url"][0] == shown


@pytest.mark.parametrize(
    ("key", "url"),
    [
        ("database_url", "postgresql+psycopg://fleet:hunter2@db/fleet"),
        ("database_url", "postgresql+psycopg://fleet@db/fleet?password=hunter2"),
        ("redis_url", "redis://:hunter2@cache/0"),
    ],
)
def test_a_password_in_fleet_yaml_is_refused_and_told_where_it_belongs(tmp_path: Path, key: str, url: str) -> None:
    (tmp_path / "fleet.yaml").write_text(f"hub: {{{key}: '{url}'}}", encoding="utf-8")
    done = Fleet(tmp_path).run("config", "check")
    assert (done.code, "hunter2" in done.err) == (2, False)
    assert f"FLEET_HUB__{key.upper()}" in done.err


def test_a_database_url_without_a_password_may_stand_in_fleet_yaml(tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text(
        "hub: {database_url: 'postgresql+psycopg://db/fleet?passfile=/p'}", encoding="utf-8"
    )
    assert Fleet(tmp_path).run("config", "check").code == 0


def test_people_get_a_table(fleet: Fleet) -> None:
    lines = fleet.run("config", "show").lines
    assert lines[0].split() == ["setting", "value", "source"]
    assert "hub.host 127.0.0.1 config/fleet.yaml" in [" ".join(line.split()) for line in lines]


def test_a_good_configuration_is_said_to_be_good(fleet: Fleet) -> None:
    done = fleet.run("config", "check")
    assert done.code == 0
    assert done.out.startswith("The configuration is good: linux_cli, cmdb, secrets")


@pytest.mark.parametrize(
    ("yaml", "named"),
    [
        ("hub: {prot: 8000}", "hub.prot"),
        ("hub: {deadline_s: long}", "hub.deadline_s"),
        ("spokes: {linux_cli: {netwrk: true}}", "spokes.linux_cli.netwrk"),
        ("spokes: {linux_cli: {number: 12}}", "share 12"),
        ("hub: [", "fleet.yaml"),
    ],
)
def test_a_mistake_is_exit_code_2_and_names_its_place(tmp_path: Path, yaml: str, named: str) -> None:
    (tmp_path / "fleet.yaml").write_text(yaml, encoding="utf-8")
    done = Fleet(tmp_path).run("config", "check")
    assert (done.code, done.out) == (2, "")
    assert named in done.err


def test_an_unknown_variable_is_named(tmp_path: Path) -> None:
    done = Fleet(tmp_path).run("config", "check", FLEET_HUP__PORT="1")
    assert done.code == 2
    assert "unknown variable FLEET_HUP__PORT" in done.err


def test_a_spoke_whose_package_is_missing_is_said_to_be_unchecked(tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text("spokes: {ghost: {number: 77, namespace: ghost}}", encoding="utf-8")
    done = Fleet(tmp_path).run("config", "check")
    assert done.code == 0
    assert done.out == "The configuration is good: linux_cli, cmdb, secrets.\n"
    assert "ghost: its options cannot be checked: package ghost_mcp is not installed" in done.err
