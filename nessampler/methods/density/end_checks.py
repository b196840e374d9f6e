"""Are the weighted walkers samples of the target, and its samples too? Stein's identity, asked of both."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nessampler.errors import InputError
from nessampler.estimators import Flag
from nessampler.methods.density.counted import CountedPath
from nessampler.methods.end_checks import cut_off
from nessampler.simulate import Ensemble
from nessampler.stein import SteinCheck, stein_check

__all__ = ["check_target_samples", "check_walkers"]

# Effective walkers asked for, and by how many more for twice the coordinates: the virial is skewed, which Student's
# limits know less of the further out they are, and the level is shared by all coordinates.
FEWEST_WALKERS, MORE_WALKERS = 60, 20
MOST_WALKERS = 4096
AT_ONCE = 1000  # evaluated: a target may be asked for no more walkers than a chunk
MOST_NUMBERS = 2**22  # walkers × coordinates: each is looked at
# Below that of a difference's end states. Skewed weights make Student's limits too narrow; and samples of the target
# are no part of log Z but a check of it: at 0.1 % one in ten passes through a catalogue would be accused by chance.
LEVEL = 1e-4


class _Last:
    """The target as the path counts it."""

    def __init__(self, path: CountedPath) -> None:
        self._path, self.event_shape = path, path.end.event_shape

    def energy(self, x: Tensor) -> Tensor:
        return self._path.energy(torch.ones(len(x), dtype=x.dtype, device=x.device), x)


def check_walkers(path: CountedPath, ensemble: Ensemble, *, seed: int) -> tuple[Flag, ...]:
    r"""A flag where weighted walkers contradict $E[w\,(\nabla\cdot f + f\cdot s)] = 0$; a gradient each.

    At most 4,096 of them, and four million numbers. That is how tails show which the base did not cover and no move
    has filled, or that a drift leads nobody to, at any effective sample size. Modes that are missing as a whole, or
    weighted wrongly against one another, satisfy the identity and are not seen.

    Not asked of few effective walkers (100 in four dimensions, 220 in 256), where weights depend on one another, or of
    a density that is cut off where it is not small.
    """
    if ensemble.resampled:
        return ()
    few, log_weight = _few(ensemble.x), _few(ensemble.log_weight, ensemble.x.shape[1:].numel())
    check = _check(path, few, seed, torch.softmax(log_weight, 0)) if bool(torch.isfinite(log_weight).any()) else None
    if check is None or check.p >= LEVEL:
        return ()
    message = (
        f"weighted walkers do not satisfy Stein's identity of the target (p = {check.p:.1e}): by the virial their "
        f"temperature is {check.temperature:.3f} ± {check.temperature_error:.3f} times that of the target; its tails "
        "are not filled, or walkers lag behind: take a wider base, or more steps"
    )
    return (Flag("walkers_off_target", message),)


def check_target_samples(path: CountedPath, x: Tensor, *, seed: int) -> tuple[Flag, ...]:
    """A flag where samples of the target, to be carried back, are samples of something else; of as many as above."""
    check = _check(path, _few(x), seed, None)
    if check is None or check.p >= LEVEL:
        return ()
    return (Flag("not_samples_of_target", check.describe("the target")),)


def _few(values: Tensor, d: int | None = None) -> Tensor:
    """As many of the first walkers as the check looks at, in d coordinates; by default, those of the values."""
    return values[: min(MOST_WALKERS, MOST_NUMBERS // (d or values.shape[1:].numel()))]


def _check(path: CountedPath, x: Tensor, seed: int, weight: Tensor | None) -> SteinCheck | None:
    """None where the identity does not apply."""
    effective = len(x) if weight is None else 1 / float(weight.square().sum())
    if effective < FEWEST_WALKERS + MORE_WALKERS * math.log2(x.shape[1:].numel()):
        return None
    try:
        scored = [path.energy_and_score(torch.ones(len(part)).to(part), part) for part in x.split(AT_ONCE)]
    except (RuntimeError, InputError):  # of autograd, or of a density that knows of no gradient
        return None
    energy, score = (torch.cat(parts) for parts in zip(*scored, strict=True))
    inside = torch.isfinite(energy)
    if not bool(inside.all() & torch.isfinite(score).all()) or cut_off(_Last(path), x, seed):
        return None
    pieces = [v.detach().double().reshape(1, len(x), -1).cpu().numpy() for v in (x, score)]
    return stein_check(*pieces, correlated=False, weight=None if weight is None else weight[None].cpu().numpy())
