"""Log-determinants that flow steps integrate, against those of the steps' Jacobians: the catalogue's drift on lattices.

    python docs/benchmarks/flow_log_det.py phi4-8 phi4-16 --walkers 64 16

Walkers go from the base to the target as in a run, flow and HMC in turn. At every flow step the Jacobian of the
discrete map is found by automatic differentiation, a row for each site, and its log-determinant by
`torch.linalg.slogdet`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from nessampler.kernels import HMC, Compose, Flow
from nessampler.methods.density.counted import CountedPath
from nessampler.methods.density.lsq import least_squares
from nessampler.methods.density.tuning import Hamiltonian
from nessampler.methods.ends import generator_for
from nessampler.runs import catalogue
from nessampler.runs.config import DensityConfig, load, resolve
from nessampler.runs.density_problem import prepare_density


def row(name: str, n: int, seed: int) -> str:
    """One system: the shift of log Z that the run measures, and the true one with its error over walkers."""
    source = catalogue.find(name)
    config = resolve(load(source), run={"seed": seed}, source=str(source))
    assert isinstance(config, DensityConfig)
    problem, effort = prepare_density(config, source.parent).problem, config.sampling
    path, generator = CountedPath(problem.path), generator_for(seed, "lsq")
    solved = least_squares(
        path,
        problem.dictionary,
        mover=Hamiltonian(effort.leapfrog_steps, mass=problem.mass, step_size=problem.step_size),
        pilots=effort.pilot_walkers,
        pilot_steps=effort.pilot_steps,
        steps=effort.steps or 0,
        dtype=problem.dtype,
        generator=generator,
    )
    kernel = solved.annealing.kernel
    assert isinstance(kernel, Compose)
    assert isinstance(kernel.first, Flow)
    assert isinstance(kernel.second, HMC)
    flow, relax, times = replace(kernel.first, field=solved.drift.field), kernel.second, solved.annealing.times
    x = path.start.sample(n, generator=generator).double()  # pyright: ignore[reportAttributeAccessIssue]
    integrated, exact, worst = both(flow, relax, path, times, x, generator)
    shift = float(integrated.logsumexp(0) - exact.logsumexp(0))
    error = float((torch.softmax(integrated, 0) - torch.softmax(exact, 0)).square().sum().sqrt())
    found = solved.flow_error
    return (
        f"| {name} | {seed} | {flow.order} × {flow.substeps} | {len(times) - 1} | {n} | {found.shift:+.1e} ± "
        f"{found.std_error:.0e} | {shift:+.1e} ± {error:.0e} | {worst:.0e} |"
    )


def both(
    flow: Flow, relax: HMC, path: CountedPath, times: tuple[float, ...], x: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, float]:
    """Log-weights by either log-determinant, and the largest difference of any walker at any step."""
    walkers, worst = relax.start(times[0], x), 0.0
    integrated, exact = (torch.zeros(len(x), dtype=torch.float64) for _ in range(2))
    for t0, t1 in pairwise(times):

        def moved(y: Tensor, t0: float = t0, t1: float = t1) -> Tensor:
            return flow.step(t0, t1, flow.start(t0, y[None]), generator=generator)[0].x[0]

        with torch.enable_grad():
            jacobian = torch.stack([torch.func.jacrev(moved)(y).reshape(y.numel(), -1) for y in walkers.x])  # pyright: ignore[reportPrivateImportUsage]
        after, ratio = flow.step(t0, t1, walkers, generator=generator)
        true = torch.linalg.slogdet(jacobian.detach())[1]
        assert walkers.energy is not None
        change = walkers.energy - path.energy(torch.full((len(x),), t1, dtype=x.dtype), after.x)
        integrated, exact = integrated + change + ratio, exact + change + true
        worst = max(worst, float((ratio - true).abs().max()))
        walkers, _ = relax.step(t0, t1, after, generator=generator)
    return integrated, exact, worst


@torch.no_grad()
def main() -> None:
    """A line per system."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="+")
    parser.add_argument("--walkers", type=int, nargs="+", default=[16])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| system | seed | order × substeps | steps | walkers | measured in the run | by slogdet | worst step |")
    print("|---|---|---|---|---|---|---|---|")
    walkers = args.walkers * len(args.systems) if len(args.walkers) == 1 else args.walkers
    for name, n in zip(args.systems, walkers, strict=True):
        print(row(name, n, args.seed), flush=True)


if __name__ == "__main__":
    main()
