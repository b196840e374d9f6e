"""`nessampler run`: from a system to an answer and a run directory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nessampler.commands._progress import Progress, as_it_is

__all__ = ["run"]


def run(
    system: Annotated[str, typer.Argument(help="A name from `nessampler list`, a folder, or a system.toml.")],
    method: Annotated[
        str | None,
        typer.Option(
            help="Of a difference: plain, map, fields, switching, feat, tfep; "
            "of a density: ais, smc, pt, lsq, nets; auto."
        ),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="smoke, quick or full.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; by default runs/SYSTEM-METHOD-PRESET-SEED.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random stream.")] = None,
    device: Annotated[str | None, typer.Option(help="PyTorch device for networks and walkers.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print result.json on standard output.")] = False,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run the Python that the system names; read it first.")
    ] = False,
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
        allow_code=allow_code,
    )
    chosen = config.run
    where = out or Path("runs") / f"{config.name}-{chosen.method}-{chosen.preset}-{chosen.seed}"
    try:
        with Progress(errors) as listener:
            result = carry_out(config, path.parent, where, resume=resume, listener=listener)
    except KeyboardInterrupt:
        again = f"nessampler run {where / 'config.toml'} --out {where} --resume" + " --allow-code" * allow_code
        as_it_is(errors, f"\ninterrupted; what was finished is kept. To go on: {again}")
        raise SystemExit(130) from None
    if json:
        sys.stdout.write((where / "result.json").read_text(encoding="utf-8"))
    render(result, str(where), errors if json else Console())
