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
from nessampler.targets.normal import Normal

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
    r"""The likelihood $L(z) = \rho(x(z)) / q(x(z))$ where $x(z) = \mu + A z$ pushes a standard normal to the base q.

    $$Z = \int \rho = E_{z \sim N(0, 1)}[L(z)]$$

    so that the evidence of every package is Z itself. The target counts what it is asked.

    Raises:
        InputError: a base that is no normal.
    """

    def __init__(self, base: object, target: Counted) -> None:
        if isinstance(base, Gaussian):
            self._mean, self._factor = base.mean.double(), torch.diag(base.scale.double())
        elif isinstance(base, Normal):
            self._mean, self._factor = base.mean.flatten(), base.cholesky
        else:
            raise InputError(
                f"samplers of other packages start from a normal: the base is a {type(base).__name__} here; choose "
                "a system with a pilot, Laplace or Gaussian base"
            )
        self.dimension, self._target = self._mean.numel(), target
        self._normaliser = float(torch.linalg.slogdet(self._factor)[1]) + 0.5 * self.dimension * np.log(2 * np.pi)

    def at(self, z: np.ndarray) -> Tensor:
        """Where points `(n, d)` lie: x `(n, *event)`."""
        return self._points(z)[1]

    def log_likelihood(self, z: np.ndarray) -> np.ndarray:
        """log L of points `(n, d)`, float64."""
        points, x = self._points(z)
        return self._finite(-self._target.energy(x).double(), points)

    def log_likelihood_and_gradient(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log L `(n,)` and its gradient `(n, d)`."""
        points, x = self._points(z)
        energy, score = energy_and_score(self._target, x)
        gradient = score.double().flatten(1) @ self._factor + points
        return self._finite(-energy.double(), points), gradient.numpy()

    def _points(self, z: np.ndarray) -> tuple[Tensor, Tensor]:
        points = torch.from_numpy(np.array(np.atleast_2d(z), dtype=np.float64))  # JAX hands out read-only arrays
        return points, (self._mean + points @ self._factor.T).view(-1, *self._target.event_shape)

    def _finite(self, log_density: Tensor, z: Tensor) -> np.ndarray:
        ratio = log_density + 0.5 * z.square().sum(-1) + self._normaliser
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
