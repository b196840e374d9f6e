"""A density as other packages want it: a standard normal prior and a likelihood, in numpy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nessampler.bench.clock import cpu_seconds
from nessampler.bench.metrics import draw_metrics
from nessampler.bench.row import Row
from nessampler.errors import InputError
from nessampler.estimators import Flag, r_hat
from nessampler.methods.density.chains import effective_part, slow_observables
from nessampler.methods.density.verdict import level_of
from nessampler.runs.config import DensityConfig
from nessampler.runs.density_problem import prepare_density
from nessampler.simulate import Ensemble
from nessampler.targets import Counted, Gaussian, Target, energy_and_score
from nessampler.targets.mixture import GaussianMixture
from nessampler.targets.normal import Normal
from nessampler.targets.phi4 import FreeField
from nessampler.targets.triangular_normal import TriangularNormal

__all__ = ["Evidence", "Whitened", "measured", "verdict_of"]

LOWEST = -1e300  # of a log likelihood: these packages take no −inf for granted


@dataclass(frozen=True)
class Evidence:
    """What a package says of log Z, if it does, and draws where it has any: `(chains, draws, d)`, of equal weight.

    `flags` are what its numbers would be flagged for if they were ours.
    """

    log_z: float | None
    std_error: float | None
    note: str = ""
    draws: np.ndarray | None = None
    flags: tuple[Flag, ...] = ()


class Whitened:
    r"""The likelihood $L(z) = \rho(x(z)) / q(x(z))$ where x(z) pushes a standard normal to the base q.

    $$Z = \int \rho = E_{z \sim N(0, 1)}[L(z)], \qquad
      \log L = \log\rho(x(z)) + \log|\det\partial x/\partial z| + \tfrac12 |z|^2 + \tfrac d2 \log 2\pi$$

    so that the evidence of every package is Z itself. The target counts what it is asked.

    Raises:
        InputError: a base that is no image of a normal, such as a mixture or an ordered lattice's field.
    """

    def __init__(self, base: object, target: Counted) -> None:
        self._push, self._target, self.dimension = _push(base), target, target.event_shape.numel()
        self._push(torch.zeros(1, self.dimension, dtype=torch.float64))  # what cannot be is refused here

    def at(self, z: np.ndarray) -> Tensor:
        """Where points `(n, d)` lie: x `(n, *event)`."""
        return self._push(_points(z))[0].view(-1, *self._target.event_shape)

    def log_likelihood(self, z: np.ndarray) -> np.ndarray:
        """log L of points `(n, d)`, float64."""
        points = _points(z)
        x, log_det = self._push(points)
        return _finite(log_det - self._target.energy(x.view(-1, *self._target.event_shape)).double(), points)

    def log_likelihood_and_gradient(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log L `(n,)` and its gradient `(n, d)`."""
        points = _points(z).requires_grad_()
        with torch.enable_grad():
            x, log_det = self._push(points)
        energy, score = energy_and_score(self._target, x.detach().view(-1, *self._target.event_shape))
        (gradient,) = torch.autograd.grad((x * score.double().reshape(x.shape)).sum() + log_det.sum(), points)
        points = points.detach()
        return _finite(log_det.detach() - energy.double(), points), (gradient + points).numpy()


def _push(base: object) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Standard normal points `(n, d)` to those of the base, and the logarithm of the volume that they take up."""
    if isinstance(base, GaussianMixture) and len(base.means) == 1:  # the start of a mixture path
        base = Gaussian(base.means[0], base.scales[0])
    if isinstance(base, Gaussian | Normal):
        if isinstance(base, Gaussian):
            mean, factor = base.mean.double(), torch.diag(base.scale.double())
        else:
            mean, factor = base.mean.flatten(), base.cholesky
        volume = torch.linalg.slogdet(factor)[1]
        return lambda z: (mean + z @ factor.T, volume.expand(len(z)))
    if isinstance(base, FreeField | TriangularNormal):
        return lambda z: base.push(z.view(-1, *base.event_shape))
    raise InputError(
        f"samplers of other packages start from an image of a normal: the base is a {type(base).__name__} here; choose "
        "a system with a pilot, Laplace, learned, free-field or Gaussian base"
    )


def _points(z: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(np.atleast_2d(z), dtype=np.float64))  # JAX hands out read-only arrays


def _finite(log_density: Tensor, z: Tensor) -> np.ndarray:
    ratio = log_density + 0.5 * z.square().sum(-1) + 0.5 * z.shape[1] * math.log(2 * math.pi)
    return torch.nan_to_num(ratio, nan=LOWEST, neginf=LOWEST).numpy()


def measured(
    name: str,
    config: DensityConfig,
    folder: Path,
    budget: int | None,
    run: Callable[[Whitened, Counted, int | None, int], Evidence],
) -> Row:
    """A row of a package's sampler: base as everywhere, evaluations by the target's own count.

    Args:
        run: given the problem, its counter, the evaluations that are left, and a seed.
    """
    started, busy = time.perf_counter(), cpu_seconds()
    prepared = prepare_density(config, folder)
    counted = Counted(prepared.problem.path.end)
    base = prepared.evaluations.energy + prepared.evaluations.gradient
    left = None if budget is None else budget - base
    problem = Whitened(prepared.problem.path.start, counted)
    found = run(problem, counted, left, config.run.seed)
    spent = counted.tally()
    metrics = {} if found.draws is None else _metrics(problem, prepared.problem.target, found.draws, config.run.seed)
    return Row.of_cell(
        config,
        name,
        budget,
        chosen=name,
        value=found.log_z,
        std_error=found.std_error,
        evaluations=base + spent.energy + spent.gradient,
        fields=0,
        seconds=time.perf_counter() - started,
        cpu_seconds=cpu_seconds() - busy,
        metrics=metrics,
        flags=tuple(f.code for f in found.flags),
        verdict=verdict_of(found),
        note=found.note,
    )


def verdict_of(found: Evidence) -> str:
    """By the flags, as of our own methods; none where a package gives no log Z by its nature."""
    if found.log_z is None:
        return ""
    numbers = [found.log_z, math.nan if found.std_error is None else found.std_error]
    return level_of(found.flags) if all(map(math.isfinite, numbers)) else "not trusted"


def _metrics(problem: Whitened, target: Target, draws: np.ndarray, seed: int) -> dict[str, float | None]:
    """Of draws; what compares chains, where there are several."""
    chains, n = draws.shape[:2]
    x = problem.at(draws.reshape(chains * n, -1))
    weight = torch.zeros(len(x), dtype=torch.float64)
    several = chains > 1
    found = draw_metrics(Ensemble(x, weight, (1.0,), None, several, (n,) * chains if several else ()), target, seed)
    if not several:
        return found
    slow = slow_observables(target.energy(x), x).view(3, chains, n).numpy()
    ess = effective_part(slow)
    return found | {"ess": ess, "effective_draws": ess * chains * n, "rhat": max(r_hat(series) for series in slow)}
