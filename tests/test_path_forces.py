"""Forces of the states of a path: those of its score, whichever way they are worked out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

openmm = pytest.importorskip("openmm")

from nessampler.molecular import TorchForceFieldTarget  # noqa: E402
from nessampler.molecular.alchemical import AlchemicalPath  # noqa: E402
from nessampler.molecular.path_forces import forces_of_states  # noqa: E402
from nessampler.paths import LinearPath  # noqa: E402

KT = 2.0  # kJ/mol, of the dynamics: not that of the path
TIMES = torch.tensor([0.0, 0.3, 1.0, 0.8], dtype=torch.float64)


def spring(length: float, stiffness: float) -> openmm.System:
    system = openmm.System()
    bond = openmm.HarmonicBondForce()
    bond.addBond(0, 1, length, stiffness)
    for _ in range(2):
        system.addParticle(12.0)
    system.addForce(bond)
    return system


def scheduled() -> LinearPath:
    return LinearPath(*(TorchForceFieldTarget(spring(*p), 300.0) for p in ((0.1, 900.0), (0.2, 400.0))))


def alchemical() -> AlchemicalPath:
    bond = openmm.CustomBondForce("0.5 * stiffness * (r - 0.1)^2")
    bond.addGlobalParameter("stiffness", 1.0)
    bond.addBond(0, 1, [])
    system = spring(0.15, 100.0)
    system.addForce(bond)
    return AlchemicalPath(system, 300.0, {"stiffness": ((0.0, 100.0), (0.5, 900.0), (1.0, 200.0))})


class Well:
    """No force field."""

    event_shape = torch.Size((2, 3))

    def __init__(self, centre: float) -> None:
        self.centre = centre

    def energy(self, x: Tensor) -> Tensor:
        return 0.5 * (x - self.centre).square().sum((1, 2))


def plain() -> LinearPath:
    return LinearPath(Well(0.0), Well(1.0))


def positions() -> Tensor:
    return torch.randn(len(TIMES), 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("make", [scheduled, alchemical, plain])
def test_forces_are_the_score_of_every_walkers_own_time(make) -> None:
    path, x = make(), positions()
    expected = KT * path.energy_and_score(TIMES, x)[1]
    found = forces_of_states(path, TIMES, KT).forces(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    other = forces_of_states(path, TIMES.flip(0), KT).forces(x)
    assert float((other - expected).abs().max()) > 0.1


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_a_term_without_weight_is_not_evaluated(end: float, monkeypatch) -> None:
    path = scheduled()
    idle = path.terms[1 if end == 0 else 0]
    assert isinstance(idle, TorchForceFieldTarget)
    monkeypatch.setattr(idle.force_field, "forces", None)
    x = positions()
    times = torch.full((len(x),), end, dtype=torch.float64)
    assert forces_of_states(path, times, KT).forces(x).shape == x.shape


def test_only_compiled_force_fields_can_be_recorded() -> None:
    """What is not compiled may look at its numbers, and looking waits for the GPU."""
    for path in (scheduled(), alchemical(), plain()):
        assert not forces_of_states(path, TIMES, KT).capturable
    ends = [TorchForceFieldTarget(spring(0.1, 900.0), 300.0, compile=c) for c in (True, False)]
    assert not forces_of_states(LinearPath(*ends), TIMES, KT).capturable
    assert forces_of_states(LinearPath(*ends), torch.zeros(2), KT).capturable  # the other one carries no weight
