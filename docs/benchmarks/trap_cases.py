"""Cases in which a flag must fire, and healthy ones in which none may: for differences and for densities.

A case says what is wrong and runs one seed of it; a run ends trusted, with caution, not trusted, or refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from calibration_problems import DENSITIES, DIFFERENCES, FEW, MODES, SMALL, WELL_2, gamma_works
from calibration_problems import WORKS as SYNTHETIC
from scipy.signal import lfilter
from torch import Tensor

import nessampler as ns
from nessampler.diagnostics import disagreement
from nessampler.estimators.log_z import log_z
from nessampler.fields import Evaluated
from nessampler.kernels import Langevin
from nessampler.methods.density.annealing import Annealing
from nessampler.methods.density.counted import CountedPath
from nessampler.methods.density.end_checks import check_walkers
from nessampler.methods.density.verdict import level_of
from nessampler.methods.effort import Effort
from nessampler.methods.ends import generator_for
from nessampler.methods.verdict import level_of as level_of_difference
from nessampler.networks.field import DriftFields
from nessampler.paths import EndpointPath, LinearPath
from nessampler.simulate import simulate
from nessampler.targets import Gaussian
from nessampler.targets.many_well import ManyWell
from nessampler.targets.mixture import GaussianMixture, random_mixture
from nessampler.targets.phi4 import FreeField, lattice_momenta
from nessampler.targets.student import StudentMixture

__all__ = ["CASES", "Case", "Outcome"]

Level = Literal["trusted", "caution", "not trusted", "refused"]


class Outcome(NamedTuple):
    """How a run ended, the codes of its flags, and its distance to the truth in standard errors, where known."""

    level: Level
    flags: tuple[str, ...]
    z: float | None = None


@dataclass(frozen=True)
class Case:
    """One row of the confusion table.

    Attributes:
        what: that is wrong, or healthy.
        run: a seed to its outcome.
        trap: whether a flag must fire.
        why_not: where no flag can: the reason.
    """

    what: str
    run: Callable[[int], Outcome]
    trap: bool = True
    why_not: str = ""


# --- differences -------------------------------------------------------------------------------------------------


def _draws(seed: int, n: int = 500, ends: tuple[Any, Any] = WELL_2) -> list[Tensor]:
    return [e.sample(n, generator=generator_for(seed, f"trap {s}")) for e, s in zip(ends, "ab", strict=True)]


def _difference(
    ends: Any, x: Any, seed: int, method: Any = "map", truth: float | None = None, blocks: Any = FEW
) -> Outcome:
    try:
        found = ns.free_energy(*ends, *x, method=method, seed=seed, effort=Effort(blocks=blocks))
    except ns.InputError:
        return Outcome("refused", ())
    z, flags = None, tuple(f.code for f in found.flags)
    if truth is not None and found.delta_f.delta_f is not None and found.delta_f.std_error:
        z = (found.delta_f.delta_f - truth) / found.delta_f.std_error
    return Outcome(found.verdict.level, flags, z)


@dataclass(frozen=True)
class Colder:
    """The energy of a target at a lower temperature."""

    target: Any
    factor: float

    @property
    def event_shape(self) -> torch.Size:
        return self.target.event_shape

    def energy(self, x: Tensor) -> Tensor:
        return self.factor * self.target.energy(x)


HALVES = (0.4, 0.2, 0.4)  # more samples to fit, and so to check


class Slab:
    """Half a normal density."""

    event_shape = torch.Size([1])

    def __init__(self, side: float) -> None:
        self.side = side

    def energy(self, x: Tensor) -> Tensor:
        return torch.where(self.side * x[:, 0] >= 0, 0.5 * x[:, 0].square(), torch.inf)


def exchanged(seed: int) -> Outcome:
    return _difference(WELL_2, _draws(seed)[::-1], seed)


def neighbouring_state(seed: int) -> Outcome:
    a, b = _draws(seed, 2500)
    return _difference(WELL_2, (a, b + 0.15), seed, blocks=HALVES)


def another_temperature(seed: int) -> Outcome:
    return _difference((Colder(WELL_2[0], 1.25), WELL_2[1]), _draws(seed, 2500), seed, blocks=HALVES)


def disjoint(seed: int) -> Outcome:
    x = torch.randn(2, 400, 1, generator=generator_for(seed, "trap"), dtype=torch.float64).abs()
    return _difference((Slab(1), Slab(-1)), (x[0], -x[1]), seed, "plain")


def far_apart(seed: int) -> Outcome:
    ends = WELL_2[0], Gaussian(torch.full((2,), 9.0).double(), torch.full((2,), 0.3).double())
    return _difference(ends, _draws(seed, 500, ends), seed, "plain")


TWO_MODES = GaussianMixture(
    torch.tensor([[-2.0, 0.0], [2.0, 0.5]]).double(),
    torch.tensor([0.5, 0.7]).double(),
    torch.tensor([0.6, 0.4]).double(),
)
WIDE = Gaussian(torch.zeros(2).double(), torch.full((2,), 2.0).double())


def missed_mode_of_b(seed: int, n: int = 1500) -> Outcome:
    a, b = _draws(seed, 3 * n, (WIDE, TWO_MODES))
    kept = b[b[:, 0] < 0][:n]
    return _difference((WIDE, TWO_MODES), (a[: len(kept)], kept), seed, "plain", WIDE.log_z)


def missed_mode_out_of_reach(seed: int) -> Outcome:
    near = Gaussian(torch.tensor([-2.0, 0.0]).double(), torch.full((2,), 0.6).double())
    a, b = _draws(seed, 1500, (near, TWO_MODES))
    return _difference((near, TWO_MODES), (a[:800], b[b[:, 0] < 0][:800]), seed, "plain", near.log_z)


def correlated(seed: int, memory: float = 0.9) -> tuple[list[Tensor], tuple[Gaussian, Gaussian]]:
    """Two normal states by autoregressive chains."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(2, 700, 2))
    x = torch.as_tensor(lfilter([math.sqrt(1 - memory**2)], [1, -memory], noise, axis=1)[:, 200:])
    ends = [Gaussian(torch.full((2,), m).double(), torch.full((2,), s).double()) for m, s in ((0.0, 1.0), (0.7, 0.8))]
    return [e.mean + e.scale * y for e, y in zip(ends, x, strict=True)], (ends[0], ends[1])


def correlated_as_independent(seed: int) -> Outcome:
    x, ends = correlated(seed)
    return _difference(ends, x, seed, "plain", ends[0].log_z - ends[1].log_z)


def slow_chains(seed: int) -> Outcome:
    """Four chains whose memory is longer than they are."""
    x, ends = correlated(seed, memory=0.995)
    return _difference(ends, [y.reshape(4, -1, 2) for y in x], seed, "plain")


def tiny_diffusion(seed: int, diffusion: float = 1e-6, steps: int = 3) -> Outcome:
    """Langevin steps along a velocity that shifts and scales one well onto the other, with hardly any noise."""
    centres, log_scales = _moments()

    def fields(t: Tensor, x: Tensor) -> Evaluated:
        centre = torch.lerp(*centres, t[:, None])
        velocity = centres[1] - centres[0] + (x - centre) * (log_scales[1] - log_scales[0])
        score = (centre - x) * torch.exp(-2 * torch.lerp(*log_scales, t[:, None]))
        return Evaluated(velocity, score)

    kernel, path = Langevin(fields, diffusion), EndpointPath(*WELL_2)
    times, generator = tuple(np.linspace(0, 1, steps + 1).tolist()), generator_for(seed, "trap walkers")
    works = [
        simulate(kernel, path, t, y, generator=generator).work.numpy()
        for t, y in zip((times, times[::-1]), _draws(seed), strict=True)
    ]
    return _of_works(*works, seed)


@cache
def _moments() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Means and logarithms of the widths of both wells."""
    x = _draws(0, 4000)
    return (x[0].mean(0), x[1].mean(0)), (x[0].std(0).log(), x[1].std(0).log())


def too_few(seed: int) -> Outcome:
    return _difference(WELL_2, _draws(seed, 50), seed)


def wrong_sign(seed: int) -> Outcome:
    forward, reverse = gamma_works(SYNTHETIC["works"], np.random.default_rng(seed))
    return _of_works(forward, -reverse, seed)


def wrong_unit(seed: int) -> Outcome:
    """Works in kcal/mol taken for kT."""
    forward, reverse = (0.6 * (w + 4 * s) for w, s in zip(_works(seed), (1, -1), strict=True))
    return _of_works(forward, reverse, seed)


def _works(seed: int) -> tuple[np.ndarray, np.ndarray]:
    return gamma_works(replace(SYNTHETIC["works-wide"], counts=(2000, 2000)), np.random.default_rng(seed))


def _of_works(forward: np.ndarray, reverse: np.ndarray, seed: int) -> Outcome:
    found = ns.bar(forward, reverse, seed=seed)
    flags = tuple(f.code for f in (*found.flags, *disagreement(forward, reverse, seed=seed)))
    level = "not trusted" if {"crossed_bounds", "poor_overlap", "no_overlap"} & set(flags) else "caution"
    return Outcome(level if flags else "trusted", flags)


def heavy_tail_one_way(seed: int) -> Outcome:
    """Jarzynski from a base narrower than the other state."""
    narrow = Gaussian(torch.zeros(2).double(), torch.full((2,), 0.5).double())
    a, _ = _draws(seed, 500, (narrow, WIDE))
    return _one_way((WIDE.energy(a) - narrow.energy(a)).numpy(), seed)


def student_tail_one_way(seed: int) -> Outcome:
    """Jarzynski from a normal to a density with the tails of ν = 2."""
    normal = Gaussian(torch.zeros(4).double(), torch.ones(4).double())
    tails = StudentMixture(torch.zeros(1, 4).double(), 1.0, 2.0)
    a = normal.sample(2000, generator=generator_for(seed, "trap"))
    return _one_way((tails.energy(a) - normal.energy(a)).numpy(), seed)


def _one_way(work: np.ndarray, seed: int) -> Outcome:
    found = ns.jarzynski(work, seed=seed)
    return Outcome("not trusted" if found.flags else "trusted", tuple(f.code for f in found.flags))


def mirror_image(seed: int) -> Outcome:
    """A tenth of the samples have turned the carbon of CHFClBr inside out."""
    import openmm.app as app

    from nessampler.molecular.handedness import handedness_flags

    topology = app.Topology()
    residue = topology.addResidue("X", topology.addChain())
    atoms = [topology.addAtom(s, app.Element.getBySymbol(s), residue) for s in ("C", "H", "F", "Cl", "Br")]
    for other in atoms[1:]:
        topology.addBond(atoms[0], other)
    x = np.array([[0.0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    rng = np.random.default_rng(seed)
    samples = x + 0.1 * rng.normal(size=(200, 5, 3))
    samples[rng.random(200) < 0.1] *= -1
    flags = handedness_flags(topology, x, samples, "A")
    return Outcome(level_of_difference(flags), tuple(f.code for f in flags))


def healthy_difference(name: str, method: str = "map") -> Callable[[int], Outcome]:
    problem = DIFFERENCES[name]

    def run(seed: int) -> Outcome:
        x = [
            e.sample(n, generator=generator_for(seed, f"healthy {s}"))
            for e, n, s in zip((problem.a, problem.b), problem.samples, "ab", strict=True)
        ]
        return _difference((problem.a, problem.b), x, seed, method, problem.truth)

    return run


def chains_as_chains(seed: int) -> Outcome:
    x, ends = correlated(seed, memory=0.7)
    return _difference(ends, [y.reshape(4, -1, 2) for y in x], seed, "plain", ends[0].log_z - ends[1].log_z)


# --- densities ---------------------------------------------------------------------------------------------------

SAMPLING = replace(SMALL, steps=16, leapfrog_steps=3)


def _density(target: Any, base: Any, seed: int, method: Any = "ais", truth: float = 0.0, **options: Any) -> Outcome:
    effort = options.pop("effort", SAMPLING)
    try:
        found = ns.sample(
            target, dim=tuple(base.event_shape), base=base, method=method, seed=seed, effort=effort, **options
        )
    except ns.InputError:
        return Outcome("refused", ())
    error, value = found.log_z.std_error, found.log_z.value
    z = (value - truth) / error if value is not None and error else None
    return Outcome(found.verdict.level, tuple(f.code for f in found.flags), z)


def _normal(dimension: int, scale: float, mean: float = 0.0) -> Gaussian:
    return Gaussian(torch.full((dimension,), mean).double(), torch.full((dimension,), scale).double())


class Blind:
    """A density without its sampler."""

    def __init__(self, target: Any) -> None:
        self.energy, self.event_shape = target.energy, target.event_shape


FAR = GaussianMixture(torch.tensor([[-3.0] * 4, [3.0] * 4]).double(), torch.ones(2).double())


NEAR_AND_FAR = [random_mixture(n, 50, scale=1.0, spread=s, seed=n).means for n, s in ((3, 0.8), (5, 4.0))]
EIGHT_MODES = GaussianMixture(torch.cat(NEAR_AND_FAR), torch.ones(8).double())
FIFTY = replace(SAMPLING, walkers=1024, pilot_walkers=1024, pilot_steps=16, reverse_walkers=512)


def lost_mode(seed: int) -> Outcome:
    return _density(FAR, _normal(4, 1.3, -3.0), seed)


def lost_mode_without_samples(seed: int) -> Outcome:
    return _density(Blind(FAR), _normal(4, 1.3, -3.0), seed)


def lost_modes_of_a_drift(seed: int) -> Outcome:
    """Three modes near the base and five far from it, in fifty dimensions: the drift serves the three."""
    return _density(EIGHT_MODES, _normal(50, 1.3), seed, "lsq", effort=FIFTY)


def lost_modes_of_a_drift_without_samples(seed: int) -> Outcome:
    return _density(Blind(EIGHT_MODES), _normal(50, 1.3), seed, "lsq", effort=FIFTY)


def chains_that_do_not_mix(seed: int) -> Outcome:
    effort = replace(SAMPLING, reverse_steps=40, reverse_walkers=64)
    return _density(Blind(FAR), _normal(4, 3.0), seed, effort=effort)


def narrow_base(seed: int) -> Outcome:
    return _density(Blind(MODES), _normal(2, 0.3), seed, effort=replace(SAMPLING, steps=6))


def heavy_tailed_target(seed: int) -> Outcome:
    tails = StudentMixture(torch.zeros(1, 4).double(), 1.0, 1.2)
    return _density(Blind(tails), _normal(4, 1.0), seed, effort=replace(SAMPLING, steps=6))


def too_few_walkers(seed: int) -> Outcome:
    return _density(Blind(MODES), _normal(2, 4.0), seed, effort=replace(SAMPLING, walkers=40))


def coarse_annealing(seed: int) -> Outcome:
    return _density(Blind(ManyWell(4)), _normal(8, 2.0), seed, truth=ManyWell(4).log_z, effort=replace(SMALL, steps=3))


def coarse_flow(seed: int) -> Outcome:
    """A drift of narrow wells in few steps: the flow folds, and does not reach what its walkers would have to."""
    return _density(Blind(ManyWell(1)), _normal(2, 2.0), seed, "lsq", ManyWell(1).log_z, effort=SMALL)


def coarse_flow_with_samples(seed: int) -> Outcome:
    return _density(ManyWell(1), _normal(2, 2.0), seed, "lsq", ManyWell(1).log_z, effort=SMALL)


def samples_of_another_density(seed: int) -> Outcome:
    def moved(n: int, generator: torch.Generator) -> Tensor:
        return MODES.sample(n, generator=generator) + 1.0

    return _density(Blind(MODES), _normal(2, 4.0), seed, target_samples=moved)


class HalfSpace:
    """A normal density beyond a wall, far from where a base would start."""

    event_shape = torch.Size([2])

    def energy(self, x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 30, 0.5 * (x[:, 0] - 30).square() + 0.5 * x[:, 1].square(), torch.inf)


def unreachable_support(seed: int) -> Outcome:
    return _density(HalfSpace(), _normal(2, 1.0), seed)


def soft_mode(seed: int, reach: float = math.inf) -> Outcome:
    r"""Langevin steps between free fields along the exact drift, but for walkers whose soft mode is beyond `reach`.

    For a linear path between spectra $a_k$ and $b_k$ the drift of a mode is $-(b_k - a_k) x_k / 2\lambda_k(t)$.
    """
    size, heavy, light, n = 8, 1.0, 0.2, 1024
    start, end = (FreeField.massive(size, mass_squared=m) for m in (heavy, light))
    path, momenta = CountedPath(LinearPath(start, end)), lattice_momenta(size, 2)

    def drift(t: Tensor, x: Tensor) -> Tensor:
        modes = torch.fft.rfft2(x)
        velocity = 0.5 * (heavy - light) / (momenta + heavy + (light - heavy) * float(t[0])) * modes
        velocity[:, 0, 0] *= modes[:, 0, 0].real.abs() < size * reach
        return torch.fft.irfft2(velocity, s=x.shape[1:])

    kernel, times = Langevin(DriftFields(path, drift), 0.01), tuple(np.linspace(0, 1, 101).tolist())
    annealing = Annealing("drift", "", kernel, path, times, dtype=torch.float64)
    walkers = annealing.draw(n, generator=generator_for(seed, "soft mode"))
    found = log_z(walkers.log_weight.numpy(), base=annealing.base_log_z, seed=seed)
    flags = (*found.flags, *check_walkers(path, walkers, seed=seed))
    z = (found.value - end.log_z) / found.std_error if found.value is not None and found.std_error else None
    return Outcome(level_of(flags), tuple(f.code for f in flags), z)


def soft_mode_cut_short(seed: int) -> Outcome:
    """No walker beyond 1.6 of the target's deviations; a ninth of it is there."""
    return soft_mode(seed, reach=2.5)


def healthy_density(name: str, method: str) -> Callable[[int], Outcome]:
    problem = DENSITIES[name]
    effort = SAMPLING if method in ("ais", "smc") else replace(SAMPLING, pilot_walkers=1024)
    return lambda seed: _density(problem.target, problem.base, seed, method, problem.truth, effort=effort)


CASES: dict[str, dict[str, Case]] = {
    "difference": {
        "exchanged samples": Case("those of A given for B and the other way round", exchanged),
        "neighbouring state": Case("samples of B moved by 0.15", neighbouring_state),
        "another temperature": Case("state A is colder by a quarter than its samples", another_temperature),
        "disjoint supports": Case("two halves of a normal, no map", disjoint),
        "no overlap": Case("states ten widths apart, no map", far_apart),
        "missed mode, reached by A": Case("no sample in 40 % of B, where samples of A are", missed_mode_of_b),
        "missed mode, out of reach": Case(
            "no sample of A or B in 40 % of B", missed_mode_out_of_reach, why_not="nothing given knows of it"
        ),
        "correlated samples as independent": Case("memory of 19 samples, not said", correlated_as_independent),
        "chains shorter than their memory": Case("four chains of 125, memory of 400", slow_chains),
        "tiny ε, coarse steps": Case("three Langevin steps at a millionth of the variance", tiny_diffusion),
        "too few samples": Case("50 of each state", too_few),
        "wrong sign of reverse works": Case("the convention of another program", wrong_sign),
        "works in another unit": Case("kcal/mol taken for kT", wrong_unit),
        "Jarzynski from a narrow state": Case("half as wide as the other", heavy_tail_one_way),
        "Jarzynski into heavy tails": Case("a normal to ν = 2 in four dimensions", student_tail_one_way),
        "mirror images": Case("a tenth of the molecules turned inside out", mirror_image),
        "healthy: wells, map": Case("two wells in the plane", healthy_difference("wells-2"), trap=False),
        "healthy: wells in 3D, map": Case("two wells", healthy_difference("wells-3"), trap=False),
        "healthy: students, map": Case("skewed, heavy tails", healthy_difference("students"), trap=False),
        "healthy: mixtures, map": Case("unequal counts", healthy_difference("mixtures"), trap=False),
        "healthy: wells, switching": Case("Langevin steps", healthy_difference("wells-2", "switching"), trap=False),
        "healthy: chains": Case("correlated samples, given as chains", chains_as_chains, trap=False),
        "healthy: ε as it should be": Case(
            "24 Langevin steps, half of the variance", lambda s: tiny_diffusion(s, 0.5, 24), trap=False
        ),
    },
    "density": {
        "lost mode, exact samples": Case("the base covers one of two modes", lost_mode),
        "lost mode, no samples": Case(
            "the same without samples", lost_mode_without_samples, why_not="no walker knows of the other mode"
        ),
        "lost modes of a drift, exact samples": Case(
            "five of eight modes in 50 dimensions, ESS about .65", lost_modes_of_a_drift
        ),
        "lost modes of a drift, no samples": Case(
            "the same without samples",
            lost_modes_of_a_drift_without_samples,
            why_not="weights are even among the walkers that there are",
        ),
        "chains that do not mix": Case("long chains in two modes", chains_that_do_not_mix),
        "narrow base": Case("a thirtieth of the target's width", narrow_base),
        "heavy tails": Case("ν = 1.2 from a normal", heavy_tailed_target),
        "too few walkers": Case("40 of them", too_few_walkers),
        "coarse annealing": Case("three steps into 16 narrow wells", coarse_annealing),
        "coarse flow, exact samples": Case("a drift of narrow wells in eight steps", coarse_flow_with_samples),
        "coarse flow, no samples": Case("the same without samples", coarse_flow),
        "soft mode cut short": Case(
            "a drift that leads nobody to a lattice mode's tails, ESS about .8", soft_mode_cut_short
        ),
        "samples of another density": Case("moved by one", samples_of_another_density),
        "unreachable support": Case("a wall between base and target", unreachable_support),
        "healthy: funnel, ais": Case("annealing", healthy_density("funnel", "ais"), trap=False),
        "healthy: modes, ais": Case("annealing", healthy_density("student-modes", "ais"), trap=False),
        "healthy: modes, lsq": Case("a drift", healthy_density("student-modes", "lsq"), trap=False),
        "healthy: wells, smc": Case("resampling", healthy_density("many-well", "smc"), trap=False),
        "healthy: soft mode": Case("the same drift for all walkers", soft_mode, trap=False),
        "healthy: φ⁴, lsq": Case("a drift", healthy_density("phi4-4", "lsq"), trap=False),
    },
}
