"""The spoke cmdb as a process of its own."""

from cmdb_mcp import spoke

if __name__ == "__main__":
    spoke.main()
