#!/bin/sh
# Files are private; the hub replaces this shell so that signals reach it. Its log goes to stdout.
set -eu
umask 077
exec python /app/00_master_mcp/mcp_server.py "$@"
