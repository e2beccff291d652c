"""deploy_nginx_config against real nginx servers: what they serve afterwards, and what a failure puts back."""

import asyncio
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from machines import Site, needs_machines, running_site
from support import free_port, need

pytestmark = [pytest.mark.asyncio(loop_scope="module"), *needs_machines, need("nginx", "nginx-light")]

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
AT = ("-c", "nginx.conf", "-e", "error.log")
NAMES = ("web1", "web2")
WELL = "location = /health { return 200; }\n"
OLD = 'location = / { return 200 "old"; }\n' + WELL
NEW = 'location = / { return 200 "new"; }\n'
ILL_ON_WEB2 = NEW + "location = /health { if ($machine = web2) { return 503; } return 200; }\n"
MAIN = """worker_processes 1;
pid nginx.pid;
error_log error.log notice;
events {{}}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path u; scgi_temp_path s;
    server {{
        listen 127.0.0.1:{port};
        set $machine {name};
        include site/*.conf;
    }}
}}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Site]:
    """Two machines."""
    async with running_site(tmp_path_factory.mktemp("deploying"), *NAMES) as site:
        yield site


@pytest.fixture
def site(running: Site) -> Generator[Site]:
    """The machines, each with an nginx that serves what is old."""
    log(running).unlink(missing_ok=True)
    with ExitStack() as stack:
        for name, folder in running.machines.folders.items():
            stack.enter_context(nginx(name, folder))
        yield running


@contextmanager
def nginx(name: str, folder: Path) -> Generator[None]:
    """An nginx of its own in `folder`, listening; gone at the end of the block."""
    port = free_port()
    shutil.rmtree(folder / "site", ignore_errors=True)
    (folder / "site").mkdir()
    (folder / "site" / "shop.conf").write_text(OLD)
    (folder / "port").write_text(str(port))
    (folder / "nginx.conf").write_text(MAIN.format(port=port, name=name))
    server = subprocess.Popen([str(NGINX), "-p", folder, *AT, "-g", "daemon off;"])
    try:
        while not _listens(port):
            assert server.poll() is None, (folder / "error.log").read_text()
            time.sleep(0.01)
        yield
    finally:
        server.terminate()
        server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def log(site: Site) -> Path:
    """Where each machine writes its name when its nginx is told to reload."""
    return site.machines.place.with_name("log")


def reloads(site: Site) -> list[str]:
    """The machines whose nginx was told to reload, in that order."""
    return log(site).read_text().split() if log(site).exists() else []


async def deploy(site: Site, content: str, **inputs: Any) -> Any:
    """A run that deploys `content` to both machines."""
    at = site.machines.place
    program = shlex.join([str(NGINX), "-p", str(at), *AT])
    given: dict[str, Any] = {
        "hosts": list(NAMES),
        "path": f"{at}/site/shop.conf",
        "content": content,
        "test_command": f"{program} -t",
        "reload_command": f"cat {at}/name >> {log(site)}; {program} -s reload",
        "health_command": f"curl -fsS http://127.0.0.1:$(cat {at}/port)/health",
    }
    return await site.run("deploy_nginx_config", **given | inputs)


async def served(site: Site) -> list[str]:
    """What each machine serves."""
    async with aiohttp.ClientSession() as session:
        urls = [f"http://127.0.0.1:{(folder / 'port').read_text()}/" for folder in site.machines.folders.values()]
        return [await (await session.get(url, headers={"Connection": "close"})).text() for url in urls]


async def serves(site: Site, what: list[str]) -> None:
    """Wait until the machines serve that: a reload takes effect after the command has ended."""
    while await served(site) != what:
        await asyncio.sleep(0.02)


def files(site: Site, name: str = "shop.conf") -> list[str | None]:
    """What is in that file on each machine, None where there is none."""
    found = [folder / "site" / name for folder in site.machines.folders.values()]
    return [path.read_text() if path.exists() else None for path in found]


async def test_a_good_file_is_served_by_every_host_and_the_old_one_is_kept(site: Site) -> None:
    run = await deploy(site, NEW + WELL)
    assert (run["status"], run["reason"]) == ("completed", None)
    assert reloads(site) == ["web1", "web2"]
    await serves(site, ["new", "new"])
    assert [one["host"] for one in run["outputs"]["hosts"]] == list(NAMES)
    kept = [Path(one["replaced"]).name for one in run["outputs"]["hosts"]]
    assert [files(site, name)[number] for number, name in enumerate(kept)] == [OLD, OLD]


async def test_a_file_that_nginx_refuses_is_taken_back_and_nothing_is_reloaded(site: Site) -> None:
    run = await deploy(site, "location = / { return 200 'new' \n")
    assert (run["status"], run["step_failed_at"], run["outputs"]) == ("failed", "hosts", None)
    assert "web1 refuses the file" in run["reason"]
    assert "[emerg]" in run["reason"]
    assert reloads(site) == []
    assert files(site) == [OLD, OLD]
    assert await served(site) == ["old", "old"]


async def test_a_host_that_is_unhealthy_with_it_has_every_host_put_back_the_last_one_first(site: Site) -> None:
    run = await deploy(site, ILL_ON_WEB2)
    assert (run["status"], run["step_failed_at"]) == ("failed", "hosts")
    assert "web2 is unhealthy" in run["reason"]
    assert "503" in run["reason"]
    assert "not undone" not in run["reason"]
    assert reloads(site) == ["web1", "web2", "web2", "web1"]
    assert files(site) == [OLD, OLD]
    await serves(site, ["old", "old"])


async def test_hosts_that_cannot_be_put_back_are_told_of(site: Site) -> None:
    once = f"echo >> {site.machines.place}/site/reloads; test $(wc -l < {site.machines.place}/site/reloads) = 1"
    run = await deploy(site, ILL_ON_WEB2, reload_command=once, health_command=f"! grep web2 {site.machines.place}/name")
    assert "web2 is unhealthy" in run["reason"]
    assert "not undone: install" in run["reason"]
    assert run["reason"].endswith("not undone: hosts")
    assert files(site) == [OLD, OLD]


async def test_a_later_host_that_cannot_be_reached_has_the_earlier_ones_put_back(site: Site) -> None:
    run = await deploy(site, NEW + WELL, hosts=["web1", "dead"])
    assert "dead (127.0.0.1:" in run["reason"]
    assert reloads(site) == ["web1", "web1"]
    assert files(site) == [OLD, OLD]
    await serves(site, ["old", "old"])


async def test_a_file_that_was_not_there_before_is_removed_again(site: Site) -> None:
    path = f"{site.machines.place}/site/more.conf"
    run = await deploy(site, "location = /more { return 200; }\n", path=path, health_command="false", hosts=["web2"])
    assert "web2 is unhealthy" in run["reason"]
    assert reloads(site) == ["web2", "web2"]
    assert files(site, "more.conf") == [None, None]


async def test_health_is_asked_for_by_url_when_there_is_no_command_for_it(site: Site) -> None:
    port = (site.machines.folders["web1"] / "port").read_text()
    inputs = {"hosts": ["web1"], "health_command": "", "health_url": f"http://127.0.0.1:{port}/nowhere"}
    run = await deploy(site, NEW + WELL, **inputs)
    assert "curl: (22)" in run["reason"]
    assert files(site) == [OLD, OLD]
