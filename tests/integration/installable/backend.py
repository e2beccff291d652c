"""A build backend without dependencies, for a checkout whose `fleet` prints its arguments and waits."""

import zipfile
from pathlib import Path

NAME = "stub-1.0-py3-none-any.whl"
STUB = """import os, signal, sys


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print("running", os.getpid(), *sys.argv[1:], flush=True)
    signal.pause()
"""
FILES = {
    "stub.py": STUB,
    "stub-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: stub\nVersion: 1.0\n",
    "stub-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: stub\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "stub-1.0.dist-info/entry_points.txt": "[console_scripts]\nfleet = stub:main\n",
}


def build_editable(wheel_directory: str, config_settings: object = None, metadata_directory: object = None) -> str:
    """The hook that `pip install -e` calls."""
    with zipfile.ZipFile(Path(wheel_directory) / NAME, "w") as wheel:
        for path, text in FILES.items():
            wheel.writestr(path, text)
        wheel.writestr("stub-1.0.dist-info/RECORD", "".join(f"{path},,\n" for path in FILES))
    return NAME
