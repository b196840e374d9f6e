r"""Reference value of ΔF between two umbrellas on the magnetisation of the φ⁴ lattice, by MBAR over a row of umbrellas.

    python systems/phi4-umbrellas/reference.py --seed 1
    python systems/phi4-umbrellas/reference.py --seed 2 --row folded

All umbrellas are $U + \kappa (M - c)^2$ with one κ. Two rows of centres lead to the same difference:

- *straight*: from c = −0.3 through 0 to 0.6, as a user without ideas would place them;
- *folded*: from c = +0.3 to 0.6. U is even, so that the umbrella at −c has the free energy of that at c.

Chains of every umbrella move by HMC with a mass near the lattice's spectrum, and begin every trajectory with the
proposal $\varphi \to -\varphi$, which Metropolis accepts as the bias allows. MBAR sees the biases alone, which
depend on M. Draws are thinned by the worst statistical inefficiency of all umbrellas.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
import torch
from torch import Tensor

from nessampler.estimators import mbar, r_hat, statistical_inefficiency
from nessampler.kernels import HMC, Compose, Mirror, SpectralMass
from nessampler.paths import ScheduledPath
from nessampler.targets import Counted
from nessampler.targets.phi4 import FreeField, Phi4, lattice_momenta

LEAPFROGS = 12
ACCEPTANCE = 0.85
SOFTEST = 0.02  # of the mass, for the longest wave: the magnetisation is what has to move
ROWS = {"straight": (-0.3, 0.6), "folded": (0.3, 0.6)}


class Windows:
    """All umbrellas in one batch: walker n lies under the umbrella at `centers[n]`."""

    def __init__(self, magnet: Phi4, stiffness: float, centers: Tensor) -> None:
        self.magnet, self.stiffness, self.centers, self.event_shape = magnet, stiffness, centers, magnet.event_shape

    def energy(self, x: Tensor) -> Tensor:
        return self.magnet.energy(x) + self.stiffness * (self.magnet.magnetisation(x) - self.centers).square()

    def energy_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        energy, score = self.magnet.energy_and_score(x)
        stretch = self.magnet.magnetisation(x) - self.centers
        pull = (-2 * self.stiffness / x[0].numel() * stretch).to(x)
        return energy + self.stiffness * stretch.square(), score + pull[:, None, None]


def sample(args: argparse.Namespace, centers: np.ndarray) -> tuple[np.ndarray, float]:
    """Magnetisations, `(windows, chains, draws)`, and the gradients that they cost."""
    generator = torch.Generator().manual_seed(args.seed)
    magnet = Phi4(args.size, quartic=args.quartic)
    each = torch.tensor(centers).repeat_interleave(args.chains)
    target = Counted(Windows(magnet, args.stiffness, each))
    path = ScheduledPath([target], lambda t: torch.ones_like(t)[:, None], target, target)
    x = FreeField.massive(args.size, mass_squared=1.0).sample(len(each), generator=generator).float()
    mass, h, draws = SpectralMass(2 * (lattice_momenta(args.size, 2) + SOFTEST)), 0.3, []
    walkers = HMC(path, h, LEAPFROGS, mass).start(1.0, x)
    for k in range(args.equilibration + args.draws * args.interval):
        part = float(torch.empty(()).uniform_(0.6, 1.0, generator=generator))
        kernel = Compose(HMC(path, part * h, LEAPFROGS, mass), Mirror(path, torch.neg))
        walkers, _ = kernel.step(1.0, 1.0, walkers, generator=generator)
        assert walkers.acceptance is not None
        if k < args.equilibration // 2:
            h *= math.exp(0.7 * (float(walkers.acceptance.mean()) - ACCEPTANCE))
        elif k >= args.equilibration and (k - args.equilibration + 1) % args.interval == 0:
            draws.append(magnet.magnetisation(walkers.x))
    return torch.stack(draws, 1).view(len(centers), args.chains, -1).numpy(), target.tally().gradient


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--quartic", type=float, default=0.8)
    parser.add_argument("--stiffness", type=float, default=5.0)
    parser.add_argument("--row", choices=ROWS, default="straight")
    parser.add_argument("--windows", type=int, default=10)
    parser.add_argument("--chains", type=int, default=40, help="of each umbrella")
    parser.add_argument("--equilibration", type=int, default=120, help="trajectories")
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--interval", type=int, default=5, help="trajectories between draws")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    clock, centers = time.process_time(), np.linspace(*ROWS[args.row], args.windows)
    m, gradients = sample(args, centers)
    inefficiency = max(statistical_inefficiency(row) for row in m)
    disagreement = max(r_hat(row) for row in m)
    stride = math.ceil(inefficiency)
    kept = m[:, :, ::stride].reshape(len(centers), -1)
    energies = args.stiffness * (kept.reshape(1, -1) - centers[:, None]) ** 2
    print(mbar(energies, [kept.shape[1]] * len(centers)))
    print(
        f"{args.row} row of {args.windows} umbrellas, seed {args.seed}: {kept.shape[1]} draws of each, "
        f"g {inefficiency:.2f}, R-hat {disagreement:.3f}, {gradients / 1e6:.2f}M gradients, "
        f"{time.process_time() - clock:.0f} core-seconds"
    )
    for center, row in zip(centers[[0, -1]], m[[0, -1]], strict=True):
        print(f"c = {center:+.2f}: <M> {row.mean():+.3f}, P(M > 0) {np.mean(row > 0):.3f}")


if __name__ == "__main__":
    main()
