"""A difference, from its configuration to the files of its run: end states, ladder, result, report."""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nessampler._words import state_labels
from nessampler.errors import InputError
from nessampler.methods.difference import Difference, free_energy
from nessampler.methods.effort import Effort, Training
from nessampler.methods.interpolation import Interpolation
from nessampler.methods.ledger import Prices
from nessampler.plots import convergence_curve
from nessampler.runs.config import DifferenceConfig
from nessampler.runs.difference_shown import evidence_of
from nessampler.runs.directory import RunDirectory
from nessampler.runs.listener import Listener
from nessampler.runs.page import save_figures, write_report
from nessampler.runs.prepared import Prepared
from nessampler.runs.report import compose
from nessampler.runs.result import to_dict
from nessampler.runs.target_problem import check_targets, prepare_targets

__all__ = ["carry_out_difference", "check_difference", "effort_of"]


def check_difference(config: DifferenceConfig, folder: Path) -> None:
    """Everything that can be found wrong before anything is created."""
    if config.molecular:
        _molecular().check_molecular(config, folder)
    else:
        check_targets(config, folder)


def carry_out_difference(config: DifferenceConfig, directory: RunDirectory, listener: Listener) -> dict[str, Any]:
    """Sample both ends, climb the ladder, write the files; the contents of `result.json` are returned."""
    started = time.perf_counter()
    prepared = _prepare(config, directory.path, listener)
    sampled = time.perf_counter()
    try:
        result = _estimate(config, prepared, directory.path, listener)
        seconds = {"endstates": sampled - started, "total": time.perf_counter() - started}
        table = to_dict(config, prepared, result, seconds, version("nessampler"))
        _write(directory, table, result, prepared)
    finally:
        prepared.close()
    return table


def _prepare(config: DifferenceConfig, out: Path, listener: Listener) -> Prepared:
    if not config.molecular:
        return prepare_targets(config, out, say=listener.say, progress=listener.advance)
    listener.say(f"sampling {config.state_a.label} and {config.state_b.label} by molecular dynamics")
    return _molecular().prepare_molecular(config, out, out, listener.advance)


def _molecular() -> Any:
    try:
        from nessampler.runs import molecular_problem
    except ImportError as error:
        raise InputError(
            f"molecular systems need OpenMM and mdtraj ({error}); install them with pip install 'nessampler[molecular]'"
        ) from error
    return molecular_problem


def _estimate(config: DifferenceConfig, prepared: Prepared, out: Path, listener: Listener) -> Difference:
    return free_energy(
        prepared.target_a,
        prepared.target_b,
        prepared.samples_a,
        prepared.samples_b,
        method=config.run.method,
        coordinates=prepared.coordinates,
        seed=config.run.seed,
        effort=effort_of(config),
        endstate_evaluations=prepared.evaluations,
        endstate_flags=prepared.flags,
        say=listener.say,
        progress=listener.advance,
        report=listener.report,
        checkpoint=out / "training.safetensors",
    )


def effort_of(config: DifferenceConfig) -> Effort:
    """What the file allows the ladder to spend."""
    ladder = config.ladder
    return Effort(
        blocks=ladder.blocks,
        fields_steps=ladder.fields_steps,
        switching_steps=ladder.switching_steps,
        tuning_samples=ladder.tuning_samples,
        feat=Training(
            steps=ladder.feat.training_steps,
            learning_rate=ladder.feat.learning_rate,
            width=ladder.feat.width,
            depth=ladder.feat.depth,
            sampling_steps=ladder.feat.sampling_steps,
            stopping=ladder.feat.stopping,
            trunks=ladder.feat.trunks,
            interpolation=Interpolation.named(
                ladder.feat.interpolant,
                gamma=ladder.feat.gamma,
                strength=ladder.feat.strength,
                coupling=ladder.feat.coupling,
                pace=ladder.feat.pace,
                transfer=ladder.feat.transfer,
            ),
            informed=ladder.feat.informed,
            refine_steps=ladder.feat.refine_steps,
        ),
        prices=Prices(config.state_a.relative_cost, config.state_b.relative_cost, ladder.network_cost),
    )


def _write(directory: RunDirectory, table: dict, result: Difference, prepared: Prepared) -> None:
    evidence = evidence_of(result, prepared)
    directory.write_model(result.state)
    directory.write_metrics(result.metrics)
    directory.write_works(result, evidence.groups())
    report = compose(
        table,
        {r.name: (r.works.forward, r.works.reverse) for r in result.rungs},
        metrics=result.metrics,
        convergence=convergence_curve(*result.rung.works),
        along=evidence.along,
        panels=evidence.panels(state_labels(table)),
        config=(directory.path / "config.toml").read_text(encoding="utf-8"),
    )
    write_report(report, directory.path / "report.html")
    save_figures(report, directory.path)
    directory.write_json("result.json", table)  # last: its presence says that the run is finished
