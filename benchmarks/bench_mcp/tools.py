"""The tools of the benchmarks."""

from bench_mcp import spoke
from fleetkit import Risk

ANSWER_BYTES = 200


@spoke.tool(risk=Risk.read)
async def echo(text: str) -> str:
    """`text`, filled up to 200 bytes."""
    return text.ljust(ANSWER_BYTES, ".")


@spoke.tool(risk=Risk.change)
async def store(text: str) -> str:
    """What `echo` answers, from a tool that says it changes something."""
    return text.ljust(ANSWER_BYTES, ".")
