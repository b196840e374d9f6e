"""A finished run of a density, opened again: more walkers by the transport that it solved or trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError

from nessampler.errors import InputError
from nessampler.methods.density.again import rebuilt
from nessampler.methods.density.annealing import Annealing
from nessampler.runs.config import DensityConfig, load, resolve
from nessampler.runs.density_problem import prepare_density

__all__ = ["reopen"]

T = TypeVar("T")


def reopen(run: str | Path, *, allow_code: bool = False) -> Annealing:
    """The frozen transport of a run directory: no pilot, no training, only walkers.

    A base that was fitted by chains is fitted again from the run's own seed, which gives the same base.

    Args:
        run: the directory, as `nessampler run` left it.
        allow_code: whether Python that its `config.toml` names may be run.

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
    config = resolve(load(folder / "config.toml"), source=str(folder / "config.toml"), allow_code=allow_code)
    if not isinstance(config, DensityConfig):
        raise InputError(f"only runs of densities are opened again: {folder} holds a {config.kind}")
    chosen = _read(folder / "result.json", lambda content: str(json.loads(content)["chosen"]))
    state = _read(folder / "model.safetensors", safetensors.torch.load)
    problem = prepare_density(config, folder).problem
    return rebuilt(problem, chosen, state, torch.device(config.run.device))


def _read(path: Path, read: Callable[[bytes], T]) -> T:
    try:
        return read(path.read_bytes())
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(
            f"{path} must be what a finished run left: it could not be read ({error}); run again"
        ) from error
