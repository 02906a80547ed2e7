"""The entry point of `wan`: the commands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import platform
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from wan_fixes import __version__
from wan_fixes.cli import (
    cache,
    check,
    discover,
    errors,
    flow,
    host,
    inspect,
    models,
    runs,
    serve,
    stats,
    trace,
    train,
)
from wan_fixes.cli import report as run_report
from wan_fixes.cli import ui as window
from wan_fixes.cli.console import ExitCode, out, report, set_up_streams


class ReportingGroup(TyperGroup):
    """Turns what a command raises into a message on standard error and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, Exception) as error:
            if is_exit_or_usage(error):
                raise
            raise typer.Exit(report(error)) from error


def is_exit_or_usage(error: BaseException) -> bool:
    """Whether Typer itself knows what to do with this: an exit, or a fault in the command line."""
    return isinstance(error, typer.Exit | typer.Abort) or hasattr(error, "format_message")


app = typer.Typer(
    cls=ReportingGroup,
    help="Train WAN video LoRAs from OneTrainer presets, on clips that are checked first.",
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def _root(
    ctx: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if show_version:
        version()
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


app.command("train")(train.train)
app.command("check")(check.check)
app.command("discover")(discover.discover)
app.command("stats")(stats.stats)
app.command("errors")(errors.errors)
app.command("inspect")(inspect.inspect)
app.command("runs")(runs.runs)
app.command("flow")(flow.flow)
app.command("report")(run_report.report)
app.command("trace")(trace.trace)
app.command("ui")(window.ui)
app.command("serve")(serve.serve)
app.add_typer(cache.app, name="cache")
app.add_typer(models.app, name="models")
app.command("enable")(host.enable)
app.command("disable")(host.disable)
app.command("doctor")(host.doctor)


@app.command()
def version() -> None:
    """Show the version of wan-fixes and of Python."""
    out.print(f"wan-fixes {__version__}, Python {platform.python_version()} on {platform.platform()}")


def run(arguments: list[str]) -> int:
    """Run the command line with these arguments; return the exit code."""
    try:
        app(arguments, prog_name="wan")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    return ExitCode.OK


def main() -> None:
    """Run the command line with the arguments of the process, and leave it."""
    set_up_streams()
    sys.exit(run(sys.argv[1:]))
