"""Internal coordinates are a bijection of the molecule's shape, and their Jacobian is the exact one."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, TransformedDistribution

from nessampler.errors import InputError
from nessampler.molecular.internal_coordinates import InternalCoordinates, angle, distance, proper_dihedral
from nessampler.molecular.topology_tree import ZMatrix

openmm = pytest.importorskip("openmm")
app, unit = pytest.importorskip("openmm.app"), openmm.unit

PDB = Path(__file__).parents[1] / "systems" / "amber-to-amoeba" / "alanine-dipeptide.pdb"
KT = (unit.MOLAR_GAS_CONSTANT_R * 300 * unit.kelvin).value_in_unit(unit.kilojoule_per_mole)
SOFT_NAMES = {
    "phi(ACE1:C-ALA2:N-CA-ALA2:C)",
    "psi(ALA2:N-CA-ALA2:C-NME3:N)",
    "torsion(HB1-CB-CA-ALA2:N)",
    "torsion(ACE1:H1-CH3-ACE1:C-ALA2:N)",
    "torsion(NME3:H1-NME3:C-NME3:N-ALA2:C)",
}
GRAPHS = {
    "triatomic": (3, [(0, 1), (1, 2)]),
    "chain": (5, [(0, 1), (1, 2), (2, 3), (3, 4)]),
    "ring": (10, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (0, 6), (3, 7), (7, 8), (7, 9)]),
    "fused rings": (8, [(0, 1), (1, 2), (2, 3), (3, 0), (2, 4), (4, 5), (5, 3), (4, 6), (0, 7)]),
    "branched": (10, [(0, 1), (0, 2), (0, 3), (0, 4), (1, 5), (1, 6), (1, 7), (2, 8), (8, 9)]),
}


def _random(n_atoms: int, n: int = 20, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return 0.2 * torch.randn(n, n_atoms, 3, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def topology():
    return app.PDBFile(str(PDB)).topology


@pytest.fixture(scope="module")
def simulation(topology):
    system = app.ForceField("amber14-all.xml").createSystem(topology, constraints=None, rigidWater=False)
    integrator = openmm.LangevinMiddleIntegrator(300, 5, 0.001)
    integrator.setRandomNumberSeed(1)
    simulation = app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName("Reference"))
    simulation.context.setPositions(app.PDBFile(str(PDB)).positions)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(300, 1)
    simulation.step(500)
    return simulation


@pytest.fixture(scope="module")
def frames(simulation) -> Tensor:
    found = []
    for _ in range(48):
        simulation.step(40)
        found.append(simulation.context.getState(getPositions=True).getPositions(asNumpy=True)._value)
    return torch.tensor(np.stack(found))


@pytest.fixture(scope="module")
def dipeptide(topology, frames) -> InternalCoordinates:
    return InternalCoordinates.from_topology(topology, frames)


@pytest.fixture(params=["dipeptide", *GRAPHS])
def molecule(request) -> tuple[InternalCoordinates, Tensor]:
    if request.param == "dipeptide":
        return request.getfixturevalue("dipeptide"), request.getfixturevalue("frames")
    n_atoms, bonds = GRAPHS[request.param]
    return InternalCoordinates(ZMatrix.from_bonds(n_atoms, bonds)), _random(n_atoms)


def _misfit(x: Tensor, y: Tensor) -> Tensor:
    """Largest deviation per frame after the best proper rotation: mirror images do not fit."""
    x, y = x - x.mean(-2, keepdim=True), y - y.mean(-2, keepdim=True)
    u, _, vt = torch.linalg.svd(x.mT @ y)
    sign = torch.ones(*x.shape[:-2], 3, dtype=x.dtype)
    sign[..., 2] = torch.det(u @ vt)
    return (x @ (u * sign.unsqueeze(-2) @ vt) - y).abs().amax((-1, -2))


def _full_log_det(internal: InternalCoordinates, z: Tensor) -> Tensor:
    """log|det ∂x/∂(translation, rotation, z)| of x = exp(rotation) x(z) + translation, at no rotation.

    There the rotation's exponential coordinates have unit density in the Haar measure of total volume 8π².
    """
    found = []
    for one in z:
        x = internal.inv(one)
        shift = torch.eye(3, dtype=x.dtype).expand(len(x), 3, 3).reshape(-1, 3)
        turn = torch.stack([torch.linalg.cross(axis.expand_as(x), x).flatten() for axis in torch.eye(3).to(x)], dim=-1)
        shape = torch.autograd.functional.jacobian(lambda w: internal.inv(w).flatten(), one)
        found.append(torch.linalg.slogdet(torch.cat([shift, turn, shape], dim=-1)).logabsdet)
    return torch.stack(found)


def _energy(simulation, x: Tensor) -> Tensor:
    found = []
    for frame in x.numpy():
        simulation.context.setPositions(frame)
        found.append(simulation.context.getState(getEnergy=True).getPotentialEnergy()._value / KT)
    return torch.tensor(found, dtype=torch.float64)


def test_the_round_trip_is_exact_up_to_a_rigid_motion(molecule):
    internal, x = molecule
    z = internal(x)
    assert z.shape == (len(x), 3 * x.shape[1] - 6)
    assert internal.in_chart(z).all()
    back = internal.inv(z)
    assert _misfit(back, x).max() < 1e-9
    assert internal.wrap(internal(back) - z).abs().max() < 1e-9


def test_the_log_jacobian_is_that_of_translation_rotation_and_shape(molecule):
    internal, x = molecule
    x = x[:3]
    z = internal(x)
    log_det = -internal.log_abs_det_jacobian(x, z)
    expected = _full_log_det(internal, z)
    torch.testing.assert_close(log_det, expected, rtol=0, atol=1e-8)
    n = x.shape[1]
    without_sine = log_det - z[:, n - 1 : 2 * n - 3].sin().log().sum(-1)
    assert ((without_sine - expected).abs() > 1e-3).all()


def test_the_two_directions_have_inverse_derivatives(molecule):
    internal, x = molecule
    z = internal(x[0])
    there = torch.autograd.functional.jacobian(internal, internal.inv(z)).flatten(1)
    back = torch.autograd.functional.jacobian(internal.inv, z).flatten(0, 1)
    torch.testing.assert_close(there @ back, torch.eye(len(z), dtype=z.dtype), rtol=0, atol=1e-8)


def _triatomic_integral(sine: bool) -> float:
    """8π² ∫ exp(-U) |∂x/∂z| dz of two correlated Gaussian bonds, by Gauss–Legendre quadrature."""
    internal = InternalCoordinates(ZMatrix.from_bonds(3, [(0, 1), (1, 2)]))
    nodes, weights = np.polynomial.legendre.leggauss(36)
    r, w_r = 3.5 * (nodes + 1), 3.5 * weights
    theta, w_theta = math.pi / 2 * (nodes + 1), math.pi / 2 * weights
    z = torch.cartesian_prod(*map(torch.tensor, (r, r, theta)))
    x = internal.inv(z)
    u, v = x[:, 0] - x[:, 1], x[:, 2] - x[:, 1]
    log = -0.5 * (1.5 * (u * u).sum(-1) + 2.0 * (v * v).sum(-1)) - 0.7 * (u * v).sum(-1)
    log = log - internal.log_abs_det_jacobian(x, z)
    if not sine:
        log = log - z[:, 2].sin().log()
    weight = torch.cartesian_prod(*map(torch.tensor, (w_r, w_r, w_theta))).prod(-1)
    return float(8 * math.pi**2 * (weight * log.exp()).sum())


def test_a_gaussian_triatomic_integrates_to_its_cartesian_normalisation():
    exact = (2 * math.pi) ** 3 * (1.5 * 2.0 - 0.7**2) ** -1.5
    assert _triatomic_integral(sine=True) == pytest.approx(exact, rel=1e-9)
    assert _triatomic_integral(sine=False) != pytest.approx(exact, rel=0.1)


def test_the_force_field_sees_the_same_molecule(simulation, dipeptide, frames):
    energy = _energy(simulation, frames)
    assert energy.std() > 1
    assert (_energy(simulation, dipeptide.inv(dipeptide(frames))) - energy).abs().max() < 1e-9
    assert (
        _energy(simulation, frames * torch.tensor([1.0, 1.0, -1.0])) - energy
    ).abs().max() < 1e-9  # blind to mirrors


def test_chirality_is_kept(molecule):
    internal, x = molecule
    mirror = x * torch.tensor([1.0, 1.0, -1.0])
    back = internal.inv(internal(mirror))
    assert _misfit(back, mirror).max() < 1e-9
    chiral = x.shape[1] > 3  # three atoms are their own mirror image
    assert bool(_misfit(back, x).min() > 1e-3) is chiral
    lengths_and_angles = 2 * x.shape[1] - 3
    torsions = (internal(mirror) + internal(x) + 2 * internal.centre)[:, lengths_and_angles:]
    assert (torsions - 2 * math.pi * torch.round(torsions / (2 * math.pi))).abs().sum(-1).max() < 1e-9


def test_alanine_dipeptide_has_five_soft_and_fifty_five_hard_coordinates(dipeptide, topology, frames):
    soft = {name for name, circular in zip(dipeptide.names, dipeptide.circular.tolist(), strict=True) if circular}
    assert soft == SOFT_NAMES
    assert int((~dipeptide.circular).sum()) == 55
    assert len(set(dipeptide.names)) == 60
    assert [dipeptide.zmatrix.labels[a] for a in dipeptide.zmatrix.root] == ["ALA2:N", "CA", "ALA2:C"]
    assert dipeptide.circular.equal(InternalCoordinates.from_topology(topology, frames[:1]).circular)


def test_hard_coordinates_stay_far_from_their_cuts(dipeptide, frames):
    z = dipeptide(frames)
    stiff = [i for i, name in enumerate(dipeptide.names) if name.startswith(("omega", "difference"))]
    assert len(stiff) == 14
    assert z[:, stiff].abs().max() < 1.2
    assert z[:, stiff].mean(0).abs().max() < 0.05
    raw = z[:, stiff] + dipeptide.centre[stiff]
    assert ((raw.abs() - math.pi).abs() < 1.5).all()


def test_phi_and_psi_are_those_of_mdtraj(dipeptide, topology, frames):
    mdtraj = pytest.importorskip("mdtraj")
    trajectory = mdtraj.Trajectory(frames.numpy(), mdtraj.Topology.from_openmm(topology))
    z = dipeptide(frames)
    for kind, compute in (("phi", mdtraj.compute_phi), ("psi", mdtraj.compute_psi)):
        (column,) = (i for i, name in enumerate(dipeptide.names) if name.startswith(kind))
        expected = torch.tensor(compute(trajectory)[1][:, 0]).double()
        assert torch.remainder(z[:, column] - expected + 1, 2 * math.pi).sub(1).abs().max() < 1e-4


def test_without_reference_frames_every_proper_torsion_is_circular(topology):
    internal = InternalCoordinates.from_topology(topology)
    circular = {name for name, soft in zip(internal.names, internal.circular.tolist(), strict=True) if soft}
    omegas = {"omega(CH3-ACE1:C-ALA2:N-CA)", "omega(CA-ALA2:C-NME3:N-NME3:C)"}
    assert circular == SOFT_NAMES | omegas


def _twisted(torsions: Tensor) -> Tensor:
    """A chain of four atoms without a tetrahedral end, at the given torsions."""
    internal = InternalCoordinates(ZMatrix.from_bonds(4, [(0, 1), (1, 2), (2, 3)]))
    fixed = torch.tensor([0.15, 0.15, 0.15, 2.0, 2.0], dtype=torch.float64).expand(len(torsions), 5)
    return internal.inv(torch.cat([fixed, torsions[:, None]], dim=-1))


@pytest.mark.parametrize(
    ("spread", "outlier", "soft"), [(0.25, None, False), (0.45, None, True), (0.2, 1.5, False), (0.2, 2.0, True)]
)
def test_a_torsion_is_soft_where_it_is_sampled_widely_or_in_a_second_basin(spread, outlier, soft):
    noise = torch.randn(400, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    torsions = 3.0 + spread * (noise - noise.mean()) / noise.std()
    if outlier is not None:
        torsions[7] = 3.0 + outlier
    zmatrix = ZMatrix.from_bonds(4, [(0, 1), (1, 2), (2, 3)])
    internal = InternalCoordinates(zmatrix, reference=_twisted(torsions))
    assert bool(internal.circular[-1]) is soft
    assert float(internal.centre[-1]) == pytest.approx(0.0 if soft else 3.0, abs=0.02)


def test_a_difference_is_never_circular_however_widely_it_is_sampled():
    n_atoms, bonds = GRAPHS["branched"]
    zmatrix = ZMatrix.from_bonds(n_atoms, bonds)
    internal = InternalCoordinates(zmatrix, reference=_random(n_atoms, n=15))
    soft = internal.circular[2 * n_atoms - 3 :]
    assert soft.tolist() == [p.proper for p in zmatrix.placements]


def test_soft_axes_can_be_named(dipeptide, frames):
    labels = dipeptide.zmatrix.labels
    chosen = InternalCoordinates(
        dipeptide.zmatrix, reference=frames, soft=[(labels.index("CA"), labels.index("ALA2:N"))]
    )
    assert [name for name, soft in zip(chosen.names, chosen.circular.tolist(), strict=True) if soft] == [
        "phi(ACE1:C-ALA2:N-CA-ALA2:C)"
    ]
    with pytest.raises(InputError, match="axes of proper torsions"):
        InternalCoordinates(dipeptide.zmatrix, reference=frames, soft=[(0, 21)])


def test_the_inverse_has_the_period_of_the_soft_torsions_only(dipeptide, frames):
    z = dipeptide(frames)
    turns = torch.randint(-3, 4, z.shape, generator=torch.Generator().manual_seed(5)) * dipeptide.circular
    lifted = z + 2 * math.pi * turns.double()
    assert dipeptide.in_chart(lifted).all()
    assert (dipeptide.inv(lifted) - dipeptide.inv(z)).abs().max() < 1e-9
    assert (dipeptide.wrap(lifted) - z).abs().max() < 1e-9
    stiff = dipeptide.names.index("omega(CH3-ACE1:C-ALA2:N-CA)")
    lifted = z + 2 * math.pi * torch.eye(60)[stiff]
    assert not dipeptide.in_chart(lifted).any()
    assert dipeptide.wrap(lifted).equal(lifted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_are_finite_in_both_directions_and_both_dtypes(molecule, dtype):
    internal, x = molecule
    x = x.detach().to(dtype, copy=True).requires_grad_()
    z = internal(x)
    back = internal.inv(z)
    log_det = internal.log_abs_det_jacobian(x, z)
    assert z.dtype == back.dtype == log_det.dtype == dtype
    (back.pow(3).sum() + log_det.sum() + z.sum()).backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert (x.grad.abs().amax((-1, -2)) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("r(CA-ALA2:C)", 0.0),
        ("r(HB1-CB)", -0.1),
        ("angle(CB-CA-ALA2:N)", math.pi),
        ("angle(CH3-ACE1:C-ALA2:N)", 3.5),
        ("angle(ALA2:N-CA-ALA2:C)", -0.1),
        ("angle(HB2-CB-CA)", 0.0),
        ("omega(CA-ALA2:C-NME3:N-NME3:C)", 3.2),
        ("difference(HA,ALA2:C about CA-ALA2:N)", -4.0),
        ("r(HB1-CB)", math.inf),
        ("phi(ACE1:C-ALA2:N-CA-ALA2:C)", math.inf),
        ("psi(ALA2:N-CA-ALA2:C-NME3:N)", math.nan),
    ],
)
def test_outside_the_chart_the_density_is_zero_and_nothing_is_nan(dipeptide, frames, name, value, dtype):
    z = dipeptide(frames[:2].to(dtype))
    z[1, dipeptide.names.index(name)] = value
    z.requires_grad_()
    assert dipeptide.in_chart(z).tolist() == [True, False]
    x = dipeptide.inv(z)
    log_det = dipeptide.log_abs_det_jacobian(x, z)
    assert log_det[1] == math.inf
    (x.pow(2).sum() + log_det[0]).backward()
    assert z.grad is not None
    for values in (x, log_det[0], z.grad):
        assert torch.isfinite(values).all()


def test_almost_straight_angles_keep_their_precision():
    internal = InternalCoordinates(ZMatrix.from_bonds(5, GRAPHS["chain"][1]))
    z = torch.tensor([[0.1, 0.15, 0.1, 0.12, math.pi - 1e-6, 1e-6, 2.0, 1.0, -2.0]], dtype=torch.float64)
    error = (internal(internal.inv(z)) - z).abs()
    assert error[:, 4:7].max() < 1e-13
    assert error.max() < 1e-8  # torsions about an almost straight axis lose what the geometry loses


def test_the_order_of_the_atoms_does_not_matter(topology, dipeptide, frames):
    order = torch.randperm(22, generator=torch.Generator().manual_seed(2))
    new_index = order.argsort().tolist()
    bonds = [(new_index[b.index], new_index[a.index]) for a, b in topology.bonds()]
    elements = [a.element.symbol for a in topology.atoms()]
    permuted = ZMatrix.from_bonds(
        22,
        bonds[::-1],
        elements=[elements[i] for i in order],
        names=[dipeptide.zmatrix.labels[i] for i in order],
        root=tuple(new_index[i] for i in dipeptide.zmatrix.root),  # its two ends carry equally much
    )
    internal = InternalCoordinates(permuted, reference=frames[:, order])
    z, expected = internal(frames[:, order]), dipeptide(frames)
    assert _misfit(internal.inv(z), frames[:, order]).max() < 1e-9
    assert int(internal.circular.sum()) == 5
    torch.testing.assert_close(
        internal.log_abs_det_jacobian(frames[:, order], z), dipeptide.log_abs_det_jacobian(frames, expected)
    )
    for name in sorted(SOFT_NAMES)[:2]:  # φ and ψ; the first hydrogen of a methyl may be another one
        column, same = internal.names.index(name), dipeptide.names.index(name)
        torch.testing.assert_close(z[:, column], expected[:, same])


def test_the_order_of_the_bonds_does_not_matter():
    n_atoms, bonds = GRAPHS["fused rings"]
    flipped = [(b, a) for a, b in reversed(bonds)] + bonds[:2]
    assert ZMatrix.from_bonds(n_atoms, flipped) == ZMatrix.from_bonds(n_atoms, bonds)


@pytest.mark.parametrize("name", GRAPHS)
def test_every_atom_is_placed_along_bonds_from_atoms_placed_before(name):
    n_atoms, bonds = GRAPHS[name]
    zmatrix = ZMatrix.from_bonds(n_atoms, bonds)
    known = {frozenset(bond) for bond in bonds}
    placed, last_of_level, done = set(zmatrix.root), set(zmatrix.root), 0
    for count in zmatrix.levels:
        group = zmatrix.placements[done : done + count]
        for p in group:
            assert {p.parent, p.grandparent, p.reference} <= placed
            assert frozenset((p.atom, p.parent)) in known
            assert frozenset((p.parent, p.grandparent)) in known
            assert frozenset((p.grandparent if p.proper else p.parent, p.reference)) in known
        last_of_level = {p.atom for p in group}
        assert not last_of_level & placed
        placed |= last_of_level
        done += count
    assert placed == set(range(n_atoms))
    axes = [frozenset((p.parent, p.grandparent)) for p in zmatrix.placements if p.proper]
    assert len(axes) == len(set(axes))


def test_only_bonds_outside_rings_with_a_tetrahedral_end_are_rotors():
    # A three-ring whose atom 0 has a methyl, and a planar chain of three on atom 1.
    bonds = [(0, 1), (1, 2), (2, 0), (0, 3), (0, 4), (3, 5), (3, 6), (3, 7), (1, 8), (8, 9), (9, 10)]
    zmatrix = ZMatrix.from_bonds(11, bonds)
    rotors = {frozenset((p.parent, p.grandparent)) for p in zmatrix.placements if p.rotor}
    assert rotors == {frozenset((0, 3))}


def test_a_bond_between_a_ring_and_the_root_is_no_ring_bond():
    chain = [(0, 1), (1, 2), (2, 3), (3, 4)]
    ring = [(4, 5), (5, 6), (6, 4)]
    zmatrix = ZMatrix.from_bonds(9, [*chain, *ring, (3, 7), (3, 8)], root=(0, 1, 2))
    rotors = {frozenset((p.parent, p.grandparent)) for p in zmatrix.placements if p.rotor}
    assert rotors == {frozenset((2, 3)), frozenset((3, 4))}


@pytest.mark.parametrize(
    ("elements", "more", "first"), [("CCCHF", [], 4), ("CCCOCHHH", [(4, 5), (4, 6), (4, 7)], 4), ("CCCOF", [], 3)]
)
def test_the_first_atom_about_an_axis_is_heavy_then_carries_most_then_has_the_lower_index(elements, more, first):
    bonds = [(0, 1), (1, 2), (0, 3), (0, 4), *more]
    zmatrix = ZMatrix.from_bonds(len(elements), bonds, elements=elements, root=(0, 1, 2))
    (proper,) = (p.atom for p in zmatrix.placements if p.proper and p.parent == 0)
    assert proper == first


def test_the_root_is_in_the_middle_and_of_heavy_atoms():
    bonds = GRAPHS["chain"][1]
    assert ZMatrix.from_bonds(5, bonds, elements="CCCCC").root == (1, 2, 3)
    assert ZMatrix.from_bonds(5, bonds, elements="CCCHH").root == (0, 1, 2)


def test_the_root_can_be_chosen():
    n_atoms, bonds = GRAPHS["ring"]
    zmatrix = ZMatrix.from_bonds(n_atoms, bonds, root=(8, 7, 3))
    assert zmatrix.root == (8, 7, 3)
    internal, x = InternalCoordinates(zmatrix), _random(n_atoms)
    assert _misfit(internal.inv(internal(x)), x).max() < 1e-9


def test_distance_angle_and_dihedral_follow_their_definitions():
    x = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 2], [math.cos(1), math.sin(1), 2]], dtype=torch.float64)
    assert float(distance(x, 1, 2)) == pytest.approx(2)
    assert float(angle(x, 0, 1, 2)) == pytest.approx(math.pi / 2)
    assert float(proper_dihedral(x, 0, 1, 2, 3)) == pytest.approx(1.0)
    assert float(proper_dihedral(x * torch.tensor([1.0, -1.0, 1.0]), 0, 1, 2, 3)) == pytest.approx(-1.0)


def test_it_composes_with_torch_distributions(dipeptide, frames):
    z = dipeptide(frames)
    base = Independent(Normal(z.mean(0), z.std(0)), 1)
    density = TransformedDistribution(base, [dipeptide.inv])
    assert density.event_shape == (22, 3)
    expected = base.log_prob(z) + dipeptide.log_abs_det_jacobian(frames, z)
    torch.testing.assert_close(density.log_prob(frames), expected)
    assert dipeptide.forward_shape((7, 22, 3)) == (7, 60)
    assert dipeptide.inverse_shape((7, 60)) == (7, 22, 3)


@pytest.mark.parametrize(
    ("n_atoms", "bonds", "options", "message"),
    [
        (2, [(0, 1)], {}, "at least three atoms: got 2"),
        (4, [(0, 1), (1, 2)], {"names": ["A", "B", "C", "D"]}, r"atom 3 \(D\) is not connected"),
        (3, [(0, 1), (1, 3)], {}, r"got \(1, 3\)"),
        (3, [(0, 1), (1, 1)], {}, r"got \(1, 1\)"),
        (3, [(0, 1), (1, 2)], {"names": ["A", "B", "A"]}, "'A' occurs twice"),
        (3, [(0, 1), (1, 2)], {"elements": ["C"]}, "one entry per atom, 3: got 1"),
        (3, [(0, 1), (1, 2)], {"root": (1, 0, 2)}, "centre bonded to both"),
    ],
)
def test_a_graph_that_is_no_molecule_is_refused(n_atoms, bonds, options, message):
    with pytest.raises(InputError, match=message):
        ZMatrix.from_bonds(n_atoms, bonds, **options)


def test_positions_that_cannot_be_used_are_refused(dipeptide, frames):
    with pytest.raises(InputError, match=r"\(n, 22, 3\).*got \(48, 21, 3\)"):
        dipeptide(frames[:, 1:])
    with pytest.raises(InputError, match=r"\(n, 60\).*got \(2, 59\)"):
        dipeptide.inv(torch.zeros(2, 59))
    broken = frames.clone()
    broken[3, 8, 1] = math.nan
    with pytest.raises(InputError, match=r"frame 3, atom 8 \(CA\)"):
        dipeptide(broken)


def test_a_straight_reference_is_refused():
    zmatrix = ZMatrix.from_bonds(4, [(0, 1), (1, 2), (2, 3)])
    x = _twisted(torch.zeros(3, dtype=torch.float64))
    x[2, 3] = x[2, 2] + 1.2 * (x[2, 2] - x[2, 1])
    with pytest.raises(InputError, match=r"angle\(3-2-1\) is 180.0° in reference frame 2"):
        InternalCoordinates(zmatrix, reference=x)
