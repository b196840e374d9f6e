"""What walkers carried back from the target say about the walkers that went forward."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.stats import beta
from torch import Tensor

from nessampler.diagnostics import disagreement
from nessampler.estimators import Flag
from nessampler.estimators.free_energy import Z95
from nessampler.estimators.log_z import LogZ
from nessampler.estimators.second_law import ONE_SIDED
from nessampler.overlap_check import overlap_check
from nessampler.simulate import Ensemble

__all__ = ["cross_checked"]

LARGEST_LOSS = 0.01  # of log Z, by walkers without a way back
EVEN = 0.9  # ESS, from which on no single walker counts
EXPECTED = 0.5  # forward walkers beyond all there were; that none came is then no surprise
MATTERS = 0.5  # of a standard error: a shift by so much leaves 92 % of 95 % intervals right


def cross_checked(estimate: LogZ, forward: Ensemble, reverse: Ensemble, samples: Tensor, *, seed: int) -> LogZ:
    r"""The estimate with the doubts that the other direction raises; an ESS alone sees none of them.

    - `no_way_back`: walkers for which a flow step has no inverse; below 1 % their share enters the error instead.
    - `unreached`: walkers of the target whose paths would have weighed more, forwards, than every forward walker did.
      Their share f of the target is what no forward walker came near, so log Z is low by $-\log(1 - f)$. That is how
      lost modes and rare heavy walkers show, at an ESS of 1. The lower 99.9 % limit of f must matter beside the error.
      Of even weights (ESS above 0.9) the largest are missed by chance, which is part of the error. Forward walkers are
      expected $n \sum_i w_i^{-1} / m$ times among paths i of m carried back: at a lost mode next to never. So only the
      heaviest count, among which less than half a walker was to be expected.
    - `overlap_disagrees`: `samples` of the target, which the reverse walkers started from, do not lie where forward
      walkers arrive, weighted for the ensemble that both share, see `overlap_check`.
    - what `disagreement` finds.
    """
    if estimate.value is None or estimate.std_error is None:
        return estimate
    base = estimate.value - forward.log_z_ratio
    ahead, back = forward.log_weight.cpu().numpy(), reverse.log_weight.cpu().numpy()
    estimate, flags = _with_losses(estimate, float(np.isneginf(back).mean()))
    flags += _unreached(estimate, _beyond(forward, back), len(back))
    if np.isfinite(ahead).any() and np.isfinite(back).any():
        off = estimate.systematic
        flags += disagreement(-ahead, -back, seed=seed, base_log_z=base, exact=off == 0, systematic=off)
        arrived, started = (x.flatten(1).double().cpu().numpy() for x in (forward.x, samples))
        shared = overlap_check(-ahead, -back, arrived, started)
        flags += () if shared is None else shared.flags("samples of the target")
    return replace(estimate, flags=(*estimate.flags, *flags))


def _with_losses(estimate: LogZ, lost: float) -> tuple[LogZ, list[Flag]]:
    if lost == 0 or estimate.value is None or estimate.std_error is None:
        return estimate, []
    bias = -np.log1p(-lost) if lost < 1 else np.inf
    if bias > LARGEST_LOSS:
        message = (
            f"{lost:.2%} of the walkers carried back from the target found no way: forward walkers do not reach them "
            "either; take more steps, or a wider base"
        )
        return estimate, [Flag("no_way_back", message)]
    systematic, error = (float(np.hypot(e, bias)) for e in (estimate.systematic, estimate.std_error))
    ci95 = (estimate.value - Z95 * error, estimate.value + Z95 * error)
    return replace(estimate, std_error=error, ci95=ci95, systematic=systematic), []


def _beyond(forward: Ensemble, back: np.ndarray) -> int:
    """Walkers of the target that no forward walker came near, where weights are even but for those missed by chance.

    From the largest weight down, as many as forward walkers would be expected among less than half a time.
    """
    beyond = np.sort(back[-back > float(forward.log_weight.max())])
    if forward.ess < EVEN:
        return len(beyond)
    expected = np.cumsum(np.exp(beyond + forward.log_z_ratio)) * len(forward.x) / len(back)
    return int((expected < EXPECTED).sum())


def _unreached(estimate: LogZ, beyond: int, of: int) -> list[Flag]:
    if beyond == 0 or estimate.std_error is None:
        return []
    surely = float(beta.ppf(1 - ONE_SIDED, beyond, of - beyond + 1))
    share = beyond / of
    if -np.log1p(-surely) <= MATTERS * estimate.std_error:
        return []
    low = f"about {-np.log1p(-share):.2f}" if share < 1 else "an unknown amount"
    message = (
        f"{share:.1%} of the target's samples lie where no forward walker came near: modes are missing and log Z is "
        f"too low by {low}; use a base that covers them, or more steps"
    )
    return [Flag("unreached", message)]
