"""The spoke linux_cli as a process of its own."""

from linux_cli_mcp import spoke

if __name__ == "__main__":
    spoke.main()
