"""What can be said of draws where true samples exist: distances, modes, energies."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance
from torch import Tensor

from nessampler.methods.density.result import Attempt
from nessampler.simulate import Ensemble
from nessampler.targets.mixture import GaussianMixture
from nessampler.targets.phi4 import Phi4
from nessampler.weights import LogWeights, systematic

__all__ = ["density_metrics", "draw_metrics", "energy_distance", "missing_modes", "mode_distance", "wasserstein"]

MATCHED = 1000  # draws: an assignment takes their cube
LARGEST_DIMENSION = 256  # beyond which distances of independent samples say nothing about their laws


def wasserstein(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> float:
    r"""$W_2$ of two samples of one size: $\min_\pi \big(\tfrac1n \sum_i |x_i - y_{\pi(i)}|^2\big)^{1/2}$.

    Two samples of the *same* law lie apart as well; compare with that.

    >>> x = torch.arange(4.0)[:, None]
    >>> wasserstein(x, x.flip(0) + 1)
    1.0
    """
    squared = cdist(x.cpu().numpy(), y.cpu().numpy(), "sqeuclidean")
    return float(np.sqrt(squared[linear_sum_assignment(squared)].mean()))


def energy_distance(
    energy: Float[Tensor, " n"], weight: Float[Tensor, " n"], true_energy: Float[Tensor, " m"]
) -> float:
    """$W_1$ of the energies of weighted walkers and of true samples, in kT."""
    return float(wasserstein_distance(energy.cpu(), true_energy.cpu(), weight.cpu()))


def mode_distance(share: Float[Tensor, " k"], true_share: Float[Tensor, " k"]) -> float:
    """Total variation between the weights of modes: 0 equal, 1 disjoint.

    >>> mode_distance(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]))
    0.5
    """
    return float(0.5 * (share - true_share).abs().sum())


def missing_modes(share: Float[Tensor, " k"]) -> int:
    """Modes without any weight."""
    return int((share <= 0).sum())


def density_metrics(attempt: Attempt, target: object, seed: int) -> dict[str, float | None]:
    """Everything that a method, the target and its samples allow to measure."""
    annealing, bounds = attempt.annealing, attempt.bounds
    return {
        "ess": attempt.log_z.ess,
        # Of particles that were selected on their way, weights at the end say nothing of how many are independent.
        "effective_draws": None if attempt.name == "smc" else attempt.log_z.ess * attempt.log_z.n,
        "ess_reverse": None if attempt.reverse is None else attempt.reverse.ess,
        "elbo": None if annealing is None else annealing.base_log_z + float(attempt.ensemble.log_weight.mean()),
        "eubo": None if bounds is None else bounds.upper,
        **attempt.diagnostics,
        **draw_metrics(attempt.ensemble, target, seed),
    }


def draw_metrics(ensemble: Ensemble, target: object, seed: int) -> dict[str, float | None]:
    """What draws, weighted or not, tell of themselves; names end in their unit where they have one."""
    found: dict[str, float | None] = {}
    if not bool(torch.isfinite(ensemble.log_weight).any()):
        return found
    weight = LogWeights(ensemble.log_weight).normalized
    if isinstance(target, Phi4):
        (m, m_error), (g, g_error) = (ensemble.expect(f) for f in (_absolute, Phi4.two_point))
        found |= {"magnetisation": float(m), "magnetisation_error": float(m_error)}
        found |= {"two_point_half": float(g[-1]), "two_point_half_error": float(g_error[-1])}
    if not hasattr(target, "sample"):
        return found
    generator = torch.Generator().manual_seed(seed)
    true, other = (target.sample(MATCHED, generator=generator).to(ensemble.x) for _ in range(2))  # pyright: ignore[reportAttributeAccessIssue]
    found["energy_w1_kT"] = energy_distance(
        target.energy(ensemble.x),  # pyright: ignore[reportAttributeAccessIssue]
        weight,
        target.energy(true),  # pyright: ignore[reportAttributeAccessIssue]
    )
    if true[0].numel() <= LARGEST_DIMENSION:
        chosen = systematic(weight, generator=generator)
        draws = ensemble.x[chosen[torch.randperm(len(chosen), generator=generator, device=generator.device)[:MATCHED]]]
        if len(draws) == MATCHED:
            found |= {"w2": wasserstein(draws, true), "w2_of_true_samples": wasserstein(other, true)}
    if isinstance(target, GaussianMixture):
        share = torch.zeros_like(target.weights).index_add_(0, target.modes(ensemble.x), weight)
        found |= {"modes_missing": missing_modes(share), "modes_tv": mode_distance(share, target.weights)}
    return found


def _absolute(x: Tensor) -> Tensor:
    return Phi4.magnetisation(x).abs()
