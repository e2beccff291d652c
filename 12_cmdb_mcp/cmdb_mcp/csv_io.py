"""CSV in and out. A cell that a spreadsheet would run as a formula leaves quoted and comes back unquoted."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fleetkit import Invalid

# What Excel, LibreOffice or Google Sheets may take for the start of a formula, full-width forms included.
_FORMULA = re.compile(r"['\s]*[=+\-@＝＋－＠]")  # noqa: RUF001 - these very characters
_QUOTED = re.compile(r"'['\s]*[=+\-@＝＋－＠]")  # noqa: RUF001

DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Table:
    """A parsed CSV: column names in lower case, and (line, cells) of each row that is not blank."""

    columns: list[str]
    rows: list[tuple[int, dict[str, str]]]
    warnings: list[tuple[int, str]]


def parse(text: str, max_rows: int) -> Table:
    """Read CSV text with a header line, delimited by comma, semicolon, tab or bar; raises Invalid with the line."""
    text = text.removeprefix("\ufeff")
    header = text.split("\n", 1)[0]
    delimiter = max(DELIMITERS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    empty: list[str] = []
    try:
        columns = _columns(next(reader, empty))
        table = Table(columns, [], [])
        start = reader.line_num + 1
        for cells in reader:
            _add(table, start, cells)
            start = reader.line_num + 1
            if len(table.rows) > max_rows:
                raise Invalid(f"more than {max_rows} rows: split the file (spokes.cmdb.max_import_rows)")
    except csv.Error as error:
        raise Invalid(f"line {reader.line_num} is not CSV: {error}") from error
    return table


def render(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Rows as CSV with a header, every cell safe to open in a spreadsheet."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_safe(_cell(row.get(column))) for column in columns] for row in rows)
    return out.getvalue()


def _columns(cells: Sequence[str]) -> list[str]:
    columns = [re.sub(r"[\s-]+", "_", cell.strip().lower()) for cell in cells]
    if not any(columns):
        raise Invalid("the CSV is empty: its first line must name the columns")
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice or "" in columns:
        raise Invalid(f"each column needs a name of its own: {', '.join(twice) or 'one has none'}")
    return columns


def _add(table: Table, line: int, cells: Sequence[str]) -> None:
    if not any(cell.strip() for cell in cells):
        return
    if len(cells) > len(table.columns):
        raise Invalid(f"line {line} has {len(cells)} cells, the header names {len(table.columns)}: quote commas")
    values = {column: cell.strip() for column, cell in zip(table.columns, cells, strict=False)}
    for column, cell in values.items():
        if _FORMULA.match(cell) and not _QUOTED.match(cell) and not _number(cell):
            table.warnings.append((line, f"{column} starts like a spreadsheet formula: kept as text"))
    table.rows.append((line, {column: _unquoted(cell) for column, cell in values.items()}))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _safe(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) and not _number(cell) else cell


def _unquoted(cell: str) -> str:
    return cell[1:] if _QUOTED.match(cell) and not _number(cell) else cell


def _number(cell: str) -> bool:
    return re.fullmatch(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?", cell) is not None
