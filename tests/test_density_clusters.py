"""Densities of points in space: pair fields, a network that starts from them, and what has no fields."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from soft_cluster import soft_cluster

from nessampler.errors import InputError
from nessampler.methods.density.effort import DensityEffort
from nessampler.methods.density.one_call import sample
from nessampler.methods.density.result import Sampled
from nessampler.targets.lennard_jones import LennardJonesCluster

EFFORT = DensityEffort(walkers=1000, pilot_walkers=600, pilot_steps=10, steps=8, leapfrog_steps=3, reverse_walkers=0)


def radial(energy) -> float:
    """log Z of two atoms in a trap of stiffness 1: the centre in closed form, the distance by quadrature."""
    r = np.linspace(1e-3, 12, 40001)
    return 1.5 * math.log(math.pi) + math.log(4 * math.pi * np.trapezoid(r**2 * np.exp(-(r**2) / 4 - energy(r)), r))


def check(found: Sampled, exact: float) -> None:
    assert found.log_z.value is not None
    assert found.log_z.std_error is not None
    assert abs(found.log_z.value - exact) < 4 * found.log_z.std_error < 0.12


@pytest.mark.parametrize("method", ["lsq", "nets"])
def test_a_soft_pair_is_carried_by_pair_fields(method):
    base = LennardJonesCluster(2, strength=0.0)
    effort = replace(EFFORT, nets_steps=30, training_walkers=256)
    found = sample(soft_cluster(2), base=base, method=method, seed=1, effort=effort)
    check(found, radial(lambda r: 2 * np.exp(-(r**2))))
    plain = sample(soft_cluster(2), base=base, method="ais", seed=1, effort=effort)
    assert 1 / found.log_z.ess - 1 < 0.2 * (1 / plain.log_z.ess - 1)


def test_training_makes_up_for_a_poor_start():
    """A network that starts from too few splines ends with less scatter of log-weights than its start."""
    base, effort = LennardJonesCluster(3, strength=0.0), replace(EFFORT, nets_steps=150, training_walkers=512)
    start, learned = (
        sample(soft_cluster(3, strength=4.0), base=base, method=method, seed=2, effort=effort)
        for method in ("lsq", "nets")
    )
    assert 1 / learned.log_z.ess - 1 < 0.9 * (1 / start.log_z.ess - 1)


def test_auto_is_right_for_a_lennard_jones_pair():
    found = sample(LennardJonesCluster(2), seed=0, effort=replace(EFFORT, steps=24))
    check(found, radial(lambda r: 8 * (r**-12 - r**-6)))
    assert {attempt.name for attempt in found.attempts} == {"ais", "lsq"}


@pytest.mark.parametrize("budget", [None, 60_000])
def test_auto_goes_without_a_drift_where_there_are_no_fields(budget):
    def log_density(x):
        return -0.5 * x.square().sum((1, 2))

    found = sample(log_density, dim=(2, 2), seed=0, effort=replace(EFFORT, budget=budget))
    assert found.chosen in ("ais", "smc")
    check(found, 2 * math.log(2 * math.pi))
    with pytest.raises(InputError, match=r"fields for walkers of shape \(2, 2\).*'ais', 'smc' or 'pt'"):
        sample(log_density, dim=(2, 2), method="lsq", seed=0, effort=EFFORT)
