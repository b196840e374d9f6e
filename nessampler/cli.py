"""The command line."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nessampler.errors import InputError

__all__ = ["app", "main"]

app = typer.Typer(
    help="Free energies and sampling by learned non-equilibrium transport.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
METHODS = "auto; of a difference plain, map, fields, switching, feat or tfep; of a density ais, smc, lsq or nets."


class _Progress:
    """Lines on standard error: what is being done, how far, and how long it will take."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._last = 0.0
        self._stage: tuple[float, int] | None = None

    def say(self, text: str) -> None:
        """One line, with the seconds since the start."""
        seconds = time.monotonic() - self._started
        self._console.print(f"[dim]{seconds:6.0f} s[/dim]  {escape(text)}", highlight=False, soft_wrap=True)

    def advance(self, done: int, total: int, what: str) -> None:
        """At most one line every five seconds."""
        now = time.monotonic()
        self._stage = self._stage or (now, done)
        if now - self._last < 5 and done < total:
            return
        self._last = now
        since, first = self._stage
        left = (total - done) * (now - since) / (done - first) if done > first else None
        remaining = "" if left is None or done == total else f", about {left:.0f} s left"
        self.say(f"{what}: {done / total:.0%}{remaining}")


@app.callback()
def _root() -> None:
    """Free energies and sampling by learned non-equilibrium transport."""


@app.command("list")
def list_systems() -> None:
    """Show the catalogue of ready-to-run systems."""
    from nessampler.runs import catalogue
    from nessampler.runs.config import load

    table = Table(box=None, header_style="bold")
    for heading, whole in (("system", True), ("kind", True), ("what", False), ("reference", False)):
        table.add_column(heading, no_wrap=whole)
    for name in catalogue.names():
        entry = load(catalogue.root() / name / "system.toml")
        states = " → ".join(entry[state].get("label", "?") for state in ("state_a", "state_b") if state in entry)
        title = ": ".join(filter(None, [entry.get("title", ""), states]))
        table.add_row(name, entry.get("kind", "?"), title, _reference(entry))
    Console().print(table)


def _reference(entry: Mapping[str, Any]) -> str:
    from nessampler.runs._words import plus_minus

    reference = entry.get("reference")
    if not reference:
        return "none"
    quantity = "log Z" if entry.get("kind") == "density" else "ΔF"
    value = plus_minus(reference) if reference["std_error"] else f"{reference['value']:.3f} (exact)"
    return f"{quantity} = {value}"


@app.command()
def run(
    system: Annotated[str, typer.Argument(help="A name from `nessampler list`, a folder, or a system.toml.")],
    method: Annotated[
        str | None,
        typer.Option(
            help="Of a difference: plain, map, fields, switching, feat, tfep; of a density: ais, smc, lsq, nets; auto."
        ),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="smoke, quick or full.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; by default runs/SYSTEM-METHOD-PRESET-SEED.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random stream.")] = None,
    device: Annotated[str | None, typer.Option(help="PyTorch device for networks and walkers.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print result.json on standard output.")] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of system.toml.")
    ] = None,
) -> None:
    """Estimate what a system asks for, with error bars, bounds and a verdict."""
    from nessampler.runs import catalogue
    from nessampler.runs.config import load, resolve
    from nessampler.runs.run import run as carry_out
    from nessampler.runs.summary import render

    errors = Console(stderr=True)
    path = catalogue.find(system)
    asked = {"method": method, "seed": seed, "device": device}
    config = resolve(
        load(path),
        run={key: value for key, value in asked.items() if value is not None},
        preset=preset,
        settings=settings or (),
        source=str(path),
    )
    chosen = config.run
    where = out or Path("runs") / f"{config.name}-{chosen.method}-{chosen.preset}-{chosen.seed}"
    try:
        result = carry_out(config, path.parent, where, resume=resume, listener=_Progress(errors))
    except KeyboardInterrupt:
        again = f"nessampler run {where / 'config.toml'} --out {where} --resume"
        errors.print(
            f"\ninterrupted; what was finished is kept. To go on: {again}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        raise SystemExit(130) from None
    if json:
        sys.stdout.write((where / "result.json").read_text(encoding="utf-8"))
    render(result, str(where), errors if json else Console())


def main() -> None:
    """Entry point: what the user can mend is printed without a traceback, with exit status 2."""
    try:
        app()
    except InputError as error:
        Console(stderr=True).print(f"[bold red]error:[/bold red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
