"""The hub as it is shipped, on a calendar that the test can set."""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jumping_clock

jumping_clock.follow()
runpy.run_path(str(Path(__file__).resolve().parents[2] / "00_master_mcp" / "mcp_server.py"), run_name="__main__")
