"""A density's result as the arrays that figures are drawn from."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from nessampler.methods.density.result import Attempt, Sampled
from nessampler.plots import Curve, Samples, Weights
from nessampler.weights import LogWeights

__all__ = ["along_path_of", "samples_of", "weights_of"]

SHOWN = 2


def weights_of(result: Sampled) -> dict[str, Weights]:
    """Log-weights of attempts with independent walkers, on the scale of log Z."""
    return {
        attempt.name: Weights(
            _base_log_z(attempt) + attempt.ensemble.log_weight.cpu().numpy(),
            None if attempt.reverse is None else _base_log_z(attempt) - attempt.reverse.log_weight.cpu().numpy(),
        )
        for attempt in result.attempts
        if not attempt.ensemble.resampled
    }


def along_path_of(result: Sampled) -> dict[str, dict[str, Curve]]:
    """Effective samples, log Z, explained variance and acceptance over the time of the path, by attempt."""
    shown: dict[str, dict[str, Curve]] = {"ESS so far": {}, "log Z so far": {}, "held-out R²": {}, "acceptance": {}}
    for attempt in result.attempts:
        history, quality = attempt.ensemble.history, attempt.quality
        if history is not None and history.ess is not None and history.log_z_ratio is not None:
            shown["ESS so far"][attempt.name] = _curve(history.times, history.ess.cpu().numpy())
            log_z = _base_log_z(attempt) + history.log_z_ratio.cpu().numpy()
            shown["log Z so far"][attempt.name] = _curve(history.times, np.where(np.isfinite(log_z), log_z, np.nan))
        if quality.r_squared:
            shown["held-out R²"][attempt.name] = _curve(quality.times, quality.r_squared)
        if history is not None and bool(history.acceptance.isfinite().any()):
            shown["acceptance"][attempt.name] = _curve(history.times, history.acceptance.cpu().numpy())
        elif quality.acceptance:
            shown["acceptance"][attempt.name] = _curve(quality.times, quality.acceptance)
    return {title: curves for title, curves in shown.items() if curves}


def samples_of(result: Sampled, *, generator: torch.Generator, exact: torch.Tensor | None = None) -> Samples | None:
    """The first two coordinates of walkers and draws; None where every weight vanishes."""
    if not bool(torch.isfinite(result.log_weight).any()):
        return None
    x, draws, other = (
        None if found is None else found.flatten(1)[:, :SHOWN].double().cpu().numpy()
        for found in (result.x, result.draws(generator=generator), exact)
    )
    assert x is not None
    assert draws is not None
    weight = LogWeights(result.log_weight).normalized.cpu().numpy()
    return Samples(x, weight, draws, other, result.x[0].numel())


def _base_log_z(attempt: Attempt) -> float:
    if attempt.annealing is not None:
        return attempt.annealing.base_log_z
    return 0.0 if attempt.log_z.value is None else attempt.log_z.value - attempt.ensemble.log_z_ratio


def _curve(times: Iterable[float], values: Iterable[float]) -> Curve:
    """Pairs; where there is one time more than values, the values belong to the ends of intervals."""
    t, v = np.asarray(list(times), dtype=float), np.asarray(list(values), dtype=float)
    return t[len(t) - len(v) :], v
