"""Chains at the states of a path: they have the right law, and staged MBAR over them finds known differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nessampler.errors import InputError
from nessampler.estimators import mbar
from nessampler.methods.staged import staged
from nessampler.methods.staged_chains import HamiltonianStates
from nessampler.paths import LinearPath
from nessampler.targets import AnharmonicWell, Counted

Wells = tuple[AnharmonicWell, AnharmonicWell]


def sampler(wells: Wells, chains: int = 64, **options: int) -> HamiltonianStates:
    generator = torch.Generator().manual_seed(3)
    starts = [well.sample(chains, generator=generator) for well in wells]
    lengths = {"equilibration": 30, "draws": 40, "interval": 1, "leapfrog_steps": 6} | options
    return HamiltonianStates(LinearPath(*wells), *starts, step_size=0.3, **lengths)  # pyright: ignore[reportArgumentType]


def test_chains_of_a_state_have_its_law(wells: Wells) -> None:
    x = sampler(wells, 256, draws=80)(torch.tensor([1.0]), generator=torch.Generator().manual_seed(0))[0]
    exact = wells[1].sample(200_000, generator=torch.Generator().manual_seed(1)).mean(0)
    means = x.mean(1)  # one per chain: chains are independent
    error = means.std(0) / len(means) ** 0.5
    assert float(error.max()) < 0.03
    assert float(((means.mean(0) - exact) / error).abs().max()) < 4
    other = wells[0].sample(200_000, generator=torch.Generator().manual_seed(1)).mean(0)
    assert float(((means.mean(0) - other) / error).abs().max()) > 4  # the other end would be seen


def test_staged_mbar_over_chains_finds_the_difference(wells: Wells) -> None:
    found = staged(LinearPath(*wells), sampler(wells), points=3, generator=torch.Generator().manual_seed(0))
    truth = wells[0].log_z - wells[1].log_z
    for estimate in (found.multistate, found.integration):
        assert estimate.delta_f is not None
        assert estimate.std_error is not None
        assert abs(estimate.delta_f - truth) < 4 * estimate.std_error < 0.2
        assert abs(estimate.delta_f + truth) > 4 * estimate.std_error  # so would the sign


def test_chains_cost_what_they_say(wells: Wells) -> None:
    counted = tuple(Counted(well) for well in wells)
    chains = sampler(wells, chains=8, draws=3)
    path = LinearPath(*counted)
    chains = HamiltonianStates(path, chains.x_a, chains.x_b, equilibration=10, draws=3, interval=2, leapfrog_steps=4)
    chains(torch.tensor([0.3, 0.7]), generator=torch.Generator().manual_seed(0))
    starts = 2 * 8
    assert counted[1].tally().gradient == 2 * chains.gradients + starts


def test_starts_and_lengths_that_make_no_sense_are_refused(wells: Wells) -> None:
    x = torch.zeros(4, 3, dtype=torch.float64)
    with pytest.raises(InputError, match="as many chains"):
        HamiltonianStates(LinearPath(*wells), x, x[:2])
    with pytest.raises(InputError, match="1 at least: got 0"):
        HamiltonianStates(LinearPath(*wells), x, x, equilibration=0)


def test_an_error_that_is_none_leaves_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.concatenate([np.random.default_rng(0).normal(c, 1, 200) for c in (0.0, 1.0)])
    energies = np.stack([0.5 * (x - c) ** 2 for c in (0.0, 1.0)])
    healthy = mbar(energies, [200, 200])
    assert healthy.delta_f == pytest.approx(0.0, abs=4 * (healthy.std_error or 0.0))
    # What pymbar says where rounding makes the variance of disconnected states negative.
    nothing = {"Delta_f": np.full((2, 2), -246.0), "dDelta_f": np.full((2, 2), np.nan)}
    monkeypatch.setattr("pymbar.MBAR.compute_free_energy_differences", lambda *_, **__: nothing)
    found = mbar(energies, [200, 200])
    assert (found.delta_f, found.std_error) == (None, None)
    assert "no_overlap" in [flag.code for flag in found.flags]
