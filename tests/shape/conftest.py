"""The soft figures of the code, printed after the shape tests."""

import statistics

import pytest
import tree

SOFT_MODULE, SOFT_FUNCTION = 200, 40


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what is larger than it should be; tests/shape/test_code.py fails on what is larger than it may be."""
    if not any("tests/shape/" in report.nodeid for report in terminalreporter.stats.get("passed", [])):
        return
    lines = {path: tree.texts()[path].count("\n") for path in tree.modules()}
    spans = {
        f"{path}:{one.name}": tree.length(one)
        for path, found in tree.modules().items()
        for one in tree.functions(found)
    }
    tests = sum(text.count("\n") for path, text in tree.texts().items() if path.endswith(".py") and tree.is_test(path))
    write = terminalreporter.write_line
    terminalreporter.section("shape")
    write(f"modules {len(lines)}: median {statistics.median(lines.values()):.0f} lines, {over(lines, SOFT_MODULE)}")
    write(f"functions {len(spans)}: median {statistics.median(spans.values()):.0f} lines, {over(spans, SOFT_FUNCTION)}")
    write(f"tests : source = {tests} : {sum(lines.values())} lines = {tests / sum(lines.values()):.2f}")


def over(sizes: dict[str, int], soft: int) -> str:
    """Those beyond the soft limit, largest first."""
    found = sorted(((size, name) for name, size in sizes.items() if size > soft), reverse=True)
    return f"{len(found)} over {soft}" + "".join(f"\n  {size} {name}" for size, name in found)
