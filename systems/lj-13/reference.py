"""The reference ΔF of the Lennard-Jones clusters: MBAR and thermodynamic integration along either of two routes.

    python systems/lj-13/reference.py --atoms 13 --seed 1 --states 41     # prints what README.md records

Chains of every state move together by Hamiltonian Monte Carlo, and chains of neighbouring states exchange their
conformations now and then, so that what is frozen at full strength melts and freezes anew on its way.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import arviz
import numpy as np
import torch
from numpy.polynomial import Polynomial
from torch import Tensor

from nessampler.kernels import HMC, Walkers
from nessampler.methods.staged import staged
from nessampler.paths import PathPoint
from nessampler.targets import Target
from nessampler.targets.lennard_jones import LennardJonesCluster, pair_sums

ACCEPTANCE = 0.8
SMALLEST = 0.35  # a(0)
AWAY = 10.0  # kT: pymbar's tolerance is relative, and no state but the first may have F = 0


class PairPath:
    """What both routes share: a trap, pairs by two sums, and a guess of F that MBAR is spared."""

    def __init__(self, atoms: int, trap: float = 1.0) -> None:
        self.atoms, self.trap = atoms, trap
        self.cluster = LennardJonesCluster(atoms, 1.0, trap)
        self.start: Target = LennardJonesCluster(atoms, 0.0, trap)
        self.end: Target = self.cluster
        self._guess = Polynomial([0.0])
        self._fast = torch.compile(_forces, dynamic=False)

    def evaluate(self, t: Tensor, x: Tensor, known: PathPoint | None = None) -> PathPoint:
        """At any t > 0. Parts: what `mixed` needs of a conformation."""
        raise NotImplementedError

    def mixed(self, t: Tensor, parts: tuple[Tensor, ...]) -> Tensor:
        """$U_t$ from sums over pairs of the powers -12 and -6 of their distance, and the sum of squares."""
        raise NotImplementedError

    def energy(self, t: Tensor, x: Tensor) -> Tensor:
        return self.evaluate(t, x).energy

    def energies(self, x: Tensor, times: Tensor) -> Tensor:
        """`(times, n)`, all of them by one visit of the pairs; less a guess of F, from which MBAR is solved sooner."""
        sums = pair_sums(x, torch.ones_like(x[:, 0, 0]))
        parts = (sums.repulsion, sums.attraction, x.square().sum((1, 2)))
        return torch.stack([self.mixed(t, parts) - self.guess(float(t)) for t in times])

    def learn(self, times: Tensor, slopes: Tensor) -> None:
        """Guess F by the integral of a polynomial through slopes."""
        degree = min(12, len(times) - 1)
        self._guess = Polynomial.fit(times.numpy(), slopes.numpy(), degree, domain=[0, 1]).integ(lbnd=0)

    def guess(self, t: float) -> float:
        """What `energies` leaves out at t."""
        return 0.0 if t == 0 else float(self._guess(t)) - AWAY

    def push(self, x: Tensor, square: Tensor) -> Tensor:
        """The `push` of `pair_sums`, compiled, in float32: for the inside of a trajectory any forces will do."""
        return self._fast(x.permute(2, 1, 0).contiguous().float(), square.float()).permute(2, 1, 0).double()


class DepthPath(PairPath):
    r"""Atoms of full size whose interaction grows deep: $U_t = 8\, t^8 (S_{12} - S_6) + \frac\kappa2 |x|^2$.

    Repulsive cores grow like $t^{2/3}$, so that the slope of F starts like t, and nothing condenses: the gas in the
    trap is about as dense as the cluster, whose pairs attract little before they fill the space.
    """

    def evaluate(self, t: Tensor, x: Tensor, known: PathPoint | None = None) -> PathPoint:
        sums = pair_sums(x, torch.ones_like(t))
        parts = (sums.repulsion, sums.attraction, x.square().sum((1, 2)))
        energy = torch.where(sums.overlap, torch.inf, self.mixed(t, parts))
        score = 48 * t[:, None, None] ** 8 * sums.push - self.trap * x
        return PathPoint(energy, score, 64 * t**7 * (sums.repulsion - sums.attraction), parts)

    def energy_and_score(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Approximate: `evaluate` decides on the end of a trajectory."""
        return torch.zeros_like(t), 48 * t[:, None, None] ** 8 * self.push(x, torch.ones_like(t)) - self.trap * x

    def mixed(self, t: Tensor, parts: tuple[Tensor, ...]) -> Tensor:
        return 8 * t**8 * (parts[0] - parts[1]) + 0.5 * self.trap * parts[2]


class StrengthPath(PairPath):
    r"""Clusters of strength $\lambda = t$ in coordinates that grow with the atoms: $x = a(\lambda)\, y$.

    $$U_t(y) = U_\lambda(a y) - 3N \log a, \qquad a = (\lambda^6 + 0.35^6)^{1/6}, \qquad
      \partial_t U_t = 8\,(13 S_{12} - 7 S_6) + \frac{a'}{a}\,
      \big(\kappa |x|^2 - 48 \lambda\,(2 S_{12} - S_6) - 3N\big)$$

    F is that of the cluster at every t. At a fixed x the steep cores make the slope fluctuate by some 60 kT for 13
    atoms; at a fixed y atoms and distances grow together, the bracket, a virial of mean zero, takes most of that away,
    and states can be further apart. Small atoms are lost in the trap, so that a drop condenses on the way, slowly where
    there are many.
    """

    def size(self, t: Tensor) -> Tensor:
        """a(λ)."""
        return (t**6 + SMALLEST**6) ** (1 / 6)

    def evaluate(self, t: Tensor, x: Tensor, known: PathPoint | None = None) -> PathPoint:
        a, ratio = self.size(t), t / self.size(t)
        sums, square = pair_sums(x, ratio), x.square().sum((1, 2))
        parts = (sums.repulsion / ratio**12, sums.attraction / ratio**6, square)
        energy = torch.where(sums.overlap, torch.inf, self.mixed(t, parts))
        score = 48 * t[:, None, None] * sums.push - self.trap * a.square()[:, None, None] * x
        virial = self.trap * a.square() * square - 48 * t * (2 * sums.repulsion - sums.attraction) - 3 * self.atoms
        slope = 8 * (13 * sums.repulsion - 7 * sums.attraction) + t**5 / a**6 * virial
        return PathPoint(energy, score, slope, parts)

    def energy_and_score(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Approximate: `evaluate` decides on the end of a trajectory."""
        a = self.size(t)
        push = self.push(x, (t / a).square())
        return torch.zeros_like(t), 48 * t[:, None, None] * push - self.trap * a.square()[:, None, None] * x

    def mixed(self, t: Tensor, parts: tuple[Tensor, ...]) -> Tensor:
        (repulsion, attraction, square), a = parts, self.size(t)
        pairs = 8 * t * ((t / a) ** 12 * repulsion - (t / a) ** 6 * attraction)
        return pairs + 0.5 * self.trap * a.square() * square - 3 * self.atoms * a.log()


def _forces(position: Tensor, square: Tensor) -> Tensor:
    """The `push` of `pair_sums`, dense and compiled, for `(3, atoms, walkers)`."""
    difference = position[:, :, None] - position[:, None]
    own = torch.eye(position.shape[1], dtype=torch.bool)[:, :, None]
    squared = torch.where(own, torch.inf, (difference * difference).sum(0))
    inverse = 1 / torch.maximum(squared, 1e-2 * square)
    ratio = inverse * square
    sixth = ratio * ratio * ratio
    return ((2 * sixth * sixth - sixth) * inverse * difference).sum(2)


@dataclass(frozen=True)
class StepSizes:
    """A leapfrog step per walker, as a mass: HMC itself steps by 1."""

    step: Tensor

    def momentum(self, noise: Tensor) -> Tensor:
        return noise / self.step[:, None, None]

    def velocity(self, momentum: Tensor) -> Tensor:
        return momentum * self.step[:, None, None].square()


class _At:
    """A path at which every walker has its own time."""

    def __init__(self, path: DepthPath | StrengthPath, t: Tensor) -> None:
        self.path, self.t, self.start, self.end = path, t, path.start, path.end

    def energy(self, t: Tensor, x: Tensor) -> Tensor:
        return self.path.energy(self.t, x)

    def evaluate(self, t: Tensor, x: Tensor, known: PathPoint | None = None) -> PathPoint:
        return self.path.evaluate(self.t, x)

    def energy_and_score(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.path.energy_and_score(self.t, x)


@dataclass
class ExchangingChains:
    """Samples of all states: HMC, with exchanges of neighbouring states between the chains of one index."""

    path: DepthPath | StrengthPath
    chains: int
    equilibration: int
    draws: int
    interval: int
    leapfrog_steps: int
    exchange_every: int = 2
    report: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, times: Tensor, *, generator: torch.Generator) -> Tensor:
        states, self._times = len(times), times
        at = _At(self.path, times.repeat_interleave(self.chains))
        x = self.path.cluster.start(states * self.chains, generator=generator)
        step = torch.full((states,), 0.02, dtype=torch.float64)
        home = torch.arange(states).repeat_interleave(self.chains)  # where a conformation has been last: bottom or top
        seen, trips = torch.full_like(home, -1), torch.zeros(states * self.chains)
        accepted, swapped, moves, tries = torch.zeros(states), torch.zeros(states - 1), 0, torch.zeros(states - 1)
        kernel = HMC(at, 1.0, self.leapfrog_steps, StepSizes(step.repeat_interleave(self.chains)))
        walkers, kept, energies = kernel.start(1.0, x), [], []
        slopes = torch.zeros_like(step)
        total, started = self.equilibration + self.draws * self.interval, time.perf_counter()
        for n in range(total):
            tuning = n < self.equilibration // 2
            if tuning:
                kernel = HMC(at, 1.0, self.leapfrog_steps, StepSizes(step.repeat_interleave(self.chains)))
            walkers, _ = kernel.step(1.0, 1.0, walkers, generator=generator)
            assert walkers.acceptance is not None
            acceptance = walkers.acceptance.view(states, -1).mean(1).double()
            if tuning:
                step = step * (0.5 * (acceptance - ACCEPTANCE)).exp()
            elif n >= self.equilibration:
                accepted, moves = accepted + acceptance, moves + 1
            if n % self.exchange_every == 0:
                order, took, tried = self._exchange(walkers, n // self.exchange_every % 2, generator)
                walkers = kernel.start(1.0, walkers.x[order])
                seen, trips = seen[order], trips[order]
                bottom, top = seen[: self.chains], seen[-self.chains :]
                trips[: self.chains] += bottom == 1
                bottom[:], top[:] = 0, torch.where(top == 0, 1, top)
                if n >= self.equilibration:
                    swapped, tries = swapped + took, tries + tried
            if n >= self.equilibration and (n - self.equilibration + 1) % self.interval == 0:
                kept.append(walkers.x.view(states, self.chains, *x.shape[1:]))
                assert walkers.energy is not None
                energies.append(walkers.energy.view(states, self.chains))
                assert isinstance(walkers.cached, PathPoint)
                slopes += walkers.cached.time_derivative.view(states, -1).mean(1) / self.draws
            if n % max(1, total // 20) == 0:
                done = f"{n} of {total} trajectories, {time.perf_counter() - started:.0f} s"
                print(done, f"acceptance {float(acceptance.min()):.2f}", file=sys.stderr, flush=True)
        self.path.learn(times, slopes)
        self.report = {
            "step": step,
            "acceptance": accepted / moves,
            "exchange": swapped / tries.clamp(min=1),
            "trips": trips.sum(),
            "energy": torch.stack(energies, -1),
        }
        return torch.stack(kept, 2)

    def _exchange(self, walkers: Walkers, odd: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Which conformation each place has after Metropolis exchanges of states (k, k + 1), k even or odd."""
        assert isinstance(walkers.cached, PathPoint)
        t = self._times[:, None]
        parts = [part.view(len(t), -1) for part in walkers.cached.parts]
        low, high = torch.arange(odd, len(t) - 1, 2), torch.arange(odd, len(t) - 1, 2) + 1
        (stay_low, go_low), (stay_high, go_high) = (
            [self.path.mixed(t[state], tuple(part[of] for part in parts)) for of in (state, other)]
            for state, other in ((low, high), (high, low))
        )
        gain = stay_low + stay_high - go_low - go_high
        accept = torch.rand(gain.shape, generator=generator, dtype=torch.float64).log() < gain
        order = torch.arange(len(walkers.x)).view(len(t), -1)
        below, above = order[low], order[high]
        order[low], order[high] = torch.where(accept, above, below), torch.where(accept, below, above)
        took, tried = torch.zeros(len(t) - 1), torch.zeros(len(t) - 1)
        took[low], tried[low] = accept.float().mean(1), 1.0
        return order.flatten(), took, tried


ROUTES = {"depth": DepthPath, "strength": StrengthPath}


def r_hat(series: Tensor) -> list[float]:
    """Of `(states, chains, draws)`, by state."""
    return [float(arviz.rhat(np.ascontiguousarray(s.numpy()))) for s in series]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, default=13)
    parser.add_argument("--route", choices=list(ROUTES), default="depth")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--states", type=int, default=41, help="Gauss nodes")
    parser.add_argument("--chains", type=int, default=16, help="of each state")
    parser.add_argument("--equilibration", type=int, default=1000, help="trajectories, dropped")
    parser.add_argument("--draws", type=int, default=200, help="of each chain")
    parser.add_argument("--interval", type=int, default=10, help="trajectories from draw to draw")
    parser.add_argument("--leapfrog-steps", type=int, default=12)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    started = time.process_time()
    chains = ExchangingChains(
        ROUTES[chosen.route](chosen.atoms),
        chosen.chains,
        chosen.equilibration,
        chosen.draws,
        chosen.interval,
        chosen.leapfrog_steps,
    )
    found = staged(chains.path, chains, points=chosen.states, generator=torch.Generator().manual_seed(chosen.seed))
    guess = chains.path.guess(1.0)  # which MBAR was spared
    assert found.multistate.delta_f is not None
    total = replace(
        found.multistate,
        delta_f=found.multistate.delta_f + guess,
        ci95=tuple(end + guess for end in found.multistate.ci95 or ()),
    )
    found = replace(found, multistate=total)
    report, rhat = chains.report, r_hat(chains.report["energy"])
    print(f"LJ-{chosen.atoms}, seed {chosen.seed}, route {chosen.route}\n{found}")
    for line in (*found.integration.flags, *found.multistate.flags):
        print("flag:", line.message)
    print(
        f"R-hat of the energy {max(rhat):.3f} at most, statistical inefficiency {max(found.inefficiency):.1f} draws at "
        f"most, acceptance {float(report['acceptance'].min()):.2f} and exchanges {float(report['exchange'].min()):.2f} "
        f"at least, {int(report['trips'])} round trips, overlap {found.multistate.overlap:.2f}, "
        f"{time.process_time() - started:.0f} s of one core"
    )
    print("time, slope, its error, g, R-hat, step:")
    for row in zip(
        found.times, found.slopes, found.slope_errors, found.inefficiency, rhat, report["step"], strict=True
    ):
        print("  {:.4f} {:10.3f} {:.3f} {:5.1f} {:.3f} {:.4f}".format(*map(float, row)))


if __name__ == "__main__":
    main()
