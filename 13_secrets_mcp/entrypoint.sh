#!/bin/sh
# No core dump may hold a value; the server replaces this shell so that signals reach it.
set -eu
ulimit -c 0
umask 077
exec python /app/13_secrets_mcp/mcp_server.py "$@"
