"""A run of a density opened again: the same transport, without pilots or training."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import nessampler
from soft_cluster import soft_cluster

from nessampler.errors import InputError
from nessampler.methods.density.again import rebuilt
from nessampler.methods.density.dictionaries import default_dictionary
from nessampler.methods.density.effort import DensityEffort
from nessampler.methods.density.problem import DensityProblem
from nessampler.methods.density.sample import sample_density
from nessampler.paths import LinearPath
from nessampler.runs.again import reopen
from nessampler.targets import AnharmonicWell, Gaussian
from nessampler.targets.lennard_jones import LennardJonesCluster
from nessampler.targets.phi4 import FreeField, Phi4

EFFORT = DensityEffort(walkers=300, pilot_walkers=500, pilot_steps=5, steps=6, reverse_walkers=0, nets_steps=20)


def well() -> DensityProblem:
    end = AnharmonicWell([1.0, 0.0], stiffness=[1.0, 2.0], quartic=[0.5, 0.1], skew=[0.5, 0.0], coupling=1.0)
    path = LinearPath(Gaussian(torch.zeros(2), torch.ones(2)), end)
    return DensityProblem(path, lambda x, g: default_dictionary(path)(x, g))


def lattice() -> DensityProblem:
    path = LinearPath(FreeField.massive(4, mass_squared=1.0), Phi4(4, quartic=0.8))
    return DensityProblem(path, lambda x, g: default_dictionary(path)(x, g))


def cluster() -> DensityProblem:
    path = LinearPath(LennardJonesCluster(3, strength=0.0), soft_cluster(3))
    return DensityProblem(path, lambda x, g: default_dictionary(path)(x, g))


@pytest.mark.parametrize("make", [well, lattice, cluster])
@pytest.mark.parametrize("method", ["ais", "lsq", "nets"])
def test_a_transport_survives_as_tensors(make, method):
    first = sample_density(make(), method=method, effort=EFFORT).attempt.annealing
    assert first is not None
    state = {key: value.clone() for key, value in first.state.items()}
    second = rebuilt(make(), method, state, torch.device("cpu"))
    one, other = (a.draw(50, generator=torch.Generator().manual_seed(3)) for a in (first, second))
    torch.testing.assert_close(one.log_weight, other.log_weight, rtol=1e-9, atol=1e-9)
    assert first.systematic == pytest.approx(second.systematic)
    if method != "ais":
        state["coefficients"] = 1.5 * state["coefficients"]  # a control: the state is what is used
        state = {k: v for k, v in state.items() if method == "lsq" or k != "nets.start"} | (
            {"nets.start": 1.5 * state["nets.start"]} if "nets.start" in state else {}
        )
        changed = rebuilt(make(), method, state, torch.device("cpu")).draw(
            50, generator=torch.Generator().manual_seed(3)
        )
        assert float((changed.log_weight - one.log_weight).abs().max()) > 1e-3


def test_inertia_survives_as_tensors():
    first = sample_density(well(), method="ais", effort=replace(EFFORT, kernel="inertial")).attempt.annealing
    assert first is not None
    state = {key: value.clone() for key, value in first.state.items()}
    changed = {**state, "persistence": 0.5 * state["persistence"] + 0.1}
    one, other, third = (
        a.draw(50, generator=torch.Generator().manual_seed(3)).log_weight
        for a in (first, *(rebuilt(well(), "ais", s, torch.device("cpu")) for s in (state, changed)))
    )
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert float((third - one).abs().max()) > 1e-3


def test_langevin_steps_without_a_drift_survive_as_tensors():
    first = sample_density(well(), method="ais", effort=replace(EFFORT, kernel="langevin")).attempt.annealing
    assert first is not None
    state = {key: value.clone() for key, value in first.state.items()}
    changed = {**state, "diffusion": 1.5 * state["diffusion"]}
    one, other, third = (
        a.draw(50, generator=torch.Generator().manual_seed(3)).log_weight
        for a in (first, *(rebuilt(well(), "ais", s, torch.device("cpu")) for s in (state, changed)))
    )
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert float((third - one).abs().max()) > 1e-3


def test_a_state_without_a_transport_is_refused():
    with pytest.raises(InputError, match="only ais, lsq and nets leave a transport"):
        rebuilt(well(), "smc", {}, torch.device("cpu"))


def test_a_run_directory_gives_more_walkers(tmp_path: Path):
    out = tmp_path / "run"
    done = nessampler("run", "phi4-8", "--preset", "smoke", "--method", "lsq", "--out", out)
    assert done.code == 0, done.err
    more = reopen(out).draw(400, generator=torch.Generator().manual_seed(1))
    assert more.ess > 0.5
    assert math.isfinite(more.log_z_ratio)
    (out / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"lacks model\.safetensors"):
        reopen(out)
