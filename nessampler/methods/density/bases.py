"""Where to start from: densities fitted to a target, by its curvature, by short chains, or by annealed walkers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.closed_form._covariance import with_correlations_times
from nessampler.closed_form.density_fits import FAMILIES, Family, FittedDensity, fit_density, widened
from nessampler.errors import InputError
from nessampler.kernels import HMC, DenseMass, DiagonalMass, Mass, RandomWalk, SpectralMass, UnitMass
from nessampler.methods.density.ais import ais
from nessampler.methods.density.annealing import Annealing
from nessampler.methods.density.smc import Particles, smc
from nessampler.methods.density.tuning import Hamiltonian, StepSizes, spectral
from nessampler.paths import AnnealingPath, LinearPath
from nessampler.simulate import FEWEST_ISLANDS, Ensemble, simulate
from nessampler.targets import Counted, Tally, Target, energy_and_score
from nessampler.targets.normal import Normal
from nessampler.targets.phi4 import FreeField

__all__ = [
    "Base",
    "LearnedFrom",
    "Round",
    "check_proper",
    "fitted_normal",
    "fitted_spectrum",
    "hessian_by_autograd",
    "laplace",
    "learned_base",
    "local_mass",
    "pilot_base",
    "run_chains",
]

NEWTON_STEPS = 100
SMALLEST_FRACTION = 1e-6
TARGET_ACCEPTANCE = 0.7
PROPER_CHAINS, PROPER_STEPS = 8, 60  # steps that nothing holds grow by half each: beyond 1e8 after about 50
LARGEST_DENSE = 128  # coordinates of a mass with correlations
TRIAL_WALKERS, TRIAL_STEPS = 1024, 8  # of the annealing that judges a base
FEWEST_LOST = 0.005  # of the scouts, below which they are the tail of a tail
LACKING = 0.02  # of the target, from where a base has lost a mode
INDEPENDENT = 0.3  # ESS of a trial from which walkers that are never resampled, and so independent, are the better fit
GOOD_ENOUGH = 0.97  # ESS of a trial after which no further round is worth its evaluations
BLOCK = 32  # neighbouring particles that judge together, or not at all
QUENCH_STEPS = 40  # trajectories of scouts that fall
HOPELESS = 10.0  # nats of held-out likelihood behind the best, after which a family is not fitted again
LOST = 10.0  # kT above the rest: a walker there is where the base has nothing, or nearly so


@dataclass(frozen=True)
class Round:
    """One fit of a learned base, and how it does.

    Attributes:
        family: of the density that was fitted.
        held_out: mean log-likelihood, in nats, of every family on particles it was not fitted to.
        effective: particles of the fit, by their weights.
        found: share of the scouts that sat where the particles had nothing, and were added to them.
        ess, log_z, std_error: of a short annealing from the base to the target.
        lacking: share of the target where this base has nothing, by the annealing from one that scouts joined.
    """

    family: str
    held_out: Mapping[str, float]
    effective: float
    found: float
    ess: float
    log_z: float
    std_error: float
    lacking: float = 0.0

    @classmethod
    def of(cls, fit: _Fit, trial: _Trial) -> Round:
        """What a fit is and how it did."""
        about, drawn = (fit.density.family, fit.density.held_out, fit.density.effective, fit.found), trial.drawn
        if drawn is None or trial.annealing is None:
            return cls(*about, 0.0, -math.inf, math.inf)
        return cls(*about, drawn.ess, trial.annealing.base_log_z + drawn.log_z_ratio, drawn.log_z_error)

    def __str__(self) -> str:
        return f"{self.family}, ESS {self.ess:.3f}, log Z {self.log_z:.4g} ± {self.std_error:.2g}"


@dataclass(frozen=True)
class LearnedFrom:
    """Where a learned base comes from: its fits, one or two a round, which of them gave it, and all evaluations."""

    rounds: tuple[Round, ...]
    chosen: int
    evaluations: Tally


@dataclass(frozen=True)
class Base:
    """A density with `sample` and `log_z`, and the mass in which Hamiltonian moves of its scale are natural."""

    target: Target
    mass: Mass = field(default_factory=UnitMass)
    learned: LearnedFrom | None = None


def laplace(
    target: Target,
    *,
    start: Float[Tensor, " d"] | None = None,
    inflation: float = 1.0,
    hessian: Callable[[Tensor], Tensor] | None = None,
) -> Base:
    r"""The normal about the mode, $\Sigma = c^2 (\nabla\nabla U)^{-1}$, found by Newton's method with halved steps.

    Args:
        target: twice differentiable, of vectors.
        start: where to look from; the origin by default.
        inflation: $c$, so that the base covers what the curvature alone would miss.
        hessian: $\nabla\nabla U$ of one point, `(d,)` to `(d, d)`; by autograd where None.

    Raises:
        InputError: no mode is found, or the curvature at it is not positive.

    Example:
        >>> from nessampler.targets import Gaussian
        >>> base = laplace(Gaussian(torch.ones(2), torch.full((2,), 0.5)))
        >>> base.target.mean
        tensor([1., 1.], dtype=torch.float64)
    """
    if len(target.event_shape) != 1:
        raise InputError(
            f"a Laplace base is for vectors: got walkers of shape {tuple(target.event_shape)}; use the pilot base"
        )
    x = torch.zeros(target.event_shape, dtype=torch.float64) if start is None else start.double()
    hessian = hessian or hessian_by_autograd(target)
    energy, score = _at(target, x)
    for _ in range(NEWTON_STEPS):
        step = _newton_step(hessian(x), score)
        decrease = float(step @ score)
        if decrease < 1e-10:
            break
        fraction, trial = 1.0, _at(target, x + step)
        while not float(trial[0]) <= float(energy) - 1e-4 * fraction * decrease:
            fraction *= 0.5
            if fraction < SMALLEST_FRACTION:
                raise InputError(f"no mode was found by Newton's method from {_few(x)}; use the pilot base")
            trial = _at(target, x + fraction * step)
        x, (energy, score) = x + fraction * step, trial
    factor, failed = torch.linalg.cholesky_ex(hessian(x))
    if int(failed):
        raise InputError(
            f"a Laplace base needs positive curvature at the mode: it is not at {_few(x)}; use a pilot base"
        )
    normal = Normal(x, inflation**2 * torch.cholesky_inverse(factor))
    return Base(normal, DenseMass(normal.cholesky))


def pilot_base(
    target: Target,
    *,
    walkers: int = 256,
    steps: int = 100,
    start_scale: float = 1.0,
    inflation: float = 1.1,
    lattice: bool = False,
    generator: torch.Generator,
) -> Base:
    """A normal, or for a lattice a free field, with the moments of short Hamiltonian chains.

    Chains that stay in different modes give a base that covers these modes. What no chain has seen, the base may miss:
    the weights and two-sided bounds of a run say whether that matters.

    Args:
        target: what to fit.
        walkers: chains, from a standard normal times `start_scale`.
        steps: trajectories each; the second half counts.
        inflation: factor on all widths.
        lattice: whether walkers are translation-invariant fields: a spectrum is then fitted, not a covariance.
        generator: source of randomness.

    Raises:
        InputError: chains that leave the numbers, as under an improper density.
    """
    x = start_scale * torch.randn(
        walkers, *target.event_shape, generator=generator, dtype=torch.float64, device=generator.device
    )
    seen = run_chains(target, x, steps, generator=generator)
    return fitted_spectrum(seen, inflation) if lattice else fitted_normal(seen, inflation)


def run_chains(
    target: Target, x: Float[Tensor, " n *event"], steps: int, *, generator: torch.Generator, walks: bool = False
) -> Float[Tensor, " m *event"]:
    """What Hamiltonian chains, or `walks`, saw from x in the second half of their steps, tuned as they go."""
    path = LinearPath(_Nothing(target.event_shape), target)
    size, seen, walkers = 0.1, [], None
    for step in range(steps):
        kernel = RandomWalk(path, size, repeats=5) if walks else HMC(path, size, leapfrog_steps=5)
        walkers = walkers or kernel.start(1.0, x)
        walkers, _ = kernel.step(0.5, 1.0, walkers, generator=generator)
        accepted = float(walkers.acceptance.mean()) if walkers.acceptance is not None else TARGET_ACCEPTANCE
        size *= min(1.5, max(0.5, 1 + 1.5 * (accepted - TARGET_ACCEPTANCE)))
        if step >= steps // 2:
            seen.append(walkers.x)
    found = torch.cat(seen)
    if not bool(torch.isfinite(found).all()) or float(found.abs().max()) > 1e8:
        raise InputError(
            "chains left the numbers: the density seems not to be normalisable; check that its energy grows in every "
            "direction, or restrict it"
        )
    return found


def check_proper(target: Target, base: Target, *, generator: torch.Generator, walks: bool = False) -> None:
    """Short chains from draws of a base, whose lengths grow for as long as nothing holds the chains.

    They ask for gradients, unless they are random `walks`.

    Raises:
        InputError: chains that leave the numbers, as under an improper density.
    """
    x = base.sample(PROPER_CHAINS, generator=generator).to(torch.float64)  # pyright: ignore[reportAttributeAccessIssue]
    run_chains(target, x, PROPER_STEPS, generator=generator, walks=walks)


def fitted_normal(x: Float[Tensor, " n *event"], inflation: float = 1.0) -> Base:
    """The normal with the mean and the covariance of samples, correlations shrunk as the number of samples asks."""
    flat = x.double().flatten(1)
    n, d = flat.shape
    covariance = torch.cov(flat.T).reshape(d, d)
    kept = n / (n + 10 * d)  # noise of a sample correlation is 1/sqrt(n), and there are d of them in a row
    covariance = inflation**2 * (kept * covariance + (1 - kept) * torch.diag(covariance.diagonal()))
    normal = Normal(x.double().mean(0), covariance)
    if x.ndim == 2:
        return Base(normal, DenseMass(normal.cholesky))
    return Base(normal, DiagonalMass(covariance.diagonal().view(x.shape[1:])))


def fitted_spectrum(x: Float[Tensor, " n *event"], inflation: float = 1.0) -> Base:
    r"""The free field with the power spectrum of lattice configurations, modes of equal $\hat k^2$ together."""
    equal = torch.full((len(x),), 1 / len(x), dtype=torch.float64, device=x.device)
    spectrum = spectral(x, equal).precision / inflation**2
    return Base(FreeField(spectrum, x.shape[1]), SpectralMass(spectrum))


def learned_base(
    target: Target | AnnealingPath,
    wide_base: Target | None = None,
    *,
    pilots: int = 4096,
    rounds: int = 2,
    mover: Hamiltonian | None = None,
    families: Mapping[str, Family] = FAMILIES,
    conditional_ess: float = 0.95,
    widening: float = 0.2,
    generator: torch.Generator,
    say: Callable[[str], None] = lambda _: None,
) -> Base:
    r"""A density of the family that suits the target best, fitted to walkers annealed from a wide base.

    1. Adaptive sequential Monte Carlo from the wide base gives weighted particles. *Scouts* start there too and are
       never resampled: those that end where a fit to the particles has nothing ($-U - \log q$ more than 10 kT above
       that of nearly all particles) are modes that resampling lost, and join the particles, as many as they are.
    2. Every family is fitted to half of the particles and judged by the other half; the winner is fitted to all, its
       squared scales widened by $1 + \text{widening}/\sqrt d$ so that weights stay bounded.
    3. Particles annealed from that base have better weights, in particular right ones between modes, and where few of
       them weigh nothing they need no resampling and are independent: fit again. Where scouts lie outside of such a fit
       there is another one to both, and both are tried: a mode has weight in the second's walkers, a tail has none.
    4. Of the bases, those whose log Z from a short annealing is clearly below another's have missed something; the
       remaining one with the largest ESS is taken.

    Nothing here is an estimate: fresh walkers from the base to the target make that, with exact weights.

    Args:
        target: of vectors; or a path to it, whose interior the first particles then follow.
        wide_base: with `sample` and `log_z`, wide enough to see every mode; the path's start where None.
        pilots: particles of each round, on eight islands.
        rounds: of fits after the first, at most; one with two fits costs another trial, 10,000 moves and more.
        mover: of the first round; later ones use the base's own mass.
        families: candidates by name, see `fit_density`.
        conditional_ess: between the temperatures of the first round.
        widening: see above; 0 for none.
        generator: source of randomness.
        say: told the choice of every round.

    Raises:
        InputError: walkers that are not vectors, a wide base that cannot be sampled, too few pilots.

    References:
        Cappé et al., Adaptive importance sampling in general mixture classes, 2008, Stat. Comput. 18, 447.

    Example:
        >>> from nessampler.targets import Gaussian
        >>> from nessampler.targets.funnel import Funnel
        >>> wide = Gaussian(torch.zeros(3).double(), torch.full((3,), 3.0).double())
        >>> base = learned_base(Funnel(3, 1.0), wide, pilots=512, rounds=1, generator=torch.Generator().manual_seed(0))
        >>> base.learned.rounds[base.learned.chosen].ess > 0.8
        True
    """
    given = target if isinstance(target, AnnealingPath) else None
    end: Target = given.end if given is not None else target  # pyright: ignore[reportAssignmentType]
    counted = Counted(end)
    wide = wide_base or (given.start if given is not None else None)
    if wide is None or not hasattr(wide, "sample") or len(end.event_shape) != 1:
        raise InputError(
            f"a learned base is for vectors and starts from a wide base that has `sample`: got walkers of shape "
            f"{tuple(end.event_shape)} and {type(wide).__name__}; give a Gaussian, or use the pilot base"
        )
    if pilots < 64 * FEWEST_ISLANDS or rounds < 0:
        raise InputError(
            f"a base is learned from at least {64 * FEWEST_ISLANDS} pilots, in no negative number of further rounds: "
            f"got {pilots} and {rounds}"
        )
    scale = 1 + widening / math.sqrt(end.event_shape[0])
    with torch.no_grad():
        path: AnnealingPath = LinearPath(wide, counted) if given is None else _ending_in(given, wide, counted)
        first = mover or Hamiltonian()
        particles = _particles(path, first, pilots, generator, conditional_ess)
        scouts = _scouts(path, first, particles, pilots // 4, generator)
        bases, annealings, found = [], [], []
        for k in range(rounds + 1):
            fits = _fits(counted, particles, scouts, families, generator)
            # At first scouts know as much as particles. Later on trials tell lost modes from tails of a better fit.
            for fit in fits[-1:] if k == 0 else fits:
                density = widened(fit.density.target, math.sqrt(scale))
                base = Base(density, local_mass(density, generator=generator))
                trial = _tried(base, counted, generator)
                if fit.beyond is not None and k > 0:
                    found[-1] = replace(found[-1], lacking=trial.mass_where(fit.beyond))
                found.append(Round.of(fit, trial))
                bases.append(base)
                annealings.append(trial.annealing)
                say(f"base {len(bases)}: {found[-1]}")
            top = _best(found)
            if k == rounds or (found[top].ess >= GOOD_ENOUGH and (k > 0 or found[top].found == 0)):
                break
            hopeful = {name for fit in fits for name in _within(fit.density.held_out, HOPELESS)}
            families = {name: family for name, family in families.items() if name in hopeful}
            start, annealing = bases[top], annealings[top]
            if annealing is not None and found[top].ess >= INDEPENDENT:
                particles = annealing.draw(pilots, generator=generator)
            else:
                onwards = LinearPath(start.target, counted)
                particles = _particles(onwards, Hamiltonian(mass=start.mass), pilots, generator)
    chosen = _best(found)
    total = counted.tally()
    return Base(bases[chosen].target, bases[chosen].mass, LearnedFrom(tuple(found), chosen, total.copy()))


def local_mass(target: Target, *, draws: int = 4096, generator: torch.Generator) -> Mass:
    r"""The inverse of $E[s s^T]$ as the local covariance, which does not see how far modes lie apart.

    Over the density's own draws, so that no other is evaluated. Correlations enter where one exceeds a tenth.
    """
    x = target.sample(draws, generator=generator)  # pyright: ignore[reportAttributeAccessIssue]
    scores = energy_and_score(target, x)[1].double()
    diagonal = scores.square().mean(0).clamp(min=1e-12)
    if scores.shape[1] <= LARGEST_DENSE:
        second = with_correlations_times(0.9, scores.T @ scores / len(scores))
        correlation = second / diagonal.outer(diagonal).sqrt() - torch.eye(len(second)).to(second)
        covariance, failed = torch.linalg.inv_ex(second)
        if float(correlation.abs().max()) > 0.1 and not int(failed):
            factor, failed = torch.linalg.cholesky_ex(covariance)
            if not int(failed):
                return DenseMass(factor)
    return DiagonalMass(1 / diagonal)


def _ending_in(path: AnnealingPath, wide: Target, counted: Counted) -> AnnealingPath:
    """A linear path is made again so that it counts; what else a path knows, it keeps to itself."""
    return LinearPath(wide, counted) if isinstance(path, LinearPath) else path


def _particles(
    path: AnnealingPath, mover: Hamiltonian, pilots: int, generator: torch.Generator, conditional_ess: float = 0.9
) -> Particles:
    each = pilots // FEWEST_ISLANDS
    return smc(path, particles=each, pilots=each, mover=mover, conditional_ess=conditional_ess, generator=generator)


def _scouts(
    path: AnnealingPath, mover: Hamiltonian, particles: Particles, n: int, generator: torch.Generator
) -> Float[Tensor, "m d"]:
    """Walkers that were never selected: half went the particles' way, half fell straight into the nearest mode.

    Annealed walkers favour modes that are large at high temperature, those that fall favour wide basins.
    """
    kernel = mover.kernel(path, StepSizes(particles.times[1:], particles.step_size), mover.mass)
    x = path.start.sample(n, generator=generator).double()  # pyright: ignore[reportAttributeAccessIssue]
    annealed = simulate(kernel, path, particles.times, x[: n // 2], generator=generator).x
    fallen = run_chains(path.end, x[n // 2 :], QUENCH_STEPS, generator=generator)[-(n - n // 2) :]
    return torch.cat([annealed, fallen])


@dataclass(frozen=True)
class _Fit:
    """To particles and, as the share `found`, scouts; `beyond` says where the fit without them has nothing."""

    density: FittedDensity
    found: float = 0.0
    beyond: Callable[[Tensor], Tensor] | None = None


def _fits(
    target: Target,
    particles: Particles | Ensemble,
    scouts: Float[Tensor, "m d"],
    families: Mapping[str, Family],
    generator: torch.Generator,
) -> list[_Fit]:
    """A fit to the particles; where scouts have seen what it does not cover, one to both."""
    x, weight = particles.x.double(), torch.softmax(particles.log_weight, 0)
    # Resampling leaves siblings next to one another: blocks keep most of them on one side. Whole islands would not
    # do: each may have kept other modes.
    side = torch.arange(len(x), device=x.device) // BLOCK % 2 == 1
    fitted = fit_density(x, weight, held_out=side, families=families, generator=generator)
    # The particles' own log ratio, not their log Z, which resampling that lost a mode gets wrong as well.
    own = fitted.target.energy(x) - target.energy(x)
    most = _quantile(own, weight, 0.99) + LOST

    def beyond(x: Tensor) -> Tensor:
        return fitted.target.energy(x) - target.energy(x) > most

    lost = beyond(scouts)
    count = int(lost.sum())
    if count < max(1, FEWEST_LOST * len(scouts)):
        return [_Fit(fitted)]
    share = count / len(scouts)
    joined = torch.cat([x, scouts[lost]])
    weight = torch.cat([(1 - share) * weight, torch.full((count,), 1 / len(scouts)).to(weight)])
    held_out = torch.cat([side, torch.arange(count, device=x.device) % 2 == 1])
    both = fit_density(joined, weight, held_out=held_out, families=families, generator=generator)
    return [_Fit(fitted), _Fit(both, share, beyond)]


def _within(held_out: Mapping[str, float], nats: float) -> list[str]:
    """Families not much behind the best."""
    return [name for name, value in held_out.items() if value > max(held_out.values()) - nats]


def _quantile(values: Float[Tensor, " n"], weights: Float[Tensor, " n"], level: float) -> float:
    """The value below which this share of the weight lies."""
    ordered, index = values.sort()
    at = int(torch.searchsorted(weights[index].cumsum(0), level * float(weights.sum())))
    return float(ordered[min(at, len(ordered) - 1)])


@dataclass(frozen=True)
class _Trial:
    """A short annealing from a base, nothing where the target cannot evaluate the base's draws."""

    annealing: Annealing | None = None
    drawn: Ensemble | None = None

    def mass_where(self, inside: Callable[[Tensor], Tensor]) -> float:
        """The target's, by weighted walkers; zero where none has any weight."""
        if self.drawn is None or not bool(self.drawn.log_weight.isfinite().any()):
            return 0.0
        return float(torch.softmax(self.drawn.log_weight, 0)[inside(self.drawn.x)].sum())


def _tried(base: Base, target: Target, generator: torch.Generator) -> _Trial:
    path = LinearPath(base.target, target)
    try:
        annealing = ais(path, steps=TRIAL_STEPS, mover=Hamiltonian(mass=base.mass), pilots=256, generator=generator)
        return _Trial(annealing, annealing.draw(TRIAL_WALKERS, generator=generator))
    except InputError:
        return _Trial()


def _best(found: list[Round]) -> int:
    """The largest ESS among those that lack nothing: whose log Z is not clearly below another's, see also `lacking`."""
    errors = [min(r.std_error, 1.0) for r in found]
    complete = [
        k
        for k, r in enumerate(found)
        if r.lacking < LACKING
        and all(r.log_z + 4 * math.hypot(errors[k], errors[j]) >= other.log_z for j, other in enumerate(found))
    ]
    return max(complete or range(len(found)), key=lambda k: found[k].ess)


@dataclass(frozen=True)
class _Nothing:
    """An end of a path that never has weight: the kernels of paths can then serve a single density."""

    event_shape: torch.Size

    def energy(self, x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        return self.energy_and_score(x)[0]

    def energy_and_score(self, x: Float[Tensor, " n *event"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n *event"]]:
        return torch.zeros(len(x), dtype=x.dtype, device=x.device), torch.zeros_like(x)


def _at(target: Target, x: Tensor) -> tuple[Tensor, Tensor]:
    energy, score = energy_and_score(target, x[None])
    return energy[0], score[0]


def _newton_step(hessian: Tensor, score: Tensor) -> Tensor:
    """Downhill even where the curvature is not positive, as between two modes."""
    factor, failed = torch.linalg.cholesky_ex(hessian)
    if not int(failed):
        return torch.cholesky_solve(score[:, None], factor)[:, 0]
    values, vectors = torch.linalg.eigh(hessian)
    return vectors @ ((vectors.T @ score) / values.abs().clamp(min=1e-8 * float(values.abs().max())))


def hessian_by_autograd(target: Target) -> Callable[[Float[Tensor, " d"]], Float[Tensor, "d d"]]:
    r"""$\nabla\nabla U$ of one point, a row for each of d copies of it, which count as as many evaluations."""

    def hessian(x: Tensor) -> Tensor:
        with torch.enable_grad():
            copies = x.detach().repeat(len(x), 1).requires_grad_()
            (gradient,) = torch.autograd.grad(target.energy(copies).sum(), copies, create_graph=True)
            (rows,) = torch.autograd.grad(gradient.diagonal().sum(), copies)
        return 0.5 * (rows + rows.T)

    return hessian


def _few(x: Tensor) -> str:
    return str([round(v, 3) for v in x[:4].tolist()])
