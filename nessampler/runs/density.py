"""A density, from its configuration to the files of its run."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

from nessampler.methods.density.effort import DensityEffort
from nessampler.methods.density.result import Sampled
from nessampler.methods.density.sample import sample_density
from nessampler.runs.config import DensityConfig
from nessampler.runs.density_problem import PreparedDensity, prepare_density
from nessampler.runs.density_report import compose
from nessampler.runs.density_result import to_dict
from nessampler.runs.density_shown import evidence_of
from nessampler.runs.directory import RunDirectory
from nessampler.runs.listener import Listener
from nessampler.runs.page import save_figures, write_report

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
        report=listener.report,
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
    evidence = evidence_of(prepared.problem, result)
    directory.write_samples(result, seed, evidence.groups())
    report = compose(table, evidence, config=(directory.path / "config.toml").read_text(encoding="utf-8"))
    write_report(report, directory.path / "report.html")
    save_figures(report, directory.path)
    directory.write_json("result.json", table)  # last: its presence says that the run is finished
