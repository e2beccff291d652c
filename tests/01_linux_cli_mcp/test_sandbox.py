"""What a command can reach in each sandbox: no key, no credential, no network, no other process, no other file."""

import asyncio
import json
import os
import shutil
import socket
import stat
import subprocess
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from boxes import PLANTED, SANDBOXES, Box, box, planted
from support import need

from fleetkit import Refused
from fleetkit.testing import running
from linux_cli_mcp import spoke
from linux_cli_mcp.sandbox import launch, runner
from linux_cli_mcp.sandbox.profile import Access, encode, profile
from linux_cli_mcp.sandbox.runner import Order

PYTHON = "/usr/bin/python3"


@pytest.fixture(params=SANDBOXES)
async def linux(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Box]:
    async with box(monkeypatch, request.param) as found:
        yield found


@pytest.fixture
async def stranger() -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of the hub's own user, with a secret in its environment."""
    process = await asyncio.create_subprocess_exec("sleep", "600", env={"SECRET": PLANTED, "PATH": "/usr/bin:/bin"})
    yield process
    process.kill()
    await process.wait()


# Secrets

READ = [
    'cat "$path"',
    'cp "$path" stolen; cat stolen',
    'ln -sf "$path" link; cat link; cp -L link stolen',
    'ln -f "$path" hard; cat hard',
    'mv "$path" moved; cat moved',
    'cd "$folder" && cat "$name"',
    "cat ../admin.key ../../home/.ssh/id_ed25519",
    'cat "/proc/self/root$path"',
    'cat "/proc/1/root$path"',
    'cat /proc/self/cwd/../admin.key "/proc/1/cwd$path"',
    'exec 9<"$path"; cat <&9',
    'grep -r planted "$folder"',
    'tar cf - "$folder"',
    'find / -maxdepth 5 -name "$name" -path "$folder/*" -exec cat {} +',
    'mkdir -p m; mount --bind "$folder" m; cat "m/$name"',
    'mkdir -p m w; mount -t overlay -o "lowerdir=$folder,upperdir=m,workdir=w" none m; cat "m/$name"',
    'umount "$folder"; umount -l "$folder"; cat "$path"',
    """unshare --mount sh -c 'umount "$folder"; cat "$path"'""",
    """unshare --user --map-root-user --mount sh -c 'umount "$folder"; cat "$path"'""",
    'unshare --user --map-root-user --mount --pid --fork --mount-proc cat "$path"',
    'chroot / cat "$path"',
    'chroot /proc/1/root cat "$path"',
    'nsenter --target 1 --mount cat "$path"',
    'chmod 777 "$folder" "$path"; cat "$path"',
    """bash -c 'bash -c "cat $path"'""",
    'mapfile text < "$path"; echo "${text[@]}"',
]


@pytest.mark.parametrize("attempt", READ)
async def test_no_command_can_read_a_secret(linux: Box, attempt: str) -> None:
    paths = " ".join(map(str, linux.planted))
    each = f'export path folder="${{path%/*}}" name="${{path##*/}}"\n({attempt})'
    assert PLANTED not in await linux.seen(f"for path in {paths}; do\n{each}\ndone", timeout=30)


async def test_the_attempts_would_read_what_is_not_hidden(linux: Box) -> None:
    for attempt in READ[:6]:
        (linux.workspace / "open").write_text(PLANTED)
        line = f"export path={linux.workspace}/open folder={linux.workspace} name=open\n{attempt}"
        assert PLANTED in (await linux.run(line))["stdout"]


async def test_no_job_can_read_a_secret(linux: Box) -> None:
    paths = [str(path) for path in linux.planted]
    job = await linux.client.call("startJob", command=["cat", *paths])
    ended = await linux.client.call("runCommand", command=["true"])
    while (page := await linux.client.call("getJobOutput", job_id=job["job_id"]))["job"]["status"] == "running":
        pass
    errors = await linux.client.call("getJobOutput", job_id=job["job_id"], stream="stderr")
    assert ended["exit_code"] == 0
    assert page["job"]["exit_code"] == 1
    assert PLANTED not in page["text"] + errors["text"]


async def test_a_list_is_confined_as_a_line_is(linux: Box) -> None:
    assert PLANTED not in await linux.seen(["cat", *map(str, linux.planted)])


async def test_the_working_directory_cannot_be_a_hidden_place(linux: Box) -> None:
    with pytest.raises(Refused, match="hidden"):
        await linux.run(["ls"], cwd=str(linux.data_dir))


async def test_a_link_in_the_workspace_leads_to_no_secret(linux: Box) -> None:
    (linux.workspace / "door").symlink_to(linux.data_dir)
    done = await linux.run("cat door/admin.key; cd door && cat admin.key")
    assert PLANTED not in done["stdout"] + done["stderr"]


async def test_a_variable_for_the_loader_does_not_reach_the_sandbox_itself(linux: Box) -> None:
    (linux.workspace / "bwrap").write_text(f"#!/bin/sh\ncat {linux.planted[0]}\n")
    (linux.workspace / "bwrap").chmod(0o755)
    env = {"PATH": f"{linux.workspace}:/usr/bin:/bin", "LD_PRELOAD": str(linux.workspace / "none.so")}
    done = await linux.run(["cat", str(linux.planted[0])], env=env)
    assert done["exit_code"] == 1
    assert PLANTED not in done["stdout"]


async def test_the_environment_of_the_hub_is_not_inherited(linux: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_TEST_SECRET", PLANTED)
    done = await linux.run(["env"])
    names = {line.partition("=")[0] for line in done["stdout"].splitlines()}
    known = "PATH HOME LANG LC_ALL TZ TERM PAGER GIT_PAGER TMPDIR PWD SHLVL _"
    assert names <= {*known.split(" ")}
    assert f"HOME={linux.workspace}" in done["stdout"]


# Other processes


async def test_no_other_process_can_be_looked_into(linux: Box, stranger: asyncio.subprocess.Process) -> None:
    for pid in (stranger.pid, os.getpid(), os.getppid()):
        own = f"/proc/{pid}"
        done = await linux.run(f"cat {own}/environ {own}/maps {own}/root{linux.planted[0]}; ls -l {own}/fd {own}/root/")
        assert done["stdout"] == ""
        assert done["exit_code"] != 0


async def test_the_whole_of_proc_holds_no_secret(linux: Box, stranger: asyncio.subprocess.Process) -> None:
    assert stranger.returncode is None
    assert PLANTED not in await linux.seen("cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'")


async def test_no_other_process_can_be_signalled(linux: Box, stranger: asyncio.subprocess.Process) -> None:
    await linux.run(f"kill -9 {stranger.pid}; pkill -9 -x sleep; kill -9 -1")
    state = Path(f"/proc/{stranger.pid}/stat").read_text().rpartition(")")[2].split()[0]
    assert state == "S"


async def test_no_other_process_can_be_traced_or_limited(linux: Box, stranger: asyncio.subprocess.Process) -> None:
    before = Path(f"/proc/{stranger.pid}/limits").read_text()
    calls = f"""
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        limit = (ctypes.c_ulong * 2)(1, 1)
        local = ctypes.create_string_buffer(64)
        both = (ctypes.c_void_p * 2)(ctypes.addressof(local), 64)
        print(libc.ptrace(16, {stranger.pid}, 0, 0), ctypes.get_errno())
        print(libc.prlimit({stranger.pid}, 0, limit, None))
        print(libc.process_vm_readv({stranger.pid}, both, 1, both, 1, 0), ctypes.get_errno())
        print(libc.setpriority(0, {stranger.pid}, 19))
    """
    done = await linux.run([PYTHON, "-c", textwrap.dedent(calls)])
    assert done["stdout"].splitlines() == ["-1 1", "-1", "-1 1", "-1"]
    assert Path(f"/proc/{stranger.pid}/limits").read_text() == before
    assert Path(f"/proc/{stranger.pid}/stat").read_text().rpartition(")")[2].split()[16] == "0"


# The kernel


async def test_a_command_has_no_capability_and_cannot_get_one(linux: Box) -> None:
    program = """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        held = (ctypes.c_uint32 * 6)()
        libc.capget(header, held)
        print(list(held), libc.prctl(39, 0, 0, 0, 0), libc.prctl(21, 0, 0, 0, 0))
    """
    done = await linux.run([PYTHON, "-c", textwrap.dedent(program)])
    assert done["stdout"].strip() == "[0, 0, 0, 0, 0, 0] 1 2"


@pytest.mark.parametrize(
    "call",
    [
        *("libc.unshare(0x10000000)", "libc.unshare(0x20000)", "libc.setns(0, 0)", "libc.chroot(b'/')"),
        *("libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)", "libc.umount2(b'/', 2)", "libc.ptrace(0, 0, 0, 0)"),
        *(
            "libc.syscall(56 if x86 else 220, 0x10000011, 0, 0, 0, 0)",
            "libc.syscall(425, 8, 0)",
            "libc.syscall(435, 0, 0)",
        ),
        *("libc.syscall(321 if x86 else 280, 0, 0, 0)", "libc.syscall(304 if x86 else 265, 0, 0, 0)"),
        *("libc.syscall(250 if x86 else 219, 0, 0, 0)", "libc.ioctl(0, 0x5412, b'x')", "libc.syscall(438, 0, 0, 0)"),
    ],
)
async def test_a_dangerous_system_call_is_refused(linux: Box, call: str) -> None:
    program = f"""
        import ctypes, platform
        libc = ctypes.CDLL(None, use_errno=True)
        x86 = platform.machine() == "x86_64"
        print({call}, ctypes.get_errno())
    """
    done = await linux.run([PYTHON, "-c", textwrap.dedent(program)])
    assert done["stdout"].strip() in ("-1 1", "-1 38")


async def test_no_disk_can_be_opened(linux: Box) -> None:
    disks = [path for path in Path("/dev").iterdir() if stat.S_ISBLK(path.stat().st_mode)] + [Path("/dev/mem")]
    program = """
        import sys
        for path in sys.argv[1:]:
            try:
                print(open(path, "rb"))
            except OSError:
                pass
    """
    done = await linux.run([PYTHON, "-c", textwrap.dedent(program), *map(str, disks)])
    assert done["stdout"] == ""
    made = await linux.run("mknod disk b 254 0 && cat disk")
    assert made["exit_code"] != 0


# Files


async def test_only_the_workspace_and_its_own_temporary_folder_can_be_written(linux: Box) -> None:
    write = 'echo a > here && mkdir sub && echo b > sub/c && mv sub/c d && echo c > "$TMPDIR/t"'
    done = await linux.run(f'{write} && cat here d "$TMPDIR/t"')
    assert done["stdout"] == "a\nb\nc\n"


async def test_nothing_else_can_be_changed(linux: Box) -> None:
    outside = linux.data_dir.parent / "outside"
    outside.mkdir()
    victim = outside / "victim"
    victim.write_text("whole")
    victim.chmod(0o644)
    before = victim.stat()
    attempts = [
        *("echo x > {v}", "echo x >> {v}", ": > {v}", "truncate -s 0 {v}", "rm -f {v}", "mv {v} stolen"),
        *("chmod 777 {v}", "chown 1 {v}", "touch -d 2001-01-01 {v}", "setfattr -n user.a -v b {v}", "cp here {v}"),
        *("touch {f}/new", "mkdir {f}/new", "ln -s a {f}/new", "mkfifo {f}/new", "rmdir {f}", "mv {f} moved"),
        *("ln -f here {v}", "ln {v} hard && echo x > hard"),
        "exec 9<{v}; chmod 777 /proc/self/fd/9; chmod 777 /dev/fd/9",
    ]
    tried = "\n".join(f"({attempt})" for attempt in attempts).format(v=victim, f=outside)
    await linux.run(f"echo own > here\n{tried}")
    after = victim.stat()
    assert victim.read_text() == "whole"
    assert list(outside.iterdir()) == [victim]
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)


async def test_the_temporary_folder_is_gone_with_the_command(linux: Box) -> None:
    first = await linux.run('echo left > "$TMPDIR/file"; echo left > /dev/shm/file; echo "$TMPDIR"')
    second = await linux.run(f'cat "$TMPDIR/file" {first["stdout"].strip()}/file /dev/shm/file')
    assert second["stdout"] == ""
    assert not list(linux.data_dir.rglob("file"))


async def test_the_rest_of_the_machine_can_be_read(linux: Box) -> None:
    done = await linux.run("cat /etc/hostname; ls /usr/bin | head -1; cd /usr && pwd")
    assert done["exit_code"] == 0


@pytest.mark.parametrize("sandbox", SANDBOXES)
async def test_further_paths_can_be_opened_and_hidden(
    sandbox: tuple[str, bool], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    extra = Path("/var/tmp") / tmp_path_factory.mktemp("extra").name
    (extra / "hidden").mkdir(parents=True)
    (extra / "hidden" / "file").write_text(PLANTED)
    options = {"write_paths": [str(extra)], "hidden_paths": [str(extra / "hidden")]}
    try:
        async with box(monkeypatch, sandbox, **options) as linux:
            (extra / "sub").mkdir()
            done = await linux.run(f"echo x > {extra}/sub/file; cat {extra}/hidden/file; echo x > {extra}/hidden/new")
            assert (extra / "sub" / "file").read_text() == "x\n"
            assert PLANTED not in done["stdout"]
            assert [path.name for path in (extra / "hidden").iterdir()] == ["file"]
    finally:
        shutil.rmtree(extra)


@pytest.mark.parametrize("sandbox", SANDBOXES)
async def test_with_read_paths_only_they_and_the_system_are_there(
    sandbox: tuple[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with box(monkeypatch, sandbox, read_paths=["/usr/share"]) as linux:
        outside = linux.data_dir.parent / "outside"
        outside.write_text(PLANTED)
        done = await linux.run(f"cat {outside}; ls /usr/share >/dev/null && echo shared; echo x > own && cat own")
        assert done["stdout"] == "shared\nx\n"


# The network


async def test_nothing_can_be_reached_over_the_network(linux: Box) -> None:
    heard: list[str] = []

    def listen(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append("somebody")
        writer.close()

    tcp = await asyncio.start_server(listen, "127.0.0.1", 0)
    unix = await asyncio.start_unix_server(listen, linux.data_dir.parent / "socket")
    abstract = await asyncio.start_unix_server(listen, f"\0fleet-test-{os.getpid()}")
    port = tcp.sockets[0].getsockname()[1]
    datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    datagrams.bind(str(linux.data_dir.parent / "datagrams"))
    datagrams.setblocking(False)
    program = f"""
        import socket
        def attempt(make):
            try:
                make()
                print("reached")
            except OSError:
                pass
        attempt(lambda: socket.create_connection(("127.0.0.1", {port}), 2))
        attempt(lambda: socket.socket(socket.AF_UNIX).connect("{linux.data_dir.parent}/socket"))
        attempt(lambda: socket.socket(socket.AF_UNIX).connect("\\0fleet-test-{os.getpid()}"))
        pair = lambda kind: socket.socketpair(socket.AF_UNIX, kind)[0]
        attempt(lambda: pair(socket.SOCK_DGRAM).sendto(b"x", "{linux.data_dir.parent}/datagrams"))
        attempt(lambda: pair(socket.SOCK_STREAM).connect("{linux.data_dir.parent}/socket"))
        attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
        attempt(lambda: socket.socket(40, socket.SOCK_STREAM))
        attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 9)))
    """
    done = await linux.run([PYTHON, "-c", textwrap.dedent(program)])
    bash = await linux.run(f"echo > /dev/tcp/127.0.0.1/{port}")
    for server in (tcp, unix, abstract):
        server.close()
    assert (done["stdout"], done["exit_code"]) == ("", 0)
    assert bash["exit_code"] != 0
    assert heard == []
    with pytest.raises(BlockingIOError):
        datagrams.recv(1)
    datagrams.close()


@pytest.mark.parametrize("sandbox", SANDBOXES)
async def test_the_operator_can_open_the_network_but_no_socket_file(
    sandbox: tuple[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        await writer.drain()
        writer.close()

    async with box(monkeypatch, sandbox, network=True) as linux:
        tcp = await asyncio.start_server(greet, "127.0.0.1", 0)
        unix = await asyncio.start_unix_server(greet, linux.data_dir.parent / "socket")
        port = tcp.sockets[0].getsockname()[1]
        reached = await linux.run(f"exec 9<>/dev/tcp/127.0.0.1/{port}; head -1 <&9")
        program = f"import socket; socket.socket(socket.AF_UNIX).connect('{linux.data_dir.parent}/socket')"
        refused = await linux.run([PYTHON, "-c", program])
        tcp.close()
        unix.close()
    assert reached["stdout"] == "hello\n"
    assert refused["exit_code"] == 1


# Choosing


@need("bwrap", "bubblewrap")
async def test_bubblewrap_is_preferred_where_it_is_installed(tmp_path: Path) -> None:
    async with running(spoke, tmp_path, "os.linux") as client:
        done = await client.call("runCommand", command="tr '\\0' ' ' < /proc/1/cmdline")
    assert done["stdout"].startswith("bwrap ")


async def test_a_bubblewrap_that_does_not_work_here_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho no permissions >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setattr(launch, "SYSTEM_PATH", str(tmp_path))
    async with running(spoke, tmp_path, "os.linux") as client:
        assert (await client.call("runCommand", command=["echo", "confined"]))["stdout"] == "confined\n"
    async with running(spoke, tmp_path, "os.linux", sandbox="bubblewrap") as client:
        with pytest.raises(Refused, match="bubblewrap: no permissions"):
            await client.call("runCommand", command=["true"])


async def test_where_nothing_can_confine_commands_they_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "SYSTEM_PATH", str(tmp_path))  # a machine without bubblewrap cannot be had here
    async with running(spoke, tmp_path, "os.linux", sandbox="bubblewrap") as client:
        with pytest.raises(Refused, match="apt install bubblewrap"):
            await client.call("runCommand", command=["/bin/true"])


# Another user


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("sandbox", SANDBOXES)
@need("python3", "python3")
def test_an_ordinary_user_is_confined_as_well(sandbox: tuple[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    backend, namespaces = sandbox
    with planted(monkeypatch) as (data_dir, files):
        code = data_dir.parent / "code"
        shutil.copytree(Path(runner.__file__).parent, code / "linux_cli_mcp" / "sandbox")
        for folder in (data_dir / "workspace", data_dir / "job"):
            folder.mkdir()
        entries = {"/": Access.read, str(data_dir): Access.hidden, str(data_dir / "workspace"): Access.write}
        line = f"id -u; cat {files[0]} /proc/{os.getpid()}/environ; echo x > {data_dir}/new; echo own > a; cat a"
        order = Order(
            argv=["bash", "-c", line],
            cwd=str(data_dir / "workspace"),
            env={"PATH": "/usr/bin:/bin"},
            stdin="",
            timeout=30.0,
            folder=str(data_dir / "job"),
            keep=4096,
            backend={"bubblewrap": "/usr/bin/bwrap"}.get(backend, backend),
            namespaces=namespaces,
            attached=True,
            profile=encode(profile(entries, network=False)),
        )
        for path in [data_dir.parent, *data_dir.parent.rglob("*")]:
            os.chown(path, 65534, 65534)
        subprocess.run(
            [PYTHON, "-I", "-S", "-c", launch.RUNNER, str(code / "linux_cli_mcp")],
            input=json.dumps(order._asdict()).encode(),
            user=65534,
            group=65534,
            extra_groups=[],
            env={},
            check=True,
        )
        assert (data_dir / "job" / "stdout").read_text() == "65534\nown\n"
        assert not (data_dir / "new").exists()
