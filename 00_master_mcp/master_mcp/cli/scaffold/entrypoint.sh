#!/bin/sh
# Files are private; the server replaces this shell so that signals reach it.
set -eu
umask 077
exec python /app/$folder/mcp_server.py "$$@"
