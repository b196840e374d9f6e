"""What a run of a density shows of its samples: magnetisation and correlations of a lattice, else two coordinates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from nessampler.methods.density.problem import DensityProblem
from nessampler.methods.density.result import Sampled
from nessampler.methods.density.shown import along_path_of, samples_of, weights_of
from nessampler.methods.ends import generator_for
from nessampler.plots import Lattice, Samples
from nessampler.runs.density_evidence import Evidence
from nessampler.targets.phi4 import Phi4
from nessampler.weights import LogWeights

__all__ = ["evidence_of"]

MOST_SHOWN = 4096


def evidence_of(problem: DensityProblem, result: Sampled) -> Evidence:
    """The arrays behind the figures of a result."""
    known = bool(torch.isfinite(result.log_weight).any())
    lattice = _lattice(problem.target, result) if known and isinstance(problem.target, Phi4) else None
    return Evidence(
        weights_of(result),
        along_path_of(result),
        None if lattice is not None else _samples(problem, result),
        lattice,
        result.metrics,
    )


def _samples(problem: DensityProblem, result: Sampled) -> Samples | None:
    """Exact draws beside the walkers where the target has them."""
    exact = None
    if problem.target_samples is not None and problem.origin == "exact":
        exact = problem.target_samples(min(MOST_SHOWN, len(result.x)), generator_for(0, "figure"))
    return samples_of(result, generator=generator_for(0, "figure", result.x.device), exact=exact)


def _lattice(target: Phi4, result: Sampled) -> Lattice:
    return Lattice(
        target.magnetisation(result.x).cpu().numpy(),
        LogWeights(result.log_weight).normalized.cpu().numpy(),
        _expected(result, lambda x: torch.stack([m := target.magnetisation(x), m.abs(), m**2], -1)),
        _expected(result, target.two_point),
    )


def _expected(result: Sampled, function: Callable[[Tensor], Tensor]) -> tuple[np.ndarray, np.ndarray]:
    mean, error = result.expect(lambda x: _in_chunks(function, x))
    return mean.cpu().numpy(), error.cpu().numpy()


def _in_chunks(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Fourier transforms of all walkers at once would need several times their memory."""
    return torch.cat([function(part) for part in x.split(512)])
