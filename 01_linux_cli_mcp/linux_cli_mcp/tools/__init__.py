"""The tools of os.linux, one module per concern; each registers itself on `linux_cli_mcp.spoke`."""
