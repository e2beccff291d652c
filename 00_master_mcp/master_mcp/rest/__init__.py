"""The HTTP door beside MCP: health, readiness, metrics, and what the fleet's own processes ask."""
