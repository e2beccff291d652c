"""The MCP door: both protocol eras on one URL."""
