"""The gateway's description as one page for people, without anything from elsewhere."""

from collections.abc import Sequence
from html import escape

from master_mcp.rest.route import Access, Route

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 3rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin: 2.5rem 0 .5rem; text-transform: capitalize; }
table { border-collapse: collapse; width: 100%; } td { padding: .4rem .8rem .4rem 0; border-top: 1px solid var(--line);
vertical-align: top; } td:first-child { width: 4rem; font-weight: 600; }
td:last-child { width: 6rem; text-align: right; }
code, pre { font: .9em ui-monospace, monospace; } pre { background: var(--soft); padding: .8rem; overflow-x: auto; }
"""
_WHO = {Access.open: "open", Access.key: "key", Access.manager: "operator"}
_EXAMPLE = """curl -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" \\
  -d '{"action": "master.listServices", "params": {}}' http://127.0.0.1:8000/mcp/execute"""


def page(routes: Sequence[Route]) -> str:
    """The page as HTML."""
    tags = dict.fromkeys(route.tag for route in routes)
    parts = [_section(tag, [route for route in routes if route.tag == tag]) for tag in tags]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>MCP Fleet</title><style>{_STYLE}</style>'
        "<h1>MCP Fleet</h1><p>Every call goes the same way as one over MCP. The exact shapes are in "
        '<a href="/openapi.json">openapi.json</a>; MCP itself is at <code>/mcp</code>.</p>'
        f"<pre>{escape(_EXAMPLE)}</pre>{''.join(parts)}</html>"
    )


def _section(tag: str, routes: Sequence[Route]) -> str:
    rows = "".join(
        f"<tr><td>{route.method}<td><code>{escape(route.path)}</code><br>{escape(route.summary)}"
        f"<td>{_WHO[route.access]}</tr>"
        for route in routes
    )
    return f"<h2>{escape(tag)}</h2><table>{rows}</table>"
