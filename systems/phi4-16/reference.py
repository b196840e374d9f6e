r"""Reference values of log Z for the lattice φ⁴ systems, by routes that share action and moves but no estimator.

    python systems/phi4-16/reference.py --size 16 --quartic 0.8 --seed 0
    python systems/phi4-16/reference.py --size 64 --quartic 0.9 --device cuda --chains 4096 --pilots 8192

1. Thermodynamic integration, $\log Z = \log Z_0 - \int_0^1 \langle \partial_t U_t \rangle_t\, dt$ with Gauss-Legendre
   nodes of two orders. At every node long HMC chains average $\partial_t U - a$, where
   $a = \nabla\cdot b - b\cdot\nabla U_t$ has mean zero for any vector field $b$. Pilot chains have fitted it: the mean
   stays, a hundredth of the variance or less is left.
2. Annealing without a drift, from the free field to the target and back from long HMC chains, and BAR of the works.
3. The same with the drift in closed form (`--drifted`): sharp, but it shares its drift with the runs it would judge.

For two-dimensional lattices of up to four sites a side log Z is also computed by the transfer matrix, on a grid of
field values. With `--device cuda` fields, masses, momenta and sums live on the GPU: there 512 chains are few.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from nessampler.closed_form.dictionary import Dictionary
from nessampler.closed_form.least_squares_drift import stein_regression
from nessampler.estimators import bar
from nessampler.kernels import HMC, Mass, SpectralMass, Walkers
from nessampler.methods.density.ais import ais
from nessampler.methods.density.annealing import Annealing
from nessampler.methods.density.chains import folded, long_chains
from nessampler.methods.density.counted import CountedPath
from nessampler.methods.density.dictionaries import lattice_sines
from nessampler.methods.density.lsq import least_squares
from nessampler.methods.density.tuning import Hamiltonian, spectral
from nessampler.paths import LinearPath, PathPoint
from nessampler.targets import Target
from nessampler.targets.phi4 import FreeField, Phi4, lattice_momenta

BASE_MASS_SQUARED = 1.0
LEAPFROGS = 5
ACCEPTANCE = 0.85
# Under a mass with the field's own spectrum all modes have about frequency one: a quarter of a period forgets most.
LONGEST = math.pi / 2
DTYPE = torch.float32  # of fields; energies are summed in float64


class CouplingPath:
    r"""The linear path as what it is on the lattice: $m^2(t) = (1 - t) M^2 + t m^2$ and $\lambda(t) = t \lambda$.

    One stencil instead of a stencil and two FFTs, and code that `LinearPath` does not share. From a base with a
    magnetisation what keeps it ordered fades with $1 - t$.
    """

    def __init__(self, start: FreeField, end: Phi4) -> None:
        self.start = start
        self.end: Target = end
        self._free = Phi4(end.size, quartic=0.0, mass_squared=BASE_MASS_SQUARED, dimensions=end.dimensions)
        self._quartic, self._mass = end.quartic, end.mass_squared - BASE_MASS_SQUARED

    def energy(self, t: Tensor, x: Tensor) -> Tensor:
        """$U_t$."""
        return self.evaluate(t, x).energy

    def energy_and_score(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""$U_t$ and $-\nabla U_t$."""
        point = self.evaluate(t, x)
        return point.energy, point.score

    def evaluate(self, t: Tensor, x: Tensor, known: PathPoint | None = None) -> PathPoint:
        r"""With $\partial_t U = \sum_x (m^2 - M^2) \varphi^2 + \lambda \varphi^4$; nothing leaves the device."""
        square, now = x.square(), t.double()
        rate = (square * (self._mass + self._quartic * square)).flatten(1).sum(1, dtype=torch.float64)
        energy, score = self._free.energy_and_score(x)
        score = score - t.view(-1, *[1] * (x.ndim - 1)) * x * (2 * self._mass + 4 * self._quartic * square)
        if self.start.magnetisation:
            wells, pull = self.start.wells(x)
            rate, energy = rate - wells, energy + wells
            score = score + ((1 - now) * pull).to(x).view(-1, *[1] * (x.ndim - 1))
        return PathPoint(energy + now * rate, score, rate)


@dataclass(frozen=True)
class Node:
    """A time, and what pilot chains found out there."""

    time: float
    step_size: float
    mass: Mass
    fields: Dictionary
    coefficients: Tensor
    r_squared: float
    spread: float

    def residual(self, walkers: Walkers) -> tuple[Tensor, Tensor]:
        r"""$\partial_t U - a$ and $\partial_t U$; equal means."""
        point = walkers.cached
        assert isinstance(point, PathPoint)
        velocity, divergence = self.fields.velocity(self.time, walkers.x, self.coefficients)
        power = (velocity * point.score).flatten(1).sum(1, dtype=torch.float64)
        return point.time_derivative - divergence - power, point.time_derivative


def spectral_mass(args: argparse.Namespace) -> SpectralMass:
    """Fourier acceleration, before the field's own spectrum is seen."""
    return SpectralMass(2 * (lattice_momenta(args.size, args.dimensions) + 0.3))


def base_of(target: Phi4, args: argparse.Namespace) -> FreeField:
    """The free field of mass squared 1, about one magnetisation or two."""
    options = {"dimensions": target.dimensions, "magnetisation": args.magnetisation}
    return FreeField.massive(target.size, mass_squared=BASE_MASS_SQUARED, **options)


def seeded(args: argparse.Namespace, seed: int) -> torch.Generator:
    """A source of random numbers where the fields are."""
    return torch.Generator(device=args.device).manual_seed(seed)


def pilot_nodes(path: CountedPath, times: Sequence[float], args: argparse.Namespace) -> Iterator[Node]:
    """Chains of their own, annealed from the free field through all times: step sizes, fields and what they leave."""
    generator = seeded(args, args.seed)
    x, h, mass = path.start.sample(args.pilots, generator=generator).to(DTYPE), 0.5, spectral_mass(args)  # pyright: ignore
    weights = torch.full((args.pilots,), 1 / args.pilots, dtype=torch.float64, device=x.device)
    for t in times:
        walkers = HMC(path, h, LEAPFROGS, mass).start(t, x)
        for k in range(args.pilot_sweeps):
            walkers, _ = HMC(path, h, LEAPFROGS, mass).step(t, t, walkers, generator=generator)
            assert walkers.acceptance is not None
            h *= math.exp(float(walkers.acceptance.mean()) - ACCEPTANCE)
            if k == args.pilot_sweeps // 2:  # the other half tunes the step to it
                mass = spectral(folded(walkers.x), weights)
        point, x = walkers.cached, walkers.x
        assert isinstance(point, PathPoint)
        fields = lattice_sines(args.features, inner=tuple(args.inner))(x, generator)
        found = stein_regression(fields.stein(t, x, point), point.time_derivative, weights)
        yield Node(
            t,
            min(h, LONGEST / LEAPFROGS),
            mass,
            fields,
            found.coefficients,
            found.r_squared,
            math.sqrt(found.residual_variance),
        )


@dataclass(frozen=True)
class Integral:
    """One order of quadrature, chain by chain: chains are independent, whatever happens within one.

    Attributes:
        residual, raw: means of each half of the measurements, with and without control variate, (2, nodes, chains).
        weights, times: of the quadrature on [0, 1].
    """

    residual: np.ndarray
    raw: np.ndarray
    weights: np.ndarray
    times: np.ndarray

    def value(self, means: np.ndarray) -> tuple[float, float]:
        """Sum over nodes, averaged over chains, with its standard error."""
        return mean_and_error(self.weights @ means.mean(0))

    @property
    def settling(self) -> float:
        """Second half minus first half of the measurements, in standard errors: 0 for chains in equilibrium."""
        change, error = mean_and_error(self.weights @ (self.residual[1] - self.residual[0]))
        return change / error

    @property
    def legendre(self) -> list[tuple[float, float]]:
        r"""Coefficients of $\langle\partial_t U\rangle_t$ in Legendre polynomials on [0, 1], with errors.

        Where they fall as $\rho^{-k}$, n nodes err by about $\rho^{-2n}$.
        """
        polynomials = np.polynomial.legendre.legvander(2 * self.times - 1, len(self.times) - 1)
        scale = 2 * np.arange(len(self.times)) + 1
        values = (scale[:, None] * polynomials.T * self.weights) @ self.residual.mean(0)
        return [mean_and_error(row) for row in values]


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Of independent values."""
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def integrate(path: CountedPath, nodes: Sequence[Node], weights: np.ndarray, args: argparse.Namespace, seed: int):
    """Fresh chains, annealed through the nodes; measurements where quadrature weight and residual are large."""
    generator = seeded(args, seed)
    importance = weights * np.array([node.spread for node in nodes])
    counts = np.maximum(8, np.rint(args.sweeps * importance / importance.sum() / 2) * 2).astype(int)
    x = path.start.sample(args.chains, generator=generator).to(DTYPE)  # pyright: ignore
    means = np.zeros((2, 2, len(nodes), args.chains))
    for i, (node, count) in enumerate(zip(nodes, counts, strict=True)):
        t = node.time
        kernel = HMC(path, node.step_size, LEAPFROGS, node.mass, repeats=2)
        walkers = kernel.start(t, _flip(x, generator))
        for _ in range(args.burn_in):
            walkers, _ = kernel.step(t, t, walkers, generator=generator)
        sums = torch.zeros(2, 2, args.chains, dtype=torch.float64, device=x.device)  # fetched once, for a GPU
        for k in range(count):
            walkers, _ = kernel.step(t, t, walkers, generator=generator)
            sums[:, 2 * k // count] += torch.stack(node.residual(walkers))
        means[:, :, i] = (sums / (count / 2)).cpu().numpy()
        x = walkers.x
    return Integral(means[0], means[1], weights, np.array([node.time for node in nodes])), int(counts.sum()), x


def thermodynamic_integration(target: Phi4, args: argparse.Namespace) -> tuple[float, float]:
    """Route 1: both orders, and their average."""
    clock, path = Clock(args.device), CountedPath(CouplingPath(base_of(target, args), target))
    rules = [np.polynomial.legendre.leggauss(order) for order in args.orders]
    grids = [(0.5 * (nodes + 1), 0.5 * weights) for nodes, weights in rules]
    with path.stage("pilot"):
        every = {node.time: node for node in pilot_nodes(path, sorted({t for g, _ in grids for t in g.tolist()}), args)}
    say(f"pilot {clock}; R² " + " ".join(f"{n.r_squared:.4f}" for n in every.values()))
    base, found = path.start.log_z, []  # pyright: ignore
    for k, (order, (times, weights)) in enumerate(zip(args.orders, grids, strict=True)):
        nodes = [every[t] for t in times.tolist()]
        result, sweeps, x = integrate(path, nodes, weights, args, 1000 * (args.seed + 1) + k)
        value, error = result.value(result.residual)
        raw, raw_error = result.value(result.raw)
        found.append((base - value, error))
        say(f"TI, {order} nodes: log Z = {base - value:.5f} ± {error:.5f}")
        say(f"  without control variates {base - raw:.5f} ± {raw_error:.5f}")
        say(f"  second half of the measurements against the first: z = {result.settling:+.2f}")
        say(
            f"  {args.chains} chains of {sweeps} measurements, spread left "
            + " ".join(f"{n.spread:.2f}" for n in nodes)
        )
        say("  Legendre " + " ".join(f"{c:+.4f}({e:.4f})" for c, e in result.legendre))
        m = target.magnetisation(x)
        binder = float(target.binder(m.square().mean(), m.pow(4).mean()))
        say(f"  last chains, t = {times[-1]:.3f}: <|M|> {float(m.abs().mean()):.3f}, Binder {binder:.3f}")
    (a, error_a), (b, error_b) = found
    value, error = pooled(found)
    say(f"TI: log Z = {value:.5f} ± {error:.5f}, orders differ by {(a - b) / math.hypot(error_a, error_b):+.2f} "
        f"standard errors; gradients {gradients(path)}, {clock}")  # fmt: skip
    return value, error


def pooled(estimates: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Average weighted by inverse variances."""
    weights = np.array([error**-2 for _, error in estimates])
    return float(weights @ [value for value, _ in estimates] / weights.sum()), float(weights.sum() ** -0.5)


def two_sided(target: Phi4, args: argparse.Namespace, *, drifted: bool) -> tuple[float, float]:
    """Routes 2 and 3: works out and back, and BAR."""
    clock = Clock(args.device)
    base = base_of(target, args)
    path, generator = CountedPath(LinearPath(base, target)), seeded(args, args.seed + 100)
    mover = Hamiltonian(LEAPFROGS, mass=spectral_mass(args))
    with path.stage("pilot"):
        annealing = (_with_drift if drifted else _without)(path, mover, args, generator)
    walkers = args.drifted_walkers if drifted else args.walkers
    options = {"generator": generator, "chunk_size": args.chunk_size}
    forward = annealing.draw(walkers, device=args.device, **options)
    short = CountedPath(CouplingPath(base, target))
    starts = base.sample(walkers, generator=generator).to(DTYPE)
    chains = long_chains(short, starts, mover, steps=args.chain_steps, symmetry=_flip, generator=generator)
    reverse = annealing.reverse(chains.x, **options)
    found = bar(forward, reverse)
    assert found.delta_f is not None
    assert found.std_error is not None
    value, error = base.log_z - found.delta_f, math.hypot(found.std_error, annealing.systematic)
    say(f"two-sided {annealing.name}: log Z = {value:.4f} ± {error:.4f} (flow {annealing.systematic:.1e}); ESS "
        f"{forward.ess:.3f} and {reverse.ess:.3f}, overlap {found.overlap}")  # fmt: skip
    say(f"  {annealing.description}; {walkers} + {walkers} walkers; {chains.origin}")
    say(f"  flags {[flag.code for flag in found.flags]}")
    say(f"  gradients {gradients(path)}, chains {gradients(short)}, {clock}")
    return value, error


def phase(target: Phi4, args: argparse.Namespace) -> None:
    """Long chains of the target itself: order parameter, cumulant and susceptibility."""
    base, generator = base_of(target, args), seeded(args, args.seed + 200)
    starts, mover = (
        base.sample(args.chains, generator=generator).to(DTYPE),
        Hamiltonian(LEAPFROGS, mass=spectral_mass(args)),
    )
    options = {"steps": args.chain_steps, "symmetry": _flip, "generator": generator}
    chains = long_chains(CouplingPath(base, target), starts, mover, **options)
    m = target.magnetisation(chains.x).cpu().numpy()
    square, fourth = m**2, m**4
    a, b = square.mean(), fourth.mean()
    # By the delta method: chains are independent.
    influence = (2 * b * (square - a) / a - (fourth - b)) / (3 * a**2)
    binder, order = 1 - b / (3 * a**2), mean_and_error(np.abs(m))
    say(f"phase: <|M|> {order[0]:.4f} ± {order[1]:.4f}, Binder {binder:.4f} ± {mean_and_error(influence)[1]:.4f}, "
        f"L^D <M²> {square.mean() * target.event_shape.numel():.2f}; {chains.origin}")  # fmt: skip


def _without(path: CountedPath, mover: Hamiltonian, args: argparse.Namespace, generator: torch.Generator) -> Annealing:
    return ais(path, steps=args.steps, mover=mover, pilots=256, dtype=DTYPE, generator=generator)


def _with_drift(
    path: CountedPath, mover: Hamiltonian, args: argparse.Namespace, generator: torch.Generator
) -> Annealing:
    return least_squares(
        path,
        lattice_sines(args.features, inner=tuple(args.inner)),
        mover=mover,
        pilots=args.pilots,
        pilot_steps=30,
        steps=args.drifted_steps,
        dtype=DTYPE,
        generator=generator,
        device=args.device,
    ).annealing


def _flip(x: Tensor, generator: torch.Generator) -> Tensor:
    sign = torch.randint(0, 2, (len(x), *[1] * (x.ndim - 1)), generator=generator, device=x.device)
    return x * (sign * 2 - 1).to(x)


def transfer_matrix(target: Phi4, points: int, reach: float = 2.4) -> float:
    r"""log Z exactly: $Z = \mathrm{tr}\, T^L$ over rows of field values on an even grid."""
    size = target.size
    grid = torch.linspace(-reach, reach, points, dtype=torch.float64)
    link = torch.exp(-(grid[:, None] - grid).square())
    onsite = torch.exp(-(target.mass_squared + target.quartic * grid.square()) * grid.square()) * (grid[1] - grid[0])
    rows = torch.cartesian_prod(*[torch.arange(points)] * size)
    half = (onsite[rows] * link[rows, rows.roll(1, 1)]).prod(1).sqrt()

    def rung(columns: Tensor) -> Tensor:
        """T times columns `(points^L, n)`."""
        y = (half[:, None] * columns).view(*[points] * size, -1)
        for axis in range(size):
            y = (link @ y.movedim(axis, -2)).movedim(-2, axis)
        return half[:, None] * y.reshape(len(half), -1)

    # A column of T does for all those that shifts, a reflection and a change of sign of its row make of it.
    place = points ** torch.arange(size - 1, -1, -1)
    images = [r.roll(k, 1) for s in (rows, points - 1 - rows) for r in (s, s.flip(1)) for k in range(size)]
    first, counts = torch.stack([image @ place for image in images]).amin(0).unique(return_counts=True)
    total = 0.0
    for some, count in zip(first.split(64), counts.split(64), strict=True):
        columns = torch.zeros(len(half), len(some), dtype=torch.float64)
        columns[some, torch.arange(len(some))] = 1.0
        for _ in range(size // 2):
            columns = rung(columns)
        total += float((columns * (rung(columns) if size % 2 else columns)).sum(0) @ count.double())
    return math.log(total)


def gradients(path: CountedPath) -> str:
    """In words, by stage."""
    return ", ".join(f"{name} {tally.gradient / 1e6:.1f} M" for name, tally in path.tallies.items())


class Clock:
    """Time since it was made: of the core that works, or of the wall where another device does."""

    def __init__(self, device: str) -> None:
        self._now, self._unit = (time.process_time, "core-seconds") if device == "cpu" else (time.perf_counter, "s")
        self._start = self._now()

    def __str__(self) -> str:
        return f"{self._now() - self._start:.0f} {self._unit}"


def say(line: str) -> None:
    """At once, for long runs."""
    print(line, flush=True)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--quartic", type=float, default=0.8)
    parser.add_argument("--mass-squared", type=float, default=-1.0)
    parser.add_argument("--dimensions", type=int, default=2)
    parser.add_argument("--magnetisation", type=float, default=0.0, help="of the base, for targets that are ordered")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--routes", nargs="+", default=["ti", "two-sided"], help="ti, two-sided, drifted, exact, phase")
    parser.add_argument("--orders", type=int, nargs=2, default=(10, 14), help="of the two Gauss-Legendre rules")
    parser.add_argument("--chains", type=int, default=512)
    parser.add_argument("--sweeps", type=int, default=1000, help="measurements of each chain, shared by the nodes")
    parser.add_argument("--burn-in", type=int, default=15, help="double trajectories at every node")
    parser.add_argument("--pilots", type=int, default=2048)
    parser.add_argument("--pilot-sweeps", type=int, default=16)
    parser.add_argument("--features", type=int, default=32)
    parser.add_argument("--inner", type=float, nargs="+", default=(math.inf, 1.0, 0.3, 0.1), help="masses of smearings")
    parser.add_argument("--walkers", type=int, default=4096, help="each way, without a drift")
    parser.add_argument("--steps", type=int, default=300, help="of annealing without a drift")
    parser.add_argument("--chunk-size", type=int, default=256, help="walkers annealed at once")
    parser.add_argument("--chain-steps", type=int, default=1500, help="trajectories of chains for the way back")
    parser.add_argument("--points", type=int, default=20, help="of the transfer matrix")
    parser.add_argument("--drifted-walkers", type=int, default=4096, help="each way, with the drift")
    parser.add_argument("--drifted-steps", type=int, default=40)
    return parser.parse_args(given)


@torch.no_grad()
def main() -> None:
    """Every route asked for, and how far apart they are."""
    args = arguments()
    target = Phi4(args.size, quartic=args.quartic, mass_squared=args.mass_squared, dimensions=args.dimensions)
    say(
        f"phi4, D = {args.dimensions}, L = {args.size}, m² = {args.mass_squared:g}, λ = {args.quartic}, "
        f"seed {args.seed}, {args.device}"
    )
    found: dict[str, tuple[float, float]] = {}
    if "phase" in args.routes:
        phase(target, args)
    if "exact" in args.routes:
        for points in (args.points - 2, args.points):
            found["exact"] = (transfer_matrix(target, points), 0.0)
            say(f"transfer matrix, {points} field values: log Z = {found['exact'][0]:.8f}")
    if "ti" in args.routes:
        found["ti"] = thermodynamic_integration(target, args)
    if "two-sided" in args.routes:
        found["two-sided"] = two_sided(target, args, drifted=False)
    if "drifted" in args.routes:
        found["drifted"] = two_sided(target, args, drifted=True)
    for (one, (a, error_a)), (other, (b, error_b)) in pairwise(found.items()):
        say(f"{one} - {other}: {a - b:+.5f}, z = {(a - b) / math.hypot(error_a, error_b):+.2f}")


if __name__ == "__main__":
    main()
