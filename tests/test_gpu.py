"""What runs on a CPU runs on a GPU: the same energies and forces, and answers within their errors.

`make test-gpu` takes cuda. NESSAMPLER_TEST_DEVICE names another device: cpu, or pretended (see `pretended.py`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from pretended import DEVICE, pretended
from soft_cluster import soft_cluster
from torch import Tensor

from nessampler.methods import Effort, free_energy
from nessampler.methods.density.effort import DensityEffort
from nessampler.methods.density.one_call import sample
from nessampler.methods.effort import Training
from nessampler.paths import LinearPath
from nessampler.runs.again import reopen
from nessampler.targets import AnharmonicWell, Gaussian
from nessampler.targets.lennard_jones import LennardJonesCluster
from nessampler.targets.mixture import GaussianMixture
from nessampler.targets.phi4 import Phi4

pytestmark = pytest.mark.gpu
ASKED = os.environ.get("NESSAMPLER_TEST_DEVICE", "cuda")
FORCE_FIELDS = {
    "vacuum": ["amber14-all.xml"],
    "obc2": ["amber96.xml", "amber96_obc.xml"],
    "gbn2": ["amber14-all.xml", "implicit/gbn2.xml"],
}


@pytest.fixture(scope="module")
def device() -> Iterator[str]:
    if ASKED == "cuda" and not torch.cuda.is_available():
        pytest.fail("PyTorch sees no GPU: NESSAMPLER_TEST_DEVICE=pretended finds tensors on two devices without one")
    with pretended() if ASKED == "pretended" else nullcontext():
        yield DEVICE.type if ASKED == "pretended" else ASKED


# ---- force fields --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dipeptide():
    pytest.importorskip("openmm")
    from nessampler.molecular import load_structure, parameterize
    from nessampler.runs import catalogue

    molecule = load_structure(catalogue.find("alanine-solvation").parent / "alanine-dipeptide.pdb")
    noise = np.random.default_rng(0).normal(scale=0.005, size=(96, *molecule.positions.shape))
    systems = {name: parameterize(molecule, files) for name, files in FORCE_FIELDS.items()}
    return systems, torch.as_tensor(molecule.positions + noise)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", FORCE_FIELDS)
def test_forces_are_those_of_the_cpu(device, dipeptide, name, compiled):
    from nessampler.molecular import TorchForceField

    if compiled and device == "meta":
        pytest.skip("nothing compiles for a pretended device")
    systems, x = dipeptide
    energy, forces = TorchForceField(systems[name]).energy_and_forces(x)
    field = TorchForceField(systems[name], device=device, compile=compiled)
    for n in (len(x), 5):  # a batch that fills a program, and one that does not
        found = field.energy_and_forces(x[:n].to(device))
        assert found[0].device.type == found[1].device.type == torch.device(device).type
        assert torch.allclose(found[0].cpu(), energy[:n], rtol=1e-10, atol=1e-8)
        assert torch.allclose(found[1].cpu(), forces[:n], rtol=1e-8, atol=1e-6)
    single = TorchForceField(systems[name], device=device, dtype=torch.float32, compile=compiled)
    assert (single.forces(x.to(device)).cpu() - forces).abs().max() < 1e-3 * forces.abs().max()


def test_positions_on_the_other_side_come_back_there(device, dipeptide):
    from nessampler.molecular import TorchForceField

    systems, x = dipeptide
    field = TorchForceField(systems["gbn2"], device=device)
    x = x[:3].clone().requires_grad_()
    energy = field.energy(x)
    (gradient,) = torch.autograd.grad(energy.sum(), x)
    assert energy.device == gradient.device == x.device
    assert torch.allclose(-gradient, TorchForceField(systems["gbn2"]).forces(x.detach()), rtol=1e-8, atol=1e-6)
    assert set(field.energy_by_force(x.detach().to(device))) == set(field.terms)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_steps_of_dynamics_are_those_of_the_cpu(device, dipeptide, compiled):
    from nessampler.molecular.torch_dynamics import LangevinMiddle, Phase

    if compiled and device == "meta":
        pytest.skip("nothing compiles for a pretended device")
    systems, x = dipeptide

    def moved(where: str, compiled: bool) -> Tensor:
        dynamics = LangevinMiddle.of(
            systems["obc2"], 300.0, timestep=0.001, friction=1.0, device=where, dtype=torch.float64, compile=compiled
        )
        generator = torch.Generator().manual_seed(1)  # on the CPU, to be the same
        v = dynamics.start(x[0], len(x), generator=generator).v
        return dynamics.run(Phase(x.to(where), v), 10, generator=generator).x.cpu()

    assert torch.allclose(moved(device, compiled), moved("cpu", False), rtol=0, atol=1e-8)


def test_recorded_steps_are_those_that_are_called(device, dipeptide, monkeypatch):
    """With the same noise, and a generator that goes on from the same place."""
    from nessampler.molecular.torch_dynamics import LangevinMiddle

    if device == "meta":
        pytest.skip("a pretended device records nothing")
    systems, x = dipeptide
    dynamics = LangevinMiddle.of(
        systems["obc2"], 300.0, timestep=0.001, friction=1.0, device=device, dtype=torch.float64, compile=True
    )
    assert dynamics._capturable(torch.Generator(device)) == (device == "cuda")

    def moved(recorded: bool) -> tuple[Tensor, Tensor]:
        if not recorded:
            monkeypatch.setattr(dynamics, "_capturable", lambda _: False)
        generator = torch.Generator(device).manual_seed(1)
        phase = dynamics.start(x[0], 64, generator=generator)
        for steps in (3, 7):  # replayed from where the first ended
            phase = dynamics.run(phase, steps, generator=generator)
        return phase.x, torch.rand(3, generator=generator, device=device)

    for one, other in zip(moved(True), moved(False), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-10)


def test_dynamics_draws_its_noise_where_it_runs(device, dipeptide):
    from nessampler.molecular.torch_dynamics import LangevinMiddle

    systems, x = dipeptide
    dynamics = LangevinMiddle.of(systems["vacuum"], 300.0, timestep=0.001, friction=5.0, device=device)
    generator = torch.Generator(device).manual_seed(1)
    phase = dynamics.start(x[0], 256, generator=generator)
    speed = (phase.v / dynamics.thermal_speed).square().mean()
    assert abs(float(speed) - 1) < 0.1
    phase = dynamics.run(phase, 5, generator=generator)
    assert phase.x.device.type == phase.v.device.type == torch.device(device).type


@pytest.mark.parametrize("compiled", [False, True], ids=["called", "recorded"])
def test_replicas_of_a_path_are_stepped_and_swapped(device, dipeptide, compiled):
    from nessampler.molecular import TorchForceFieldTarget
    from nessampler.molecular.state_dynamics import LangevinStates

    if compiled and device == "meta":
        pytest.skip("nothing compiles for a pretended device")
    systems, x = dipeptide
    a, b = (TorchForceFieldTarget(systems[k], 300.0, device=device, compile=compiled) for k in ("vacuum", "obc2"))
    masses = torch.tensor([systems["vacuum"].getParticleMass(i)._value for i in range(x.shape[1])])
    states = LangevinStates(
        LinearPath(a, b), masses, 300.0, x[0].to(device), chains=4, equilibration=0.01, production=0.02, interval=0.01,
        swap=True,
    )  # fmt: skip
    times = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    found = states(times, generator=torch.Generator(device).manual_seed(0))
    assert found.shape == (3, 4, 2, *x.shape[1:])
    assert bool(torch.isfinite(found).all())


def test_replicas_go_on_where_they_stopped(device, dipeptide, tmp_path, monkeypatch):
    from nessampler.molecular import batched_replicas, load_structure
    from nessampler.molecular.dynamics import Dynamics
    from nessampler.runs import catalogue

    systems, _ = dipeptide
    molecule = load_structure(catalogue.find("alanine-solvation").parent / "alanine-dipeptide.pdb")
    dynamics = Dynamics(300.0, 0.001, friction=1.0, replicas=2, equilibration=0.0, production=0.02, interval=0.005)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    run = batched_replicas.run_batched
    run(systems["vacuum"], molecule, dynamics, whole, "a", seed=3, device=device)
    with monkeypatch.context() as patch:  # stop at the end, before trajectories are written
        patch.setattr(batched_replicas, "save_trajectory", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setattr(batched_replicas, "SEGMENTS", 2)
        with pytest.raises(KeyboardInterrupt):
            run(systems["vacuum"], molecule, dynamics, cut, "a", seed=3, device=device)
    run(systems["vacuum"], molecule, dynamics, cut, "a", seed=3, device=device)
    assert sorted(p.name for p in cut.iterdir()) == ["a-0.nc", "a-1.nc"]


# ---- densities -----------------------------------------------------------------------------------------------------

EFFORT = DensityEffort(
    walkers=1000,
    pilot_walkers=400,
    pilot_steps=8,
    steps=8,
    leapfrog_steps=3,
    reverse_walkers=200,
    nets_steps=20,
    training_walkers=200,
)
MIXTURE = GaussianMixture(torch.tensor([[-2.0, 0.0], [2.0, 1.0], [0.0, -2.0]]).double(), torch.ones(3).double())


def pair_of_atoms() -> float:
    """log Z of two soft atoms in the trap: the centre in closed form, the distance by quadrature."""
    r = np.linspace(0, 12, 40001)
    radial = r**2 * np.exp(-(r**2) / 4 - 2 * np.exp(-(r**2)))
    return 1.5 * math.log(math.pi) + math.log(4 * math.pi * np.trapezoid(radial, r))


DENSITIES = {
    "mixture": lambda: (MIXTURE, MIXTURE.log_z, Gaussian(torch.zeros(2).double(), torch.full((2,), 3.0).double())),
    "lattice": lambda: (Phi4(8, quartic=0.8, mass_squared=-1.0), 7.49166, None),  # systems/phi4-8
    "cluster": lambda: (soft_cluster(2), pair_of_atoms(), LennardJonesCluster(2, strength=0.0)),
}


@pytest.mark.parametrize("method", ["ais", "smc", "lsq", "nets"])
@pytest.mark.parametrize("name", DENSITIES)
def test_log_z_is_right_within_its_error(device, name, method):
    target, exact, base = DENSITIES[name]()
    found = sample(target, base=base, method=method, seed=1, effort=EFFORT, device=device)
    value, error = found.log_z.value, found.log_z.std_error
    assert value is not None
    assert error is not None
    assert found.x.device.type == torch.device(device).type
    assert error < 0.2
    assert abs(value - float(exact)) < 4 * error
    assert str(found)
    assert len(found.to_dataframe())


def test_parallel_tempering_and_auto(device):
    base = Gaussian(torch.zeros(2).double(), torch.full((2,), 3.0).double())
    for method in ("pt", "auto"):
        found = sample(MIXTURE, base=base, method=method, seed=1, effort=EFFORT, device=device)
        assert found.log_z.value is not None
        assert found.log_z.std_error is not None
        assert abs(found.log_z.value - float(MIXTURE.log_z)) < 4 * found.log_z.std_error < 0.8


def test_a_density_without_a_base_is_sampled_there(device):
    found = sample(
        lambda x: -0.5 * x.square().sum(-1) - 0.1 * (x**4).sum(-1), dim=3, method="lsq", effort=EFFORT, device=device
    )
    r = np.linspace(-8, 8, 20001)
    exact = 3 * math.log(np.trapezoid(np.exp(-0.5 * r**2 - 0.1 * r**4), r))
    assert found.log_z.value is not None
    assert found.log_z.std_error is not None
    assert abs(found.log_z.value - exact) < 4 * found.log_z.std_error < 0.2
    assert found.to_arviz()


# ---- differences ---------------------------------------------------------------------------------------------------

A = AnharmonicWell([0.1, -0.2], stiffness=[1.0, 1.5], quartic=[0.1, 0.0], skew=[0.5, -0.3], coupling=0.3)
B = AnharmonicWell([-0.4, 0.3], stiffness=[1.6, 1.0], quartic=[0.05, 0.1], skew=[-0.4, 0.5], coupling=-0.4)
LITTLE = Effort(
    switching_steps=3, tuning_samples=60, feat=Training(steps=30, batch_size=64, width=16, depth=2, sampling_steps=6)
)


@pytest.mark.parametrize("method", ["plain", "map", "fields", "switching", "feat", "tfep", "annealed"])
def test_a_free_energy_is_right_within_its_error(device, method):
    samples = (s.sample(600, generator=torch.Generator().manual_seed(k)).to(device) for k, s in enumerate((A, B)))
    found = free_energy(A, B, *samples, method=method, effort=LITTLE)
    estimate = found.delta_f
    assert estimate.delta_f is not None
    assert estimate.std_error is not None
    assert abs(estimate.delta_f - (A.log_z - B.log_z)) < 4 * estimate.std_error < 0.6
    assert str(found)


# ---- runs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["phi4-8", "gmm-40", "funnel-10"])
def test_a_run_is_written_and_read_again(device, name, tmp_path: Path):
    from command_line import nessampler

    ended = nessampler("run", name, "--preset", "smoke", "--device", device, "--out", tmp_path / "run")
    assert ended.code == 0, ended.err
    assert "log Z" in ended.out
    assert (tmp_path / "run" / "result.json").exists()
    assert nessampler("report", tmp_path / "run").code == 0
    again = reopen(tmp_path / "run")
    assert again is not None


@pytest.mark.parametrize("name", ["anharmonic-wells", "gmm-pair-40", "phi4-couplings"])
def test_a_run_of_a_difference_is_written(device, name, tmp_path: Path):
    from command_line import nessampler

    ended = nessampler("run", name, "--preset", "smoke", "--device", device, "--out", tmp_path / "run")
    assert ended.code == 0, ended.err
    assert (tmp_path / "run" / "result.json").exists()
