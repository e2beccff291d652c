"""The spoke that the benchmarks call: tools with an answer of 200 bytes, one that reads and one that changes."""

from fleetkit import Spoke

spoke = Spoke("bench", tool_modules=("bench_mcp.tools",))
