"""The commands of `fleet`, put together."""

import typer

from master_mcp.cli import (
    approvals,
    audit,
    backup,
    breaker,
    calls,
    config,
    doctor,
    install,
    keys,
    logs,
    new,
    policy,
    reveal,
    servers,
    stdio,
    up,
    workflow,
)

app = typer.Typer(
    name="fleet",
    help="One endpoint for every tool: start the fleet, look at it, call it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(up.up)
app.command()(calls.status)
app.command()(calls.tools)
app.command()(calls.describe)
app.command()(calls.call)
app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")
app.add_typer(policy.app, name="policy")
app.add_typer(approvals.app, name="approvals")
app.add_typer(workflow.app, name="workflow")
app.command()(logs.logs)
app.add_typer(config.app, name="config")
app.command()(new.new)
app.command()(install.install)
app.command()(stdio.stdio)
app.command()(doctor.doctor)
app.command()(backup.backup)
app.command()(backup.restore)
app.add_typer(breaker.app, name="breaker")
app.add_typer(reveal.app, name="secrets")
app.add_typer(servers.app, name="servers")
