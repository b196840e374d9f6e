"""What sampling a density gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nessampler.errors import InputError
from nessampler.estimators import Bounds, Flag
from nessampler.estimators.log_z import LogZ, ess_error
from nessampler.methods.arviz_export import CHAINS, samples_data
from nessampler.methods.density.annealing import Annealing
from nessampler.methods.tables import attempts_frame, flag_lines, html
from nessampler.methods.verdict import Verdict
from nessampler.simulate import Ensemble
from nessampler.targets import Tally
from nessampler.weights import LogWeights, systematic

if TYPE_CHECKING:
    from arviz import InferenceData
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["Attempt", "PathQuality", "Sampled"]


@dataclass(frozen=True)
class PathQuality:
    """What pilot walkers saw along the path, one entry per time; empty where a method has no such thing.

    Attributes:
        times: of the pilot.
        r_squared: explained share of the variance of the path's time derivative, on held-out walkers.
        acceptance: of Metropolis moves.
        step_size: of these moves.
    """

    times: tuple[float, ...] = ()
    r_squared: tuple[float, ...] = ()
    acceptance: tuple[float, ...] = ()
    step_size: tuple[float, ...] = ()


@dataclass(frozen=True)
class Attempt:
    """One method tried: walkers, estimates, and what they cost.

    Attributes:
        name: ais, smc, pt, lsq or nets.
        description: what it does, for a table.
        log_z: from forward walkers only.
        ensemble: of weighted walkers at the target.
        reverse: of walkers carried back from samples of the target, where there are any.
        bounds: of log Z: lower from forward works, upper from reverse ones; None without reverse walkers.
        annealing: to draw more; None for SMC and tempering, whose particles depend on one another.
        quality: along the path.
        evaluations: `{"target": {stage: {"energy": n, "gradient": n}}, "field": {stage: n}}` with stages
            pilot, training, sampling.
        seconds: by stage.
        note: why it was chosen, or not.
        diagnostics: what else a method measures of itself, by name; of `auto` within a budget `pilot_share`, the share
            of it that comparing took.
    """

    name: str
    description: str
    log_z: LogZ
    ensemble: Ensemble
    reverse: Ensemble | None
    bounds: Bounds | None
    annealing: Annealing | None
    quality: PathQuality
    evaluations: Mapping[str, Any]
    seconds: Mapping[str, float]
    note: str = ""
    diagnostics: Mapping[str, float] = field(default_factory=dict)

    @property
    def reverse_ess(self) -> tuple[float, float] | None:
        """Effective fraction of the walkers carried back, and its bootstrap error."""
        if self.reverse is None:
            return None
        return self.reverse.ess, ess_error(self.reverse.log_weight.cpu().numpy())


@dataclass(frozen=True, repr=False)
class Sampled:
    """Weighted samples of a density and its log Z, with everything that supports them.

    Attributes:
        method: what was asked for.
        chosen: the name of the attempt reported.
        attempts: all of them, in order.
        origin_of_target_samples: "exact", "long HMC (R-hat 1.003)" or None.
        verdict: whether the number can be trusted, in words.
        flags: of the reported estimate and of the cross-checks.
        metrics: rows of the training curve.
        knowledge: what base or path were told about the target, such as "the modes"; empty where nothing.
        remark: how gradients were come by, where nobody gave them.
        shared: evaluations of the target that every attempt builds on, by stage: `base`, `checks`, and long `chains`
            whose ends are carried back.
        shared_seconds: the same in time.

    Example:
        >>> from nessampler import DensityEffort, sample
        >>> effort = DensityEffort(walkers=200, pilot_walkers=100, pilot_steps=3, steps=4, reverse_walkers=0)
        >>> found = sample(lambda x: -0.5 * x.square().sum(-1), dim=2, method="ais", effort=effort)
        >>> square, error = found.expect(lambda x: x.square().sum(-1))  # exact: 2
        >>> bool((square - 2).abs() < 4 * error), found.draws(5, generator=torch.Generator().manual_seed(0)).shape
        (True, torch.Size([5, 2]))
    """

    method: str
    chosen: str
    attempts: tuple[Attempt, ...]
    origin_of_target_samples: str | None
    verdict: Verdict
    flags: tuple[Flag, ...]
    metrics: Sequence[Mapping[str, Any]] = ()
    knowledge: str = ""
    remark: str = ""
    shared: Mapping[str, Tally] = field(default_factory=dict)
    shared_seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def attempt(self) -> Attempt:
        """The attempt reported."""
        return next(a for a in self.attempts if a.name == self.chosen)

    @property
    def log_z(self) -> LogZ:
        """log Z with its error."""
        return self.attempt.log_z

    @property
    def x(self) -> Tensor:
        """Weighted walkers `(n, *event)`; the weights are in `log_weight`."""
        return self.attempt.ensemble.x

    @property
    def log_weight(self) -> Tensor:
        """`(n,)` float64."""
        return self.attempt.ensemble.log_weight

    @property
    def ess(self) -> float:
        """Effective sample size of the fresh walkers, as a fraction."""
        return self.attempt.ensemble.ess

    def expect(
        self, function: Callable[[Tensor], Tensor], *, then: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Average of an observable, or what follows from several, and its standard error: see `Ensemble.expect`."""
        return self.attempt.ensemble.expect(function, then=then)

    def draws(self, n: int | None = None, *, generator: torch.Generator) -> Tensor:
        """Unweighted samples by systematic resampling, `(n, *event)`; repeats mark the heavy walkers.

        Raises:
            InputError: all weights vanish.
        """
        chosen = systematic(LogWeights(self.log_weight).normalized, generator=generator)
        if n is not None and n != len(chosen):
            chosen = chosen[torch.randint(len(chosen), (n,), generator=generator, device=chosen.device)]
        return self.x[chosen]

    def more(self, n: int, *, generator: torch.Generator) -> Ensemble:
        """n more walkers by the frozen transport: no pilot, no training.

        Raises:
            InputError: the attempt reported is SMC or tempering, which have no frozen transport.
        """
        annealing = self.attempt.annealing
        if annealing is None:
            raise InputError(f"more walkers need a frozen transport: {self.chosen} has none; choose ais, lsq or nets")
        return annealing.draw(n, generator=generator, device=self.x.device)

    def to_dataframe(self) -> DataFrame:
        """One row per attempt: log Z, error, interval, ESS, Pareto k, evaluations, seconds, flags."""
        return attempts_frame(self)

    def to_arviz(self, *, chains: int = CHAINS, seed: int = 0, names: Sequence[str] | None = None) -> InferenceData:
        """Unweighted draws in chains, and the weighted walkers: see `methods.arviz_export.samples_data`."""
        return samples_data(self, chains=chains, seed=seed, names=names)

    def _repr_html_(self) -> str:
        return html(str(self), attempts_frame(self))

    def __repr__(self) -> str:
        return f"<Sampled {str(self.log_z).splitlines()[0]}; {self.chosen}, {self.verdict.level}>"

    def __str__(self) -> str:
        told = f"\nBase or path were told of {self.knowledge}." if self.knowledge else ""
        told += f"\n{self.remark}" if self.remark else ""
        return f"{self.log_z}\n{self.verdict.text}{told}{flag_lines(self.flags, self.log_z.flags)}"

    def plot(self) -> Figure:
        """Log-weights, ESS along the path and a marginal, of the attempt reported; `savefig` writes it."""
        from nessampler.methods.density.shown import along_path_of, samples_of, weights_of
        from nessampler.plots import density_overview

        found = {"value": self.log_z.value, "std_error": self.log_z.std_error, "ci95": self.log_z.ci95}
        along = {title: curves[self.chosen] for title, curves in along_path_of(self).items() if self.chosen in curves}
        samples = samples_of(self, generator=torch.Generator(self.x.device).manual_seed(0))
        return density_overview(self.chosen, weights_of(self).get(self.chosen), along, samples, found)
