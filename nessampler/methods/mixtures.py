"""Candidates from Gaussian mixtures fitted to both ends: component by component in one step, or along their fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions.transforms import Transform

from nessampler.closed_form.component_pairs import Mixture, pair_components
from nessampler.closed_form.fit_mixture import fit_gaussian_mixture
from nessampler.closed_form.mixture_interpolant import MixtureFields
from nessampler.closed_form.mixture_map import MixtureMap
from nessampler.closed_form.score_polish import PolishKind, merged, polished
from nessampler.closed_form.work_times import equal_work_times
from nessampler.errors import InputError
from nessampler.kernels import BranchingMap, Langevin
from nessampler.methods.ends import Block, generator_for
from nessampler.methods.ledger import CountedFields
from nessampler.methods.stage import Candidate, Stage
from nessampler.methods.standardised import StandardisedEnds
from nessampler.methods.transport import Transport
from nessampler.paths import EndpointPath
from nessampler.targets import Target, carry, energy_and_score

__all__ = [
    "FEWEST_SAMPLES",
    "FittedMixtures",
    "Frame",
    "along_mixtures",
    "between_components",
    "fit_end",
    "mixture_candidates",
]

FEWEST_SAMPLES = 100  # of either end: fewer do not tell one mode from two
LARGEST_FULL = 64  # coordinates, above which correlations within components are not tried
DIFFUSIONS = (1.0, 3.0, 10.0)  # eps in units of the variance within components


def mixture_candidates(stage: Stage) -> Iterator[Candidate]:
    """The mixture map, then the fields of the mixture interpolant; none where samples are few or show one mode each."""
    if min(len(stage.fit.flat_a), len(stage.fit.flat_b)) < FEWEST_SAMPLES:
        return
    frame = Frame.of(stage)
    fitted = _fitted(stage, frame)
    if fitted is None:
        return
    yield between_components(frame, fitted), None
    base = fitted.fields
    fields = CountedFields(base)
    with stage.ledger.charge("fields", "training", fields):
        transport = _tuned(stage, frame, fields, base)
    yield transport, fields


@dataclass(frozen=True)
class Frame:
    """The coordinates in which mixtures are fitted, and how samples of either end come to them."""

    path: EndpointPath
    circular: Bool[Tensor, " d"]
    encode_a: Transform | None = None
    encode_b: Transform | None = None

    @classmethod
    def of(cls, stage: Stage) -> Frame:
        """Coordinates as they are; where some are circular, the others mapped and standardised given these.

        Whitening all at once would give modes of independent coordinates correlations; given the circular coordinates
        there is, as a rule, one mode left.
        """
        circular = stage.ends.circular
        if not bool(circular.any()):
            return cls(EndpointPath(stage.ends.a, stage.ends.b), circular)
        ends = StandardisedEnds(stage, stage.mapping)
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


def fit_end(
    target: Target,
    x: Float[Tensor, "n d"],
    held_out: Float[Tensor, "m d"],
    *,
    circular: Bool[Tensor, " d"] | None = None,
    generator: torch.Generator,
) -> Mixture:
    r"""A mixture of samples, its moments polished by the scores where that pays on held-out samples.

    What is compared is the variance of $U - \hat U$: that which a path picks up at this end. Costs one gradient for
    every sample and one energy for every held-out one. Circular coordinates are cut where the fewest samples are.

    Raises:
        InputError: fewer than a hundred samples.
    """
    if len(x) < FEWEST_SAMPLES:
        raise InputError(
            f"a mixture needs at least {FEWEST_SAMPLES} samples to be told from one Gaussian: got {len(x)}; "
            "sample longer, or use method='map'"
        )
    circular = torch.zeros(x.shape[1], dtype=torch.bool) if circular is None else circular
    energy, score = energy_and_score(target, x)
    held_energy = target.energy(held_out).double()
    x, held_out = (_lifted(y, x, circular) for y in (x, held_out))

    def polish(rough: Mixture, kind: PolishKind) -> Mixture:
        return polished(rough, x, score, energy, kind=kind)

    def misfit(mixture: Mixture) -> float:
        return float((held_energy - mixture.energy(held_out)).var())

    rough: list[Mixture] = [fit_gaussian_mixture(x, kinds=("isotropic", "diagonal"), generator=generator)]
    kinds: tuple[PolishKind, ...] = ("isotropic", "diagonal")
    enough = x.shape[1] <= LARGEST_FULL and len(x) >= x.shape[1] * len(rough[0].means)
    if enough and not bool(circular.any()):
        rough.append(fit_gaussian_mixture(x, kinds=("shrunk", "full"), generator=generator))
        kinds = ("isotropic", "diagonal", "full")
    found: dict[PolishKind | None, Mixture] = {None: min(rough, key=misfit)}
    for kind in kinds:
        with suppress(InputError):  # too few samples of some component for this kind
            found[kind] = min((polish(mixture, kind) for mixture in rough), key=misfit)
    best = min(found, key=lambda kind: misfit(found[kind]))
    return found[best] if best is None else _simplified(found[best], misfit, lambda mixture: polish(mixture, best))


def _simplified(mixture: Mixture, misfit: Callable[[Mixture], float], polish: Callable[[Mixture], Mixture]) -> Mixture:
    """Components made one for as long as that does not fit worse."""
    while (fewer := merged(mixture)) is not None:
        try:
            fewer = polish(fewer)
        except InputError:
            break
        if misfit(fewer) > misfit(mixture):
            break
        mixture = fewer
    return mixture


def between_components(frame: Frame, fitted: FittedMixtures) -> Transport:
    """One step from component to component."""
    branches = fitted.branches
    return Transport(
        "fields",
        f"component to component, {len(fitted.a.means)} to {len(fitted.b.means)}",
        BranchingMap(branches),
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
    samples, held_out = frame.encoded(stage.fit), frame.encoded(stage.select)
    found: list[Mixture] = []
    with stage.ledger.charge("fields", "training"):
        for name, target, x, held in zip("ab", (frame.path.start, frame.path.end), samples, held_out, strict=True):
            generator = generator_for(stage.seed, f"mixture of {name}")
            found.append(fit_end(target, x, held, circular=frame.circular, generator=generator))
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
    pilot, generator = stage.fit.thinned(stage.effort.tuning_samples), generator_for(stage.seed, "tune mixture fields")
    candidates = (along_mixtures(frame, fields, base, times, factor) for factor in DIFFUSIONS)
    return min(candidates, key=lambda candidate: candidate.pilot_error(pilot, generator=generator))


def _lifted(y: Tensor, x: Tensor, circular: Tensor) -> Tensor:
    """y with its circular coordinates in the turn that starts in the largest gap between those of x."""
    lifted = y.clone()
    for k in circular.nonzero()[:, 0].tolist():
        angles = torch.remainder(x[:, k], 2 * torch.pi).sort().values
        gaps = torch.cat([angles[1:], angles[:1] + 2 * torch.pi]) - angles
        widest = int(gaps.argmax())
        cut = float(angles[widest] + 0.5 * gaps[widest])
        lifted[:, k] = torch.remainder(y[:, k] - cut, 2 * torch.pi) + cut
    return lifted
