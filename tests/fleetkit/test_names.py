"""Names: everything derived from a number and a word, and the tool ids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetkit import names

SEGMENT = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True)
ACTION = st.from_regex(r"[a-z][a-z0-9]{0,4}(_[a-z][a-z0-9]{0,4}){0,3}", fullmatch=True)


def test_a_folder_is_two_digits_the_name_and_mcp():
    assert names.folder(1, "linux_cli") == "01_linux_cli_mcp"
    assert names.folder(13, "secrets") == "13_secrets_mcp"


def test_an_import_name_is_the_folder_without_its_digits():
    assert names.folder(1, "linux_cli").lstrip("0123456789_") == names.import_name("linux_cli")


def test_a_port_is_eight_thousand_plus_the_number():
    assert [names.port(1), names.port(13)] == [8001, 8013]


@pytest.mark.parametrize(
    ("python", "camel"),
    [("run_command", "runCommand"), ("uptime", "uptime"), ("getServerInfo", "getServerInfo"), ("ci_2_csv", "ci2Csv")],
)
def test_a_python_name_becomes_camel_case(python: str, camel: str):
    assert names.camel(python) == camel


def test_a_camel_case_name_becomes_snake_case():
    assert names.snake("listPods") == "list_pods"
    assert names.snake("uptime") == "uptime"


def test_a_canonical_id_joins_namespace_and_camel_case_action():
    assert names.canonical("os.linux", "run_command") == "os.linux.runCommand"


@pytest.mark.parametrize(
    "namespace", ["os_linux", "Os.linux", "os..linux", "", ".os", "os.", "1os", "os-linux", "os linux"]
)
def test_a_namespace_that_would_not_survive_the_wire_is_refused(namespace: str):
    with pytest.raises(ValueError, match="use dotted camelCase segments"):
        names.canonical(namespace, "run")


def test_an_id_of_48_characters_is_accepted_and_49_refused_with_its_length():
    namespace = "infra.containers"
    longest = "a" * (names.MAX_WIRE - len(namespace) - 1)
    assert len(names.canonical(namespace, longest)) == 48
    with pytest.raises(ValueError, match="has 49 characters; the limit is 48"):
        names.canonical(namespace, longest + "a")


def test_the_wire_name_has_no_dot():
    assert names.wire("os.linux.runCommand") == "os_linux_runCommand"


def test_a_call_may_use_the_canonical_the_wire_and_both_snake_case_spellings():
    assert names.spellings("infra.k8s.listPods") == {
        "infra.k8s.listPods",
        "infra_k8s_listPods",
        "infra_k8s_list_pods",
        "infra.k8s.list_pods",
    }


@given(st.lists(SEGMENT, min_size=1, max_size=3), ACTION)
def test_the_wire_name_gives_back_the_canonical_id_without_a_table(segments: list[str], action: str):
    canonical = names.canonical(".".join(segments), action)
    assert names.wire(canonical).replace("_", ".") == canonical


@given(ACTION)
def test_camel_case_of_its_own_snake_case_is_the_same(action: str):
    camel = names.camel(action)
    assert names.camel(names.snake(camel)) == camel
