"""Serves the CMDB spoke as a process of its own."""

from cmdb_mcp import spoke

spoke.main()
