"""The one path to a tool."""
