"""`fleet new`: a complete spoke in the checkout, entered in every place that lists spokes."""

from typing import Annotated

import typer


def new(
    number: Annotated[int, typer.Argument(min=1, max=99, help="Its number: port 8000 + number.")],
    name: Annotated[str, typer.Argument(help="Its name, such as time_series.")],
    namespace: Annotated[
        str | None, typer.Option(help="First part of its tool ids, such as infra.timeSeries; default: the name.")
    ] = None,
) -> None:
    """Write a new spoke with one working tool and its tests, ready for your own."""
    from fleetkit import settings
    from master_mcp.cli import show
    from master_mcp.cli.scaffolding import Scaffold

    scaffold = Scaffold(settings.CHECKOUT, number, name, namespace)
    for path in scaffold.write():
        show.line(f"  {path}")
    show.line(
        f"Next: python3 run_tests.py tests/{scaffold.folder}, then write your tools in {scaffold.package}/tools.py"
    )
