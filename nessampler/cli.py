"""The command line: commands by name, and what the user can mend in one line."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.markup import escape

from nessampler.commands.bench import bench
from nessampler.commands.compare import compare
from nessampler.commands.estimate import estimate
from nessampler.commands.list_systems import list_systems
from nessampler.commands.new import new
from nessampler.commands.report import report
from nessampler.commands.run import run
from nessampler.commands.show import show
from nessampler.errors import InputError

__all__ = ["app", "main"]

app = typer.Typer(
    help="Free energies and sampling by learned non-equilibrium transport.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("list")(list_systems)
app.command("show")(show)
app.command("new")(new)
app.command("run")(run)
app.command("bench")(bench)
app.command("estimate")(estimate)
app.command("report")(report)
app.command("compare")(compare)


def main() -> None:
    """Entry point: what the user can mend is printed without a traceback, with exit status 2.

    Example:
        >>> from unittest.mock import patch
        >>> with patch("sys.argv", ["nessampler", "report", "no-such-run"]):
        ...     main()
        Traceback (most recent call last):
            ...
        SystemExit: 2
    """
    try:
        app()
    except InputError as error:
        Console(stderr=True).print(f"[bold red]error:[/bold red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise SystemExit(2) from None
