"""Audit rows as JSON lines or CSV, row by row."""

import csv
from collections.abc import Iterable
from typing import TextIO

import orjson

from master_mcp.audit.search import Entry
from master_mcp.audit.segments import STORED

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what makes a spreadsheet run a cell


def write_lines(file: TextIO, rows: Iterable[Entry]) -> int:
    """One JSON object per line; the number of rows."""
    count = 0
    for entry in rows:
        file.write(orjson.dumps(entry).decode() + "\n")
        count += 1
    return count


def write_csv(file: TextIO, rows: Iterable[Entry]) -> int:
    """A header and one line per row; the number of rows. No text starts like a formula: a quote mark goes before it."""
    table = csv.writer(file)
    table.writerow(STORED)
    count = 0
    for entry in rows:
        table.writerow([_cell(entry[name]) for name in STORED])
        count += 1
    return count


def _cell(value: object) -> object:
    text = orjson.dumps(value).decode() if isinstance(value, dict) else value
    return f"'{text}" if isinstance(text, str) and text.startswith(FORMULA) else text
