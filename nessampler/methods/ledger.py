"""What every rung cost: evaluations per state and of networks, by stage, and seconds."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from nessampler.fields import Evaluated, Fields
from nessampler.methods.arguments import check_number
from nessampler.targets import Counted, Tally
from nessampler.targets.differences import billed

__all__ = ["CountedFields", "CountsEvaluations", "Ledger", "Prices"]

STATES = ("state_a", "state_b")


class CountsEvaluations(Protocol):
    """Fields, learned or analytic, that know how many walkers they have evaluated."""

    evaluations: int


class CountedFields:
    """Fields that count the walkers they evaluate; analytic ones are not free either."""

    def __init__(self, fields: Fields) -> None:
        self.fields, self.evaluations = fields, 0

    def __call__(self, t: Tensor, x: Tensor) -> Evaluated:
        """Both fields."""
        self.evaluations += len(x)
        return self.fields(t, x)


@dataclass(frozen=True)
class Prices:
    """Relative price of one evaluation: a cheap and a dear force field are not the same currency.

    `network` prices one walker in one evaluation of learned or analytic fields.

    Raises:
        InputError: a price that is no finite number, or below zero.
    """

    state_a: float = 1.0
    state_b: float = 1.0
    network: float = 1.0

    def __post_init__(self) -> None:
        for name in ("state_a", "state_b", "network"):
            check_number(f"the price {name}", getattr(self, name), "leave it out for 1", zero=True)


class Ledger:
    """Charges evaluations to a rung and a stage (endstates, training, sampling).

    A gradient by differences is charged with the energies that it is made of.

    Args:
        counted: the counters behind states A and B.
        endstates: what sampling A and B cost, nothing where samples were given.
    """

    def __init__(self, counted: tuple[Counted, Counted], endstates: tuple[Tally, Tally]) -> None:
        self._counted = counted
        self._endstates = endstates
        self._tallies: dict[tuple[str, str, str], Tally] = defaultdict(Tally)
        self._networks: dict[tuple[str, str], int] = defaultdict(int)
        self._seconds: dict[tuple[str, str], float] = defaultdict(float)

    @contextmanager
    def charge(self, rung: str, stage: str, network: CountsEvaluations | None = None) -> Iterator[None]:
        """Everything evaluated within the block belongs to this rung and stage, also where the block fails."""
        before = [c.tally(stage).copy() for c in self._counted]
        known, started = network.evaluations if network else 0, time.perf_counter()
        try:
            with self._counted[0].stage(stage), self._counted[1].stage(stage):
                yield
        finally:
            for state, counter, old in zip(STATES, self._counted, before, strict=True):
                spent, tally = billed(counter, counter.tally(stage) - old), self._tallies[rung, state, stage]
                tally.energy += spent.energy
                tally.gradient += spent.gradient
            self._networks[rung, stage] += network.evaluations - known if network else 0
            self._seconds[rung, stage] += time.perf_counter() - started

    def seconds(self, rung: str | None = None, stage: str | None = None) -> float:
        """Time charged to a rung, a stage, or both."""
        return sum(s for (r, g), s in self._seconds.items() if rung in (None, r) and stage in (None, g))

    def evaluations(self, rung: str | None = None) -> dict[str, Any]:
        """Evaluations of one rung, or of all, with those of the end states."""
        table: dict[str, Any] = {}
        for state, endstate in zip(STATES, self._endstates, strict=True):
            table[state] = {"endstates": {"energy": endstate.energy, "gradient": endstate.gradient}}
            for stage in ("training", "sampling"):
                spent = [t for (r, s, g), t in self._tallies.items() if rung in (None, r) and (s, g) == (state, stage)]
                table[state][stage] = {
                    "energy": sum(t.energy for t in spent),
                    "gradient": sum(t.gradient for t in spent),
                }
        table["networks"] = {
            stage: sum(n for (r, g), n in self._networks.items() if rung in (None, r) and g == stage)
            for stage in ("training", "sampling")
        }
        return table

    def endstates(self, prices: Prices) -> float:
        """Price of the samples of both ends, which every rung shares."""
        ends = zip(self._endstates, (prices.state_a, prices.state_b), strict=True)
        return sum(price * (tally.energy + tally.gradient) for tally, price in ends)

    def cost(self, rung: str | None, prices: Prices, *, sampling_scale: float = 1.0) -> float:
        """Price of a rung or of all, end states and training included, sampling scaled to the evaluate block."""
        table, total = self.evaluations(rung), 0.0
        for state, price in zip(STATES, (prices.state_a, prices.state_b), strict=True):
            stages = {name: sum(t.values()) for name, t in table[state].items()}
            total += price * (stages["endstates"] + stages["training"] + sampling_scale * stages["sampling"])
        networks = table["networks"]
        return total + prices.network * (networks["training"] + sampling_scale * networks["sampling"])
