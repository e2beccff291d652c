"""Secrets that nobody told us about: found by their formats, and little else found."""

import random
import string
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleetkit.detect import DETECTORS, detect, mask_data, mask_text
from fleetkit.scrub import MASK

RANDOM = random.Random(20260728)
ALNUM = string.ascii_letters + string.digits
URLSAFE = ALNUM + "-_"
HEX = "0123456789abcdef"
BASE32 = string.ascii_uppercase + "234567"
BASE64 = ALNUM + "+/"


def some(alphabet: str, length: int) -> str:
    """Random characters that begin and end with a letter or digit, as issued tokens do."""
    edge = "".join(letter for letter in alphabet if letter.isalnum())
    middle = "".join(RANDOM.choice(alphabet) for _ in range(length - 2))
    return RANDOM.choice(edge) + middle + RANDOM.choice(edge)


def password() -> str:
    return some(string.ascii_lowercase, 5) + some(string.ascii_uppercase, 3) + some(string.digits, 3)


def pem(kind: str) -> str:
    body = "\n".join(some(BASE64, 64) for _ in range(12))
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----"


# How each is written where it leaks, and which part of that is the secret: `{}` stands for it.
FORMATS: dict[str, tuple[str, Callable[[], str]]] = {
    "aws access key id": ("aws_access_key_id = {}", lambda: "AKIA" + some(BASE32, 16)),
    "aws temporary key id": ("AccessKeyId: {}", lambda: "ASIA" + some(BASE32, 16)),
    "aws secret": ("aws_secret_access_key = {}", lambda: some(BASE64, 38) + "7x"),
    "aws secret as json": ('"SecretAccessKey": "{}"', lambda: some(BASE64, 38) + "7x"),
    "aws bedrock": ("AWS_BEARER_TOKEN_BEDROCK={}", lambda: "ABSK" + some(BASE64, 128)),
    "google api key": ("https://maps.example/?key={}", lambda: "AIza" + some(URLSAFE, 35)),
    "google oauth": ("access_token: {}", lambda: "ya29." + some(URLSAFE, 120)),
    "google refresh token": ("refresh {}", lambda: "1//0" + some(URLSAFE, 60)),
    "google client secret": ('"client_secret":"{}"', lambda: "GOCSPX-" + some(URLSAFE, 28)),
    "firebase": ("key={}", lambda: f"AAAA{some(URLSAFE, 7)}:{some(URLSAFE, 140)}"),
    "service account": ('{{"private_key": "{}"}}', lambda: pem("PRIVATE KEY").replace("\n", "\\n")),
    "azure storage": ("DefaultEndpointsProtocol=https;AccountKey={};", lambda: some(BASE64, 86) + "=="),
    "azure service bus": ("SharedAccessKey={}", lambda: some(BASE64, 43) + "="),
    "azure client secret": ("AZURE_CLIENT_SECRET={}", lambda: f"{some(ALNUM, 3)}8Q~{some(ALNUM, 34)}"),
    "azure sas": ("https://x.blob.example/c?sv=2024&sig={}&se=1", lambda: some(ALNUM, 43) + "%3D"),
    "azure devops": ("pat {}", lambda: some(ALNUM, 76) + "AZDO" + some(ALNUM, 4)),
    "github": ("https://{}@github.com/x/y", lambda: "ghp_" + some(ALNUM, 36)),
    "github app": ("token={}", lambda: "ghs_" + some(ALNUM, 36)),
    "github fine-grained": ("GH_TOKEN={}", lambda: f"github_pat_{some(ALNUM, 22)}_{some(ALNUM, 59)}"),
    "gitlab": ("PRIVATE-TOKEN: {}", lambda: "glpat-" + some(URLSAFE, 20)),
    "gitlab runner registration": ("--token {}", lambda: "GR1348941" + some(URLSAFE, 20)),
    "gitlab runner": ("--token {}", lambda: "glrt-" + some(URLSAFE, 20)),
    "slack bot": ("SLACK={}", lambda: f"xoxb-{some(string.digits, 12)}-{some(string.digits, 12)}-{some(ALNUM, 24)}"),
    "slack app": ("{}", lambda: f"xapp-1-A{some(string.digits, 10)}-{some(ALNUM, 64)}"),
    "slack webhook": (
        "https://hooks.slack.com/services/{}",
        lambda: f"T{some(ALNUM, 9)}/B{some(ALNUM, 9)}/{some(ALNUM, 24)}",
    ),
    "stripe": ("Stripe.api_key = '{}'", lambda: "sk_live_" + some(ALNUM, 24)),
    "stripe restricted": ("{}", lambda: "rk_test_" + some(ALNUM, 40)),
    "webhook signing": ("WEBHOOK {}", lambda: "whsec_" + some(ALNUM, 32)),
    "openai project": ("OPENAI_API_KEY={}", lambda: "sk-proj-" + some(URLSAFE, 120)),
    "openai": ("key: {}", lambda: f"sk-{some(ALNUM, 20)}T3BlbkFJ{some(ALNUM, 20)}"),
    "anthropic": ("x-api-key: {}", lambda: f"sk-ant-api03-{some(URLSAFE, 93)}AA"),
    "openrouter": ("{}", lambda: "sk-or-v1-" + some(HEX, 64)),
    "groq": ("GROQ {}", lambda: "gsk_" + some(ALNUM, 52)),
    "xai": ("{}", lambda: "xai-" + some(ALNUM, 80)),
    "perplexity": ("{}", lambda: "pplx-" + some(ALNUM, 48)),
    "replicate": ("{}", lambda: "r8_" + some(ALNUM, 37)),
    "hugging face": ("--token {}", lambda: "hf_" + some(string.ascii_letters, 34)),
    "npm": ("//registry.example/:_authToken={}", lambda: "npm_" + some(ALNUM, 36)),
    "pypi": ("password = {}", lambda: "pypi-AgEIcHlwaS5vcmc" + some(URLSAFE, 150)),
    "rubygems": (":rubygems_api_key: {}", lambda: "rubygems_" + some(HEX, 48)),
    "crates": ("token {}", lambda: "cio" + some(ALNUM, 32)),
    "docker": ("docker login -p {}", lambda: "dckr_pat_" + some(URLSAFE, 27)),
    "twilio": ("twilio {}", lambda: "SK" + some(HEX, 32)),
    "sendgrid": ("{}", lambda: f"SG.{some(URLSAFE, 22)}.{some(URLSAFE, 43)}"),
    "mailgun": ("api:{}", lambda: "key-" + some(HEX, 32)),
    "mailchimp": ("{}", lambda: some(HEX, 32) + "-us14"),
    "telegram": ("bot{}", lambda: "123456789:AA" + some(URLSAFE, 33)),
    "discord bot": ("Bot {}", lambda: f"M{some(ALNUM, 24)}.{some(ALNUM, 6)}.{some(URLSAFE, 38)}"),
    "discord webhook": (
        "https://discord.com/api/webhooks/{}",
        lambda: f"{some(string.digits, 18)}/{some(URLSAFE, 68)}",
    ),
    "shopify": ("{}", lambda: "shpat_" + some(HEX, 32)),
    "square": ("{}", lambda: "sq0csp-" + some(URLSAFE, 43)),
    "facebook": ("fb {}", lambda: "EAA" + some(ALNUM, 150)),
    "digitalocean": ("{}", lambda: "dop_v1_" + some(HEX, 64)),
    "heroku": ("{}", lambda: "HRKU-" + some(ALNUM, 60)),
    "fly": ("FlyV1 {}", lambda: "fm2_" + some(BASE64, 120)),
    "databricks": ("{}", lambda: "dapi" + some(HEX, 32)),
    "vault": ("VAULT {}", lambda: "hvs." + some(URLSAFE, 90)),
    "terraform cloud": ("{}", lambda: f"{some(ALNUM, 14)}.atlasv1.{some(URLSAFE, 67)}"),
    "doppler": ("{}", lambda: "dp.st.prd." + some(ALNUM, 43)),
    "pulumi": ("{}", lambda: "pul-" + some(HEX, 40)),
    "planetscale": ("{}", lambda: "pscale_tkn_" + some(URLSAFE, 43)),
    "supabase": ("{}", lambda: "sbp_" + some(HEX, 40)),
    "alibaba": ("{}", lambda: "LTAI" + some(ALNUM, 20)),
    "tencent": ("{}", lambda: "AKID" + some(ALNUM, 32)),
    "cloudflare origin": ("{}", lambda: f"v1.0-{some(HEX, 24)}-{some(HEX, 146)}"),
    "linear": ("{}", lambda: "lin_api_" + some(ALNUM, 40)),
    "notion": ("{}", lambda: "ntn_" + some(ALNUM, 46)),
    "atlassian": ("{}", lambda: "ATATT3xFfGF0" + some(URLSAFE, 170)),
    "bitbucket": ("{}", lambda: "ATBB" + some(ALNUM, 32)),
    "airtable": ("{}", lambda: f"pat{some(ALNUM, 14)}.{some(HEX, 64)}"),
    "figma": ("{}", lambda: "figd_" + some(URLSAFE, 40)),
    "postman": ("{}", lambda: f"PMAK-{some(HEX, 24)}-{some(HEX, 34)}"),
    "grafana": ("{}", lambda: f"glsa_{some(ALNUM, 32)}_{some(HEX, 8)}"),
    "new relic": ("{}", lambda: "NRAK-" + some(string.ascii_uppercase + string.digits, 27)),
    "sentry": ("{}", lambda: "sntryu_" + some(HEX, 64)),
    "dynatrace": ("{}", lambda: f"dt0c01.{some(BASE32, 24)}.{some(BASE32, 64)}"),
    "sonarqube": ("{}", lambda: "sqp_" + some(HEX, 40)),
    "buildkite": ("{}", lambda: "bkua_" + some(HEX, 40)),
    "artifactory": ("{}", lambda: "AKCp" + some(ALNUM, 69)),
    "tailscale": ("{}", lambda: f"tskey-auth-{some(ALNUM, 16)}-{some(ALNUM, 32)}"),
    "1password": ("{}", lambda: "ops_eyJ" + some(ALNUM, 300)),
    "age": ("{}", lambda: "AGE-SECRET-KEY-1" + some(BASE32, 58)),
    "an api key of this fleet": ("Authorization: Bearer {}", lambda: f"flt_{some(HEX, 8)}_{some(URLSAFE, 43)}"),
    "a service token of this fleet": ("{}", lambda: "fst_" + some(HEX, 64)),
    "json web token": ("{}", lambda: f"eyJ{some(URLSAFE, 33)}.eyJ{some(URLSAFE, 80)}.{some(URLSAFE, 43)}"),
    "rsa key": ("{}", lambda: pem("RSA PRIVATE KEY")),
    "openssh key": ("{}", lambda: pem("OPENSSH PRIVATE KEY")),
    "pgp key": ("{}", lambda: pem("PGP PRIVATE KEY BLOCK")),
    "key whose end was cut off": ("{}", lambda: pem("EC PRIVATE KEY")[:300]),
    "putty key": ("{}", lambda: "Private-Lines: 2\n" + some(BASE64, 64) + "\n" + some(BASE64, 64) + "\n"),
    "postgres url": ("postgresql://app:{}@db.example:5432/app", password),
    "redis url without a user": ("redis://:{}@cache.example/0", password),
    "amqp url": ("amqp://guest:{}@mq", password),
    "ado connection string": ("Server=db;User Id=sa;Password={};", password),
    "bearer header": ("Authorization: Bearer {}", lambda: some(ALNUM, 30) + "7aB"),
    "basic header": ("authorization: Basic {}", lambda: some(ALNUM, 30) + "7aB="),
    "api key header": ('"X-API-Key": "{}"', lambda: some(ALNUM, 30) + "7aB"),
    "netrc": ("machine git.example login me password {}", password),
    "shadow hash": ("root:{}:19000:0:99999:7:::", lambda: f"$6${some(ALNUM, 16)}${some(ALNUM, 86)}"),
    "bcrypt hash": ("user:{}", lambda: "$2b$12$" + some(ALNUM, 53)),
    "argon2 hash": ("{}", lambda: f"$argon2id$v=19$m=65536,t=3,p=4${some(ALNUM, 22)}${some(ALNUM, 43)}"),
    "environment file": ("DB_PASSWORD={}", password),
    "yaml": ("api_key: '{}'", lambda: some(ALNUM, 30) + "7aB"),
    "code": ('const secret = "{}";', lambda: some(ALNUM, 30) + "7aB"),
}

ROUNDS = 20


def planted(name: str) -> tuple[str, str]:
    """A line that holds a fresh secret of this format, and the secret."""
    written, make = FORMATS[name]
    secret = make()
    return f"2026-11-27 10:00:01 worker[12]: {written.format(secret)}\n", secret


def core(secret: str) -> str:
    """The part that may not be left: a PEM's or a prefix's armour may."""
    return secret.replace("\\n", "\n").splitlines()[1] if "PRIVATE KEY" in secret or "Lines" in secret else secret[-16:]


def test_more_than_forty_formats_are_planted() -> None:
    assert len(FORMATS) >= 40


def test_at_least_ninety_nine_of_a_hundred_planted_secrets_are_masked() -> None:
    missed: list[str] = []
    for name in FORMATS:
        for _ in range(ROUNDS):
            line, secret = planted(name)
            masked = mask_text(line)
            missed += [name] * (core(secret) in masked or MASK not in masked)
    recall = 1 - len(missed) / (len(FORMATS) * ROUNDS)
    assert recall >= 0.99, sorted(set(missed))


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_masked_and_what_stands_around_it_stays(name: str) -> None:
    line, secret = planted(name)
    masked = mask_text(line)
    assert core(secret) not in masked
    assert masked.startswith("2026-11-27 10:00:01 worker[12]: ")


def test_every_detector_finds_something_that_is_planted() -> None:
    found = {hit for name in FORMATS for _ in range(3) for hit in detect(planted(name)[0])}
    assert {detector.name for detector in DETECTORS} - found == set()


# --- what it must leave alone -----------------------------------------------------------------------


def generated_log() -> list[str]:
    """Ordinary lines: identifiers, hashes, paths, times, addresses, as services print them."""
    made = [
        lambda: f"req {some(HEX, 32)} GET /api/v1/items/{RANDOM.randrange(10**6)} 200 {RANDOM.random():.3f}s",
        lambda: f"commit {some(HEX, 40)} by dev{RANDOM.randrange(99)}@example.com",
        lambda: f"image sha256:{some(HEX, 64)} pulled in {RANDOM.randrange(999)} ms",
        lambda: f"uuid={some(HEX, 8)}-{some(HEX, 4)}-4{some(HEX, 3)}-a{some(HEX, 3)}-{some(HEX, 12)} state=ok",
        lambda: f"kernel: [{RANDOM.random() * 9999:.6f}] eth0: link up, 1000 Mbps, key index {RANDOM.randrange(9)}",
        lambda: f"sshd[{RANDOM.randrange(9999)}]: Failed password for invalid user admin from 10.0.0.7 port 22",
        lambda: f"token bucket refilled: tokens={RANDOM.randrange(99)} key=client-{RANDOM.randrange(99)}",
        lambda: f"cache miss key=user:{RANDOM.randrange(10**6)}:profile ttl=300",
        lambda: "password authentication is disabled; pass --token-file PATH or set secret_name: default",
        lambda: f"trace_id={some(HEX, 32)} span_id={some(HEX, 16)} secretKeyRef name: app-secrets key: password",
        lambda: f'etag W/"{some(ALNUM, 22)}" integrity sha512-{some(BASE64, 86)}==',
        lambda: f"GET https://example.com:8443/a/b@c?page={RANDOM.randrange(99)}&sort=key HTTP/1.1",
        lambda: f"pod web-{some(HEX, 10)}-{some(string.ascii_lowercase, 5)} restarted {RANDOM.randrange(9)} times",
        lambda: "api_key: ${API_KEY}  # token: <your token here>  password: '********'",
    ]
    return [make() for make in made for _ in range(300)]


def ordinary_lines() -> dict[str, list[str]]:
    """Text that this machine has: Python's own source, configuration and package logs where there are any."""
    library = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    config = [*sorted(Path("/etc").glob("*.conf")), *sorted(Path("/etc").glob("*/*.conf"))]
    logs = [*sorted(Path("/var/log").glob("*.log")), *sorted(Path("/usr/share/doc").glob("*/copyright"))[:100]]
    found = {"generated": generated_log()}
    for kind, paths in (("code", library), ("configuration", config), ("documents", logs)):
        found[kind] = [line for path in paths for line in readable(path) if line.strip()]
    return found


def readable(path: Path) -> list[str]:
    """The lines of a text file that this user may read."""
    try:
        return path.read_text(encoding="utf-8").splitlines()[:3000]
    except (OSError, UnicodeDecodeError):
        return []


def test_at_most_one_in_two_hundred_ordinary_lines_is_taken_for_a_secret() -> None:
    for kind, lines in ordinary_lines().items():
        wrong = [line for line in lines if detect(line)]
        assert len(wrong) <= 0.005 * len(lines), (kind, wrong[:5])


def test_the_machines_own_code_is_enough_to_measure_on() -> None:
    assert len(ordinary_lines()["code"]) > 20_000


@pytest.mark.parametrize(
    "line",
    [
        "password = getpass.getpass()",
        'password: "{{ vault_password }}"',
        "PASSWORD=$DB_PASSWORD",
        "secret: secret://keepass/db#password",
        "token = tokens[0]",
        "postgresql://app:${PASSWORD}@db/app",
        "-----BEGIN PRIVATE KEY----- is how such a file begins",
        "-----BEGIN CERTIFICATE-----\nMIIB" + "A" * 200 + "\n-----END CERTIFICATE-----",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "B" * 43 + " me@example",
        "Authorization: Bearer <token>",
        "git@github.com:owner/repository.git",
        '{"nextPageToken": "CAUQAA7b-Xy_9aB3cD4eF5gH6"}',
        '"progressToken": "progress-Test-1234"',
        "next_token=AbCdEf0123456789AbCd continuation-token: 'AbCdEf0123456789AbCd'",
        "mailto:someone@example.com and https://example.com/@user",
    ],
)
def test_what_only_speaks_of_secrets_stays(line: str) -> None:
    assert mask_text(line) == line


# --- data -------------------------------------------------------------------------------------------


def test_data_without_a_secret_is_the_same_object() -> None:
    value = {"password": "********", "a": [1, None, "text"], "token": "", "next_page_token": "AbCdEf0123456789-Ab"}
    assert mask_data(value) == (value, 0)
    assert mask_data(value)[0] is value


def test_strings_and_keys_and_values_under_telling_names_are_masked_and_counted() -> None:
    _, key = planted("aws access key id")
    value = {"list": [f"id {key}"], key: 1, "db_password": "hunter2-Hunter2", "n": 5, "client_secret": None}
    assert mask_data(value) == (
        {"list": [f"id {MASK}"], MASK: 1, "db_password": MASK, "n": 5, "client_secret": None},
        3,
    )


def test_data_that_nests_without_end_is_cut_off() -> None:
    deep: Any = planted("github")[1]
    for _ in range(2000):
        deep = [deep]
    masked, count = mask_data([planted("github")[1], deep])
    assert (masked[0], count) == (MASK, 1)
    assert "ghp_" not in str(masked)


def test_a_mask_is_not_masked_again() -> None:
    line = mask_text(planted("postgres url")[0])
    assert mask_text(line) == line


# --- time -------------------------------------------------------------------------------------------

HOSTILE = {
    "anchors of a fixed format": "AKIA",
    "beginnings of web tokens": "eyJaaaaaaaaaaaa.",
    "keys that never end": "-----BEGIN RSA PRIVATE KEY-----",
    "schemes and colons": "a://a:",
    "telling names": "password='",
    "more telling names": "secret_access_key = ",
    "aws and nothing": "aws ",
    "bot tokens that are none": "M" * 24 + ".",
    "headers": "authorization: bearer ",
    "netrc lines": "machine a login b ",
    "lines of a key": "Private-Lines: 1 A ",
    "hashes": "$6$a$",
    "signatures": "?sig=a",
    "one word": "a",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_the_worst_text_is_searched_in_linear_work(what: str) -> None:
    text = HOSTILE[what] * (400_000 // len(HOSTILE[what]))
    assert len(mask_text(text)) > 0  # exponential or quadratic work would not end within the test's time
