"""MCP servers of others behind the hub: started or reached, pinned, cleaned, and never trusted."""
