"""Problems with known answers, and what one seed of a method says about them: the whole pipeline, afresh.

No problem is Gaussian and none is symmetric, since those hide errors of sign; no exact answer is zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

import nessampler as ns
from nessampler.estimators import Bounds, FreeEnergy
from nessampler.estimators.log_z import LogZ
from nessampler.methods.effort import Effort, Training
from nessampler.methods.ends import generator_for
from nessampler.targets import AnharmonicWell, Gaussian, Target
from nessampler.targets.funnel import Funnel
from nessampler.targets.many_well import ManyWell
from nessampler.targets.mixture import random_mixture
from nessampler.targets.phi4 import FreeField, Phi4
from nessampler.targets.student import StudentMixture
from nessampler.targets.student_products import StudentProducts

__all__ = ["DENSITIES", "DIFFERENCES", "WORKS", "everything", "gamma_works", "rows"]

PHI4_LOG_Z = 2.4019629  # 4 × 4 at λ = 0.8, m² = -1: the transfer matrix of tests/calibration/test_references.py


@dataclass(frozen=True)
class Raised:
    """A density with a constant added to its energy, so that the answer is not zero."""

    target: Any
    by: float

    @property
    def event_shape(self) -> torch.Size:
        return self.target.event_shape

    @property
    def log_z(self) -> float:
        return self.target.log_z - self.by

    def energy(self, x: Tensor) -> Tensor:
        return self.target.energy(x) + self.by

    def energy_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        energy, score = self.target.energy_and_score(x)
        return energy + self.by, score

    def laplacian(self, x: Tensor) -> Tensor:
        return self.target.laplacian(x)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return self.target.sample(n, generator=generator)


@dataclass(frozen=True)
class DifferenceProblem:
    """Two densities and how many samples of each."""

    a: Any
    b: Any
    samples: tuple[int, int]
    methods: tuple[str, ...] = ("map", "fields", "switching", "feat", "auto")
    blocks: tuple[float, float, float] = (0.25, 0.2, 0.55)

    @property
    def truth(self) -> float:
        return self.a.log_z - self.b.log_z


@dataclass(frozen=True)
class DensityProblem:
    """A density, a base that covers it, and its log Z."""

    target: Any
    base: Target
    truth: float
    effort: ns.DensityEffort
    methods: tuple[str, ...] = ("ais", "smc", "lsq", "auto", "nets")


@dataclass(frozen=True)
class WorkProblem:
    """Works whose law is exact: gamma distributed dissipation, skewed, forwards and tilted backwards."""

    counts: tuple[int, int]
    shape: float
    scale: float
    memory: float = 0.0
    truth: float = 1.5
    methods: tuple[str, ...] = ("works",)


class ShallowWells(ManyWell):
    """Barriers of 2.5 kT, and the right-hand wells three times as likely."""

    quartic, quadratic, tilt = 0.4, 2.0, 0.35


def _vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _wide(dimension: int, scale: float) -> Gaussian:
    return Gaussian(torch.zeros(dimension).double(), torch.full((dimension,), scale).double())


def _students() -> tuple[Raised, Raised]:
    """Skewed and heavy-tailed: components of unequal weight, width and number of degrees of freedom."""
    a = StudentProducts(
        torch.stack([_vector(0.0, 0.0), _vector(1.2, -0.6)]),
        torch.stack([_vector(0.6, 0.8), _vector(1.2, 1.0)]),
        _vector(5.0, 8.0),
        _vector(0.65, 0.35),
    )
    b = StudentProducts(
        torch.stack([_vector(1.0, 0.8), _vector(0.0, 1.6)]),
        torch.stack([_vector(0.9, 0.5), _vector(0.6, 1.1)]),
        _vector(6.0, 5.0),
        _vector(0.7, 0.3),
    )
    return Raised(a, 0.0), Raised(b, 1.3)


def _mixtures() -> tuple[Raised, Raised]:
    a, b = (random_mixture(m, 3, scale=0.5, spread=1.2, seed=s) for m, s in ((3, 4), (4, 5)))
    return Raised(a, 0.7), Raised(b, 0.0)


WELL_2 = (
    AnharmonicWell([0.0, 0.0], stiffness=[1.0, 2.0], quartic=[0.1, 0.2], skew=[0.6, -0.4], coupling=0.5),
    AnharmonicWell([2.0, -1.5], stiffness=[3.0, 1.0], quartic=[0.3, 0.0], skew=[-0.5, 0.8], coupling=-0.4),
)
WELL_3 = (
    AnharmonicWell([0, 0, 0], stiffness=[1, 2, 4], quartic=[0.1, 0.2, 0.05], skew=[0.6, -0.4, 0.5], coupling=0.5),
    AnharmonicWell(
        [1.2, -0.8, 0.6], stiffness=[3, 1, 6], quartic=[0.3, 0.05, 0.2], skew=[-0.5, 0.8, 0.4], coupling=-0.4
    ),
)
MODES = StudentMixture(
    torch.stack([_vector(-3.0, 0.0), _vector(2.0, 1.0), _vector(0.0, 4.0)]), 0.8, 4.0, _vector(0.5, 0.3, 0.2)
)

FEW = (0.15, 0.15, 0.7)  # too few samples to fit for a mixture: Gaussian fields alone
DIFFERENCES = {
    "wells-2": DifferenceProblem(*WELL_2, (500, 500), blocks=FEW),
    "wells-3": DifferenceProblem(*WELL_3, (500, 500), blocks=FEW),
    "students": DifferenceProblem(*_students(), (500, 500), ("map", "fields", "switching")),
    "mixtures": DifferenceProblem(*_mixtures(), (400, 900), ("map", "fields", "switching", "auto")),  # unequal counts
}
EFFORT = Effort(
    fields_steps=8,
    switching_steps=6,
    tuning_samples=25,
    feat=Training(steps=8, batch_size=64, width=16, depth=2, sampling_steps=6, patience=1),  # hardly trained at all
)

SMALL = ns.DensityEffort(
    walkers=512,
    pilot_walkers=512,
    pilot_steps=6,
    steps=8,
    leapfrog_steps=2,
    reverse_walkers=400,
    nets_steps=2,
    training_walkers=320,
    flow_tolerance=5e-3,
)
WITHOUT_NETS = ("ais", "smc", "lsq", "auto")
DENSITIES = {
    "funnel": DensityProblem(Raised(Funnel(3, 0.8), -0.8), _wide(3, 1.5), 0.8, SMALL),
    "many-well": DensityProblem(ShallowWells(2), _wide(4, 1.6), ShallowWells(2).log_z, SMALL, WITHOUT_NETS),
    "student-modes": DensityProblem(Raised(MODES, 0.6), _wide(2, 4.0), -0.6, SMALL, WITHOUT_NETS),
    "phi4-4": DensityProblem(
        Phi4(4, quartic=0.8), FreeField.massive(4, mass_squared=1.0), PHI4_LOG_Z, SMALL, ("ais", "smc", "lsq", "nets")
    ),
}
WORKS = {
    "works": WorkProblem((400, 400), 1.5, 0.45),
    "works-unequal": WorkProblem((150, 900), 1.5, 0.45),
    "works-wide": WorkProblem((400, 400), 4.0, 0.6),
    "works-correlated": WorkProblem((1600, 1600), 1.5, 0.45, memory=0.8),
}


def rows(name: str, method: Any, seed: int) -> Iterator[dict]:
    """What the estimators say, one row for each; `plain` comes along with `map`."""
    if name in DIFFERENCES:
        yield from _difference_rows(name, method, seed)
    elif name in DENSITIES:
        yield from _density_rows(name, method, seed)
    else:
        yield from _work_rows(name, seed)


def _difference_rows(name: str, method: Any, seed: int) -> Iterator[dict]:
    problem = DIFFERENCES[name]
    x = [
        end.sample(n, generator=generator_for(seed, f"calibration {side}"))
        for end, n, side in zip((problem.a, problem.b), problem.samples, "ab", strict=True)
    ]
    effort = replace(EFFORT, blocks=problem.blocks)
    found = ns.free_energy(problem.a, problem.b, *x, method=method, seed=seed, effort=effort)
    cell = {"problem": name, "seed": seed, "truth": problem.truth}
    if method == "map":
        plain = found.rungs[0]
        yield cell | {"method": "plain"} | _estimated("bar", plain.estimate) | _limits(plain.bounds)
    cell |= {"method": method, "chosen": found.chosen}
    trusted = {"trusted": not found.flags, "flags": [f.code for f in found.flags]}
    yield cell | _estimated("bar", found.delta_f) | _limits(found.bounds) | trusted
    for direction in ("jarzynski_forward", "jarzynski_reverse"):
        yield cell | _estimated(direction, found.estimators[direction])


def _density_rows(name: str, method: Any, seed: int) -> Iterator[dict]:
    problem = DENSITIES[name]
    shape = tuple(problem.target.event_shape)
    found = ns.sample(
        problem.target,
        dim=shape,
        base=problem.base,
        method=method,
        seed=seed,
        effort=problem.effort,  # pyright: ignore
    )
    cell = {"problem": name, "method": method, "seed": seed, "truth": problem.truth, "chosen": found.chosen}
    cell |= {"ess": found.ess, "systematic": found.log_z.systematic}
    trusted = {"trusted": not found.flags, "flags": [f.code for f in found.flags]}
    yield cell | _estimated("log_z", found.log_z) | _limits(found.attempt.bounds) | trusted


def _work_rows(name: str, seed: int) -> Iterator[dict]:
    forward, reverse = gamma_works(WORKS[name], np.random.default_rng([seed, len(name)]))
    cell = {"problem": name, "method": "works", "seed": seed, "truth": WORKS[name].truth}
    yield cell | _estimated("bar", ns.bar(forward, reverse, seed=seed)) | _limits(ns.bounds(forward, reverse))
    yield cell | _estimated("jarzynski_forward", ns.jarzynski(forward, opposite=reverse, seed=seed))
    yield cell | _estimated("jarzynski_reverse", ns.jarzynski(reverse, reverse=True, opposite=forward, seed=seed))


def gamma_works(problem: WorkProblem, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    r"""$W = c + \Gamma(k, \theta)$ forwards, so that reverse dissipation is $\Gamma(k, \theta/(1 + \theta))$.

    $E[e^{-W}] = e^{-c} (1 + \theta)^{-k}$ makes $\Delta F = c + k \log(1 + \theta)$. With memory, draws follow a normal
    copula of that autocorrelation, in four chains.
    """
    shift = problem.truth - problem.shape * math.log1p(problem.scale)
    scales = problem.scale, problem.scale / (1 + problem.scale)
    drawn = [_gammas(problem, n, rng) * scale for n, scale in zip(problem.counts, scales, strict=True)]
    return shift + drawn[0], -(shift + drawn[1])


def _gammas(problem: WorkProblem, n: int, rng: np.random.Generator) -> np.ndarray:
    if problem.memory == 0:
        return rng.gamma(problem.shape, size=n)
    from scipy.signal import lfilter
    from scipy.stats import gamma, norm

    m, chains = problem.memory, 4
    noise = rng.normal(size=(chains, n // chains + 100))
    series = lfilter([math.sqrt(1 - m * m)], [1, -m], noise, axis=1)[:, 100:]
    return gamma.ppf(norm.cdf(series), problem.shape)


def _estimated(estimator: str, found: FreeEnergy | LogZ) -> dict:
    value = found.value if isinstance(found, LogZ) else found.delta_f
    codes = [f.code for f in found.flags]
    numbers = {"value": value, "error": found.std_error, "interval": found.ci95}
    return {"estimator": estimator, "trusted": not codes, "flags": codes} | numbers


def _limits(bounds: Bounds | None) -> dict:
    """Second-law limits, and the tightest of these and the importance-weighted ones."""
    if bounds is None:
        return {}
    return {"limits": [bounds.lower_limit, bounds.upper_limit], "tightest": list(bounds.tightest_limits)}


@lru_cache(maxsize=1)
def everything() -> dict[str, Any]:
    """All problems by name."""
    return {**WORKS, **DIFFERENCES, **DENSITIES}
