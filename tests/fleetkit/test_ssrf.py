"""Outbound URLs that a caller can influence: nothing but the public internet is reached through them."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from names import name_server
from support import free_port

from fleetkit import http, settings
from fleetkit.errors import Invalid, OverBudget, Refused, TimedOut, Unavailable
from fleetkit.ssrf import Outbound, Rules

BYPASSES: list[str] = json.loads((Path(__file__).parent / "corpus/ssrf.json").read_text(encoding="utf-8"))


@dataclass
class Site:
    """A web server on one loopback address; `seen` are the requests that reached it."""

    address: str
    port: int
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(
        default_factory=list[tuple[str, str, dict[str, str], bytes]]
    )


@asynccontextmanager
async def site(
    address: str = "127.0.0.1", port: int = 0, *, status: int = 200, body: bytes = b"ok", location: str = ""
) -> AsyncGenerator[Site]:
    made = Site(address, port or free_port())

    async def answer(request: web.Request) -> web.Response:
        made.seen.append((request.method, request.path, dict(request.headers), await request.read()))
        return web.Response(status=status, body=body, headers={"location": location} if location else {})

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, address, made.port).start()
    try:
        yield made
    finally:
        await runner.cleanup()


def rules(*allow: str, ports: tuple[int, ...] = (80, 443)) -> Rules:
    return Rules(Outbound(allow=list(allow), ports=list(ports)))


# --- the corpus -------------------------------------------------------------------------------------


def test_the_corpus_holds_more_than_one_hundred_and_fifty_different_attempts() -> None:
    assert len(set(BYPASSES)) >= 150


async def test_no_attempt_of_the_corpus_reaches_the_canary() -> None:
    refused: list[str] = []
    async with site() as canary, name_server("127.0.0.1") as (_, resolve):
        open_port = rules(ports=(canary.port, 80, 443))  # so that only where it leads can refuse it
        for attempt in BYPASSES:
            with pytest.raises(Refused):
                await http.fetch(attempt.replace("{port}", str(canary.port)), rules=open_port, resolve=resolve)
            refused.append(attempt)
        assert canary.seen == []
    assert refused == BYPASSES


async def test_the_canary_is_reached_where_an_operator_allows_it() -> None:
    async with site() as canary:
        found = await http.fetch(f"http://127.0.0.1:{canary.port}/x?y=1", rules=rules(f"127.0.0.1:{canary.port}"))
    assert (found.status, found.body, [path for _, path, _, _ in canary.seen]) == (200, b"ok", ["/x"])


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "::1",
        "fe80::1%eth0",
        "64:ff9b::7f00:1",
        "::ffff:10.0.0.1",
        "0.0.0.0",
    ],
)
def test_one_closed_address_among_open_ones_closes_the_name(address: str) -> None:
    strict = rules()
    target = strict.read("https://www.example.com/")
    with pytest.raises(Refused, match="not public"):
        strict.check(target, ["93.184.216.34", address])


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "2a00:1450:4001::200e"])
def test_the_public_internet_is_open(address: str) -> None:
    strict = rules()
    assert strict.check(strict.read("https://www.example.com/"), [address]) == [address]


def test_a_name_without_an_address_is_refused() -> None:
    strict = rules()
    with pytest.raises(Refused, match="no address"):
        strict.check(strict.read("https://www.example.com/"), [])


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("https://Example.COM", "https://example.com:443/"),
        ("http://example.com:80/a?b=c#d", "http://example.com:80/a?b=c"),
        ("https://münchen.example/", "https://xn--mnchen-3ya.example:443/"),
        ("https://example.com?x", "https://example.com:443/?x"),
        ("http://[2606:4700:0::1111]/", "http://[2606:4700::1111]:80/"),
    ],
)
def test_an_ordinary_url_is_read_the_way_everybody_reads_it(url: str, plain: str) -> None:
    assert rules().read(url).url == plain


# --- rebinding and redirects ------------------------------------------------------------------------


async def test_a_name_is_resolved_once_and_the_connection_goes_where_it_was_looked_at() -> None:
    port = free_port()
    async with (
        site("127.0.0.1", port) as canary,
        site("127.0.0.2", port) as good,
        name_server("127.0.0.2", "127.0.0.1") as (server, resolve),
    ):
        found = await http.fetch(
            f"http://rebind.example.com:{port}/", rules=rules(f"127.0.0.2:{port}", ports=(port,)), resolve=resolve
        )
    assert (found.status, server.asked, len(good.seen), canary.seen) == (200, ["rebind.example.com"], 1, [])


async def test_a_name_that_leads_elsewhere_after_a_redirect_is_looked_at_again() -> None:
    port = free_port()
    there = f"http://rebind.example.com:{port}/next"
    async with (
        site("127.0.0.1", port) as canary,
        site("127.0.0.2", port, status=302, location=there) as good,
        name_server("127.0.0.2", "127.0.0.1") as (server, resolve),
    ):
        with pytest.raises(Refused, match="not public"):
            await http.fetch(there, rules=rules(f"127.0.0.2:{port}", ports=(port,)), resolve=resolve)
    assert (len(server.asked), len(good.seen), canary.seen) == (2, 1, [])


@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.1:{port}/", "//127.0.0.1:{port}/", "http://0x7f.1:{port}/", "file:///etc/passwd", "http://[::1]/"],
)
async def test_a_redirect_to_a_closed_place_is_not_followed(location: str) -> None:
    port = free_port()
    where = location.replace("{port}", str(port))
    async with site("127.0.0.1", port) as canary, site("127.0.0.2", port, status=307, location=where) as good:
        with pytest.raises(Refused):
            await http.fetch(f"http://127.0.0.2:{port}/", rules=rules(f"127.0.0.2:{port}", ports=(port,)))
    assert (len(good.seen), canary.seen) == (1, [])


async def test_redirects_end_after_five() -> None:
    async with site(status=302, location="/again") as round_trip:
        with pytest.raises(Refused, match="more than 5 times"):
            await http.fetch(f"http://127.0.0.1:{round_trip.port}/", rules=rules(f"127.0.0.1:{round_trip.port}"))
    assert len(round_trip.seen) == 6


@pytest.mark.parametrize(("status", "method", "body"), [(302, "GET", b""), (303, "GET", b""), (307, "POST", b"{}")])
async def test_another_site_sees_no_credential_and_a_post_only_where_http_says_so(
    status: int, method: str, body: bytes
) -> None:
    async with site("127.0.0.2") as end, site(status=status, location=f"http://127.0.0.2:{end.port}/end") as start:
        await http.fetch(
            f"http://127.0.0.1:{start.port}/",
            method="post",
            headers={"Authorization": "Bearer x", "X-Api-Key": "y", "Content-Type": "a/b", "Accept": "*/*"},
            body=b"{}",
            rules=rules("127.0.0.0/8"),
        )
    assert start.seen[0][2]["Authorization"] == "Bearer x"
    assert (end.seen[0][0], end.seen[0][3]) == (method, body)
    assert {"Authorization", "X-Api-Key"}.isdisjoint(end.seen[0][2])


async def test_the_same_site_keeps_what_was_sent() -> None:
    seen: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("authorization"))
        return web.Response(status=302, headers={"location": "/end"}) if request.path == "/" else web.Response()

    app = web.Application()
    app.router.add_get("/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        url = f"http://127.0.0.1:{port}/"
        found = await http.fetch(url, headers={"Authorization": "t"}, rules=rules("127.0.0.1"))
    finally:
        await runner.cleanup()
    assert (found.url, seen) == (f"{url}end", ["t", "t"])


def test_a_redirect_from_https_to_http_is_refused() -> None:
    # No server: a certificate that this machine believes cannot be made by a test.
    request = http._Request("GET", {}, None)  # pyright: ignore[reportPrivateUsage] - see above
    secure, open_ = (rules().read(f"{scheme}://example.com/") for scheme in ("https", "http"))
    with pytest.raises(Refused, match="from https to http"):
        request.redirected(302, secure, open_)
    assert request.redirected(302, open_, secure) == request


# --- bounds and faults ------------------------------------------------------------------------------


async def test_an_answer_above_the_limit_is_cut_off() -> None:
    async with site(body=b"x" * 2000) as big:
        with pytest.raises(OverBudget, match="1000 bytes"):
            await http.fetch(f"http://127.0.0.1:{big.port}/", max_bytes=1000, rules=rules("127.0.0.1"))


async def test_a_fetch_ends_in_time_whatever_the_resolver_does() -> None:
    async def never(_host: str) -> list[str]:
        return await asyncio.get_running_loop().create_future()

    with pytest.raises(TimedOut, match="within"):
        await http.fetch("http://www.example.com/", resolve=never, timeout_s=1e-9)


async def test_an_unknown_name_and_a_dead_port_are_called_that() -> None:
    async def unknown(_host: str) -> list[str]:
        raise OSError("no such name")

    with pytest.raises(Unavailable, match="check the name"):
        await http.fetch("http://www.example.com/", resolve=unknown)
    with pytest.raises(Unavailable, match="cannot reach"):
        await http.fetch(f"http://127.0.0.1:{free_port()}/", rules=rules("127.0.0.1"))


async def test_the_system_resolver_is_asked_when_none_is_given() -> None:
    async with site() as local:
        found = await http.fetch(f"http://localhost:{local.port}/", rules=rules("localhost"))
    assert found.status == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [("Host", "x"), ("X", "a\r\nHost: b"), ("Transfer-Encoding", "chunked"), ("é", "x"), ("A\n", "x")],
)
async def test_a_header_that_would_change_the_request_is_not_sent(name: str, value: str) -> None:
    with pytest.raises(Invalid, match="cannot be sent"):
        await http.fetch("http://www.example.com/", headers={name: value})


# --- what an operator may say -----------------------------------------------------------------------


def test_ports_that_nobody_named_are_closed_and_an_entry_opens_its_own() -> None:
    with pytest.raises(Refused, match="port 22"):
        rules().read("http://www.example.com:22/")
    assert rules("*.example.com:22").read("http://www.example.com:22/").port == 22
    with pytest.raises(Refused, match="port 23"):
        rules("*.example.com:22").read("http://www.example.com:23/")


def test_a_named_host_may_have_a_private_address() -> None:
    named = rules("*.corp.example")
    assert named.check(named.read("http://wiki.corp.example/"), ["10.1.2.3"]) == ["10.1.2.3"]
    with pytest.raises(Refused):
        named.check(named.read("http://wiki.other.example/"), ["10.1.2.3"])


@pytest.mark.parametrize("entry", ["169.254.0.0/16", "0.0.0.0/0", "*.example.com"])
def test_a_clouds_metadata_is_closed_to_every_wide_entry(entry: str) -> None:
    wide = rules(entry)
    with pytest.raises(Refused, match="not public"):
        wide.check(wide.read("http://www.example.com/"), ["169.254.169.254"])


def test_a_clouds_metadata_is_open_to_its_exact_address() -> None:
    exact = rules("169.254.169.254", "[fd00:ec2::254]:80")
    assert exact.check(exact.read("http://169.254.169.254/"), ["169.254.169.254"])
    assert exact.check(exact.read("http://[fd00:ec2::254]/"), ["fd00:ec2::254"])


@pytest.mark.parametrize("entry", ["*", "*.*", "10.0.0.0/33", "http://x", "a b", "10.0.0.1/8", "", "[::1", "*:80"])
def test_an_entry_that_says_nothing_or_too_much_is_refused_at_start(tmp_path: Path, entry: str) -> None:
    (tmp_path / "fleet.yaml").write_text(f"hub: {{outbound: {{allow: [{json.dumps(entry)}]}}}}", encoding="utf-8")
    with pytest.raises(Invalid, match=r"hub\.outbound\.allow\.0: .* neither a host glob nor an address range"):
        settings.load(tmp_path)


def test_the_settings_reach_the_rules(tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text('hub: {outbound: {allow: ["10.0.0.0/8"], ports: [443]}}', encoding="utf-8")
    found = Rules(settings.load(tmp_path).hub.outbound)
    assert found.check(found.read("https://10.0.0.1/"), ["10.0.0.1"]) == ["10.0.0.1"]
    with pytest.raises(Refused):
        found.read("http://www.example.com/")
