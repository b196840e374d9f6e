"""Walkers of the target beyond all forward walkers: by chance where weights are even, or at a lost mode."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nessampler.estimators.log_z import log_z
from nessampler.methods.density.two_sided import cross_checked
from nessampler.simulate import Ensemble

SPREAD, WALKERS, CARRIED_BACK = 0.13, 700, 4096


def ensemble(log_weight: Tensor) -> Ensemble:
    return Ensemble(torch.zeros(len(log_weight), 1).double(), log_weight, (0.0, 1.0), None, False, (len(log_weight),))


def flags(seed: int, lost: float = 0.0) -> tuple[set[str], float]:
    """Log-weights that are normal, as are those of the way back; `lost` of these from where no forward walker comes."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(WALKERS + CARRIED_BACK, generator=generator, dtype=torch.float64) * SPREAD
    forward, back = noise[:WALKERS] - SPREAD**2 / 2, -noise[WALKERS:] - SPREAD**2 / 2
    back[: round(lost * CARRIED_BACK)] = -12.0
    ahead = ensemble(forward)
    estimate = log_z(forward.numpy(), base=0.0, seed=seed)
    samples = torch.zeros(CARRIED_BACK, 1).double()
    found = cross_checked(estimate, ahead, ensemble(back), samples, seed=seed)
    return {flag.code for flag in found.flags}, ahead.ess


def test_the_largest_of_even_weights_are_missed_by_chance_and_nothing_is_flagged() -> None:
    found = [flags(seed) for seed in range(40)]
    assert min(ess for _, ess in found) > 0.97
    assert sum("unreached" in codes for codes, _ in found) == 0


def test_a_lost_mode_is_flagged_at_the_same_ess() -> None:
    found = [flags(seed, lost=0.02) for seed in range(10)]
    assert all("unreached" in codes for codes, _ in found)
    assert math.isclose(min(ess for _, ess in found), 0.98, abs_tol=0.01)
