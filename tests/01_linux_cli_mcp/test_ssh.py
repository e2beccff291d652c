"""SSH against real OpenSSH servers on loopback: hosts, trust, jumps, commands, fan-out."""

import asyncio
import getpass
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from remotes import linux_with, new_key, run
from sshd import Sshd, needs_sshd, sshd

from fleetkit import Invalid, NeedsApproval, NotFound, Refused, Risk, Unavailable
from fleetkit.testing import SpokeClient, running
from linux_cli_mcp import spoke
from linux_cli_mcp.options import LinuxOptions
from linux_cli_mcp.policy import Paths
from linux_cli_mcp.ssh.capture import Capture, Keep

pytestmark = needs_sshd


# Finding hosts


async def test_hosts_are_listed_with_what_a_caller_needs_and_no_secret(reach: SpokeClient, server: Sshd) -> None:
    hosts = {host["name"]: host for host in await reach.call("listHosts", allow=Risk.read)}
    assert hosts["web1"] == {
        "name": "web1",
        "address": "127.0.0.1",
        "port": server.port,
        "user": getpass.getuser(),
        "tags": ["web", "first"],
        "jump": None,
        "login": "key file",
        "host_key_known": True,
    }
    assert hosts["dead"]["host_key_known"] is False
    assert str(server.key_file) not in str(hosts)
    assert [host["name"] for host in await reach.call("listHosts", tag="first")] == ["web1"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("db1", "no host is named 'db1'; hosts: web1, web2, dead"),
        ("tag:db", "no host has the tag 'db'; tags: first, web"),
        ("root@127.0.0.1", "no host is named"),
        ("-oProxyCommand=id", "no host is named"),
    ],
)
async def test_only_listed_hosts_are_reached(reach: SpokeClient, target: str, message: str) -> None:
    with pytest.raises(NotFound, match=message):
        await run(reach, target, "true")


async def test_a_hashed_line_of_known_hosts_counts(server: Sshd, data: Path) -> None:
    known = data / "hashed"
    known.write_text(server.known_hosts)
    keygen = await asyncio.create_subprocess_exec("ssh-keygen", "-q", "-H", "-f", known, stderr=asyncio.subprocess.PIPE)
    await keygen.communicate()
    assert "127.0.0.1" not in known.read_text()
    async with running(spoke, data, "os.linux", hosts={"h": server.row}, known_hosts=str(known)) as linux:
        assert (await linux.call("listHosts"))[0]["host_key_known"]
        assert (await run(linux, "h", "echo in"))["ok"] == 1


# Trust


async def test_a_good_host_says_how_it_was_reached(reach: SpokeClient) -> None:
    tested = await reach.call("testHost", host="web1", allow=Risk.read)
    assert tested["host_key"].startswith("ssh-ed25519 SHA256:")
    assert tested["kernel"].startswith("Linux ")
    assert tested["os"] != "unknown"


@pytest.mark.parametrize("known", ["", "# nothing yet\n", None])
async def test_an_unknown_host_key_is_refused_with_the_way_to_add_it(
    server: Sshd, data: Path, known: str | None
) -> None:
    async with linux_with(data, {"h": server.row}, known or "") as linux:
        with pytest.raises(Refused) as refused:
            await run(linux, "h", f"touch {data}/ran")
    assert f"ssh-keyscan -p {server.port} 127.0.0.1 >> {data}/known_hosts" in refused.value.message
    assert "ssh-ed25519 SHA256:" in refused.value.message
    assert not (data / "ran").exists()


async def test_a_missing_known_hosts_file_knows_nobody(server: Sshd, data: Path) -> None:
    async with running(spoke, data, "os.linux", hosts={"h": server.row}) as linux:
        with pytest.raises(Refused, match="ssh-keyscan"):
            await linux.call("testHost", host="h")


async def test_a_changed_host_key_is_refused_as_changed(server: Sshd, data: Path) -> None:
    other = new_key().export_public_key().decode()
    async with linux_with(data, {"h": server.row}, f"[127.0.0.1]:{server.port} {other}") as linux:
        with pytest.raises(Refused, match=r"another host key .* in between.*ssh-keygen -f .* -R"):
            await run(linux, "h", "true")


async def test_a_damaged_known_hosts_file_is_named(server: Sshd, data: Path) -> None:
    async with linux_with(data, {"h": server.row}, "|1|broken\n") as linux:
        with pytest.raises(Unavailable, match="known_hosts is damaged"):
            await run(linux, "h", "true")


async def test_a_login_that_is_not_accepted_is_refused(server: Sshd, data: Path, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    stranger.write_bytes(new_key().export_private_key())
    async with linux_with(data, {"h": server.row | {"key_file": str(stranger)}}, server.known_hosts) as linux:
        with pytest.raises(Refused, match=f"does not accept the login of {server.user}"):
            await run(linux, "h", "true")


async def test_a_host_without_a_way_to_log_in_says_so(server: Sshd, data: Path) -> None:
    row = {key: value for key, value in server.row.items() if key != "key_file"}
    async with linux_with(data, {"h": row}, server.known_hosts) as linux:
        with pytest.raises(Refused, match="give its row a key_file or a credential"):
            await run(linux, "h", "true")


@pytest.mark.parametrize("content", [None, "no key"])
async def test_a_key_file_that_cannot_be_read_is_named(
    server: Sshd, data: Path, tmp_path: Path, content: str | None
) -> None:
    key = tmp_path / "key"
    key.write_text(content or "")
    async with linux_with(data, {"h": server.row | {"key_file": str(key)}}, server.known_hosts) as linux:
        with pytest.raises(Unavailable, match=f"key_file of h cannot be read.*{key}"):
            await run(linux, "h", "true")


# Running


async def test_a_command_answers_with_its_streams_and_exit_code(reach: SpokeClient) -> None:
    answer = await run(reach, "web1", "echo out; echo 'err $HOME' >&2; exit 3")
    (result,) = answer["results"]
    assert (result["host"], result["ok"], answer["ok"], answer["failed"]) == ("web1", False, 0, 1)
    output = result["output"]
    assert (output["exit_code"], output["stdout"], output["stderr"]) == (3, "out\n", "err $HOME\n")
    assert (output["truncated"], output["bytes_total"]) == (False, 14)


@pytest.mark.parametrize(
    "line",
    [
        "printf '%s\\n' \"it's\"",
        'x="a  b"; echo "$x"',
        "echo one\necho two",
        "cat <<EOF\nin here\nEOF",
        "echo $((6*7))",
    ],
)
async def test_a_line_reaches_the_login_shell_as_it_was_given(reach: SpokeClient, line: str) -> None:
    here = await asyncio.create_subprocess_exec("bash", "-c", line, stdout=asyncio.subprocess.PIPE)
    expected, _ = await here.communicate()
    (result,) = (await run(reach, "web1", line))["results"]
    assert result["output"]["stdout"] == expected.decode()


async def test_a_command_that_reads_finds_its_input_at_an_end(reach: SpokeClient) -> None:
    (result,) = (await run(reach, "web1", "cat; echo done"))["results"]
    assert result["output"]["stdout"] == "done\n"


async def test_a_command_killed_by_a_signal_says_so(reach: SpokeClient) -> None:
    (result,) = (await run(reach, "web1", "kill -9 $$"))["results"]
    assert result["output"]["exit_code"] == 137


async def test_much_output_keeps_its_beginning_and_end(reach: SpokeClient) -> None:
    (result,) = (await run(reach, "web1", "echo BEGIN; head -c 3000000 /dev/zero | tr '\\0' x; echo END"))["results"]
    output = result["output"]
    assert (output["truncated"], output["bytes_total"]) == (True, 3_000_010)
    assert output["stdout"].startswith("BEGIN\n")
    assert output["stdout"].endswith("xEND\n")
    assert "bytes left out" in output["stdout"]
    assert len(output["stdout"]) < 4300


@pytest.mark.parametrize("line", ["", "  ", "a\0b"])
async def test_an_empty_line_is_invalid(reach: SpokeClient, line: str) -> None:
    with pytest.raises(Invalid, match=r"empty|null byte"):
        await run(reach, "web1", line)


async def test_a_dead_host_of_a_tag_costs_the_others_nothing(reach: SpokeClient) -> None:
    answer = await run(reach, "tag:web", "echo hello")
    assert [(result["host"], result["ok"]) for result in answer["results"]] == [
        ("web1", True),
        ("web2", True),
        ("dead", False),
    ]
    assert (answer["ok"], answer["failed"]) == (2, 1)
    assert answer["results"][2]["problem"]["code"] == "unavailable"
    assert "cannot be reached" in answer["results"][2]["problem"]["message"]


async def test_a_dead_host_alone_is_an_error(reach: SpokeClient) -> None:
    with pytest.raises(Unavailable, match=r"dead \(127.0.0.1:\d+\) cannot be reached"):
        await run(reach, "dead", "true")


async def test_hosts_of_a_tag_run_at_the_same_time(server: Sshd, data: Path) -> None:
    """Each writes to the other's pipe before it reads its own: one after the other they would wait for ever."""
    hosts = {name: server.row | {"tags": ["pair"]} for name in ("a", "b")}
    os.mkfifo(data / "meet")
    line = f"if mkdir {data}/first 2>/dev/null; then cat {data}/meet; else echo met > {data}/meet; fi"
    async with linux_with(data, hosts, server.known_hosts) as linux:
        assert (await run(linux, "tag:pair", line))["ok"] == 2


async def test_more_hosts_than_allowed_at_once_all_get_their_turn(server: Sshd, data: Path) -> None:
    hosts = {f"h{number}": server.row | {"tags": ["all"]} for number in range(5)}
    async with linux_with(data, hosts, server.known_hosts, max_parallel_hosts=1) as linux:
        line = f"mkdir {data}/alone && rmdir {data}/alone"
        assert (await run(linux, "tag:all", line))["ok"] == 5


# Jumps


@pytest.fixture(scope="module")
def inner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("inner")) as found:
        yield found


async def test_a_host_behind_another_is_reached_through_it(server: Sshd, inner: Sshd, data: Path) -> None:
    hosts = {"gate": server.row, "inner": inner.row | {"jump": "gate"}}
    async with linux_with(data, hosts, server.known_hosts + inner.known_hosts) as linux:
        (result,) = (await run(linux, "inner", "echo $SSH_CONNECTION"))["results"]
    assert result["output"]["stdout"].split()[3] == str(inner.port)


async def test_both_keys_of_a_jump_must_be_known(server: Sshd, inner: Sshd, data: Path) -> None:
    hosts = {"gate": server.row, "inner": inner.row | {"jump": "gate"}}
    for known, missing in ((server.known_hosts, inner.port), (inner.known_hosts, server.port)):
        async with linux_with(data, hosts, known) as linux:
            with pytest.raises(Refused, match=f"ssh-keyscan -p {missing}"):
                await run(linux, "inner", "true")


@pytest.mark.parametrize("jump", ["gone", "h"])
async def test_a_jump_that_leads_nowhere_or_in_a_circle_is_invalid(server: Sshd, data: Path, jump: str) -> None:
    async with linux_with(data, {"h": server.row | {"jump": jump}}, server.known_hosts) as linux:
        with pytest.raises(Invalid, match="not listed or leads in a circle"):
            await run(linux, "h", "true")


# Risk


async def test_a_line_that_looks_is_read_and_one_that_destroys_needs_approval(reach: SpokeClient, data: Path) -> None:
    assert (await run(reach, "web1", "uname -a", allow=Risk.read))["ok"] == 1
    for line in (f"touch {data}/ran", f"rm -rf {data}/x", "$(echo reboot)"):
        with pytest.raises(NeedsApproval) as held:
            await run(reach, "tag:web", line, allow=Risk.read)
        assert "tag:web" in (held.value.plan or "")
    assert not (data / "ran").exists()


# All of a long output


async def test_a_cut_output_is_kept_whole_in_the_workspace(reach: SpokeClient, data: Path) -> None:
    line = "seq 1 5000; seq 1 10 >&2"
    (result,) = (await run(reach, "web1", line))["results"]
    whole = "".join(f"{number}\n" for number in range(1, 5001))
    file = Path(result["output"]["stdout_file"])
    assert file.read_text() == whole
    assert file.parent == data / "workspace/ssh-output"
    assert file.stat().st_mode & 0o777 == 0o600
    assert result["output"]["stderr_file"] is None
    page = await reach.call("readFile", path=str(file), offset=-1)
    assert page["content"] == "5000\n"


async def test_kept_outputs_never_leave_the_workspace_through_a_link(reach: SpokeClient, data: Path) -> None:
    (data / "workspace/ssh-output").symlink_to(data)
    (result,) = (await run(reach, "web1", "seq 1 5000"))["results"]
    assert (result["output"]["stdout_file"], result["output"]["truncated"]) == (None, True)
    assert list(data.glob("*.stdout")) == []


@given(parts=st.lists(st.binary(max_size=40), max_size=30), limit=st.integers(2, 64))
def test_the_beginning_and_the_end_are_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], limit: int
) -> None:
    capture = Capture(Keep(Paths(LinuxOptions(), tmp_path_factory.getbasetemp() / "capture"), "a/b", limit), "stdout")
    for part in parts:
        capture.add(part)
    capture.close()
    whole = b"".join(parts)
    kept = whole if len(whole) <= limit else whole[: limit // 2] + whole[-(limit - limit // 2) :]
    note = f"\n[... {len(whole) - limit} bytes left out ...]\n"
    assert capture.text.replace(note, "") == expected_text(whole, kept, limit, note)
    assert capture.dropped == max(0, len(whole) - limit)
    assert [Path(file).read_bytes() for file in [capture.file] if file] == [whole] * (len(whole) > limit)


def expected_text(whole: bytes, kept: bytes, limit: int, note: str) -> str:
    """The kept bytes as text; the note stands between two characters even where it cut one."""
    if len(whole) <= limit:
        return kept.decode("utf-8", "replace")
    half = limit // 2
    return (kept[:half] + note.encode() + kept[half:]).decode("utf-8", "replace").replace(note, "")
