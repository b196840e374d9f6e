"""A finished run of a density, opened again: more walkers by the transport that it solved or trained."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from nessampler.errors import InputError
from nessampler.methods.density.again import rebuilt
from nessampler.methods.density.annealing import Annealing
from nessampler.runs.config import DensityConfig, load, resolve
from nessampler.runs.density_problem import prepare_density

__all__ = ["reopen"]


def reopen(run: str | Path) -> Annealing:
    """The frozen transport of a run directory: no pilot, no training, only walkers.

    A base that was fitted by chains is fitted again from the run's own seed, which gives the same base.

    Args:
        run: the directory, as `nessampler run` left it.

    Raises:
        InputError: no finished run of a density there, or one without a frozen transport (SMC).

    Example:
        >>> reopen("runs/nowhere")
        Traceback (most recent call last):
        nessampler.errors.InputError: a run to be opened again holds config.toml, result.json and model.safetensors...
    """
    folder = Path(run)
    missing = [n for n in ("config.toml", "result.json", "model.safetensors") if not (folder / n).is_file()]
    if missing:
        raise InputError(
            f"a run to be opened again holds config.toml, result.json and model.safetensors: {folder} lacks "
            f"{', '.join(missing)}; finish it with nessampler run {folder / 'config.toml'} --out {folder} --resume"
        )
    config = resolve(load(folder / "config.toml"), source=str(folder / "config.toml"))
    if not isinstance(config, DensityConfig):
        raise InputError(f"only runs of densities are opened again: {folder} holds a {config.kind}")
    chosen = json.loads((folder / "result.json").read_text(encoding="utf-8"))["chosen"]
    state = load_file(folder / "model.safetensors")
    problem = prepare_density(config, folder).problem
    return rebuilt(problem, chosen, state, torch.device(config.run.device))
