"""Replicas of an end state exchanged with weakened ones: the state's own density, and barriers that matter no more."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

openmm = pytest.importorskip("openmm")

from openmm import app  # noqa: E402

from nessampler.errors import InputError  # noqa: E402
from nessampler.molecular.contexts import ContextPool  # noqa: E402
from nessampler.molecular.end_states import Dynamics, sample_end_states  # noqa: E402
from nessampler.molecular.force_field.target import TorchForceFieldTarget  # noqa: E402
from nessampler.molecular.systems import Molecule  # noqa: E402
from nessampler.molecular.weakened import WeakenedExchange, weakened_path  # noqa: E402

TILT, BARRIER = 1.0, 12.0  # kJ/mol: at 300 K trans lies 0.8 kT below cis, and 10 kT are between them
HOW = Dynamics(
    300.0, 0.004, friction=5.0, replicas=24, equilibration=4.0, production=16.0, interval=0.2, platform="torch",
    exchange=3, weakest=0.1,
)  # fmt: skip


def chain() -> tuple[openmm.System, Molecule]:
    """Four atoms in a row; the torsion's density is that of its potential alone."""
    system, topology = openmm.System(), app.Topology()
    residue = topology.addResidue("ROW", topology.addChain())
    atoms = [topology.addAtom(f"C{i}", app.element.carbon, residue) for i in range(4)]
    bonds, angles, torsions = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.PeriodicTorsionForce()
    for _ in range(4):
        system.addParticle(12.0)
    for i in range(3):
        bonds.addBond(i, i + 1, 0.15, 50000.0)
        topology.addBond(atoms[i], atoms[i + 1])
    for i in range(2):
        angles.addAngle(i, i + 1, i + 2, 1.9, 300.0)
    torsions.addTorsion(0, 1, 2, 3, 1, 0.0, TILT)
    torsions.addTorsion(0, 1, 2, 3, 2, math.pi, BARRIER)
    for force in (bonds, angles, torsions):
        system.addForce(force)
    cis = np.array([[-0.05, 0.14, 0.0], [0.0, 0.0, 0.0], [0.15, 0.0, 0.0], [0.2, 0.14, 0.0]])
    return system, Molecule(topology, cis)


def cosine(x: np.ndarray) -> np.ndarray:
    """Of the torsion."""
    a, b, c = (x[..., i + 1, :] - x[..., i, :] for i in range(3))
    p, q = np.cross(a, b), np.cross(b, c)
    return (p * q).sum(-1) / np.linalg.norm(p, axis=-1) / np.linalg.norm(q, axis=-1)


def sampled(how: Dynamics, folder: Path, seed: int = 0) -> np.ndarray:
    system, molecule = chain()
    with ContextPool(1) as pool:
        found = sample_end_states({"a": system}, {"a": molecule}, {"a": how}, folder, seed=seed, pool=pool)["a"]
    assert found.gradient_evaluations == how.replicas * (1 + how.exchange) * how.frames * how.stride
    assert len(found.accepted) == how.exchange
    swaps = how.frames * how.stride // 50  # every 0.2 ps, of one gap of three or of two
    assert bool(how.exchange) * 4 * how.replicas * swaps <= found.energy_evaluations <= 8 * how.replicas * swaps
    if how.frames > 50:
        assert all(0.1 < a < 1 for a in found.accepted)
    return found.positions


def test_the_state_keeps_its_density_and_its_replicas_pass_the_barrier(tmp_path: Path) -> None:
    trans = cosine(sampled(HOW, tmp_path / "with")[:, HOW.burn_in :]) < 0
    phi = np.linspace(-np.pi, np.pi, 20001)[:-1]
    density = np.exp(
        -(TILT * np.cos(phi) + BARRIER * (1 - np.cos(2 * phi))) / TorchForceFieldTarget(chain()[0], 300.0).kt
    )
    exact = float(density[np.cos(phi) < 0].sum() / density.sum())
    ladders = trans.mean(1)  # that never meet
    error = float(ladders.std(ddof=1)) / math.sqrt(len(ladders))
    assert error < 0.05
    assert abs(float(ladders.mean()) - exact) < 4 * error
    assert abs(float(ladders.mean()) - 0.5) > 4 * error  # as in the weakened states, nearly
    alone = cosine(sampled(replace(HOW, exchange=0, production=4.0), tmp_path / "without"))
    assert (alone < 0).mean() < 0.2  # all of them start in the other basin


def test_a_run_that_was_stopped_ends_in_the_same_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how = replace(HOW, replicas=3, equilibration=0.0, production=4.0)
    whole = sampled(how, tmp_path / "whole")
    step, calls = WeakenedExchange.run, []

    def stopped(self: WeakenedExchange, *args: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 13:
            raise KeyboardInterrupt
        return step(self, *args, **options)  # pyright: ignore[reportArgumentType]

    with monkeypatch.context() as patch:
        patch.setattr(WeakenedExchange, "run", stopped)
        with pytest.raises(KeyboardInterrupt):
            sampled(how, tmp_path / "parts")
    assert (tmp_path / "parts" / "a.partial.npz").exists()
    np.testing.assert_array_equal(sampled(how, tmp_path / "parts"), whole)
    files = [np.load(tmp_path / name / "a-exchange.npz")["accepted"] for name in ("whole", "parts")]
    np.testing.assert_array_equal(*files)


def test_what_is_weakened_is_all_but_bonds_and_angles() -> None:
    system, molecule = chain()
    path = weakened_path(system, 300.0, 0.25, dtype=torch.float64)
    x = torch.as_tensor(molecule.positions)[None] + 0.01
    x = x + 0.02 * torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    by_force = TorchForceFieldTarget(system, 300.0).force_field.energy_by_force(x)
    kt = TorchForceFieldTarget(system, 300.0).kt

    def energy(t: float) -> Tensor:
        return path.energy(torch.full((5,), t, dtype=torch.float64), x)

    stiff = by_force["HarmonicBondForce"] + by_force["HarmonicAngleForce"]
    for t, weight in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.25)):
        torch.testing.assert_close(energy(t), (stiff + weight * by_force["PeriodicTorsionForce"]) / kt)
    for end, t in ((path.start, 0.0), (path.end, 1.0)):
        torch.testing.assert_close(end.energy(x), energy(t))


def test_a_restart_file_of_another_number_of_companions_is_refused(tmp_path: Path) -> None:
    how = replace(HOW, replicas=2, equilibration=0.0, production=0.4)
    folder = tmp_path / "a"
    sampled(how, folder)
    for file in folder.glob("a-?.nc"):
        file.unlink()
    x = np.zeros((2, 4, 3))
    generator = torch.Generator().get_state().numpy()
    np.savez(folder / "a.partial.npz", positions=x[:, None], x=x, v=x, generator=generator, accepted=np.zeros((2, 0)))
    with pytest.raises(InputError, match="must hold 8 replicas of 4 atoms"):
        sampled(how, folder)
