r"""Reference values of log Z for posteriors without one in closed form, by routes that share no estimator.

    python systems/lgcp-1600/reference.py --routes two-sided ti
    python systems/lgcp-1600/reference.py --device cuda --walkers 32768 --steps 240 --chains 4096 --sweeps 400
    python systems/lgcp-1600/reference.py --system logistic --routes bridge two-sided smc

1. `two-sided`: annealing by HMC without a drift, forwards from the Laplace base and backwards from long HMC chains of
   the posterior (their R-hat is printed), and BAR of the works.
2. `ti`: thermodynamic integration along the linear path with Gauss-Legendre nodes of two orders. What long chains
   average at every node is $\partial_t U - a$, where $a = \nabla\cdot b - b\cdot\nabla U_t$ has mean zero for any field
   b; pilot chains have fitted it. Its R-hat is that of this average over chains of the last node.
3. `smc`: adaptive SMC on independent islands, whose scatter is the error.
4. `bridge`: BAR between a normal with the mean and covariance of one half of long HMC chains, and the other half. No
   path and no annealing. For a few dozen coordinates.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nessampler.closed_form.least_squares_drift import stein_regression
from nessampler.closed_form.shared_dictionary import SharedDictionary
from nessampler.estimators import bar, r_hat
from nessampler.kernels import HMC, DenseMass, Walkers
from nessampler.methods.density.ais import ais
from nessampler.methods.density.chains import Chains, long_chains
from nessampler.methods.density.counted import CountedPath
from nessampler.methods.density.dictionaries import shared_sines
from nessampler.methods.density.problem import DensityProblem
from nessampler.methods.density.smc import smc
from nessampler.methods.density.tuning import Hamiltonian
from nessampler.paths import PathPoint
from nessampler.runs.config import DensityConfig, load, resolve
from nessampler.runs.density_problem import prepare_density
from nessampler.targets.normal import Normal

ACCEPTANCE = 0.85
LONGEST = math.pi / 2  # of a trajectory: under the base's own precision all frequencies are about one
Estimate = tuple[float, float]


@dataclass(frozen=True)
class Node:
    """A time, and what pilot chains found out there."""

    time: float
    step_size: float
    fields: SharedDictionary
    coefficients: Tensor
    r_squared: float
    spread: float

    def residual(self, walkers: Walkers) -> Tensor:
        r"""$\partial_t U - a$ and $\partial_t U$, which have equal means: `(2, n)`."""
        point = walkers.cached
        assert isinstance(point, PathPoint)
        velocity, divergence = self.fields.velocity(self.time, walkers.x, self.coefficients)
        a = divergence + (velocity * point.score).sum(1, dtype=torch.float64)
        rate = point.time_derivative.to(torch.float64)
        return torch.stack([rate - a, rate])


def two_sided(problem: DensityProblem, args: argparse.Namespace) -> Estimate:
    """Annealing without a drift, both ways."""
    path, generator = CountedPath(problem.path), seeded(args, 100)
    mover, options = moves(problem, args), {"generator": generator, "chunk_size": args.chunk_size}
    annealing = ais(path, steps=args.steps, mover=mover, pilots=args.pilots, dtype=problem.dtype, generator=generator)
    forward = annealing.draw(args.walkers, device=args.device, **options)
    chains = chains_of(problem, path, args.walkers, args, generator)
    reverse = annealing.reverse(chains.x, **options)
    found = bar(forward, reverse)
    assert found.delta_f is not None
    assert found.std_error is not None
    value = annealing.base_log_z - found.delta_f
    lower, upper = annealing.base_log_z - float(forward.work.mean()), annealing.base_log_z + float(reverse.work.mean())
    say(f"two-sided: log Z = {value:.4f} ± {found.std_error:.4f}, R-hat {chains.rhat:.4f}, mean works {lower:.3f} to "
        f"{upper:.3f}; ESS {forward.ess:.3f} and {reverse.ess:.3f}, overlap {found.overlap:.3f}")  # fmt: skip
    say(f"  {annealing.description}; {args.walkers} walkers each way; {chains.origin}; {gradients(path)}")
    say(f"  flags {[flag.code for flag in (*found.flags, *chains.flags)]}")
    return value, found.std_error


def bridge(problem: DensityProblem, args: argparse.Namespace) -> Estimate:
    """Works between a fitted normal and the posterior: differences of energies, nothing moves."""
    path, generator = CountedPath(problem.path), seeded(args, 300)
    x = chains_of(problem, path, 2 * args.walkers, args, generator).x
    fit, held = x[: args.walkers].double(), x[args.walkers :].double()
    normal = Normal(fit.mean(0), args.inflation * fit.T.cov())
    drawn = normal.sample(args.walkers, generator=generator)
    forward = path.end.energy(drawn) - normal.energy(drawn) - normal.log_z
    reverse = normal.energy(held) + normal.log_z - path.end.energy(held)
    found = bar(forward, reverse)
    assert found.delta_f is not None
    assert found.std_error is not None
    say(f"bridge: log Z = {-found.delta_f:.4f} ± {found.std_error:.4f}, overlap {found.overlap:.3f}; {gradients(path)}")
    return -found.delta_f, found.std_error


def chains_of(
    problem: DensityProblem, path: CountedPath, count: int, args: argparse.Namespace, generator: torch.Generator
) -> Chains:
    """One draw of each of `count` chains, which start from the base."""
    start = path.start.sample(count, generator=generator).to(problem.dtype)  # pyright: ignore
    return long_chains(path, start, moves(problem, args), steps=args.chain_steps, generator=generator)


def integration(problem: DensityProblem, args: argparse.Namespace) -> Estimate:
    """Both orders of quadrature, and their average."""
    path, found = CountedPath(problem.path), []
    rules = [np.polynomial.legendre.leggauss(order) for order in args.orders]
    grids = [(0.5 * (nodes + 1), 0.5 * weights) for nodes, weights in rules]
    every = {n.time: n for n in pilot_nodes(problem, path, sorted({t for g, _ in grids for t in g.tolist()}), args)}
    say("  pilot R² " + " ".join(f"{n.r_squared:.3f}" for n in every.values()))
    for k, (times, weights) in enumerate(grids):
        nodes = [every[t] for t in times.tolist()]
        means, raw, worst = averages(problem, path, nodes, weights, args, seeded(args, 1000 + k))
        value, error = mean_and_error(weights @ means)
        plain, plain_error = mean_and_error(weights @ raw)
        base = float(path.start.log_z)  # pyright: ignore
        found.append((base - value, error))
        say(f"  {len(nodes)} nodes: log Z = {base - value:.5f} ± {error:.5f}, R-hat {worst:.4f}; without control "
            f"variates {base - plain:.4f} ± {plain_error:.4f}")  # fmt: skip
    (a, error_a), (b, error_b) = found
    value, error = pooled(found)
    say(f"ti: log Z = {value:.5f} ± {error:.5f}; the orders differ by {(a - b) / math.hypot(error_a, error_b):+.2f} "
        f"standard errors; {gradients(path)}")  # fmt: skip
    return value, error


def pilot_nodes(
    problem: DensityProblem, path: CountedPath, times: Sequence[float], args: argparse.Namespace
) -> Iterator[Node]:
    """Chains of their own, annealed through all times: step sizes, fields, and what these leave."""
    generator, base = seeded(args, 0), path.start
    assert isinstance(base, Normal)
    h, x = problem.step_size, base.sample(args.pilots, generator=generator).to(problem.dtype)
    equal = torch.full((len(x),), 1 / len(x), dtype=torch.float64, device=x.device)
    factory = shared_sines(base.covariance, tuple(args.waves))
    for t in times:
        walkers = HMC(path, h, args.leapfrogs, problem.mass).start(t, x)
        for _ in range(args.pilot_sweeps):
            walkers, _ = HMC(path, h, args.leapfrogs, problem.mass).step(t, t, walkers, generator=generator)
            assert walkers.acceptance is not None
            h *= math.exp(float(walkers.acceptance.mean()) - ACCEPTANCE)
        x, point = walkers.x, walkers.cached
        assert isinstance(point, PathPoint)
        fields = factory(x, generator)
        fields = replace(fields, matrices=fields.matrices.to(x))
        found = stein_regression(fields.stein(t, x, point), point.time_derivative.to(torch.float64), equal)
        size = min(h, LONGEST / args.leapfrogs)
        yield Node(t, size, fields, found.coefficients, found.r_squared, math.sqrt(found.residual_variance))


def averages(
    problem: DensityProblem,
    path: CountedPath,
    nodes: Sequence[Node],
    weights: np.ndarray,
    args: argparse.Namespace,
    generator: torch.Generator,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Fresh chains through the nodes: means with and without control variate, `(nodes, chains)`, and the last R-hat."""
    importance = weights * np.array([node.spread for node in nodes])
    counts = np.maximum(4, np.rint(args.sweeps * importance / importance.sum())).astype(int)
    x = path.start.sample(args.chains, generator=generator).to(problem.dtype)  # pyright: ignore
    means, worst = np.zeros((2, len(nodes), args.chains)), math.nan
    for i, (node, count) in enumerate(zip(nodes, counts, strict=True)):
        kernel = HMC(path, node.step_size, args.leapfrogs, problem.mass)
        walkers = kernel.start(node.time, x)
        for _ in range(args.burn_in):
            walkers, _ = kernel.step(node.time, node.time, walkers, generator=generator)
        series = []  # on the device until the node is done
        for _ in range(count):
            walkers, _ = kernel.step(node.time, node.time, walkers, generator=generator)
            series.append(node.residual(walkers))
        draws = torch.stack(series, 2).cpu().numpy()
        means[:, i], worst, x = draws.mean(2), r_hat(draws[0]), walkers.x
    return means[0], means[1], worst


def long_smc(problem: DensityProblem, args: argparse.Namespace) -> Estimate:
    """Independent islands, so that the error is their scatter."""
    found = smc(
        problem.path,
        particles=args.particles // args.islands,
        islands=args.islands,
        mover=moves(problem, args),
        conditional_ess=args.conditional_ess,
        dtype=problem.dtype,
        generator=seeded(args, 200),
    )
    total = sum(t.gradient + t.energy for t in found.evaluations.values())
    say(f"smc: log Z = {found.log_z:.4f} ± {found.std_error:.4f}")
    say(f"  {args.islands} islands of {args.particles // args.islands}, {len(found.times) - 1} temperatures, "
        f"{total / 1e6:.1f} M gradients; flags {[flag.code for flag in found.flags]}")  # fmt: skip
    return found.log_z, found.std_error


ROUTES: dict[str, Callable[[DensityProblem, argparse.Namespace], Estimate]] = {
    "two-sided": two_sided,
    "ti": integration,
    "smc": long_smc,
    "bridge": bridge,
}


def problem_of(args: argparse.Namespace) -> DensityProblem:
    """As the catalogue has it; the mass where the walkers are."""
    source = Path(__file__).parent.parent / args.system / "system.toml"
    config = resolve(load(source), source=str(source))
    assert isinstance(config, DensityConfig)
    problem = prepare_density(config, source.parent).problem
    assert isinstance(problem.mass, DenseMass)
    return replace(problem, mass=DenseMass(problem.mass.cholesky.to(args.device)))


def moves(problem: DensityProblem, args: argparse.Namespace) -> Hamiltonian:
    """Trajectories in the base's own precision."""
    return Hamiltonian(args.leapfrogs, mass=problem.mass, step_size=problem.step_size)


def seeded(args: argparse.Namespace, stream: int) -> torch.Generator:
    """A source of random numbers where the walkers are."""
    return torch.Generator(device=args.device).manual_seed(10_000 * args.seed + stream)


def mean_and_error(values: np.ndarray) -> Estimate:
    """Of independent values."""
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def pooled(estimates: Sequence[Estimate]) -> Estimate:
    """Average weighted by inverse variances."""
    weights = np.array([error**-2 for _, error in estimates])
    return float(weights @ [value for value, _ in estimates] / weights.sum()), float(weights.sum() ** -0.5)


def gradients(path: CountedPath) -> str:
    """In words."""
    return f"{sum(tally.gradient + tally.energy for tally in path.tallies.values()) / 1e6:.1f} M gradients"


def say(line: str) -> None:
    """At once, for long runs."""
    print(line, flush=True)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", choices=["lgcp-1600", "logistic"], default="lgcp-1600")
    parser.add_argument("--routes", nargs="+", choices=list(ROUTES), default=["two-sided", "ti"])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--leapfrogs", type=int, default=5)
    parser.add_argument("--pilots", type=int, default=512)
    parser.add_argument("--walkers", type=int, default=2048, help="annealed each way")
    parser.add_argument("--inflation", type=float, default=1.0, help="of the covariance of the bridge's normal")
    parser.add_argument("--steps", type=int, default=60, help="of annealing")
    parser.add_argument("--chunk-size", type=int, default=2048, help="walkers annealed at once")
    parser.add_argument("--chain-steps", type=int, default=400, help="trajectories of chains for the way back")
    parser.add_argument("--orders", type=int, nargs=2, default=(5, 8), help="of the two Gauss-Legendre rules")
    parser.add_argument("--chains", type=int, default=256, help="at every node")
    parser.add_argument("--sweeps", type=int, default=200, help="measurements of each chain, shared by the nodes")
    parser.add_argument("--burn-in", type=int, default=15, help="trajectories at every node")
    parser.add_argument("--pilot-sweeps", type=int, default=12)
    parser.add_argument("--waves", type=float, nargs="+", default=(0.4, 0.8, 1.2), help="of the control variates")
    parser.add_argument("--particles", type=int, default=16384, help="of SMC, all islands together")
    parser.add_argument("--islands", type=int, default=16)
    parser.add_argument("--conditional-ess", type=float, default=0.97, help="between temperatures of SMC")
    return parser.parse_args(given)


@torch.no_grad()
def main() -> None:
    """Every route asked for, how far apart they are, and their average."""
    args = arguments()
    if args.device == "cpu":
        torch.set_num_threads(1)
    problem, found = problem_of(args), {}
    for route in args.routes:
        started = time.perf_counter()
        found[route] = ROUTES[route](problem, args)
        say(f"  {time.perf_counter() - started:.0f} s")
    for (one, (a, error_a)), (other, (b, error_b)) in combinations(found.items(), 2):
        say(f"{one} - {other}: {a - b:+.4f}, z = {(a - b) / math.hypot(error_a, error_b):+.2f}")
    value, error = pooled(list(found.values()))
    say(f"average {value:.4f} ± {error:.4f}")


if __name__ == "__main__":
    main()
