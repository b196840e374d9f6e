"""The ladder: rungs from plain to learned, each fitted on the fit block, chosen on the select block."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, get_args

from nessampler.errors import InputError
from nessampler.estimators import FreeEnergy
from nessampler.methods.ends import generator_for
from nessampler.methods.ledger import CountsEvaluations
from nessampler.methods.plain import plain
from nessampler.methods.stage import Pilot, Rungs, Stage
from nessampler.methods.transport import Transport

__all__ = ["MARGIN", "RUNGS", "Ladder", "Method"]

Method = Literal["plain", "map", "fields", "switching", "feat", "tfep", "auto"]
RUNGS = ("plain", "map", "fields", "switching", "feat", "tfep")
STANDS_ON = {"fields": ("map",), "switching": ("map",), "feat": ("map",), "tfep": ("map",)}
ON_REQUEST = ("tfep",)  # rungs for comparison, which auto does not climb
MARGIN = 0.8  # a rung must lower variance x cost below this fraction: pilot errors are themselves uncertain
NOTHING = 1e-6  # kT: an error that cannot pay for anything any more
PATIENCE = 2  # rungs in a row that do not pay, after which nothing dearer is tried


class Ladder:
    """Builds and tries rungs, each the starting point of the next.

    Args:
        stage: what rungs may look at, and whom they charge.
        rungs: how each is built.
        evaluations: samples in the evaluate block, both ends, for which the cost of a rung is reckoned.
    """

    def __init__(self, stage: Stage, rungs: Rungs, evaluations: int) -> None:
        self._stage, self._rungs = stage, rungs
        self._scale = evaluations / len(stage.select)

    def climb(self, method: Method) -> tuple[dict[str, Pilot], str]:
        """Pilots of the rungs that `method` asks for, and the name of the chosen one.

        `auto` goes up while rungs pay, and stops after two in a row that do not: they cost more the higher they are.
        """
        if method not in get_args(Method):
            raise InputError(f"method must be one of {', '.join(get_args(Method))}: got {method!r}")
        pilots = self._stage.below
        pilots["plain"] = self._pilot(plain(self._stage.ends), None)
        if method == "auto":
            return pilots, self._climb_while_it_pays()
        for name in (*STANDS_ON.get(method, ()), method):
            if name != "plain" and not self._build(name):
                raise InputError(f"the rung {name} has nothing to offer here; use another method")
        return pilots, method

    def _climb_while_it_pays(self) -> str:
        pilots, best, misses = self._stage.below, "plain", 0
        for name in RUNGS[1:]:
            if name in ON_REQUEST or not self._build(name):
                continue
            pays = pilots[name].merit < MARGIN * pilots[best].merit
            best, misses = (name, 0) if pays else (best, misses + 1)
            error = pilots[best].estimate.std_error
            if (misses == PATIENCE and math.isfinite(pilots[best].merit)) or (error is not None and error < NOTHING):
                break
        return best

    def _build(self, name: str) -> bool:
        """Pilot the rung's candidates and keep the most promising; whether there was one."""
        if name not in self._rungs:
            return False
        tried = [self._pilot(*candidate) for candidate in self._rungs[name](self._stage)]
        if tried:
            best = min(tried, key=lambda pilot: pilot.promise)
            self._stage.below[name] = replace(best, cost=self._spent(name) + best.carrying)
        return bool(tried)

    def _pilot(self, transport: Transport, network: CountsEvaluations | None) -> Pilot:
        """Works on the select block, which tell how the rung would fare; they count as training."""
        stage, name = self._stage, transport.name
        generator = generator_for(stage.seed, f"pilot {name} {transport.description}")
        before = self._spent(name)
        with stage.ledger.charge(name, "training", network):
            works = transport.works(stage.select, generator=generator, progress=stage.watched(f"{name}: pilot"))
        carrying = self._scale * (self._spent(name) - before)
        estimate = transport.estimate(works, seed=stage.seed)
        stage.report(delta_f=estimate.delta_f, std_error=estimate.std_error, overlap=estimate.overlap)
        stage.say(f"{name} ({transport.description}) on the select block: {_short(estimate)}")
        return Pilot(transport, works, estimate, self._spent(name) + carrying, carrying, network)

    def _spent(self, name: str) -> float:
        return self._stage.ledger.cost(name, self._stage.effort.prices)


def _short(estimate: FreeEnergy) -> str:
    if estimate.delta_f is None or estimate.std_error is None:
        return "no overlap"
    return f"{estimate.delta_f:.3f} ± {estimate.std_error:.3f} kT, overlap {estimate.overlap:.2f}"
