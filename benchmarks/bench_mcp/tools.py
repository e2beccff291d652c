"""The one tool of the benchmark."""

from bench_mcp import spoke
from fleetkit import Risk

ANSWER_BYTES = 200


@spoke.tool(risk=Risk.read)
async def echo(text: str) -> str:
    """`text`, filled up to 200 bytes."""
    return text.ljust(ANSWER_BYTES, ".")
