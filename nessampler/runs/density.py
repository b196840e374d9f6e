"""A density, from its configuration to the files of its run."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from nessampler.methods.density.result import Sampled
from nessampler.methods.density.sample import DensityEffort, sample_density
from nessampler.methods.ends import generator_for
from nessampler.runs.config import DensityConfig
from nessampler.runs.density_panels import observables
from nessampler.runs.density_problem import PreparedDensity, prepare_density
from nessampler.runs.density_report import save_figures, write_report
from nessampler.runs.density_result import to_dict
from nessampler.runs.directory import RunDirectory
from nessampler.runs.listener import Listener

__all__ = ["carry_out_density"]


def carry_out_density(config: DensityConfig, directory: RunDirectory, listener: Listener) -> dict[str, Any]:
    """Fit the base, sample, write the files; the contents of `result.json` are returned."""
    started = time.perf_counter()
    listener.say(f"{config.target.name} from a {config.base.kind} base on a {config.path.kind} path")
    prepared = prepare_density(config, directory.path, say=listener.say)
    result = sample_density(
        prepared.problem,
        method=config.run.method,
        seed=config.run.seed,
        effort=DensityEffort(**config.sampling.model_dump()),
        say=listener.say,
        progress=listener.advance,
        checkpoint=directory.path / "training.safetensors",
        device=config.run.device,
    )
    seconds = {"total": time.perf_counter() - started}
    table = to_dict(config, prepared, result, seconds, version("nessampler"))
    _write(directory, table, result, prepared, config.run.seed)
    return table


def _write(
    directory: RunDirectory, table: dict[str, Any], result: Sampled, prepared: PreparedDensity, seed: int
) -> None:
    annealing = result.attempt.annealing
    directory.write_model({} if annealing is None else annealing.state)
    directory.write_metrics(result.metrics)
    draws = _draws(result, seed)
    directory.write_samples(result, draws)
    for draw in (write_report, save_figures):
        # A figure is closed once it is drawn, so each writer gets its own.
        draw(directory.path, table, result, observables(prepared.problem, result))
    directory.write_json("result.json", table)  # last: its presence says that the run is finished


def _draws(result: Sampled, seed: int) -> Tensor | None:
    """Unweighted samples; None where every weight vanishes."""
    if not bool(torch.isfinite(result.log_weight).any()):
        return None
    return result.draws(generator=generator_for(seed, "draws", result.x.device))
