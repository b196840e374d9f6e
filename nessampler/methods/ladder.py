"""The ladder: rungs from plain to learned, each fitted on the fit block, chosen on the select block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import torch

from nessampler.errors import InputError
from nessampler.estimators import FreeEnergy
from nessampler.methods.ends import Block, generator_for
from nessampler.methods.ledger import CountsEvaluations
from nessampler.methods.plain import plain
from nessampler.methods.stage import Candidate, Pilot, Rungs, Stage
from nessampler.methods.transport import Transport

__all__ = ["MARGIN", "RUNGS", "Ladder", "Method"]

Method = Literal["plain", "map", "fields", "switching", "feat", "tfep", "annealed", "auto"]
RUNGS = ("plain", "map", "fields", "switching", "feat", "tfep", "annealed")
STANDS_ON = {"fields": ("map",), "switching": ("map",), "feat": ("map",), "tfep": ("map",)}
ON_REQUEST = ("tfep", "annealed")  # rungs for comparison, which auto does not climb
MARGIN = 0.8  # a rung must lower variance x cost below this fraction: pilot errors are themselves uncertain
NOTHING = 1e-6  # kT: an error that cannot pay for anything any more
PATIENCE = 2  # rungs in a row that do not pay, after which nothing dearer is tried
SCOUTS, SCOUTS_THAT_TUNE = 64, 32  # samples of each end that look at a rung above the maps first
PILOTS = 512  # samples of each end that tell its variance, if it goes on
DOUBT = 1.0  # times the best merit, from where a rung does not go on: what few samples fit is worse than what all will
TRAINING_SHARE = 0.1  # of what the best rung costs: a network is trained where that is the most it can lose
WALKERS_OF_A_STEP = 4  # that a training step evaluates, per sample of a batch: two fields, noise of both signs


class Ladder:
    """Builds and tries rungs, each the starting point of the next.

    Args:
        stage: what rungs may look at, and whom they charge.
        rungs: how each is built.
        evaluations: samples in the evaluate block, both ends, for which the cost of a rung is reckoned.
        samples: in all blocks, which no transport at all needs no block to be fitted on.
    """

    def __init__(self, stage: Stage, rungs: Rungs, evaluations: int, samples: int) -> None:
        self._stage, self._rungs = stage, rungs
        self._scale, self._reach = evaluations / len(stage.select), {"plain": samples / evaluations}

    def climb(self, method: Method) -> tuple[dict[str, Pilot], str]:
        """Pilots of the rungs that `method` asks for, and the name of the chosen one.

        `auto` goes up while rungs pay, and stops after two in a row that do not: they cost more the higher they are.
        Where the maps give an answer already, the rungs above are first tried on a few samples, and the most promising
        one is built; a network is trained where that can be lost. A rung that fails is passed over where something
        below it gives an answer.

        Raises:
            InputError: an unknown method; a rung that was asked for by name and fails or has nothing to offer; with
                `auto`, one that fails where nothing below it gives an answer.
        """
        if method not in get_args(Method):
            raise InputError(f"method must be one of {', '.join(get_args(Method))}: got {method!r}")
        pilots = self._stage.below
        pilots["plain"] = self._pilot(plain(self._stage.ends), None, self._stage.select)
        if method == "auto":
            return pilots, self._climb_while_it_pays()
        for name in (*STANDS_ON.get(method, ()), method):
            if name != "plain" and not self._build(name):
                raise InputError(f"the rung {name} has nothing to offer here; use another method")
        return pilots, method

    def _climb_while_it_pays(self) -> str:
        pilots = self._stage.below
        above = [name for name in RUNGS[2:] if name in self._rungs and name not in ON_REQUEST]
        best = self._climb(["map"], "plain")
        fallen = "map" in self._rungs and "map" not in pilots  # and with it what stands on it
        if fallen or _settled(pilots[best]):
            return best
        scouted = [name for name in above if name != "feat" and self._scouted(name, pilots[best])]
        promising = sorted(scouted, key=lambda name: pilots[name].merit)
        rest = [name for name in above if name not in scouted]
        return self._climb([*promising, *rest], best, misses=int(best == "plain"))

    def _climb(self, names: Sequence[str], best: str, misses: int = 0) -> str:
        pilots = self._stage.below
        for name in names:
            hopeless = name in pilots and pilots[name].merit >= DOUBT * pilots[best].merit  # as its scouts say
            if hopeless or self._too_dear(name, pilots[best]):
                continue
            if not self._build(name, forgiving=math.isfinite(pilots[best].merit)):
                pilots.pop(name, None)  # scouts told of what cannot be built
                continue
            pays = pilots[name].merit < MARGIN * pilots[best].merit
            best, misses = (name, 0) if pays else (best, misses + 1)
            if (misses == PATIENCE and math.isfinite(pilots[best].merit)) or _settled(pilots[best]):
                break
        return best

    def _too_dear(self, name: str, best: Pilot) -> bool:
        """Whether training a network costs more than may be lost on it, where something cheaper gives an answer."""
        training = self._stage.effort.feat
        foreseen = self._stage.effort.prices.network * WALKERS_OF_A_STEP * training.steps * training.batch_size
        if name != "feat" or not math.isfinite(best.merit) or foreseen <= TRAINING_SHARE * best.cost:
            return False
        self._stage.say(
            f"feat is not tried: its training would cost {foreseen:.2g} evaluations, more than a tenth of the "
            f"{best.cost:.2g} that an answer costs already; ask for it by name"
        )
        return True

    def _scouted(self, name: str, best: Pilot) -> bool:
        """Try a rung on a few samples, where there is an answer to compare with and these can tell."""
        if not math.isfinite(best.merit) or len(self._stage.select) < 4 * SCOUTS:
            return False
        return self._build(name, scouts=True, forgiving=True)

    def _build(self, name: str, *, scouts: bool = False, forgiving: bool = False) -> bool:
        """Pilot the rung's candidates and keep the most promising; whether there was one.

        Where `forgiving`, candidates that fail are left out, and so is all that a rung has not made when it fails.
        """
        if name not in self._rungs:
            return False
        if name == "map" or len(self._stage.select) < 4 * SCOUTS:  # maps cost little, and are much alike
            tried = self._tried(name, partial(self._rungs[name], self._stage), self._stage.select, forgiving)
        else:
            stage, few = _scouting(self._stage) if scouts else self._stage, self._stage.select.thinned(SCOUTS)
            tried = self._tried(name, partial(self._rungs[name], stage), few, forgiving)
            if not scouts:
                again = [(pilot.transport, pilot.network) for pilot in _promising(tried)]
                tried = self._tried(name, lambda: again, self._stage.select.thinned(PILOTS), forgiving)
        if tried:
            best = min(tried, key=lambda pilot: pilot.promise)
            self._stage.below[name] = replace(best, cost=self._spent(name) + best.carrying)
        return bool(tried)

    def _tried(
        self, name: str, candidates: Callable[[], Iterable[Candidate]], select: Block, forgiving: bool
    ) -> list[Pilot]:
        tried = []
        with self._passed_over(name, forgiving):  # a rung makes its candidates as they are asked for
            for transport, network in candidates():
                with self._passed_over(f"{name} ({transport.description})", forgiving):
                    tried.append(self._pilot(transport, network, select))
        return tried

    @contextmanager
    def _passed_over(self, what: str, forgiving: bool) -> Iterator[None]:
        try:
            with _singular_equations_named():
                yield
        except InputError as error:
            if not forgiving:
                raise
            self._stage.say(f"{what} is passed over: {error}")

    def _pilot(self, transport: Transport, network: CountsEvaluations | None, select: Block) -> Pilot:
        """Works on the select block or a part of it, which tell how the rung would fare; they count as training."""
        stage, name = self._stage, transport.name
        share = len(select) / len(stage.select)
        generator = generator_for(stage.seed, f"pilot {name} {transport.description}")
        before = self._spent(name)
        with stage.ledger.charge(name, "training", network):
            works = transport.works(select, generator=generator, progress=stage.watched(f"{name}: pilot"))
        reach = self._reach.get(name, 1.0)
        carrying = reach * self._scale / share * (self._spent(name) - before)
        estimate = transport.estimate(works, seed=stage.seed)
        stage.report(delta_f=estimate.delta_f, std_error=estimate.std_error, overlap=estimate.overlap)
        block = "the select block" if share == 1 else f"{len(select)} samples of the select block"
        stage.say(f"{name} ({transport.description}) on {block}: {_short(estimate)}")
        return Pilot(transport, works, estimate, self._spent(name) + carrying, carrying, network, share, reach)

    def _spent(self, name: str) -> float:
        return self._stage.ledger.cost(name, self._stage.effort.prices)


@contextmanager
def _singular_equations_named() -> Iterator[None]:
    try:
        yield
    except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]
        raise InputError(
            f"fits solve linear equations, which must not be singular: got {error}; look for coordinates that never "
            "move or follow from one another, or use another method"
        ) from error


def _settled(pilot: Pilot) -> bool:
    error = pilot.estimate.std_error
    return error is not None and error < NOTHING


def _promising(tried: Sequence[Pilot]) -> Sequence[Pilot]:
    """The best candidate of a few samples; all of them where these see no overlap."""
    known = [pilot for pilot in tried if math.isfinite(pilot.promise)]
    return [min(known, key=lambda pilot: pilot.promise)] if known else tried


def _scouting(stage: Stage) -> Stage:
    """Tuned on so few samples that a look costs little; fits are of all of them, for mixtures cost no evaluations."""
    few = min(SCOUTS_THAT_TUNE, stage.effort.tuning_samples)
    return replace(stage, effort=replace(stage.effort, tuning_samples=few))


def _short(estimate: FreeEnergy) -> str:
    if estimate.delta_f is None or estimate.std_error is None:
        return "no overlap"
    return f"{estimate.delta_f:.3f} ± {estimate.std_error:.3f} kT, overlap {estimate.overlap:.2f}"
