"""What a trained drift does not reach: magnetisation of weighted walkers, and Stein's identity along components.

    python docs/benchmarks/nets_coverage.py --seed 1 --training-steps 300

NETS from zero on phi4-16 as `nets.py` runs it, beside the drift in closed form, whose walkers fill the target.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch

from nessampler.methods.density.effort import DensityEffort
from nessampler.methods.density.result import Attempt
from nessampler.methods.density.sample import sample_density
from nessampler.runs import catalogue
from nessampler.runs.config import DensityConfig, load, resolve
from nessampler.runs.density_problem import prepare_density
from nessampler.stein import stein_check
from nessampler.targets.phi4 import Phi4

FAR = 0.42  # of |M|, beyond which a quarter of the target lies


def row(name: str, attempt: Attempt, target: Phi4) -> str:
    """One line of the table, of all walkers."""
    ensemble, z = attempt.ensemble, attempt.log_z
    size, error = ensemble.expect(lambda x: Phi4.magnetisation(x).abs().double())
    far = Phi4.magnetisation(ensemble.x).abs() > FAR
    weight = torch.softmax(ensemble.log_weight.double(), 0)
    _, score = target.energy_and_score(ensemble.x.double())
    pieces = [v.double().reshape(1, len(far), -1).numpy() for v in (ensemble.x, score)]
    checks = [stein_check(*pieces, correlated=False, weight=weight[None].numpy(), components=k).p for k in (0, 4)]
    cells = (name, f"{z.value:.4f} ± {z.std_error:.4f}", f"{z.ess:.3f}", f"{float(size):.4f} ± {float(error):.4f}")
    shares = (f"{float(far.double().mean()):.4f}", f"{float(weight[far].sum()):.4f}")
    return f"| {' | '.join((*cells, *shares, *(f'{p:.1e}' for p in checks)))} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--training-steps", type=int, default=300)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    path = catalogue.find("phi4-16")
    config = resolve(load(path), run={"seed": asked.seed}, source=str(path))
    assert isinstance(config, DensityConfig)
    problem = replace(prepare_density(config, path.parent).problem, target_samples=None)
    assert isinstance(problem.target, Phi4)
    closed = replace(DensityEffort(**config.sampling.model_dump()), reverse_walkers=0)
    zero = {"nets_start": "zero", "nets_kernel": "langevin", "nets_steps": asked.training_steps}
    trained = DensityEffort(walkers=4096, steps=200, leapfrog_steps=1, reverse_walkers=0, **zero)
    print(f"| drift | log Z | ESS | mean of abs M | walkers beyond {FAR} | weight there | p, sites | p, components |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name, method, effort in (("closed form", "lsq", closed), ("trained", "nets", trained)):
        found = sample_density(problem, method=method, seed=asked.seed, effort=effort)  # pyright: ignore[reportArgumentType]
        print(row(name, found.attempt, problem.target), flush=True)


if __name__ == "__main__":
    main()
