"""Candidates from Gaussian mixtures fitted to both ends: component by component in one step, or along their fields."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor
from torch.distributions.transforms import Transform

from nessampler.closed_form.affine import fit_map
from nessampler.closed_form.component_pairs import Mixture, pair_components
from nessampler.closed_form.fit_mixture import fit_gaussian_mixture
from nessampler.closed_form.fit_mixture_with_scores import FEWEST_SAMPLES, fit_mixture_with_scores, lifted, too_few
from nessampler.closed_form.mixture_interpolant import MixtureFields
from nessampler.closed_form.mixture_map import MixtureMap, OnCoordinates
from nessampler.closed_form.work_times import equal_work_times
from nessampler.kernels import BranchingMap, Langevin
from nessampler.methods.ends import Block, generator_for
from nessampler.methods.ledger import CountedFields
from nessampler.methods.stage import Candidate, Stage
from nessampler.methods.standardised import StandardisedEnds
from nessampler.methods.transport import Transport
from nessampler.paths import EndpointPath
from nessampler.targets import carry

__all__ = [
    "FittedMixtures",
    "Frame",
    "along_mixtures",
    "between_components",
    "enough_for_mixtures",
    "mixture_candidates",
]

SHRINK = 0.25  # of correlations between coordinates that follow the circular ones
DIFFUSIONS = (1.0, 3.0, 10.0)  # eps in units of the variance within components


def mixture_candidates(stage: Stage) -> Iterator[Candidate]:
    """The mixture map, the fields of the mixture interpolant, and a map of the circular coordinates alone.

    None where samples are few or show one mode each.
    """
    if not enough_for_mixtures(stage, "fields"):
        return
    frame = Frame.of(stage)
    fitted = _fitted(stage, frame)
    if fitted is not None:
        yield between_components(frame, fitted), None
        base = fitted.fields
        fields = CountedFields(base)
        with stage.ledger.charge("fields", "training", fields):
            transport = _tuned(stage, frame, fields, base)
        yield transport, fields
    if bool(frame.circular.any()):
        yield from _circular_alone(stage, frame)


def enough_for_mixtures(stage: Stage, rung: str) -> bool:
    """Whether both ends have the samples for mixtures; where not, how many would do is said."""
    fewest, share = min(len(stage.fit.flat_a), len(stage.fit.flat_b)), stage.effort.blocks[0]
    if fewest >= FEWEST_SAMPLES:
        return True
    stage.say(
        f"{rung}: no mixtures; {too_few(fewest)} in the block that fits, {share:g} of all; "
        f"{math.ceil(FEWEST_SAMPLES / share)} of each state would do"
    )
    return False


def _circular_alone(stage: Stage, frame: Frame) -> Iterator[Candidate]:
    """Modes of the circular coordinates, which a likelihood of all coordinates hardly sees; the rest follows them."""
    chosen, found = frame.circular, []
    with stage.ledger.charge("fields", "training"):
        for name, x, late in zip("ab", frame.encoded(stage.fit), stage.fit.late, strict=True):
            angles = lifted(x[:, chosen], x[:, chosen], chosen[chosen])
            generator = generator_for(stage.seed, f"circular mixture of {name}")
            found.append(fit_gaussian_mixture(angles, kinds=("diagonal",), held_out=late, generator=generator))
    fitted = FittedMixtures(found[0], found[1], chosen[chosen])
    if max(len(mixture.means) for mixture in found) > 1:
        yield between_components(frame, fitted, alone=chosen), None


@dataclass(frozen=True)
class Frame:
    """The coordinates in which mixtures are fitted, and how samples of either end come to them."""

    path: EndpointPath
    circular: Bool[Tensor, " d"]
    encode_a: Transform | None = None
    encode_b: Transform | None = None

    @classmethod
    def of(cls, stage: Stage) -> Frame:
        """Coordinates as they are; where some are circular, the others standardised given these, at both ends.

        Whitening all at once would give modes of independent coordinates correlations; given the circular coordinates
        there is, as a rule, one mode left.
        """
        circular = stage.ends.circular
        if not bool(circular.any()):
            return cls(EndpointPath(stage.ends.a, stage.ends.b), circular)
        conditional = fit_map(
            stage.fit.flat_a, stage.fit.flat_b, circular, scale="full", shrink=SHRINK, conditional=True
        )
        ends = StandardisedEnds(stage, conditional)
        return cls(ends.path, circular, ends.encode_a, ends.encode_b)

    def encoded(self, block: Block) -> tuple[Tensor, Tensor]:
        """All samples of A and of B."""
        encoders = (self.encode_a, self.encode_b)
        a, b = (x if f is None else carry(f, x) for x, f in zip((block.flat_a, block.flat_b), encoders, strict=True))
        return a, b


@dataclass(frozen=True)
class FittedMixtures:
    """Mixtures of both ends, paired."""

    a: Mixture
    b: Mixture
    circular: Bool[Tensor, " d"]

    @property
    def branches(self) -> MixtureMap:
        """The maps between paired components."""
        return MixtureMap(pair_components(self.a, self.b, circular=self.circular))

    @property
    def fields(self) -> MixtureFields:
        """The fields between paired components."""
        return MixtureFields(pair_components(self.a, self.b, circular=self.circular))


def between_components(frame: Frame, fitted: FittedMixtures, *, alone: Bool[Tensor, " d"] | None = None) -> Transport:
    """One step from component to component, of all coordinates or of those that mixtures are of."""
    branches = fitted.branches
    of = "" if alone is None else f" of {int(alone.sum())} circular coordinates"
    return Transport(
        "fields",
        f"component to component{of}, {len(fitted.a.means)} to {len(fitted.b.means)}",
        BranchingMap(branches if alone is None else OnCoordinates(branches, alone)),
        frame.path,
        (0.0, 1.0),
        frame.encode_a,
        frame.encode_b,
        {f"mixture.{k}": v for k, v in branches.state_dict().items()},
    )


def along_mixtures(
    frame: Frame, fields: MixtureFields | CountedFields, base: MixtureFields, times: tuple[float, ...], factor: float
) -> Transport:
    """Langevin steps along the mixture interpolant, `factor` being ε in units of the variance within components."""

    def diffusion(t: float) -> Tensor:
        return factor * base.variance(t)

    return Transport(
        "fields",
        f"fields of {len(base.weight)} pairs of components, {len(times) - 1} steps, ε = {factor:g} × variance within",
        Langevin(fields, diffusion),
        frame.path,
        times,
        frame.encode_a,
        frame.encode_b,
        {f"mixture_fields.{k}": v for k, v in base.state_dict().items()},
    )


def _fitted(stage: Stage, frame: Frame) -> FittedMixtures | None:
    """Mixtures of both ends, unless both are single components."""
    ends = zip("ab", (frame.path.start, frame.path.end), frame.encoded(stage.fit), stage.fit.late, strict=True)
    found: list[Mixture] = []
    with stage.ledger.charge("fields", "training"):
        for (name, target, x, late), held in zip(ends, frame.encoded(stage.select), strict=True):
            options = {"circular": frame.circular, "generator": generator_for(stage.seed, f"mixture of {name}")}
            found.append(fit_mixture_with_scores(target, x, held, late=late, **options))
    a, b = found
    if len(a.means) == len(b.means) == 1:
        stage.say("fields: one component at each end, so no mixture")
        return None
    stage.say(f"fields: mixtures of {len(a.means)} and {len(b.means)} components")
    return FittedMixtures(a, b, frame.circular)


def _tuned(stage: Stage, frame: Frame, fields: CountedFields, base: MixtureFields) -> Transport:
    """Times where work is spread evenly, then the diffusion with the smallest BAR error of pilot walkers."""
    generator = generator_for(stage.seed, "times of mixture fields")
    times = equal_work_times(fields, base, stage.effort.fields_steps, generator=generator)
    candidates = (along_mixtures(frame, fields, base, times, factor) for factor in DIFFUSIONS)
    return stage.tuned(candidates, "mixture fields")
