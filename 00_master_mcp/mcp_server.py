"""The hub as a process of its own."""

from master_mcp.serving import main

if __name__ == "__main__":
    main()
