"""A method on a difference, for a budget of evaluations."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nessampler.bench.clock import cpu_seconds
from nessampler.bench.difference_sizes import scaled, size_of_ends, trials_file
from nessampler.bench.ends import TOOK, ends_folder, sampled_ends
from nessampler.bench.origin import origin_of
from nessampler.bench.peers import DIFFERENCE_PEERS
from nessampler.bench.preparations import Preparation
from nessampler.bench.problem import digest_of
from nessampler.bench.row import Row
from nessampler.bench.rung import climbed
from nessampler.bench.staged_mbar import staged_outcome
from nessampler.bench.trial import stored
from nessampler.errors import InputError
from nessampler.runs.config import DifferenceConfig

__all__ = ["difference_preparation", "difference_row"]


def difference_row(
    config: DifferenceConfig,
    folder: Path,
    method: str,
    budget: int | None,
    out: Path,
    origin: Mapping[str, Any] | None = None,
) -> Row:
    """End states and a rung for about `budget` evaluations, each state at its relative cost.

    A few first runs from another seed find what costs once and what each sample costs, see `sizes.trials`, and are not
    counted. Without a budget the sizes are those of the preset. Ends of a molecule are of one size, and the same
    samples, for all rungs of a seed; each is charged for them. Staged MBAR has the smallest ends that are accepted, and
    spends what they leave on its own states.

    Args:
        out: where end states of molecules are kept, and what first runs found.
        origin: of both, see `origin_of`; by default of the configuration.

    Raises:
        InputError: staged MBAR without a budget, or with one that its ends use up.
    """
    if method in DIFFERENCE_PEERS:
        return DIFFERENCE_PEERS[method](config, folder, budget)
    if method == "staged" and budget is None:
        raise InputError("staged MBAR has no size of its own: give --budget")
    origin = origin or origin_of(config.run.preset, problem=digest_of(config, folder))
    scale = size_of_ends(config, folder, method, budget, out, origin)
    sized, where = scaled(config, scale), ends_folder(config, scale, out)
    ends = sampled_ends(sized, folder, where, origin)
    started, busy = time.perf_counter(), cpu_seconds()
    if method == "staged" and budget is not None:
        found = staged_outcome(sized, folder, budget, where, origin)
    else:
        found = climbed(sized, folder, method, where, origin)
    return Row.of_cell(
        config,
        method,
        budget,
        chosen=found.chosen,
        value=found.estimate.delta_f,
        std_error=found.estimate.std_error,
        evaluations=found.cost,
        fields=found.fields,
        seconds=ends["seconds"] + time.perf_counter() - started,
        cpu_seconds=ends["cpu_seconds"] + cpu_seconds() - busy,
        metrics=found.metrics,
        flags=found.flags,
        verdict=found.verdict,
    )


def difference_preparation(
    config: DifferenceConfig, folder: Path, method: str, budget: int | None, out: Path, origin: Mapping[str, Any]
) -> Preparation | None:
    """Trials that size a cell, then the end states of a molecule, where they are not there yet.

    Where ends cannot be sized without trials either, as without OpenMM, sizing them is what fails and goes on record.
    """
    if method in DIFFERENCE_PEERS or (method == "staged" and budget is None):  # which is refused
        return None
    file = trials_file(config, method, budget, out)
    if file is not None and stored(file, origin) is None:
        what = f"sizing {config.name}" + ("" if config.molecular else f" for {method}")
        return Preparation(what, file, lambda tell: size_of_ends(config, folder, method, budget, out, origin, tell))
    if not config.molecular:
        return None
    try:
        scale = size_of_ends(config, folder, method, budget, out, origin)  # of trials whose origin is right, see above
    except InputError:
        what, file = f"sizing {config.name} for {method}", out / "trials" / f"{config.name}--{method}.json"
        return Preparation(what, file, lambda _: size_of_ends(config, folder, method, budget, out, origin))
    sized, where = scaled(config, scale), ends_folder(config, scale, out)
    if stored(where / TOOK, origin) is not None:
        return None
    what = f"end states of {config.name}, seed {config.run.seed}"
    return Preparation(what, where / TOOK, lambda tell: sampled_ends(sized, folder, where, origin, tell))
