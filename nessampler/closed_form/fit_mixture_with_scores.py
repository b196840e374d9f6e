"""A Gaussian mixture from samples and scores: what a transport needs to know of an end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nessampler.closed_form.component_pairs import Mixture
from nessampler.closed_form.fit_mixture import fit_gaussian_mixture
from nessampler.closed_form.score_polish import PolishKind, merged, polished
from nessampler.errors import InputError
from nessampler.targets import Target, energy_and_score

__all__ = ["FEWEST_SAMPLES", "fit_mixture_with_scores", "lifted", "too_few"]

FEWEST_SAMPLES = 100  # fewer do not tell one mode from two
LARGEST_FULL = 64  # coordinates, above which correlations within components are not tried


def fit_mixture_with_scores(
    target: Target,
    x: Float[Tensor, "n d"],
    held_out: Float[Tensor, "m d"],
    *,
    circular: Bool[Tensor, " d"] | None = None,
    late: Bool[Tensor, " n"] | None = None,
    generator: torch.Generator,
) -> Mixture:
    r"""A mixture of samples, its moments polished by the scores where that pays on held-out samples.

    What is compared is the variance of $U - \hat U$: that which a path picks up at this end. Costs one gradient for
    every sample and one energy for every held-out one. Circular coordinates are cut where the fewest samples are.

    Args:
        target: the density.
        x: samples that are fitted.
        held_out: others, by which what was fitted is compared.
        circular: which coordinates are angles; none where None.
        late: the last of x in time, where samples are correlated: see `held_out` of `fit_gaussian_mixture`.
        generator: of the fits.

    Raises:
        InputError: fewer than a hundred samples.

    Example:
        >>> from nessampler.targets.mixture import random_mixture
        >>> modes, g = random_mixture(2, 3, scale=0.1, spread=2.0, seed=0), torch.Generator().manual_seed(0)
        >>> x, held_out = modes.sample(200, generator=g), modes.sample(50, generator=g)
        >>> found = fit_mixture_with_scores(modes, x, held_out, generator=g)
        >>> bool((found.energy(x) - modes.energy(x)).abs().max() < 1e-6)
        True
    """
    if len(x) < FEWEST_SAMPLES:
        raise InputError(f"{too_few(len(x))}; sample longer, or use method='map'")
    circular = torch.zeros(x.shape[1], dtype=torch.bool) if circular is None else circular
    circular = circular.to(x.device)
    energy, score = energy_and_score(target, x)
    held_energy = target.energy(held_out).double()
    x, held_out = (lifted(y, x, circular) for y in (x, held_out))

    def polish(rough: Mixture, kind: PolishKind) -> Mixture:
        return polished(rough, x, score, energy, kind=kind)

    def misfit(mixture: Mixture) -> float:
        return float((held_energy - mixture.energy(held_out)).var())

    options = {"held_out": late, "generator": generator}
    rough: list[Mixture] = [fit_gaussian_mixture(x, kinds=("isotropic", "diagonal"), **options)]
    kinds: tuple[PolishKind, ...] = ("isotropic", "diagonal")
    enough = x.shape[1] <= LARGEST_FULL and len(x) >= x.shape[1] * len(rough[0].means)
    if enough and not bool(circular.any()):
        rough.append(fit_gaussian_mixture(x, kinds=("shrunk", "full"), **options))
        kinds = ("isotropic", "diagonal", "full")
    found: dict[PolishKind | None, Mixture] = {None: min(rough, key=misfit)}
    for kind in kinds:
        with suppress(InputError):  # too few samples of some component for this kind
            found[kind] = min((polish(mixture, kind) for mixture in rough), key=misfit)
    best = min(found, key=lambda kind: misfit(found[kind]))
    return found[best] if best is None else _simplified(found[best], misfit, lambda mixture: polish(mixture, best))


def too_few(n: int) -> str:
    """Why n samples are not enough, in words.

    Example:
        >>> too_few(50)
        'a mixture needs at least 100 samples to be told from one Gaussian: got 50'
    """
    return f"a mixture needs at least {FEWEST_SAMPLES} samples to be told from one Gaussian: got {n}"


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


def lifted(y: Float[Tensor, "m d"], x: Float[Tensor, "n d"], circular: Bool[Tensor, " d"]) -> Float[Tensor, "m d"]:
    """y with its circular coordinates in the turn that starts in the largest gap between those of x.

    Example:
        >>> x = torch.tensor([[3.0], [-3.0]])
        >>> lifted(x, x, torch.tensor([True]))[:, 0]
        tensor([3.0000, 3.2832])
    """
    found = y.clone()
    for k in circular.nonzero()[:, 0].tolist():
        angles = torch.remainder(x[:, k], 2 * torch.pi).sort().values
        gaps = torch.cat([angles[1:], angles[:1] + 2 * torch.pi]) - angles
        widest = int(gaps.argmax())
        cut = float(torch.remainder(angles[widest] + 0.5 * gaps[widest] + torch.pi, 2 * torch.pi)) - torch.pi
        found[:, k] = torch.remainder(y[:, k] - cut, 2 * torch.pi) + cut
    return found
