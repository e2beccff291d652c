"""Audit rows as JSON lines or CSV, row by row."""

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Literal, TextIO

import orjson

from master_mcp.audit.search import Entry
from master_mcp.audit.segments import STORED

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what makes a spreadsheet run a cell


CHUNK = 500  # rows

Form = Literal["jsonl", "csv"]


def exported(rows: Iterable[Entry], form: Form) -> Iterator[str]:
    """The rows as text, some hundred at a time."""
    rows = iter(rows)
    table = io.StringIO()
    if form == "csv":
        csv.writer(table).writerow(STORED)
    while some := list(islice(rows, CHUNK)):
        (write_lines if form == "jsonl" else _write_cells)(table, some)
        yield table.getvalue()
        table = io.StringIO()
    if table.tell():
        yield table.getvalue()


def write_lines(file: TextIO, rows: Iterable[Entry]) -> int:
    """One JSON object per line; the number of rows."""
    count = 0
    for entry in rows:
        file.write(orjson.dumps(entry).decode() + "\n")
        count += 1
    return count


def write_csv(file: TextIO, rows: Iterable[Entry]) -> int:
    """A header and one line per row; the number of rows. No text starts like a formula: a quote mark goes before it."""
    csv.writer(file).writerow(STORED)
    return _write_cells(file, rows)


def _write_cells(file: TextIO, rows: Iterable[Entry]) -> int:
    table = csv.writer(file)
    count = 0
    for entry in rows:
        table.writerow([_cell(entry[name]) for name in STORED])
        count += 1
    return count


def _cell(value: object) -> object:
    text = orjson.dumps(value).decode() if isinstance(value, dict) else value
    return f"'{text}" if isinstance(text, str) and text.startswith(FORMULA) else text
