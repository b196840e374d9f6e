r"""Reference values of log Z for posteriors without one in closed form, by routes that share no estimator.

    python systems/logistic/reference.py logistic --routes bridge two-sided smc
    python systems/logistic/reference.py lgcp-1600 --routes smc --particles 16384 --islands 16 --conditional-ess 0.97

1. `bridge`: BAR between a normal with the mean and covariance of one half of long HMC chains, and the other half.
   No path and no annealing. For a few dozen coordinates.
2. `two-sided`: annealing by HMC from the catalogue's base, forwards from the base and backwards from long chains, BAR.
3. `smc`: adaptive SMC from the base with many particles.

Nothing here uses a drift.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import torch

from nessampler.estimators import bar
from nessampler.methods.density.ais import ais
from nessampler.methods.density.chains import Chains, long_chains
from nessampler.methods.density.counted import CountedPath
from nessampler.methods.density.problem import DensityProblem
from nessampler.methods.density.smc import smc
from nessampler.methods.density.tuning import Hamiltonian
from nessampler.methods.ends import generator_for
from nessampler.runs import catalogue
from nessampler.runs.config import DensityConfig, load, resolve
from nessampler.runs.density_problem import prepare_density
from nessampler.targets.normal import Normal

Estimate = tuple[float, float]


def chains_of(problem: DensityProblem, args: argparse.Namespace, count: int, stream: str) -> Chains:
    """One draw of each of `count` chains, which start from the base."""
    generator, path = generator_for(args.seed, stream), CountedPath(problem.path)
    start = problem.path.start.sample(count, generator=generator).to(problem.dtype)  # pyright: ignore
    mover = Hamiltonian(args.leapfrogs, mass=problem.mass, step_size=problem.step_size)
    found = long_chains(path, start, mover, steps=args.chain_steps, generator=generator)
    say(f"  {found.origin}, {gradients(path)}")
    return found


def bridge(problem: DensityProblem, args: argparse.Namespace) -> Estimate:
    """Works between a fitted normal and the posterior: differences of energies, nothing moves."""
    x = chains_of(problem, args, 2 * args.walkers, "bridge").x
    fit, held = x[: args.walkers].double(), x[args.walkers :].double()
    normal = Normal(fit.mean(0), args.inflation * fit.T.cov())
    drawn = normal.sample(args.walkers, generator=generator_for(args.seed, "normal"))
    target = problem.path.end
    forward = target.energy(drawn) - normal.energy(drawn) - normal.log_z
    reverse = normal.energy(held) + normal.log_z - target.energy(held)
    found = bar(forward, reverse)
    assert found.delta_f is not None
    assert found.std_error is not None
    say(f"bridge: log Z = {-found.delta_f:.4f} ± {found.std_error:.4f}, overlap {found.overlap:.3f}")
    return -found.delta_f, found.std_error


def two_sided(problem: DensityProblem, args: argparse.Namespace) -> Estimate:
    """Annealing without a drift, both ways."""
    path, generator = CountedPath(problem.path), generator_for(args.seed, "two-sided")
    mover = Hamiltonian(args.leapfrogs, mass=problem.mass, step_size=problem.step_size)
    annealing = ais(path, steps=args.steps, mover=mover, pilots=256, dtype=problem.dtype, generator=generator)
    forward = annealing.draw(args.walkers, generator=generator, chunk_size=problem.chunk_size)
    chains = chains_of(problem, args, args.walkers, "chains")
    reverse = annealing.reverse(chains.x, generator=generator, chunk_size=problem.chunk_size)
    found = bar(forward, reverse)
    assert found.delta_f is not None
    assert found.std_error is not None
    value = annealing.base_log_z - found.delta_f
    lower, upper = annealing.base_log_z - forward.work.mean(), annealing.base_log_z + reverse.work.mean()
    say(f"two-sided: log Z = {value:.4f} ± {found.std_error:.4f}, mean works {lower:.3f} to {upper:.3f}; ESS "
        f"{forward.ess:.3f} and {reverse.ess:.3f}, overlap {found.overlap:.3f}")  # fmt: skip
    say(f"  {annealing.description}; {args.walkers} walkers each way; {gradients(path)}")
    say(f"  flags {[flag.code for flag in (*found.flags, *chains.flags)]}")
    return value, found.std_error


def long_smc(problem: DensityProblem, args: argparse.Namespace) -> Estimate:
    """Independent islands, so that the error is their scatter."""
    found = smc(
        problem.path,
        particles=args.particles // args.islands,
        islands=args.islands,
        mover=Hamiltonian(args.leapfrogs, mass=problem.mass, step_size=problem.step_size),
        conditional_ess=args.conditional_ess,
        dtype=problem.dtype,
        generator=generator_for(args.seed, "smc"),
    )
    total = sum(t.gradient + t.energy for t in found.evaluations.values())
    say(f"smc: log Z = {found.log_z:.4f} ± {found.std_error:.4f}")
    say(
        f"  {args.islands} islands of {args.particles // args.islands}, {len(found.times) - 1} temperatures, "
        f"{total / 1e6:.1f} M gradients"
    )
    return found.log_z, found.std_error


ROUTES: dict[str, Callable[[DensityProblem, argparse.Namespace], Estimate]] = {
    "bridge": bridge,
    "two-sided": two_sided,
    "smc": long_smc,
}


def problem_of(name: str) -> DensityProblem:
    """As the catalogue has it."""
    path = catalogue.find(name)
    config = resolve(load(path), source=str(path))
    assert isinstance(config, DensityConfig)
    return prepare_density(config, Path(path).parent).problem


def gradients(path: CountedPath) -> str:
    """In words."""
    return f"{sum(tally.gradient + tally.energy for tally in path.tallies.values()) / 1e6:.1f} M gradients"


def say(line: str) -> None:
    """At once, for long runs."""
    print(line, flush=True)


@torch.no_grad()
def main() -> None:
    """Every route asked for, how far apart they are, and their average."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=["logistic", "lgcp-1600"])
    parser.add_argument("--routes", nargs="+", choices=list(ROUTES), default=["two-sided", "smc"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--leapfrogs", type=int, default=5)
    parser.add_argument("--walkers", type=int, default=8192, help="each way")
    parser.add_argument("--inflation", type=float, default=1.0, help="of the covariance of the bridge's normal")
    parser.add_argument("--steps", type=int, default=60, help="of annealing")
    parser.add_argument("--chain-steps", type=int, default=400, help="trajectories of every chain")
    parser.add_argument("--particles", type=int, default=65536, help="of SMC, all islands together")
    parser.add_argument("--islands", type=int, default=16)
    parser.add_argument("--conditional-ess", type=float, default=0.98, help="between temperatures of SMC")
    args = parser.parse_args()
    torch.set_num_threads(1)
    problem, found = problem_of(args.system), {}
    for route in args.routes:
        clock = time.process_time()
        found[route] = ROUTES[route](problem, args)
        say(f"  {time.process_time() - clock:.0f} core-seconds")
    for (one, (a, error_a)), (other, (b, error_b)) in combinations(found.items(), 2):
        say(f"{one} - {other}: {a - b:+.4f}, z = {(a - b) / math.hypot(error_a, error_b):+.2f}")
    weights = {route: error**-2 for route, (_, error) in found.items()}
    total = sum(weights.values())
    say(f"average {sum(weights[r] * v for r, (v, _) in found.items()) / total:.4f} ± {total**-0.5:.4f}")


if __name__ == "__main__":
    main()
