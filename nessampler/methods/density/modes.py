"""A base made of the modes that downhill searches find, each with its own curvature."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.methods.density.bases import Base, hessian_by_autograd, local_mass
from nessampler.targets import Target, energy_and_score
from nessampler.targets.covariance_mixture import CovarianceMixture

__all__ = ["laplace_mixture"]

SAME = 0.5  # squared distance from a mode, in its own widths, within which a search has found it again
NEGLIGIBLE = 20.0  # nats of Laplace's evidence behind the largest, where a mode is not worth a component
MOST_MODES = 256
ITERATIONS = 500  # of one search
FLAT = 1e-6  # of the largest curvature, below which the smallest is none: searches end only nearly at a mode


def laplace_mixture(
    target: Target,
    starts: Float[Tensor, "n d"],
    *,
    inflation: float = 1.0,
    hessian: Callable[[Tensor], Tensor] | None = None,
    generator: torch.Generator,
    say: Callable[[str], None] = lambda _: None,
) -> Base:
    r"""The mixture of normals about all modes that searches from many starts reach.

    $$q(x) = \sum_k w_k\, \mathcal N(x; x_k, c^2 H_k^{-1}), \qquad w_k \propto e^{-U(x_k)}\, |H_k|^{-1/2},$$

    with the curvature $H_k = \nabla\nabla U(x_k)$ at mode $x_k$ and Laplace's evidence as its weight. Searches are
    L-BFGS of SciPy. A mode that no start fell into is missing from the base; starts as wide as the target, and walkers
    carried back from samples of it, are the guards.

    | symbol | argument | |
    |---|---|---|
    | | `target` | twice differentiable, of vectors |
    | | `starts` | of the searches, `(n, d)` |
    | $c$ | `inflation` | widens every component |
    | $H$ | `hessian` | of one point, `(d,)` to `(d, d)`; by autograd where None |
    | | `generator` | for the draws that set the mass |
    | | `say` | told how many modes there are |

    Raises:
        InputError: walkers that are not vectors, a rugged landscape of more than 256 modes, or no mode of positive
            curvature.

    References:
        Tierney & Kadane, Accurate approximations for posterior moments and marginal densities, 1986, J. Am. Stat.
        Assoc. 81, 82; Nocedal & Wright, Numerical Optimization, 2006, section 7.2 (L-BFGS).

    Example:
        >>> from nessampler.targets.mixture import GaussianMixture
        >>> means = torch.tensor([[-5.0, 0.0], [5.0, 0.0]])
        >>> target = GaussianMixture(means, torch.ones(2), torch.tensor([0.25, 0.75]))
        >>> generator = torch.Generator().manual_seed(0)
        >>> base = laplace_mixture(target, 5 * torch.randn(20, 2, generator=generator), generator=generator)
        >>> base.target.weights.sort().values
        tensor([0.2500, 0.7500], dtype=torch.float64)
    """
    if len(target.event_shape) != 1 or starts.ndim != 2 or starts.shape[1:] != target.event_shape:
        raise InputError(
            f"modes are searched among vectors, from starts (n, {target.event_shape.numel()}): got walkers of shape "
            f"{tuple(target.event_shape)} and starts of {tuple(starts.shape)}; use the pilot base"
        )
    hessian = hessian or hessian_by_autograd(target)
    ends = [_downhill(target, x) for x in starts.double()]
    found: list[_Mode] = []
    flat = 0
    for energy, x in sorted(ends, key=lambda end: end[0]):
        if any(mode.holds(x) for mode in found):
            continue
        mode = _Mode.at(x, energy, hessian(x))
        if mode is None:
            flat += 1
            continue
        found.append(mode)
        if len(found) > MOST_MODES:
            raise InputError(
                f"a Laplace mixture is for a few modes: {len(starts)} searches found more than {MOST_MODES}; use a "
                "learned base, which fits families to particles instead"
            )
    if not found:
        raise InputError(
            f"a Laplace mixture needs a mode of positive curvature: none of {len(starts)} searches ended in one "
            f"({flat} in flat places); use a learned or pilot base"
        )
    best = max(mode.evidence for mode in found)
    kept = [mode for mode in found if mode.evidence > best - NEGLIGIBLE]
    say(f"{len(starts)} searches found {len(found)} modes, {len(kept)} of weight")
    weights = torch.tensor([mode.evidence for mode in kept], dtype=torch.float64).softmax(0)
    covariances = torch.stack([inflation**2 * torch.cholesky_inverse(mode.factor) for mode in kept])
    density = CovarianceMixture(torch.stack([mode.x for mode in kept]), covariances, weights)
    return Base(density, local_mass(density, generator=generator))


class _Mode:
    """A minimum of U, the Cholesky factor of the curvature there, and Laplace's evidence up to a constant."""

    def __init__(self, x: Tensor, energy: float, factor: Tensor) -> None:
        self.x, self.factor = x, factor
        self.evidence = -energy - float(factor.diagonal().log().sum())

    @classmethod
    def at(cls, x: Tensor, energy: float, curvature: Tensor) -> _Mode | None:
        """None where the curvature is not positive."""
        if not bool(torch.isfinite(curvature).all()):
            return None
        values = torch.linalg.eigvalsh(curvature)
        if not float(values[0]) > FLAT * float(values[-1]):
            return None
        return cls(x, energy, torch.linalg.cholesky(curvature))

    def holds(self, x: Tensor) -> bool:
        """Whether x is this mode again, within what searches leave."""
        return float((self.factor.mT @ (x - self.x)).square().sum()) < SAME


def _downhill(target: Target, x: Tensor) -> tuple[float, Tensor]:
    from scipy.optimize import minimize

    def function(y: np.ndarray) -> tuple[float, np.ndarray]:
        energy, score = energy_and_score(target, torch.from_numpy(y)[None])
        value = float(energy)
        return (value if math.isfinite(value) else math.inf), -score[0].numpy()

    result = minimize(function, x.numpy(), jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
    return float(result.fun), torch.from_numpy(result.x)
