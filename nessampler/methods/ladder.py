"""The ladder: plain, map, switching, FEAT; each rung fitted on the fit block, chosen on the select block."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from torch.distributions.transforms import Transform

from nessampler.errors import InputError
from nessampler.estimators import FreeEnergy, bar
from nessampler.kernels import Map
from nessampler.methods.ends import Block, Ends, generator_for
from nessampler.methods.feat import Training, feat_transports
from nessampler.methods.ledger import CountsEvaluations, Ledger, Prices
from nessampler.methods.plain import plain
from nessampler.methods.switching import tuned_switching
from nessampler.methods.targeted_fep import candidate_maps, mapped
from nessampler.methods.transport import Transport, Works

__all__ = ["Effort", "Ladder", "Method", "Pilot"]

Method = Literal["plain", "map", "switching", "feat", "auto"]
RUNGS = ("plain", "map", "switching", "feat")
MARGIN = 0.8  # a rung must lower variance x cost below this fraction: pilot errors are themselves uncertain

Say = Callable[[str], None]


@dataclass(frozen=True)
class Effort:
    """How much to spend. The defaults suit a molecule of some tens of atoms.

    Attributes:
        blocks: fractions of the samples that fit, select and evaluate, in time order.
        switching_steps: Langevin steps of a switching path.
        tuning_samples: samples of each end that tune step sizes.
        feat: network, training and sampling of the learned rung.
        prices: relative price of an evaluation of either state, or of a network.
    """

    blocks: tuple[float, float, float] = (0.4, 0.2, 0.4)
    switching_steps: int = 12
    tuning_samples: int = 150
    feat: Training = field(default_factory=Training)
    prices: Prices = field(default_factory=Prices)


@dataclass(frozen=True)
class Pilot:
    """A rung as the select block saw it. `cost` is what the whole rung costs on the evaluate block."""

    transport: Transport
    works: Works
    estimate: FreeEnergy
    cost: float
    network: CountsEvaluations | None = None

    @property
    def merit(self) -> float:
        """Variance x cost; +inf where the pilot found no overlap."""
        error = self.estimate.std_error
        return math.inf if error is None else error**2 * self.cost


class Ladder:
    """Builds and tries rungs, each the starting point of the next.

    Args:
        ends, fit, select: the states and the two blocks that may be looked at.
        evaluations: samples in the evaluate block, both ends, for which the cost of a rung is reckoned.
        effort, ledger: what to spend, and where to write it down.
        seed: streams of random numbers derive from it.
        say: told what is going on, one line at a time.
        checkpoint: where training may leave its state.
    """

    def __init__(
        self,
        ends: Ends,
        fit: Block,
        select: Block,
        evaluations: int,
        *,
        effort: Effort,
        ledger: Ledger,
        seed: int,
        say: Say,
        checkpoint: Path | None = None,
    ) -> None:
        self.ends, self.fit, self.select, self.effort, self.ledger = ends, fit, select, effort, ledger
        self._scale = evaluations / len(select)
        self._seed, self._say, self._checkpoint = seed, say, checkpoint
        self.metrics: list[dict] = []

    def climb(self, method: Method) -> tuple[dict[str, Pilot], str]:
        """Pilots of the rungs that `method` asks for, and the name of the chosen one."""
        if method not in get_args(Method):
            raise InputError(f"method must be one of {', '.join(get_args(Method))}: got {method!r}")
        pilots = {"plain": self._pilot(plain(self.ends))}
        if method == "plain":
            return pilots, "plain"
        pilots["map"] = self._best_map()
        if method in ("switching", "auto"):
            pilots["switching"] = self._switching(pilots["map"].transport)
        if method in ("feat", "auto"):
            pilots["feat"] = self._feat(pilots["map"].transport)
        chosen = method if method != "auto" else self._choose(pilots)
        return pilots, chosen

    def _choose(self, pilots: dict[str, Pilot]) -> str:
        best = "plain"
        for name in RUNGS[1:]:
            if pilots[name].merit < MARGIN * pilots[best].merit:
                best = name
        return best

    def _pilot(self, transport: Transport, network: CountsEvaluations | None = None) -> Pilot:
        """Works on the select block, which tell how the rung would fare; they count as training."""
        generator = generator_for(self._seed, f"pilot {transport.name} {transport.description}")
        before = self.ledger.cost(transport.name, self.effort.prices)
        with self.ledger.charge(transport.name, "training", network):
            works = transport.works(self.select, generator=generator)
        spent = self.ledger.cost(transport.name, self.effort.prices) - before
        estimate = bar(*works, seed=self._seed)
        self._say(f"{transport.name} ({transport.description}) on the select block: {_short(estimate)}")
        cost = self.ledger.cost(transport.name, self.effort.prices) + self._scale * spent
        return Pilot(transport, works, estimate, cost, network)

    def _best_map(self) -> Pilot:
        pilots = [
            self._pilot(mapped(self.ends, name, transform))
            for name, transform in candidate_maps(self.ends, self.fit).items()
        ]
        return min(pilots, key=lambda p: p.merit / p.cost)  # the smallest error: all maps cost the same

    def _switching(self, mapping: Transport) -> Pilot:
        with self.ledger.charge("switching", "training"):
            transport = tuned_switching(
                self.ends,
                _map_of(mapping),
                self.fit.thinned(self.effort.tuning_samples),
                steps=self.effort.switching_steps,
                generator=generator_for(self._seed, "tune switching"),
                say=self._say,
            )
        return self._pilot(transport)

    def _feat(self, mapping: Transport) -> Pilot:
        """Analytic fields first; the learned residual only replaces them where its pilot is better."""
        transports = feat_transports(
            self.ends,
            _map_of(mapping),
            self.fit,
            self.select,
            training=self.effort.feat,
            tuning_samples=self.effort.tuning_samples,
            ledger=self.ledger,
            seed=self._seed,
            say=self._say,
            checkpoint=self._checkpoint,
            metrics=self.metrics,
        )
        return min((self._pilot(*found) for found in transports), key=lambda pilot: pilot.merit)


def _map_of(transport: Transport) -> Transform:
    assert isinstance(transport.kernel, Map)
    return transport.kernel.transform


def _short(estimate: FreeEnergy) -> str:
    if estimate.delta_f is None or estimate.std_error is None:
        return "no overlap"
    return f"{estimate.delta_f:.3f} ± {estimate.std_error:.3f} kT, overlap {estimate.overlap:.2f}"
