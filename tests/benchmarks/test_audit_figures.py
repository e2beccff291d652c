"""The figures of the audit count rows that are really there."""

from pathlib import Path

import audit as bench
import pytest
from audits import configured, opened


def test_every_way_is_measured_on_a_log_that_is_whole(tmp_path: Path) -> None:
    figures = bench.measure(tmp_path, 200)
    assert [(figure.what, figure.rows) for figure in figures] == [
        ("append, 64 callers that wait", 200), ("append, nobody waits", 200), ("verify", 400),
    ]  # fmt: skip
    assert all(figure.rows_per_s > 0 for figure in figures)


def test_a_missing_row_ends_the_run(tmp_path: Path) -> None:
    with opened(configured(tmp_path)) as log:
        log.fill(3)
        with pytest.raises(SystemExit, match="4 rows were written, 3 are there"):
            bench.check(log.store, log.config, 4)
