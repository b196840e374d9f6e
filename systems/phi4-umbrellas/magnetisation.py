r"""Is the magnetisation of the unbiased lattice symmetric, when both umbrellas are reweighted to it?

    python systems/phi4-umbrellas/magnetisation.py --seeds 3

The samples of both umbrellas become one sample of the φ⁴ density by the weights of their mixture, with the ΔF of a rung
of the ladder. φ⁴ is even, so that P(M) = P(-M): a wrong ΔF tilts the two sides against each other by just its error.

The errors are from resampling chains, which are independent, and from ΔF's own error. $\chi^2$ is of the differences
$P(M) - P(-M)$ over bins of |M| with their full covariance, and z of the share P(M > 0) against one half.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.stats import chi2

from nessampler.estimators.reweighting import mixture_weights
from nessampler.methods.difference import free_energy
from nessampler.runs.config import DifferenceConfig, load, resolve
from nessampler.runs.difference import effort_of
from nessampler.runs.target_problem import prepare_targets
from nessampler.targets.umbrella import Umbrella

EDGES = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.8])  # of |M|
RESAMPLES = 400


def difference(m: list[np.ndarray], umbrellas: list[Umbrella], delta_f: float) -> np.ndarray:
    """P(M) - P(-M) over the bins, and last P(M > 0) - 1/2; magnetisations `(chains, draws)` of each umbrella."""
    flat = [x.ravel() for x in m]
    pooled = np.concatenate(flat)
    biases = np.stack([u.stiffness * (pooled - u.center) ** 2 for u in umbrellas])
    weights = mixture_weights(biases, [len(x) for x in flat], np.array([0.0, delta_f]), np.zeros(len(pooled)))
    sides = [np.histogram(sign * pooled, EDGES, weights=weights)[0] for sign in (1, -1)]
    return np.append(sides[0] - sides[1], weights[pooled > 0].sum() - 0.5)


def resampled(
    m: list[np.ndarray], umbrellas: list[Umbrella], delta_f: float, error: float, generator: np.random.Generator
) -> np.ndarray:
    """The same of resampled chains and a ΔF drawn from its error, `(resamples, bins + 1)`."""
    rows = []
    for _ in range(RESAMPLES):
        chains = [x[generator.integers(len(x), size=len(x))] for x in m]
        rows.append(difference(chains, umbrellas, delta_f + error * generator.normal()))
    return np.stack(rows)


def row(method: str, seed: int, settings: list[str], folder: Path) -> str:
    """One line of the table."""
    path = folder / "system.toml"
    config = resolve(load(path), run={"seed": seed, "method": method}, settings=settings, source=str(path))
    assert isinstance(config, DifferenceConfig)
    ends = prepare_targets(config, folder)
    umbrellas = [ends.target_a, ends.target_b]
    assert all(isinstance(u, Umbrella) for u in umbrellas)
    found = free_energy(
        *umbrellas, ends.samples_a, ends.samples_b, method=config.run.method, seed=seed, effort=effort_of(config)
    ).delta_f
    assert found.delta_f is not None
    assert found.std_error is not None
    m = [x.flatten(2).double().mean(-1).numpy() for x in (ends.samples_a, ends.samples_b)]
    here = difference(m, umbrellas, found.delta_f)  # pyright: ignore[reportArgumentType]
    again = resampled(m, umbrellas, found.delta_f, found.std_error, np.random.default_rng(seed))  # pyright: ignore
    covariance = np.cov(again[:, :-1].T)
    value = float(here[:-1] @ np.linalg.solve(covariance, here[:-1]))
    bins = len(EDGES) - 1
    share, error = here[-1] + 0.5, again[:, -1].std()
    return (
        f"| {method} | {seed} | {found.delta_f:.4f} ± {found.std_error:.4f} | {share:.4f} ± {error:.4f} | "
        f"{here[-1] / error:+.1f} | {value:.1f} / {bins} | {chi2.sf(value, bins):.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["plain", "map", "switching"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of `nessampler run`")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| rung | seed | ΔF (kT) | P(M > 0) | z | χ² / bins | p |\n|---|---|---|---|---|---|---|")
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for method in args.methods:
            print(row(method, seed, args.set, Path(__file__).parent), flush=True)


if __name__ == "__main__":
    main()
