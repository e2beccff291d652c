#!/bin/sh
# Files are private; the server replaces this shell so that signals reach it.
set -eu
umask 077
exec python /app/01_linux_cli_mcp/mcp_server.py "$@"
