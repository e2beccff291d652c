"""Secrets nobody told us about: found by the formats in which they are issued, and masked.

`scrub` masks values that this process knows. This masks what looks like a credential, in text that comes from
outside and in what is stored or logged. Text without the fixed part of any format costs a few scans;
every pattern is linear, whatever is thrown at it.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from fleetkit.scrub import MASK

MASKED_META = "fleet/masked"  # how many secrets were masked by their format, in the result's `_meta`
MAX_DEPTH = 200  # deeper data is dropped: nothing honest nests like that


def _strong(value: str) -> bool:
    """Whether a value beside a telling word is made like a credential, not like a word or a name in code."""
    digits = any(map(str.isdigit, value))
    kinds = sum((any(map(str.islower, value)), any(map(str.isupper, value)), digits, not value.isalnum()))
    return digits and (kinds >= 3 or (len(value) >= 16 and kinds >= 2)) and "://" not in value


def _any(_value: str) -> bool:
    return True


@dataclass(frozen=True)
class Detector:
    """One format. It is looked for when one of its `anchors` is in the text; in any case, when the pattern says so."""

    name: str
    anchors: tuple[str, ...]
    pattern: re.Pattern[str]
    accepts: Callable[[str], bool] = _any
    unbroken: bool = False  # it stands in one run of characters, without a space or a quote

    def mask(self, text: str) -> tuple[str, int]:
        """`text` with every secret of this format masked, and how many there were."""
        count = 0

        def replace(found: re.Match[str]) -> str:
            nonlocal count
            group = "secret" if "secret" in self.pattern.groupindex else 0
            if not self.accepts(found[group]) or MASK in found[group]:
                return found[0]
            count += 1
            start, end = (place - found.start() for place in found.span(group))
            return found[0][:start] + MASK + found[0][end:]

        return self.pattern.sub(replace, text), count


def _token(name: str, pattern: str, *anchors: str) -> Detector:
    """A format with a fixed part that stands between characters which belong to no token.

    What it begins with comes first in the pattern, so that the search leaps from one such place to the next.
    """
    fixed = re.match(r"(?:[A-Za-z0-9_-](?![{+*?]))*", pattern)
    begins = fixed[0] if fixed else ""
    alone = rf"{begins}(?<![A-Za-z0-9_-]{begins}){pattern[len(begins) :]}(?![A-Za-z0-9])"
    return Detector(name, anchors, re.compile(alone), unbroken=True)


_HEX32, _HEX40, _HEX64 = "[0-9a-f]{32}", "[0-9a-f]{40}", "[0-9a-f]{64}"

_GITLAB = tuple(f"gl{kind}-" for kind in ("pat", "dt", "rt", "cbt", "ptt", "ft", "imt", "agent", "soat", "oas"))
# Words before `token` that make it a place in a list or a call, not a credential.
_PLACES = "".join(
    rf"(?<!{word})(?<!{word}[_.-])" for word in ("page", "next", "progress", "continuation", "cursor", "sync", "resume")
)
_WORDS = (
    r"(?:pass(?:word|wd|phrase|code)|pwd|(?:client|app|shared|webhook)?[_.-]?secret(?:[_.-]?(?:access[_.-]?)?key)?"
    r"|(?:api|access|account|auth|encryption|signing|private|master)[_.-]?key|" + _PLACES + "token)"
)
_VALUE = r"[^\s\"'`$<>{}()\[\],;&%|]{8,200}+"

DETECTORS: tuple[Detector, ...] = (
    _token("aws access key id", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}", "AKIA", "ASIA", "ABIA", "ACCA"),
    Detector(
        "aws secret access key",
        ("aws", "secretaccesskey"),
        re.compile(
            r"(?i)(?:aws|SecretAccessKey).{0,40}?[\"'=:\s](?P<secret>(?=[A-Za-z/+]{0,39}[0-9])[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"
        ),
    ),
    _token("aws bedrock key", r"ABSK[A-Za-z0-9+/]{100,}+={0,2}", "ABSK"),
    _token("google api key", r"AIza[\w-]{35}", "AIza"),
    _token("google oauth token", r"ya29\.[\w.-]{20,}+", "ya29."),
    _token("google oauth refresh token", r"1//0[\w-]{40,}+", "1//0"),
    _token("google client secret", r"GOCSPX-[\w-]{28}", "GOCSPX-"),
    _token("firebase server key", r"AAAA[\w-]{7}:[\w-]{140}", "AAAA"),
    Detector("azure account key", ("key=",), re.compile(r"(?i)Key=(?P<secret>[A-Za-z0-9+/]{42,86}={1,2})")),
    _token("azure client secret", r"[\w.~-]{3}[0-9]Q~[\w.~-]{31,34}+", "Q~"),
    Detector("azure shared access signature", ("sig=",), re.compile(r"[?&;]sig=(?P<secret>[A-Za-z0-9%/+]{43,}+=?)")),
    _token("azure devops token", r"[A-Za-z0-9]{76}AZDO[A-Za-z0-9]{4}", "AZDO"),
    _token("github token", r"gh[pousr]_[A-Za-z0-9]{36,}+", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    _token("github fine-grained token", r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}", "github_pat_"),
    _token("gitlab token", r"gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|soat|oas)-[\w.-]{20,}+", *_GITLAB),
    _token("gitlab runner registration", r"GR1348941[\w-]{20}", "GR1348941"),
    _token("slack token", r"xox[a-z](?:\.xox[a-z])?-[A-Za-z0-9-]{10,}+", "xox"),
    _token("slack app token", r"xapp-[0-9]-[A-Za-z0-9-]{20,}+", "xapp-"),
    Detector(
        "slack webhook",
        ("hooks.slack",),
        re.compile(r"hooks\.slack[\w.-]*+/(?:services|workflows)/(?P<secret>[\w/+-]{30,}+)"),
    ),
    _token("stripe key", r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}+", "sk_live", "sk_test", "rk_live", "rk_test"),
    _token("signing secret of a webhook", r"whsec_[A-Za-z0-9+/=]{24,}+", "whsec_"),
    _token("openai key", r"sk-(?:proj|svcacct|admin|None)-[\w-]{40,}+", "sk-"),
    _token("openai key of the older kind", r"sk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}", "T3BlbkFJ"),
    _token("anthropic key", r"sk-ant-[a-z]{3,6}[0-9]{2}-[\w-]{80,}+", "sk-ant-"),
    _token("openrouter key", rf"sk-or-v1-{_HEX64}", "sk-or-v1-"),
    _token("groq key", r"gsk_[A-Za-z0-9]{52}", "gsk_"),
    _token("xai key", r"xai-[A-Za-z0-9]{80}", "xai-"),
    _token("perplexity key", r"pplx-[A-Za-z0-9]{40,56}+", "pplx-"),
    _token("replicate token", r"r8_[A-Za-z0-9]{37}", "r8_"),
    _token("hugging face token", r"(?:hf|api_org)_[A-Za-z]{34}", "hf_", "api_org_"),
    _token("npm token", r"npm_[A-Za-z0-9]{36}", "npm_"),
    _token("pypi token", r"pypi-AgE[\w-]{50,}+", "pypi-AgE"),
    _token("rubygems key", r"rubygems_[0-9a-f]{48}", "rubygems_"),
    _token("crates token", r"cio[A-Za-z0-9]{32}", "cio"),
    _token("docker token", r"dckr_(?:pat|oat)_[\w-]{27,}+", "dckr_"),
    _token("twilio key", rf"SK{_HEX32}", "SK"),
    _token("sendgrid key", r"SG\.[\w-]{20,24}\.[\w-]{39,50}+", "SG."),
    _token("mailgun key", rf"key-{_HEX32}", "key-"),
    _token("mailchimp key", rf"{_HEX32}-us[0-9]{{1,2}}", "-us"),
    Detector("telegram bot token", (":AA",), re.compile(r"(?:(?<![A-Za-z0-9])|(?<=bot))[0-9]{8,10}:AA[\w-]{33}")),
    Detector(
        "discord bot token",
        (".",),
        re.compile(r"[MNO](?<![\w-][MNO])[\w-]{22,25}\.[\w-]{6}\.[\w-]{27,38}(?![\w-])"),
    ),
    Detector(
        "discord webhook",
        ("/api/webhooks/",),
        re.compile(r"discord(?:app)?\.com/api/webhooks/(?P<secret>[0-9]{15,20}/[\w-]{60,}+)"),
    ),
    _token("shopify token", rf"shp(?:at|ca|pa|ss|ua)_{_HEX32}", "shp"),
    _token("square token", r"(?:sq0(?:atp|csp|idp)-[\w-]{22,43}+|EAAA[\w-]{60})", "sq0", "EAAA"),
    _token("facebook token", r"EAA[A-Za-z0-9]{90,}+", "EAA"),
    _token("digitalocean token", rf"do[opr]_v1_{_HEX64}", "_v1_"),
    _token("heroku key", r"HRKU-[\w-]{36,}+", "HRKU-"),
    _token("fly token", r"fm[12][ar]?_[A-Za-z0-9+/=_-]{80,}+", "fm1", "fm2"),
    _token("databricks token", rf"dapi{_HEX32}(?:-[0-9])?", "dapi"),
    _token("vault token", r"hv[sbr]\.[\w-]{24,}+", "hvs.", "hvb.", "hvr."),
    _token("terraform cloud token", r"[A-Za-z0-9]{14}\.atlasv1\.[\w-]{60,}+", ".atlasv1."),
    _token("doppler token", r"dp\.(?:pt|st|ct|sa|scim|audit)\.(?:[a-z0-9_-]{2,35}\.)?[A-Za-z0-9]{40,}+", "dp."),
    _token("pulumi token", rf"pul-{_HEX40}", "pul-"),
    _token("planetscale token", r"pscale_(?:tkn|pw|oauth)_[\w.-]{32,}+", "pscale_"),
    _token("supabase token", rf"sb(?:p_{_HEX40}|_secret_[\w-]{{20,}}+)", "sbp_", "sb_secret_"),
    _token("alibaba access key", r"LTAI[A-Za-z0-9]{20}", "LTAI"),
    _token("tencent secret id", r"AKID[A-Za-z0-9]{32}", "AKID"),
    _token("cloudflare origin key", r"v1\.0-[0-9a-f]{24}-[0-9a-f]{146}", "v1.0-"),
    _token("linear key", r"lin_(?:api|oauth)_[A-Za-z0-9]{32,}+", "lin_"),
    _token("notion token", r"(?:ntn_[A-Za-z0-9]{40,}+|secret_[A-Za-z0-9]{43})", "ntn_", "secret_"),
    _token("atlassian token", r"AT(?:ATT3|CTT3)[\w=-]{100,}+", "ATATT3", "ATCTT3"),
    _token("bitbucket token", r"ATBB[A-Za-z0-9=]{32,}+", "ATBB"),
    _token("airtable token", rf"pat[A-Za-z0-9]{{14}}\.{_HEX64}", "pat"),
    _token("figma token", r"fig[doru]_[\w-]{40,}+", "figd_", "figo_", "figr_", "figu_"),
    _token("postman key", r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}", "PMAK-"),
    _token("grafana token", r"(?:glsa_[A-Za-z0-9]{32}_[0-9a-f]{8}|glc_[A-Za-z0-9+/=]{32,}+)", "glsa_", "glc_"),
    _token("new relic key", r"NR(?:AK|AA|II|JS)-[A-Za-z0-9_-]{20,}+", "NRAK-", "NRAA-", "NRII-", "NRJS-"),
    _token("sentry token", rf"(?:sntrys_[A-Za-z0-9+/=_-]{{60,}}+|sntryu_{_HEX64})", "sntry"),
    _token("dynatrace token", r"dt0[a-z][0-9]{2}\.[A-Z0-9]{24}\.[A-Z0-9]{64}", "dt0"),
    _token("sonarqube token", rf"sq[apu]_{_HEX40}", "sqa_", "sqp_", "squ_"),
    _token("buildkite token", r"bk(?:ua|at|ct)_[0-9a-f]{40}", "bkua_", "bkat_", "bkct_"),
    _token("artifactory key", r"AKCp[A-Za-z0-9]{69}", "AKCp"),
    _token("tailscale key", r"tskey-[a-z]+-[A-Za-z0-9]+-[A-Za-z0-9]{20,}+", "tskey-"),
    _token("1password service token", r"ops_eyJ[A-Za-z0-9+/=_-]{100,}+", "ops_eyJ"),
    _token("age secret key", r"AGE-SECRET-KEY-1[A-Z0-9]{58}", "AGE-SECRET-KEY-1"),
    _token("key of this fleet", r"f[ls]t_[\w-]{40,}+", "flt_", "fst_"),
    _token("json web token", r"eyJ[\w-]{10,}+\.eyJ[\w-]{10,}+\.[\w-]{10,}+", "eyJ"),
    Detector(
        "private key",
        ("PRIVATE KEY",),
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----(?P<secret>"
            r"(?:[^-]|-(?!----))*+(?=-----END )|[A-Za-z0-9+/=\s\\]{40,}+)"
        ),
        lambda body: len(body) >= 40,
    ),
    Detector(
        "putty key",
        ("Private-Lines:",),
        re.compile(r"Private-Lines: [0-9]+\s+(?P<secret>(?:[A-Za-z0-9+/=]{1,64}\s+)+)"),
    ),
    Detector(
        "password in a url",
        ("://",),
        re.compile(
            r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,30}+://[^\s/:@\"'<>]{0,128}+:(?P<secret>[^\s/@\"'<>${}]{3,256}+)@"
        ),
    ),
    Detector(
        "authorization header",
        ("bearer ", "basic ", "token "),
        re.compile(
            r"(?i)(?:authorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:bearer|basic|token)|\bbearer)"
            r"\s{1,3}(?P<secret>[A-Za-z0-9._~+/-]{16,2000}+={0,2})"
        ),
        _strong,
    ),
    Detector(
        "api key header",
        ("x-api-key", "x-auth-token", "private-token"),
        re.compile(
            r"(?i)(?:x-api-key|x-auth-token|private-token)[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?P<secret>[\w.~+/=-]{12,})"
        ),
        _strong,
    ),
    Detector(
        "login in a netrc line",
        ("machine ",),
        re.compile(
            r"machine\s{1,4}[\w.-]{1,200}+\s{1,4}login\s{1,4}\S{1,200}\s{1,4}password\s{1,4}(?P<secret>\S{3,200})"
        ),
    ),
    Detector(
        "password hash",
        ("$2", "$5$", "$6$", "$y$", "$argon2"),
        re.compile(
            r"\$(?:2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}|[56]\$(?:rounds=[0-9]{1,9}\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{43,86}"
            r"|y\$[./A-Za-z0-9]{1,8}\$[./A-Za-z0-9]{1,86}\$[./A-Za-z0-9]{43}|argon2i?d?\$[\w$,=+/.-]{40,200})"
        ),
    ),
    Detector(
        "value of a telling name",
        ("pass", "pwd", "secret", "key", "token"),
        re.compile(
            rf"(?i){_WORDS}[\"']?\s{{0,3}}(?:=>|:=|=(?!=)|:)\s{{0,3}}(?:(?P<quote>[\"'])(?={_VALUE}(?P=quote))"
            rf"|(?<==)(?={_VALUE}(?:[\s;&]|$)))(?P<secret>{_VALUE})"
        ),
        _strong,
    ),
)


def detect(text: str) -> list[str]:
    """The names of the formats of which `text` holds a secret."""
    return [detector.name for detector in _candidates(text) if detector.mask(text)[1]]


def mask_text(text: str) -> str:
    """`text` with what looks like a secret masked."""
    for detector in _candidates(text):
        text, _ = detector.mask(text)
    return text


def mask_data(value: Any) -> tuple[Any, int]:
    """A JSON-like value with what looks like a secret masked in strings and keys, and how many there were.

    The same object comes back when there was none.
    """
    candidates = _candidates("\n".join(_strings(value, 0)))
    if not candidates:
        return value, 0
    walk = _Walk(candidates)
    masked = walk.of(value, 0)
    return (masked, walk.count) if walk.count else (value, 0)


class _Walk:
    def __init__(self, detectors: list[Detector]) -> None:
        self._detectors = detectors
        self.count = 0

    def of(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            for detector in self._detectors:
                value, found = detector.mask(value)
                self.count += found
            return value
        if depth > MAX_DEPTH:
            return None
        if isinstance(value, dict):
            pairs = cast("dict[str, Any]", value).items()
            return {self.of(key, depth): self._member(key, item, depth + 1) for key, item in pairs}
        if isinstance(value, list | tuple):
            return [self.of(item, depth + 1) for item in cast("list[Any]", value)]
        return value

    def _member(self, key: str, value: Any, depth: int) -> Any:
        """A value under a telling key is looked at as `key=value` would be."""
        masked = self.of(value, depth)
        named = isinstance(masked, str) and MASK not in masked and _TELLING.search(key) is not None
        if named and _WHOLE.fullmatch(masked) is not None and _strong(masked):
            self.count += 1
            return MASK
        return masked


_TELLING = re.compile(rf"(?i){_WORDS}$")
_WHOLE = re.compile(_VALUE)


_UNBROKEN = [one for one in DETECTORS if one.unbroken]
_SPACED = [one for one in DETECTORS if not one.unbroken]
_FIXED = tuple({anchor for one in _UNBROKEN for anchor in one.anchors})
_SAID = tuple({anchor.lower() for one in _SPACED for anchor in one.anchors})
_RUN = re.compile(r"[\w.~+/=%:-]{20,}")  # shorter is no token


def _candidates(text: str) -> list[Detector]:
    """The detectors that may find something in `text`."""
    runs = "\n".join(_RUN.findall(text))
    fixed = {anchor for anchor in _FIXED if anchor in runs} if runs else set[str]()
    lowered = text.lower()
    said = {anchor for anchor in _SAID if anchor in lowered}
    found = [one for one in _UNBROKEN if not fixed.isdisjoint(one.anchors)] if fixed else []
    return found + [one for one in _SPACED if not said.isdisjoint(map(str.lower, one.anchors))] if said else found


def _strings(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth > MAX_DEPTH:
        return
    elif isinstance(value, dict):
        for key, item in cast("dict[str, Any]", value).items():
            yield key
            yield from _strings(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in cast("list[Any]", value):
            yield from _strings(item, depth + 1)
