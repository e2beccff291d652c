"""MCP servers that others wrote, found where `.ci/run` installs them, for tests against the real thing.

npm packages are looked for in `FLEET_TEST_NODE_MODULES`, else in `node_modules/` of the checkout; Python packages in a
virtual environment of their own, `FLEET_TEST_SERVERS_VENV`, else `.venv-servers/` of the checkout.
"""

import os
import shutil
from pathlib import Path

import pytest
from processes import CHECKOUT

NPM = {name: f"@modelcontextprotocol/server-{name}@2026.8.31" for name in ("everything", "filesystem", "memory")}
PYPI = {"time": "mcp-server-time==2026.10.19", "git": "mcp-server-git==2026.10.19"}
MODULES = Path(os.environ.get("FLEET_TEST_NODE_MODULES") or CHECKOUT / "node_modules").resolve()
VENV = Path(os.environ.get("FLEET_TEST_SERVERS_VENV") or CHECKOUT / ".venv-servers").absolute()

NODE = (
    next((str(p) for p in (MODULES / "node" / "bin" / "node",) if p.exists()), None) or shutil.which("node") or "node"
)


def npm(name: str) -> Path:
    """The program of an npm package."""
    return MODULES / "@modelcontextprotocol" / f"server-{name}" / "dist" / "index.js"


def pypi(name: str) -> Path:
    """The program of a Python package."""
    return VENV / "bin" / f"mcp-server-{name}"


needs_npm = pytest.mark.skipif(
    not all(npm(name).exists() for name in NPM),
    reason=f"needs servers from npm: install the npm packages {' '.join(NPM.values())}",
)
needs_pypi = pytest.mark.skipif(
    not all(pypi(name).exists() for name in PYPI),
    reason=f"needs servers in {VENV.name}: install the Python packages {' '.join(PYPI.values())}",
)
