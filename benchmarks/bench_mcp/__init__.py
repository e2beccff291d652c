"""The spoke that the benchmarks call: one read tool with an answer of 200 bytes."""

from fleetkit import Spoke

spoke = Spoke("bench", tool_modules=("bench_mcp.tools",))
