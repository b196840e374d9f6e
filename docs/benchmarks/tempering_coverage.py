"""How often the intervals of parallel tempering hold a log Z that is known, over seeds.

    python docs/benchmarks/tempering_coverage.py three --draws 300 --seeds 60

Prints a row of the table in docs/benchmarks/bench.md.
"""

import argparse
import math

import numpy as np
import torch

from nessampler.methods.density.tempering import Tempered, tempering
from nessampler.paths import LinearPath
from nessampler.targets import AnharmonicWell, Gaussian, Target
from nessampler.targets.funnel import Funnel
from nessampler.targets.mixture import GaussianMixture


def normal(mean: float, scale: float, d: int) -> Gaussian:
    return Gaussian(torch.full((d,), mean).double(), torch.full((d,), scale).double())


def mixture(means: list, scales: list, weights: list) -> GaussianMixture:
    return GaussianMixture(*(torch.as_tensor(v, dtype=torch.float64) for v in (means, scales, weights)))


def ends(name: str) -> tuple[Gaussian, Target]:
    """Base and target."""
    if name == "gaussian":
        return normal(0, 1, 10), normal(1, 0.6, 10)
    if name == "well":
        well = AnharmonicWell([1.0, 0.0], stiffness=[1.0, 2.0], quartic=[0.5, 0.1], skew=[0.5, -0.4], coupling=1.0)
        return normal(0, 1.5, 2), well
    if name == "three":
        return normal(0, 4, 2), mixture([[-3, 0], [3, 0], [0, 4]], [0.7, 1.0, 0.5], [0.5, 0.3, 0.2])
    if name == "eight":
        angle = [k * math.pi / 4 for k in range(8)]
        ring = [[10 * math.cos(a), 10 * math.sin(a)] for a in angle]
        return normal(0, 8, 2), mixture(ring, [0.5] * 8, [1, 2, 1, 3, 1, 2, 1, 1])
    if name == "twenty":
        means = 2 * torch.randn(4, 20, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        return normal(0, 2.2, 20), mixture(means, [1.0] * 4, [0.4, 0.3, 0.2, 0.1])  # pyright: ignore[reportArgumentType]
    return normal(0, 3, 10), Funnel(10)


def row(name: str, draws: int, seeds: range) -> str:
    torch.set_num_threads(1)
    base, target = ends(name)
    path, truth = LinearPath(base, target), float(target.log_z)  # pyright: ignore[reportAttributeAccessIssue]
    runs = [tempering(path, draws=draws, generator=torch.Generator().manual_seed(s)) for s in seeds]
    held = [low < truth < high for low, high in (r.ci95 for r in runs)]

    def rms(values: list) -> float:
        return float(np.sqrt(np.mean(np.square(values))))

    def trips(run: Tempered) -> float:
        return float(np.mean(run.round_trips))

    cells = [name, str(draws), str(len(runs)), f"{np.mean([trips(r) for r in runs]):.1f}"]
    cells += [f"{rms([r.log_z - truth for r in runs]):.3f}", f"{rms([r.std_error for r in runs]):.3f}"]
    cells += [f"{rms([r.multistate.std_error for r in runs]):.3f}", f"{np.mean(held):.0%}"]
    cells += [f"{np.mean([bool(r.flags) for r in runs]):.0%}"]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=["gaussian", "well", "three", "eight", "twenty", "funnel"])
    parser.add_argument("--draws", type=int, default=100, help="of each of eight copies")
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    print(row(given.target, given.draws, range(given.first, given.first + given.seeds)))
