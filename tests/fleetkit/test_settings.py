"""Settings: four layers, one frozen model, and every mistake named."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from fleetkit import settings
from fleetkit.errors import Invalid


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data directory, and no secret files of the checkout."""
    where = tmp_path / "data"
    where.mkdir()
    monkeypatch.setenv("FLEET_DATA_DIR", str(where))
    monkeypatch.setattr(settings, "SECRET_DIRS", (tmp_path / "secrets", tmp_path / "run_secrets"))
    return where


def write(data: Path, text: str) -> None:
    (data / "fleet.yaml").write_text(text, encoding="utf-8")


def give_secret(folder: Path, name: str, value: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(value, encoding="utf-8")


# --- layers -----------------------------------------------------------------------------------------


def test_the_shipped_file_alone_gives_a_hub_on_loopback():
    config = settings.load()
    assert (config.hub.host, config.hub.port, config.hub.metrics_open) == ("127.0.0.1", 8000, False)
    assert config.row("linux_cli").namespace == "os.linux"
    assert config.row("linux_cli").port == 8001


def test_the_users_file_lies_over_the_shipped_one_key_by_key(data: Path):
    write(data, "hub: {port: 9000}\nspokes: {cmdb: {enabled: false}}\n")
    config = settings.load()
    assert (config.hub.host, config.hub.port) == ("127.0.0.1", 9000)
    assert (config.row("cmdb").enabled, config.row("cmdb").number) == (False, 12)
    assert config.row("secrets").enabled


def test_the_environment_lies_over_both_files(data: Path, monkeypatch: pytest.MonkeyPatch):
    write(data, "hub: {port: 9000, host: 10.0.0.1}\n")
    monkeypatch.setenv("FLEET_HUB__PORT", "9100")
    config = settings.load()
    assert (config.hub.host, config.hub.port) == ("10.0.0.1", 9100)


def test_a_secret_file_lies_between_the_files_and_the_environment(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(data, "hub: {database_url: 'sqlite:///yaml', log_level: debug}\n")
    give_secret(tmp_path / "secrets", "fleet_hub__database_url", "postgresql://u:p@db/fleet\n")
    assert settings.load().hub.database_url == "postgresql://u:p@db/fleet"
    monkeypatch.setenv("FLEET_HUB__DATABASE_URL", "sqlite:///environment")
    assert settings.load().hub.database_url == "sqlite:///environment"
    assert settings.load().hub.log_level == "debug"


def test_a_mounted_secret_wins_over_one_in_the_checkout_and_other_files_are_not_read(tmp_path: Path):
    give_secret(tmp_path / "secrets", "FLEET_HUB__DATABASE_URL", "sqlite:///checkout")
    give_secret(tmp_path / "run_secrets", "fleet_hub__database_url", "sqlite:///mounted")
    give_secret(tmp_path / "secrets", "README.md", "not a setting")
    assert settings.load().hub.database_url == "sqlite:///mounted"


def test_a_variable_reaches_one_option_of_one_spoke(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLEET_SPOKES__LINUX_CLI__WRITE_PATHS", "/srv:/tmp")
    monkeypatch.setenv("FLEET_SPOKES__LINUX_CLI__ENABLED", "false")
    row = settings.load().row("linux_cli")
    assert (row.options, row.enabled, row.number) == ({"write_paths": "/srv:/tmp"}, False, 1)


def test_a_list_in_a_variable_is_json(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLEET_HUB__ALLOWED_HOSTS", '["fleet.lan"]')
    assert settings.load().hub.allowed_hosts == ["fleet.lan"]


def test_an_emptied_section_in_the_users_file_changes_nothing(data: Path):
    write(data, "hub:\nspokes:\n  cmdb:\n")
    assert settings.load().hub == settings.Hub()
    assert settings.load().row("cmdb").number == 12


def test_a_missing_or_empty_users_file_is_none(data: Path):
    before = settings.load()
    write(data, "# nothing yet\n")
    assert settings.load() == before


def test_nothing_can_be_changed_afterwards():
    config = settings.load()
    with pytest.raises(ValidationError, match="frozen"):
        config.hub.port = 1  # pyright: ignore[reportAttributeAccessIssue] - the point of the test
    with pytest.raises(ValidationError, match="frozen"):
        config.hub = settings.Hub()  # pyright: ignore[reportAttributeAccessIssue] - the point of the test


def test_merging_keeps_what_the_upper_layer_does_not_name():
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 2}
    assert settings.merge(base, {"a": {"y": [3]}, "c": {"z": 1}}) == {"a": {"x": 1, "y": [3]}, "b": 2, "c": {"z": 1}}
    assert base == {"a": {"x": 1, "y": [1, 2]}, "b": 2}


def test_a_scalar_replaces_a_mapping_and_a_null_a_scalar():
    assert settings.merge({"a": {"x": 1}, "b": 2}, {"a": 3, "b": None}) == {"a": 3, "b": None}


# --- the data directory -----------------------------------------------------------------------------


def test_the_data_directory_comes_from_its_variable(data: Path):
    assert settings.load().data_dir == data


def test_a_data_directory_given_by_the_program_wins_over_the_variable(tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    write(other, "hub: {port: 9300}\n")
    config = settings.load(other)
    assert (config.data_dir, config.hub.port) == (other, 9300)


def test_a_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FLEET_DATA_DIR", "~/fleet")
    assert settings.load().data_dir == tmp_path / "fleet"


def test_without_one_it_is_the_checkouts_own_wherever_the_program_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLEET_DATA_DIR", "")
    assert settings.default_data_dir() == settings.CHECKOUT / "data"
    monkeypatch.delenv("FLEET_DATA_DIR")
    assert settings.default_data_dir() == settings.CHECKOUT / "data"


def test_the_data_directory_cannot_be_moved_by_a_file_inside_it(data: Path):
    write(data, "data_dir: /elsewhere\n")
    with pytest.raises(Invalid, match=r"data_dir cannot stand in fleet\.yaml.*set FLEET_DATA_DIR"):
        settings.load()


# --- mistakes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("hub: {prot: 8000}", r"hub\.prot: Extra inputs are not permitted"),
        ("hubb: {port: 8000}", r"hubb: Extra inputs are not permitted"),
        ("hub: {port: eight}", r"hub\.port: Input should be a valid integer"),
        ("hub: {port: 70000}", r"hub\.port: Input should be less than or equal to 65535"),
        ("hub: {log_level: loud}", r"hub\.log_level: Input should be 'debug'"),
        ("hub: 3", r"hub: Input should be a valid dictionary"),
        ("spokes: {demo: {namespace: os.demo}}", r"spokes\.demo\.number: Field required"),
        ("spokes: {demo: {number: 0, namespace: os.demo}}", r"spokes\.demo\.number: .*greater than or equal to 1"),
        ("spokes: {demo: {number: 90, namespace: os_demo}}", r"spokes\.demo\.namespace: .*camelCase"),
        ("spokes: {demo: {number: 12, namespace: os.demo}}", r"spokes\.demo and spokes\.cmdb share 12"),
        ("spokes: {demo: {number: 90, namespace: cmdb}}", r"spokes\.demo and spokes\.cmdb share 'cmdb'"),
        ("spokes: {cmdb: {names: short}}", r"spokes\.cmdb\.names: Input should be 'canonical' or 'verbatim'"),
        ("1: {port: 1}", r"fleet\.yaml must hold a mapping whose keys are words"),
        ("- hub", r"fleet\.yaml must hold a mapping"),
        ("hub", r"fleet\.yaml must hold a mapping"),
        ("hub: [1", r"cannot read .*fleet\.yaml: .*line 1"),
        ("hub:\n\tport: 1", r"cannot read .*fleet\.yaml: .*line 2"),
        ("\x00", r"cannot read .*fleet\.yaml"),
    ],
)
def test_a_mistake_in_the_users_file_is_named_with_its_place(data: Path, text: str, named: str):
    write(data, text)
    with pytest.raises(Invalid, match=named):
        settings.load()


def test_every_mistake_is_named_at_once(data: Path):
    write(data, "hub: {prot: 1, host: [x]}\nspokes: {cmdb: {number: 100}}\n")
    with pytest.raises(Invalid, match=r"(?=.*hub\.prot)(?=.*hub\.host)(?=.*spokes\.cmdb\.number)"):
        settings.load()


def test_a_file_that_is_not_text_is_named(data: Path):
    (data / "fleet.yaml").write_bytes(b"\xff\xfe\x00hub")
    with pytest.raises(Invalid, match=r"cannot read .*fleet\.yaml"):
        settings.load()


def test_a_file_that_cannot_be_opened_is_named(data: Path):
    (data / "fleet.yaml").mkdir()
    with pytest.raises(Invalid, match=r"cannot read .*fleet\.yaml: .*[Dd]irectory"):
        settings.load()


@pytest.mark.parametrize(
    "variable", ["FLEET_PORT", "FLEET_HUBB__PORT", "FLEET_", "FLEET_DATA_DIR__X", "FLEET_SPOKE__CMDB"]
)
def test_a_variable_outside_every_section_is_named_with_the_known_ones(variable: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(Invalid, match=f"unknown variable {variable}: known are FLEET_DATA_DIR, FLEET_EXTERNAL__"):
        settings.load()


@pytest.mark.parametrize(
    ("variable", "value", "place"),
    [
        ("FLEET_HUB__PROT", "1", r"hub\.prot \(FLEET_HUB__PROT\): Extra inputs"),
        ("FLEET_HUB__PORT", "x", r"hub\.port \(FLEET_HUB__PORT\): Input should be a valid integer"),
        ("FLEET_HUB__ALLOWED_HOSTS", "a,b", r"a FLEET_HUB variable is not JSON"),
        ("FLEET_SPOKES", "cmdb", r"a FLEET_SPOKES variable is not JSON"),
        ("FLEET_SPOKES__NOPE__ENABLED", "false", r"spokes\.nope\.number: Field required"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str, place: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(variable, value)
    with pytest.raises(Invalid, match=place):
        settings.load()


def test_variables_of_the_tests_are_nobodys_mistake(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLEET_TEST_ANYTHING", "1")
    assert settings.load().hub.port == 8000


def test_an_unknown_secret_file_is_named(tmp_path: Path):
    give_secret(tmp_path / "secrets", "fleet_hubb__port", "1")
    with pytest.raises(Invalid, match="unknown variable fleet_hubb__port"):
        settings.load()


def test_a_secret_file_that_is_not_text_is_named_without_its_content(tmp_path: Path):
    give_secret(tmp_path / "secrets", "fleet_hub__database_url", "")
    (tmp_path / "secrets" / "fleet_hub__database_url").write_bytes(b"\xff\xfe")
    with pytest.raises(Invalid, match=r"cannot read the secret file .*fleet_hub__database_url"):
        settings.load()


def test_a_spoke_without_a_row_is_named_with_those_that_have_one():
    with pytest.raises(Invalid, match=r"no spoke 'nope' in fleet.yaml; it lists .*cmdb"):
        settings.load().row("nope")


# --- what a child process inherits ------------------------------------------------------------------


def test_only_the_named_variables_are_handed_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.delenv("TZ", raising=False)
    assert settings.environment("LANG", "TZ") == {"LANG": "C.UTF-8"}
