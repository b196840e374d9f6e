"""States that are a region of a molecule: arcs, walls, targets with hard edges, and turning one arc into another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("openmm")

import openmm

from nessampler.errors import InputError
from nessampler.methods.difference import free_energy
from nessampler.molecular import InternalCoordinates, TorchForceField, TorchForceFieldTarget, load_structure
from nessampler.molecular.contexts import evaluate
from nessampler.molecular.regions import Arc, ArcToArc, Region, RegionTarget, Torsion, walled
from nessampler.molecular.systems import Molecule, parameterize
from nessampler.molecular.torch_dynamics import LangevinMiddle
from nessampler.runs import catalogue
from nessampler.runs.config import DifferenceConfig, load, resolve
from nessampler.runs.molecular_problem import _inside, check_molecular
from nessampler.targets import TransformedTarget, carry

BASINS = catalogue.root() / "alanine-basins"
PHI = ("ACE1:C", "ALA2:N", "ALA2:CA", "ALA2:C")
BARRIER = 5.0  # kJ/mol


@pytest.fixture(scope="module")
def alanine() -> Molecule:
    return load_structure(BASINS / "alanine-dipeptide.pdb")


@pytest.fixture(scope="module")
def conformations(alanine: Molecule) -> Tensor:
    """Eight, φ all round the circle."""
    generator = torch.Generator().manual_seed(0)
    x = torch.as_tensor(alanine.positions).expand(8, -1, -1)
    x = x + 0.005 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return Torsion.of(alanine, "phi").turned(x, 0.3 + torch.arange(8, dtype=torch.float64) * math.pi / 4)


def four_atoms() -> tuple[openmm.System, Torsion]:
    """A chain whose torsion has two unequal minima: populations of arcs are quadratures."""
    system = openmm.System()
    for _ in range(4):
        system.addParticle(12.0)
    bonds, angles, torsion = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.PeriodicTorsionForce()
    for i in range(3):
        bonds.addBond(i, i + 1, 0.15, 1e5)
    for i in range(2):
        angles.addAngle(i, i + 1, i + 2, 1.9, 400.0)
    torsion.addTorsion(0, 1, 2, 3, 2, 0.4, BARRIER / 2)
    torsion.addTorsion(0, 1, 2, 3, 1, 1.0, 2.0)
    for force in (bonds, angles, torsion):
        system.addForce(force)
    return system, Torsion("torsion", (0, 1, 2, 3), (3,))


def chain_shape() -> Tensor:
    return torch.tensor([[0.14, 0.05, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.15], [0.14, 0.03, 0.2]], dtype=torch.float64)


def torsion_weight(value: Tensor) -> Tensor:
    kt = 0.0083144626 * 300
    return (-(BARRIER / 2 * (1 + (2 * value - 0.4).cos()) + 2.0 * (1 + (value - 1.0).cos())) / kt).exp()


def population(arc: Arc) -> float:
    grid = arc.start + arc.width * (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    return float(torsion_weight(grid).mean()) * arc.width


def test_an_arc_and_the_rest_share_the_circle() -> None:
    value = 0.00123 + torch.linspace(-10, 10, 2001, dtype=torch.float64)
    for start, stop in ((0.0, 2.15), (-1.0, 0.5), (3.0, -3.0), (5.0, 6.5)):
        one, rest = Arc.between(start, stop), Arc.between(stop, start)
        assert one.width + rest.width == pytest.approx(2 * math.pi)
        assert bool((one.holds(value) ^ rest.holds(value)).all())
        assert not one.meets(rest)
        assert not rest.meets(one)
        assert one.meets(Arc.between(start + 0.1, stop))
        assert not one.like(rest)
        assert one.like(Arc.between(start + 2 * math.pi, stop + 2 * math.pi))


@pytest.mark.parametrize(("start", "stop"), [(0.0, 2 * math.pi), (1.0, 1.0), (0.0, 7.0), (math.nan, 1.0)])
def test_what_is_no_arc_is_refused(start: float, stop: float) -> None:
    with pytest.raises(InputError, match="arc"):
        Arc.between(start, stop)


def test_names_and_atoms_give_one_torsion(alanine: Molecule, conformations: Tensor) -> None:
    phi = Torsion.of(alanine, "phi")
    assert phi.atoms == Torsion.of(alanine, PHI).atoms
    assert phi.turning == Torsion.of(alanine, PHI).turning
    assert tuple(alanine.atom_names[i] for i in phi.atoms) == PHI
    assert {"ALA2:CB", "ALA2:HA", "NME3:C"} <= {alanine.atom_names[i] for i in phi.turning}
    assert not {"ALA2:N", "ALA2:CA", "ALA2:H", "ACE1:O"} & {alanine.atom_names[i] for i in phi.turning}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("chi", "phi, psi or a list of four atoms"),
        (PHI[:3], "four different atoms"),
        ((*PHI[:3], "ALA2:CX"), "it has no 'ALA2:CX'"),
        ((*PHI[:3], "NME3:C"), "ALA2:CA and NME3:C"),
    ],
)
def test_a_torsion_that_is_none_is_refused(alanine: Molecule, name: str | Sequence[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Torsion.of(alanine, name)


def test_a_bond_in_a_ring_does_not_turn() -> None:
    toluene = load_structure(catalogue.root() / "toluene-solvation" / "toluene.pdb")
    with pytest.raises(InputError, match="ring"):
        Torsion.of(toluene, ("TOL1:C1", "TOL1:C2", "TOL1:C4", "TOL1:C6"))
    assert Torsion.of(toluene, ("TOL1:C4", "TOL1:C6", "TOL1:C7", "TOL1:H6")).turning


def test_a_turn_changes_its_torsion_and_no_other_internal_coordinate(alanine: Molecule, conformations: Tensor) -> None:
    internal = InternalCoordinates.from_topology(alanine.topology, conformations)
    phi, by = Torsion.of(alanine, "phi"), torch.linspace(-2, 2, 8, dtype=torch.float64)
    before, after = carry(internal, conformations), carry(internal, phi.turned(conformations, by))
    changed = (internal.wrap(after) - internal.wrap(before)).abs().amax(0) > 1e-9
    assert [internal.names[i] for i in changed.nonzero().flatten()] == [
        "phi(ACE1:C-ALA2:N-CA-ALA2:C)"
    ] or changed.sum() == 1
    turned = (
        torch.remainder(phi.value(phi.turned(conformations, by)) - phi.value(conformations) - by + 1, 2 * math.pi) - 1
    )
    assert float(turned.abs().max()) < 1e-9


def test_the_wall_is_zero_inside_and_its_square_outside(alanine: Molecule, conformations: Tensor) -> None:
    system = parameterize(alanine, ["amber96.xml"])
    phi = Torsion.of(alanine, "phi")
    for arc in (Arc.between(0.0, 2.15), Arc.between(2.15, 0.0), Arc.between(3.0, -3.0)):
        region = Region(phi, arc)
        fenced = walled(system, region, 700.0)
        xml = [openmm.XmlSerializer.serialize(s) for s in (system, fenced)]
        bare, wall = (evaluate(x, "Reference", conformations.numpy(), False)[0] for x in xml)
        along = arc.along(phi.value(conformations))
        beyond = torch.minimum(along - arc.width, 2 * math.pi - along).clamp(min=0)
        assert wall - bare == pytest.approx((700 * beyond**2).numpy(), abs=1e-6)
        assert bool(((torch.as_tensor(wall - bare) == 0) == region.holds(conformations)).all())
        assert TorchForceField(fenced).energy(conformations).numpy() == pytest.approx(wall, abs=1e-6)


def test_a_region_is_the_density_inside_and_nothing_outside(alanine: Molecule, conformations: Tensor) -> None:
    plain = TorchForceFieldTarget(parameterize(alanine, ["amber96.xml"]), 300.0)
    region = Region(Torsion.of(alanine, "phi"), Arc.between(0.0, 2.15))
    target, inside = RegionTarget(plain, region), region.holds(conformations)
    assert 0 < int(inside.sum()) < 8
    energy, score = target.energy_and_score(conformations)
    expected, slope = plain.energy_and_score(conformations)
    assert torch.equal(energy, torch.where(inside, expected, torch.inf))
    assert torch.equal(energy, target.energy(conformations))
    assert torch.equal(score, torch.where(inside[:, None, None], slope, 0.0))
    x = conformations.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target.energy(x)[inside].sum(), x)
    assert torch.allclose(gradient, -score)
    assert bool((target.energy(conformations[~inside]) == torch.inf).all())


def test_turning_between_arcs_is_a_bijection_with_autograds_determinant(
    alanine: Molecule, conformations: Tensor
) -> None:
    phi = Torsion.of(alanine, "phi")
    goal, source = Arc.between(0.0, 2.15), Arc.between(2.15, 0.0)
    move, x = ArcToArc(phi, source, goal), conformations[Region(phi, source).holds(conformations)]
    y = carry(move, x)
    assert len(x) >= 3
    assert bool(Region(phi, goal).holds(y).all())
    assert torch.equal(move.in_chart(y), torch.ones(len(y), dtype=torch.bool))
    assert not bool(move.in_chart(x).any())
    assert torch.allclose(carry(move.inv, y), x, atol=1e-12)
    jacobian = torch.autograd.functional.jacobian(lambda z: carry(move, z[None]).flatten(), x[0]).reshape(66, 66)
    log_det = torch.linalg.slogdet(jacobian).logabsdet
    assert float(log_det) == pytest.approx(math.log(goal.width / source.width), abs=1e-9)
    assert torch.allclose(move.log_abs_det_jacobian(x, y), log_det.expand(len(x)))


@pytest.fixture(scope="module")
def chains() -> tuple[openmm.System, Torsion, dict[str, Tensor]]:
    """Draws of either half of the four atoms' circle, by dynamics with a wall; and of dynamics' own ensemble."""
    system, torsion = four_atoms()
    arcs = {"a": Arc.between(0.0, 2.15), "b": Arc.between(2.15, 0.0)}
    draws = {}
    for k, (name, arc) in enumerate(arcs.items()):
        generator = torch.Generator().manual_seed(k)
        dynamics = LangevinMiddle.of(
            walled(system, Region(torsion, arc)), 300.0, timestep=0.004, friction=3.0, dtype=torch.float64
        )
        x = chain_shape()[None]
        x = torsion.turned(x, arc.start + arc.width / 2 - torsion.value(x))[0]
        phase = dynamics.run(dynamics.start(x, 400, generator=generator), 400, generator=generator)
        frames = []
        for _ in range(8):
            phase = dynamics.run(phase, 50, generator=generator)
            frames.append(phase.x)
        draws[name] = torch.stack(frames, 1)
    return system, torsion, draws


@pytest.mark.parametrize(("name", "start", "stop"), [("a", 0.0, 2.15), ("b", 2.15, 0.0)])
def test_frames_inside_the_wall_are_draws_of_the_region(
    chains: tuple[openmm.System, Torsion, dict[str, Tensor]], name: str, start: float, stop: float
) -> None:
    _, torsion, draws = chains
    arc = Arc.between(start, stop)
    value = torsion.value(draws[name])
    along, inside = arc.along(value), arc.holds(value)
    assert 0.9 < float(inside.double().mean()) < 1.0
    grid = arc.width * (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    weight = torsion_weight(arc.start + grid)
    expected = float((weight * grid).sum() / weight.sum())

    def off(kept: Tensor) -> tuple[float, float]:
        mean = torch.stack([a[k].mean() for a, k in zip(along, kept, strict=True) if bool(k.any())])
        return float(mean.mean() - expected), float(mean.std() / math.sqrt(len(mean)))

    shift, error = off(inside)
    assert error < 0.05
    assert abs(shift) < 4 * error
    narrower = inside & (along > 0.25 * arc.width)  # negative control: another region is told from this one
    wrong, error = off(narrower)
    assert abs(wrong) > 4 * error


def test_turned_ends_give_the_quadrature_of_the_arcs(
    chains: tuple[openmm.System, Torsion, dict[str, Tensor]],
) -> None:
    system, torsion, draws = chains
    a, b = (Region(torsion, Arc.between(*ends)) for ends in ((0.0, 2.15), (2.15, 0.0)))
    exact = math.log(population(a.arc) / population(b.arc))
    base = TorchForceFieldTarget(system, 300.0)
    move = ArcToArc(torsion, b.arc, a.arc)
    kept = [r.holds(draws[name]) for r, name in ((a, "a"), (b, "b"))]
    x_a, x_b = (draws[name].flatten(0, 1)[k.flatten()] for name, k in zip("ab", kept, strict=True))

    def found(target_b: TransformedTarget) -> tuple[float, float]:
        result = free_energy(RegionTarget(base, a), target_b, x_a, carry(move, x_b), method="plain", seed=1).delta_f
        assert result.delta_f is not None
        assert result.std_error is not None
        return result.delta_f - exact, result.std_error

    error, claimed = found(TransformedTarget(RegionTarget(base, b), move))
    assert claimed < 0.06
    assert abs(error) < 4 * claimed

    class WithoutDeterminant(ArcToArc):
        def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.zeros(len(x), dtype=x.dtype)

    wrong = WithoutDeterminant(torsion, b.arc, a.arc)
    error, claimed = found(TransformedTarget(RegionTarget(base, b), wrong))
    assert abs(error) > 4 * claimed


def test_frames_outside_are_dropped_and_burn_in_stays(alanine: Molecule, conformations: Tensor) -> None:
    region = Region(Torsion.of(alanine, "phi"), Arc.between(2.15, 0.0))
    frames = conformations.repeat(2, 6, 1, 1).view(2, 48, 22, 3).numpy()
    frames[1, -1] = frames[1, 0] if not region.holds(conformations[:1])[0] else conformations[3].numpy()
    kept = _inside(frames, 3, region, "B")
    assert np.array_equal(kept[:, :3], frames[:, :3])
    assert bool(region.holds(torch.as_tensor(kept[:, 3:])).all())
    assert kept.shape[1] < 48
    with pytest.raises(InputError, match="inside of its region"):
        _inside(frames, 40, region, "B")


def changed(**tables: dict) -> DifferenceConfig:
    table = load(BASINS / "system.toml")
    for state, region in tables.items():
        table[state] = {**table[state], "region": region}
    config = resolve(table, preset="smoke")
    assert isinstance(config, DifferenceConfig)
    return config


@pytest.mark.parametrize(
    ("region", "said"),
    [
        ({"torsion": "phi", "between": [0.0, 7.0]}, "less than 2π apart"),
        ({"torsion": "omega", "between": [0.0, 1.0]}, "phi, psi or a list"),
        ({"torsion": [*PHI[:3], "ALA2:XX"], "between": [0.0, 1.0]}, "it has no 'ALA2:XX'"),
    ],
)
def test_a_region_that_is_none_is_refused_before_anything_runs(region: dict, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        check_molecular(changed(state_b=region), BASINS)


def test_a_key_of_a_region_that_nobody_knows_is_refused() -> None:
    with pytest.raises(InputError, match="betwen"):
        changed(state_a={"torsion": "phi", "betwen": [0.0, 1.0]})
