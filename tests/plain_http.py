"""A web server that is not a hub: `{"port": ...}` on stdout, 404 to everything."""

import http.server
import json
import sys


class Stranger(http.server.BaseHTTPRequestHandler):
    """Answers in its own words."""

    def do_POST(self) -> None:
        """Not found, as HTML."""
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


with http.server.HTTPServer(("127.0.0.1", 0), Stranger) as server:
    sys.stdout.write(json.dumps({"port": server.server_port}) + "\n")
    sys.stdout.flush()
    server.serve_forever()
