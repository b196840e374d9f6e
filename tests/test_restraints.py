"""Restraints between two molecules: OpenMM's energies, exact and sampled volumes, known limits, bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

openmm = pytest.importorskip("openmm")

from openmm_reference import assert_agrees, perturbed  # noqa: E402

from nessampler.errors import InputError  # noqa: E402
from nessampler.molecular import TorchForceField  # noqa: E402
from nessampler.molecular.force_field import thermal_energy  # noqa: E402
from nessampler.molecular.restraints import (  # noqa: E402
    STANDARD_VOLUME,
    AxisRestraint,
    BoreschRestraint,
    Restraint,
    anchors,
    standard_state_correction,
)

TEMPERATURE = 300.0
KT = thermal_energy(TEMPERATURE)
HOST = np.array([[0.0, 0.0, 0.0], [0.15, 0.0, 0.0], [0.2, 0.14, 0.02]])
GUEST = np.array([[0.0, 0.0, 0.0], [0.14, 0.03, 0.0], [0.16, 0.15, 0.05]])
POSE = np.concatenate([HOST, GUEST + np.array([-0.05, 0.45, 0.1])])
AXIS = AxisRestraint(((0,), (1, 2)), ((3,), (4, 5)), stiffness=300.0, tilt=9.0)


def soft() -> BoreschRestraint:
    """Wide enough for the closed form to be wrong, and for uniform samples to hit it."""
    return BoreschRestraint.at(
        POSE,
        (0, 1, 2),
        (3, 4, 5),
        stiffness=120.0,
        angle_constants=(6.0, 9.0),
        torsion_constants=(4.0, 5.0, 2.0),
    )


def system_of(restraint: Restraint, atoms: int = 6) -> openmm.System:
    system = openmm.System()
    for _ in range(atoms):
        system.addParticle(12.0)
    system.addForce(restraint.force())
    return system


# --- energies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restraint", [soft(), AXIS], ids=["boresch", "axis"])
def test_energies_and_forces_are_those_of_openmm(restraint: Restraint) -> None:
    x = perturbed(POSE, 4, 0.05)
    assert_agrees(system_of(restraint), x, {"lambda_restraint": 0.37})
    full, part = (
        TorchForceField(system_of(restraint)).energy(x, parameters={"lambda_restraint": s}) for s in (1, 0.37)
    )
    torch.testing.assert_close(part, 0.37 * full)
    assert float(full.min()) > 0


def test_the_force_has_the_energy_of_the_formula() -> None:
    x = perturbed(POSE, 20, 0.1)
    energy = TorchForceField(system_of(soft())).energy(x)
    expected = torch.tensor([soft().energy(row.numpy()) for row in x], dtype=torch.float64)
    torch.testing.assert_close(energy, expected)


def test_the_axis_restraint_has_the_energy_of_the_formula() -> None:
    x = perturbed(POSE, 20, 0.1)
    h, g = x[:, 0] - x[:, 1:3].mean(1), x[:, 3] - x[:, 4:6].mean(1)
    apart = 0.5 * (x[:, 3] + x[:, 4:6].mean(1)) - 0.5 * (x[:, 0] + x[:, 1:3].mean(1))
    cosine = (h * g).sum(-1) / (h.norm(dim=-1) * g.norm(dim=-1))
    expected = 0.5 * AXIS.stiffness * apart.square().sum(-1) + AXIS.tilt * (1 - cosine**2)
    torch.testing.assert_close(TorchForceField(system_of(AXIS)).energy(x), expected)


@pytest.mark.parametrize("restraint", [soft(), AXIS], ids=["boresch", "axis"])
def test_moving_and_turning_the_pair_as_a_whole_costs_nothing(restraint: Restraint) -> None:
    x = perturbed(POSE, 5, 0.05)
    moved = x @ rotations(5, torch.Generator().manual_seed(3)).mT + 0.7
    field = TorchForceField(system_of(restraint))
    torch.testing.assert_close(field.energy(moved), field.energy(x), rtol=1e-9, atol=1e-9)


def test_an_axis_restraint_holds_either_way_round() -> None:
    x = perturbed(POSE, 5, 0.05)
    swapped = replace(AXIS, host=AXIS.host[::-1])
    torch.testing.assert_close(*(TorchForceField(system_of(h)).energy(x) for h in (AXIS, swapped)))


def test_a_restraint_is_zero_where_it_was_made() -> None:
    energy = TorchForceField(system_of(soft())).energy(torch.as_tensor(POSE)[None])
    assert float(energy) == pytest.approx(0.0, abs=1e-12)
    mirrored = TorchForceField(system_of(soft())).energy(-torch.as_tensor(POSE)[None])
    assert float(mirrored) > 0.1  # torsions tell left from right


def test_torsions_turn_the_short_way_round() -> None:
    """A torsion just beyond π is near one just before -π."""
    x, hold = perturbed(POSE, 10, 0.1), soft()
    a, b, c = (turn + 2 * math.pi for turn in hold.torsions)
    turned = replace(hold, torsions=(a, b, c))
    torch.testing.assert_close(*(TorchForceField(system_of(h)).energy(x) for h in (hold, turned)))


# --- the standard state ----------------------------------------------------------------------------------------------


def rotations(n: int, generator: torch.Generator) -> Tensor:
    """Uniform over SO(3): normal quaternions."""
    q = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    w, x, y, z = (q / q.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        *(2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        *(2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, -1).view(n, 3, 3)


def sampled_volume(restraint: Restraint, radius: float, n: int = 200_000) -> tuple[float, float]:
    """The integral of exp(-u/kT) over a rigid guest that is anywhere in a ball, turned any way; and its error."""
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    direction /= direction.norm(dim=-1, keepdim=True)
    place = radius * torch.rand(n, 1, generator=generator, dtype=torch.float64) ** (1 / 3) * direction
    guest = torch.as_tensor(GUEST) @ rotations(n, generator).mT + place[:, None]
    x = torch.cat([torch.as_tensor(HOST).expand(n, 3, 3), guest], 1)
    weight = (-TorchForceField(system_of(restraint)).energy(x) / KT).exp()
    box = 4 / 3 * math.pi * radius**3 * 8 * math.pi**2
    return float(weight.mean()) * box, float(weight.std()) / math.sqrt(n) * box


@pytest.mark.parametrize(("restraint", "radius"), [(soft(), 1.2), (AXIS, 0.55)], ids=["boresch", "axis"])
def test_the_volume_is_that_of_two_rigid_bodies_in_an_ideal_gas(restraint: Restraint, radius: float) -> None:
    found, error = sampled_volume(restraint, radius)
    exact = restraint.volume(TEMPERATURE)
    assert error < 0.03 * exact
    assert abs(found - exact) < 4 * error


def test_the_closed_form_of_a_soft_restraint_is_not_its_volume() -> None:
    """The test above would see it."""
    found, error = sampled_volume(soft(), 1.2)
    assert abs(found - soft().analytic_volume(TEMPERATURE)) > 6 * error


def test_the_closed_form_is_the_limit_of_stiff_restraints() -> None:
    gaps = []
    for factor in (1.0, 10.0, 100.0):
        hold = BoreschRestraint.at(
            POSE,
            (0, 1, 2),
            (3, 4, 5),
            stiffness=4000.0 * factor,
            angle_constants=(200.0 * factor, 300.0 * factor),
            torsion_constants=(200.0 * factor, 200.0 * factor, 200.0 * factor),
        )
        exact, stiff = (standard_state_correction(hold, TEMPERATURE, analytic=a) for a in (False, True))
        gaps.append(abs(exact - stiff))
    assert gaps[0] < 0.02
    assert gaps[1] / gaps[0] == pytest.approx(0.1, rel=0.1)  # the next order is the inverse stiffness
    assert gaps[2] / gaps[1] == pytest.approx(0.1, rel=0.1)


def test_the_correction_is_the_textbook_formula() -> None:
    hold = BoreschRestraint(
        (0, 1, 2), (3, 4, 5), 0.5, (1.2, 1.9), (0.1, 0.2, 0.3), 4184.0, (83.68, 41.84), (83.68, 83.68, 83.68)
    )
    root = math.sqrt(4184.0 * 83.68 * 41.84 * 83.68**3)
    jacobian = 0.5**2 * math.sin(1.2) * math.sin(1.9) * (2 * math.pi * KT) ** 3
    expected = -math.log(8 * math.pi**2 * STANDARD_VOLUME * root / jacobian)
    assert standard_state_correction(hold, TEMPERATURE, analytic=True) == pytest.approx(expected, abs=1e-12)
    assert expected < 0  # what is let go gains


@pytest.mark.parametrize("tilt", [1e-6, 1.0, 20.0, 500.0])
def test_the_closed_form_of_an_axis_restraint_is_exact(tilt: float) -> None:
    hold = AxisRestraint(((0,), (1,)), ((2,), (3,)), 250.0, tilt)
    exact, closed = (standard_state_correction(hold, TEMPERATURE, analytic=a) for a in (False, True))
    assert exact == pytest.approx(closed, abs=1e-9)


def test_an_axis_that_may_tilt_leaves_a_harmonic_ball_only() -> None:
    hold = AxisRestraint(((0,), (1,)), ((2,), (3,)), 250.0, 1e-7)
    ball = (2 * math.pi * KT / 250.0) ** 1.5
    assert standard_state_correction(hold, TEMPERATURE, volume=ball) == pytest.approx(0.0, abs=1e-6)
    assert standard_state_correction(hold, TEMPERATURE, volume=2 * ball) == pytest.approx(-math.log(2), abs=1e-6)


def test_the_standard_volume_is_that_of_one_mole_per_litre() -> None:
    assert pytest.approx(1e24 / 6.02214076e23, rel=1e-8) == STANDARD_VOLUME


# --- anchors and bad input -------------------------------------------------------------------------------------------


def test_anchors_stay_off_every_line() -> None:
    rng = np.random.default_rng(0)
    line = np.stack([np.linspace(0, 0.6, 5), np.zeros(5), np.zeros(5)], 1)  # a host that is a rod but for two atoms
    x = np.concatenate([line, [[0.1, 0.15, 0.0], [0.4, -0.1, 0.1]], rng.normal(0.3, 0.15, (6, 3))])
    frames = x + 0.005 * rng.normal(size=(3, *x.shape))
    host, guest = anchors(frames, range(7), range(7, 13))
    assert {5, 6} & set(host)
    for frame in frames:
        BoreschRestraint.at(frame, host, guest)
    with pytest.raises(InputError, match="on a line"):
        anchors(frames, range(5), range(7, 13))
    with pytest.raises(InputError, match=r"on a line.*degrees; choose"):
        BoreschRestraint.at(x, (0, 1, 2), guest)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BoreschRestraint((0, 1, 2), (2, 3, 4), 0.5, (1, 1), (0, 0, 0)), "three anchors"),
        (lambda: BoreschRestraint((0, 1, 2), (3, 4, 5), 0.5, (1, 4), (0, 0, 0)), "between 0 and π"),
        (lambda: BoreschRestraint((0, 1, 2), (3, 4, 5), 0.5, (1, 1), (0, 0, 0), stiffness=0.0), "positive: got 0"),
        (lambda: AxisRestraint(((0,), (1,)), ((1,), (2,)), 1.0, 1.0), "of its own"),
        (lambda: AxisRestraint(((0,), ()), ((1,), (2,)), 1.0, 1.0), "of its own"),
        (lambda: AxisRestraint(((0,), (1,)), ((2,), (3,)), 1.0, math.nan), "positive: got 1, nan"),
        (lambda: anchors(POSE[None], (0, 1), (3, 4, 5)), "three atoms"),
        (lambda: standard_state_correction(AXIS, TEMPERATURE, volume=0.0), "positive: got 0"),
        (lambda: standard_state_correction(AXIS, -1.0), "temperature"),
    ],
)
def test_restraints_that_cannot_be_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
