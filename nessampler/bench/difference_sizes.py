"""How large the end states of a cell are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nessampler.bench.ends import ends_folder
from nessampler.bench.rung import climbed
from nessampler.bench.sizes import scale_of, smallest_accepted, trials
from nessampler.bench.trial import TRIAL_SEED, trial
from nessampler.bench.workers import Tell
from nessampler.errors import InputError
from nessampler.runs.config import DifferenceConfig
from nessampler.runs.target_problem import check_targets
from nessampler.runs.units import parse

__all__ = ["scaled", "size_of_ends", "smallest_ends", "trials_file"]

ENDS_BY = "map"  # whose trials size the ends of a molecule, which are most of its cost, for all methods
FEWEST_SAMPLES = 50  # of an exact end, as in a system's file


def size_of_ends(
    config: DifferenceConfig,
    folder: Path,
    method: str,
    budget: int | None,
    out: Path,
    origin: Mapping[str, Any],
    tell: Tell = lambda *_: None,
) -> float:
    """Of the ends, as a multiple of the preset's; for staged MBAR, whose chains only start there, the smallest."""
    if budget is None:
        return 1.0
    file = trials_file(config, method, budget, out)
    if file is None:
        return smallest_ends(config, folder)
    by = ENDS_BY if config.molecular else method
    return scale_of(trial(file, origin, lambda: _trials(config, folder, by, budget, out, origin, tell)), budget)


def trials_file(config: DifferenceConfig, method: str, budget: int | None, out: Path) -> Path | None:
    """Where what trials found is kept; None where there are none."""
    if budget is None or method == "staged":
        return None
    return out / "trials" / (f"{config.name}.json" if config.molecular else f"{config.name}--{method}.json")


def _trials(
    config: DifferenceConfig,
    folder: Path,
    method: str,
    budget: int,
    out: Path,
    origin: Mapping[str, Any],
    tell: Tell,
) -> Mapping[str, Any]:
    reseeded = _reseeded(config, TRIAL_SEED)

    def cost(scale: float) -> float:
        def told(done: int, total: int, what: str) -> None:
            tell(done, total, f"{what}, {scale:g} of the preset")

        where = ends_folder(reseeded, scale, out)
        return climbed(scaled(reseeded, scale), folder, method, where, origin, told).cost

    return trials(cost, budget, smallest_ends(config, folder))


def smallest_ends(config: DifferenceConfig, folder: Path) -> float:
    """Of what the catalogue's checks accept; of a molecule the double, as half of its frames may be dropped later."""
    if config.molecular:
        try:
            from nessampler.runs.molecular_problem import check_frames as check
        except ImportError as error:
            raise InputError(
                f"molecular systems need OpenMM and mdtraj ({error}); install them with pip install "
                "'nessampler[molecular]'"
            ) from error
    else:

        def check(config: DifferenceConfig) -> object:
            return check_targets(config, folder)

    def accepted(scale: float) -> bool:
        try:
            check(scaled(config, scale / 2 if config.molecular else scale))
        except InputError:
            return False
        return True

    return smallest_accepted(accepted)


def scaled(config: DifferenceConfig, factor: float) -> DifferenceConfig:
    """As many samples of each end times `factor`: independent ones, draws of chains, or lengths of MD."""

    def times(n: float) -> int:
        return max(1, round(factor * n))

    samples = config.samples.model_copy(
        update={state: max(FEWEST_SAMPLES, times(getattr(config.samples, state))) for state in "ab"}
    )
    changed: dict[str, Any] = {"samples": samples}
    if config.chains is not None:
        changed["chains"] = config.chains.model_copy(update={"draws": max(8, times(config.chains.draws))})
    lengths = {
        name: f"{factor * parse(getattr(config.md, name), 'ps')} ps" for name in ("production_a", "production_b")
    }
    changed["md"] = config.md.model_copy(update=lengths)
    return config.model_copy(update=changed)


def _reseeded(config: DifferenceConfig, seed: int) -> DifferenceConfig:
    return config.model_copy(update={"run": config.run.model_copy(update={"seed": seed})})
