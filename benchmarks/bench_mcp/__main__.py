"""`python -m bench_mcp`: the spoke as a process of its own, as every spoke of the fleet is served."""

from bench_mcp import spoke

spoke.main()
