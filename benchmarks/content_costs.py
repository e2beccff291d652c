"""What trust in content costs, in microseconds of processor time: `python benchmarks/content_costs.py`."""

import random
import string
import time
from collections.abc import Callable

from fleetkit.hygiene import clean_result
from fleetkit.risk import Risk
from master_mcp.catalog.tools import CatalogTool
from master_mcp.proxy.arguments import Arguments
from master_mcp.proxy.content import from_outside
from master_mcp.proxy.taint import Taint

SCHEMA = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "limit": {"type": "integer"}},
    "additionalProperties": False,
}
TOOL = CatalogTool("a.b", "a_b", "a", "b", Risk.change, False, None, {"name": "a_b", "inputSchema": SCHEMA})
CALL = {"path": "/srv/app/config/settings.toml", "limit": 5}


def letters(count: int) -> str:
    """Random letters."""
    return "".join(random.choices(string.ascii_letters, k=count))


def cost(work: Callable[[], object], times: int) -> float:
    """The best of five rounds, per call."""
    rounds: list[float] = []
    for _ in range(5):
        started = time.process_time()
        for _ in range(times):
            work()
        rounds.append((time.process_time() - started) / times)
    return min(rounds) * 1e6


def main() -> None:
    """Print one line per step."""
    text = " ".join(letters(6) for _ in range(200))
    result = {"content": [{"type": "text", "text": text}], "structuredContent": {"text": text}}
    checks, memory, full = Arguments(), Taint(), Taint()
    memory.saw("one", CALL, result, untrusted=True)
    for _ in range(4):
        full.saw("full", {}, {"content": [{"type": "text", "text": letters(64 * 1024)}]}, untrusted=True)
    large = {"path": letters(32 * 1024)}
    for name, work, times in (
        ("arguments checked", lambda: checks.check(TOOL, CALL), 20000),
        ("trusted result remembered (1.4 KB)", lambda: memory.saw("t", CALL, result, untrusted=False), 2000),
        ("untrusted result remembered (1.4 KB)", lambda: memory.saw("u", CALL, result, untrusted=True), 2000),
        ("call judged, nothing heard", lambda: memory.judges("nobody", TOOL, CALL), 5000),
        ("call judged, one result heard", lambda: memory.judges("one", TOOL, CALL), 50),
        ("call judged, memory full", lambda: full.judges("full", TOOL, CALL), 5),
        ("call judged, memory full, 32 Ki of arguments", lambda: full.judges("full", TOOL, large), 2),
        ("clean result cleaned (2.8 KB)", lambda: clean_result(result), 2000),
        ("foreign result received (2.8 KB)", lambda: from_outside({"result": result}), 500),
    ):
        print(f"{name:48} {cost(work, times):10.2f} us")


if __name__ == "__main__":
    main()
