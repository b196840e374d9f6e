"""Coordinates of one or several molecules, of clusters and of renamed atoms: bijections with exact Jacobians."""

import math
from itertools import combinations, product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions.transforms import ComposeTransform, Transform

from nessampler.closed_form import fit_standardizer
from nessampler.errors import InputError
from nessampler.kernels import HMC
from nessampler.molecular.centred import CentredCartesian
from nessampler.molecular.internal_coordinates import InternalCoordinates, angle, distance, proper_dihedral
from nessampler.molecular.relabelling import MirrorPair, Relabelling, SymmetricRotor
from nessampler.molecular.several_molecules import join_molecules
from nessampler.molecular.symmetry import rotor_orders
from nessampler.molecular.topology_tree import BondGraph, ZMatrix, bond_graph, check_same_topology
from nessampler.paths import LinearPath
from nessampler.targets import TransformedTarget, carry
from nessampler.targets.lennard_jones import LennardJonesCluster

openmm = pytest.importorskip("openmm")
app, unit = pytest.importorskip("openmm.app"), openmm.unit

PDB = Path(__file__).parents[1] / "systems" / "amber-to-amoeba" / "alanine-dipeptide.pdb"

METHYL = [(0, 1), (0, 2), (0, 3)]  # hydrogens 1, 2, 3 on carbon 0
# Elements and bonds.
GRAPHS: dict[str, tuple[str, list[tuple[int, int]]]] = {
    "chiral centre": ("CFHON", [(0, 1), (0, 2), (0, 3), (0, 4)]),
    "improper": ("CONNHH", [(0, 1), (0, 2), (0, 3), (2, 4), (3, 5)]),
    "toluene": (
        "CHHHCCCCCCHHHHH",
        [*METHYL, (0, 4), *((4 + i, 4 + (i + 1) % 6) for i in range(6)), *((5 + i, 10 + i) for i in range(5))],
    ),
    "proline ring": (
        "NCCCCCOOHHHHHHHHH",
        [
            *((i, (i + 1) % 5) for i in range(5)),
            *[(1, 5), (5, 6), (5, 7), (0, 8), (1, 9), (7, 16)],
            *((2 + i, 10 + 2 * i + j) for i in range(3) for j in range(2)),
        ],
    ),
    "water dimer": ("OHHOHH", [(0, 1), (0, 2), (3, 4), (3, 5)]),
    "ion, then water": ("NaOHH", [(1, 2), (1, 3)]),
    "nitrogen, methanol, two ions": ("NNCHHHOHKK", [(0, 1), (2, 3), (2, 4), (2, 5), (2, 6), (6, 7)]),
    "three ions": ("KKKK", []),
    "two diatomics and an ion": ("NNNNK", [(0, 1), (2, 3)]),
    "ion and diatomic": ("KNN", [(1, 2)]),
    "three waters": ("OHH" * 3, [(0, 1), (0, 2), (3, 4), (3, 5), (6, 7), (6, 8)]),
}


def _symbols(text: str) -> list[str]:
    return list(text.replace("Na", "K"))


def _random(n_atoms: int, n: int = 20, seed: int = 0) -> Tensor:
    return 0.2 * torch.randn(n, n_atoms, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _topology(elements: str, bonds: list[tuple[int, int]], names: list[str] | None = None) -> SimpleNamespace:
    """What the coordinates need of an `openmm.app.Topology`."""
    symbols = _symbols(elements)
    names = names or [f"{e}{i}" for i, e in enumerate(symbols)]
    residue = SimpleNamespace(name="MOL", id="1")
    atoms = [
        SimpleNamespace(index=i, name=name, residue=residue, element=SimpleNamespace(symbol=e))
        for i, (e, name) in enumerate(zip(symbols, names, strict=True))
    ]
    return SimpleNamespace(atoms=lambda: atoms, bonds=lambda: [(atoms[a], atoms[b]) for a, b in bonds])


def _joined(name: str) -> InternalCoordinates:
    elements, bonds = GRAPHS[name]
    return InternalCoordinates(join_molecules(len(_symbols(elements)), bonds, elements=_symbols(elements)))


@pytest.fixture(scope="module")
def dipeptide() -> tuple[object, Tensor]:
    file = app.PDBFile(str(PDB))
    return file.topology, torch.tensor(np.array(file.getPositions(asNumpy=True)._value))[None]


@pytest.fixture(scope="module")
def host_guest():
    testsystems = pytest.importorskip("openmmtools.testsystems")
    return testsystems.HostGuestVacuum(constraints=None)


@pytest.fixture(params=[*GRAPHS, "alanine dipeptide"])
def molecule(request) -> tuple[InternalCoordinates, Tensor]:
    if request.param in GRAPHS:
        internal = _joined(request.param)
        return internal, _random(internal.zmatrix.n_atoms)
    topology, x = request.getfixturevalue("dipeptide")
    return InternalCoordinates.from_topology(topology, x), x + 0.02 * _random(22)


def _misfit(x: Tensor, y: Tensor) -> Tensor:
    """Largest deviation per frame after the best proper rotation: mirror images do not fit."""
    x, y = x - x.mean(-2, keepdim=True), y - y.mean(-2, keepdim=True)
    u, _, vt = torch.linalg.svd(x.mT @ y)
    sign = torch.ones(*x.shape[:-2], 3, dtype=x.dtype)
    sign[..., 2] = torch.det(u @ vt)
    return (x @ (u * sign.unsqueeze(-2) @ vt) - y).abs().amax((-1, -2))


def _gram_log_det(internal: InternalCoordinates, z: Tensor) -> Tensor:
    """log|det ∂x/∂z| modulo rigid motions, from the Gram matrix of what moves x.

    With T the six rigid motions and J = ∂x/∂z, the volume of (T, J) is that of x. T's own volume enters through the
    projection of J on what is left of the space.
    """
    found = []
    for one in z:
        x = internal.inv(one)
        shift = torch.eye(3, dtype=x.dtype).expand(len(x), 3, 3).reshape(-1, 3)
        turn = torch.stack([torch.linalg.cross(axis.expand_as(x), x).flatten() for axis in torch.eye(3).to(x)], -1)
        rigid = torch.cat([shift, turn], -1)
        shape = torch.autograd.functional.jacobian(lambda w: internal.inv(w).flatten(), one, vectorize=True)
        beside = shape - rigid @ torch.linalg.lstsq(rigid, shape).solution
        grams = torch.linalg.slogdet(rigid.T @ rigid).logabsdet + torch.linalg.slogdet(beside.T @ beside).logabsdet
        found.append(grams / 2)
    return torch.stack(found)


# Internal coordinates of one and of several molecules


def test_the_round_trip_is_exact_up_to_a_rigid_motion(molecule):
    internal, x = molecule
    z = internal(x)
    assert z.shape == (len(x), 3 * x.shape[1] - 6)
    assert len(set(internal.names)) == z.shape[1]
    assert internal.in_chart(z).all()
    back = internal.inv(z)
    assert _misfit(back, x).max() < 1e-9
    assert internal.wrap(internal(back) - z).abs().max() < 1e-9


def test_the_log_jacobian_is_that_of_the_gram_matrix(molecule):
    internal, x = molecule
    x = x[:3]
    log_det = -internal.log_abs_det_jacobian(x, internal(x))
    expected = _gram_log_det(internal, internal(x))
    torch.testing.assert_close(log_det, expected, rtol=0, atol=1e-8)
    lengths = internal(x)[:, : x.shape[1] - 1].log().sum(-1)
    assert ((log_det - lengths - expected).abs() > 1e-3).all()


def test_host_and_guest_have_the_same_energy_and_the_exact_jacobian(host_guest):
    from nessampler.molecular.force_field import TorchForceFieldTarget

    target = TorchForceFieldTarget(host_guest.system, 300.0)
    x = torch.tensor(np.array(host_guest.positions / unit.nanometer))[None] + 0.02 * _random(156, 3)
    internal = InternalCoordinates.from_topology(host_guest.topology, x, several_molecules=True)
    z = internal(x)
    between = [
        i for i, atoms in enumerate(p[:4] for p in internal.zmatrix.placements) if internal.zmatrix.between(atoms)
    ]
    assert len(between) == 3
    assert internal.circular[[2 * 156 - 3 + i for i in between]].all()
    back = internal.inv(z)
    assert _misfit(back, x).max() < 1e-9
    torch.testing.assert_close(target.energy(back), target.energy(x), rtol=0, atol=1e-7)
    seen = TransformedTarget(target, internal)
    expected = target.energy(x[:1]) - _gram_log_det(internal, z[:1])
    torch.testing.assert_close(seen.energy(z[:1]), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("anchors", [((0, 2, 1), (6, 5, 4)), ((2, 0, 3), (5, 6, 4)), ((1, 0, 2), (4, 5, 7))])
def test_the_six_coordinates_between_molecules_are_those_of_boresch(anchors):
    bonds = [(0, 1), (0, 2), (1, 2), (2, 3), (4, 5), (5, 6), (5, 7)]
    zmatrix = join_molecules(8, bonds, anchors=anchors)
    internal, x = InternalCoordinates(zmatrix), _random(8)
    (a1, a2, a3), (b1, b2, b3) = anchors
    third = (b3, b2, b1, a1) if (b2, b3) != (6, 4) else (b3, b1, b2, a1)
    wanted = {
        "r": distance(x, b1, a1),
        "theta_A": angle(x, b1, a1, a2),
        "phi_A": proper_dihedral(x, b1, a1, a2, a3),
        "theta_B": angle(x, b2, b1, a1),
        "phi_B": proper_dihedral(x, b2, b1, a1, a2),
        "phi_C": proper_dihedral(x, *third),
    }
    z = internal(x)
    for name, values in wanted.items():
        assert any(torch.allclose(z[:, i], values, atol=1e-12) for i in range(z.shape[1])), name
    assert _misfit(internal.inv(z), x).max() < 1e-9
    # Everything else is within a molecule: moving the six moves rigid bodies.
    six = [min(range(18), key=lambda i: float((z[:, i] - v).abs().max())) for v in wanted.values()]
    moved = z.clone()
    moved[:, six] += 0.1
    y = internal.inv(moved)
    for atoms in zmatrix.molecules:
        assert _misfit(y[:, list(atoms)], x[:, list(atoms)]).max() < 1e-9
    assert _misfit(y, x).min() > 1e-3


def test_torsions_between_molecules_are_circular_whatever_was_sampled_or_named():
    elements, bonds = GRAPHS["water dimer"]
    zmatrix = join_molecules(6, bonds, elements=list(elements))
    x = _joined("water dimer").inv(
        torch.tensor([[0.1, 0.1, 0.3, 0.1, 0.1, 1.8, 3.12, 1.2, 1.8, 0.3, 0.4, 0.5]]).double()
    )
    for options in ({"reference": x}, {"soft": []}, {}):  # an angle of 3.12 between molecules is no straight molecule
        assert InternalCoordinates(zmatrix, **options).circular[-3:].all()


def test_a_straight_molecule_is_refused_among_several():
    zmatrix = join_molecules(4, [(0, 1), (1, 2)], elements=list("OCOK"))
    x = torch.tensor([[[0.0, 0, 0], [0.12, 0, 0], [0.24, 0.001, 0], [0.1, 0.3, 0.2]]], dtype=torch.float64)
    with pytest.raises(InputError, match=r"angle\(O0-C1-O2\) is 179.5°"):
        InternalCoordinates(zmatrix, reference=x)


def test_a_turn_of_a_molecule_is_no_symmetry_of_its_torsion_to_another():
    elements, bonds = "OHHNHHH", [(0, 1), (0, 2), (3, 4), (3, 5), (3, 6)]
    topology = _topology(elements, bonds)
    internal = InternalCoordinates.from_topology(topology, several_molecules=True)
    assert set(rotor_orders(topology, internal).values()) == {1}


def test_many_molecules_are_placed_from_the_first_of_three_atoms():
    zmatrix = _joined("nitrogen, methanol, two ions").zmatrix
    assert zmatrix.molecules == ((0, 1), (2, 3, 4, 5, 6, 7), (8,), (9,))
    assert set(zmatrix.root) <= {2, 3, 4, 5, 6, 7}
    hung = {p.atom: p.parent for p in zmatrix.placements if zmatrix.between(p[:2])}
    assert set(hung) == {0, 8, 9}
    assert set(hung.values()) <= set(zmatrix.root)


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        ([(0, 1, 3)], "the third to either: got"),
        ([(1, 2, 0)], "the second bonded to the first"),
        ([(0, 1, 9)], "three atoms of a molecule"),
        ([(0, 1, 2), (1, 0, 2)], "one triple of anchors"),
    ],
)
def test_anchors_that_are_no_chain_are_refused(anchors, message):
    with pytest.raises(InputError, match=message):
        join_molecules(6, GRAPHS["water dimer"][1], anchors=anchors)


def test_a_molecule_in_pieces_is_an_error_unless_several_are_asked_for(dipeptide):
    elements, bonds = GRAPHS["water dimer"]
    topology = _topology(elements, bonds)
    with pytest.raises(InputError, match=r"atom 3 \(O3\) is not connected .* `several_molecules`"):
        InternalCoordinates.from_topology(topology)
    assert len(InternalCoordinates.from_topology(topology, several_molecules=True).names) == 12
    with pytest.raises(InputError, match="`anchors` instead of a `root`"):
        InternalCoordinates.from_topology(topology, several_molecules=True, root=(1, 0, 2))
    with pytest.raises(InputError, match="without `several_molecules`"):
        InternalCoordinates.from_topology(dipeptide[0], anchors=[(1, 0, 2)])
    with pytest.raises(InputError, match="at least three atoms: got 2"):
        join_molecules(2, [])


def test_one_molecule_joined_is_the_molecule():
    elements, bonds = GRAPHS["proline ring"]
    alone = ZMatrix.from_bonds(len(elements), bonds, elements=list(elements))
    joined = join_molecules(len(elements), bonds, elements=list(elements))
    assert (joined.root, joined.placements, joined.labels) == (alone.root, alone.placements, alone.labels)


# Topologies that do not fit


@pytest.mark.parametrize(
    ("elements", "bonds", "names", "message"),
    [
        ("CFHO", [(0, 1), (0, 2), (0, 3)], None, "A has 5, B has 4"),
        (
            "CHFON",
            GRAPHS["chiral centre"][1],
            ["C0", "H2", "F1", "O3", "N4"],
            r"atom 1 is F1 \(F\) .* there F1 is atom 2",
        ),
        ("CFHOS", GRAPHS["chiral centre"][1], None, r"atom 4 is N4 \(N\) in A but S4 \(S\) in B; give both"),
        ("CFHON", [(0, 1), (0, 2), (0, 3), (3, 4)], None, r"atom 0 \(C0\) is bonded to F1, H2, O3, N4 in A but to F1"),
        ("CFHON", GRAPHS["chiral centre"][1], ["C0", "F9", "H2", "O3", "N4"], r"atom 1 is F1 \(F\) in A but F9"),
    ],
)
def test_structures_that_differ_are_refused_by_the_first_atom(elements, bonds, names, message):
    reference = _topology(*GRAPHS["chiral centre"])
    check_same_topology(reference, _topology(GRAPHS["chiral centre"][0], GRAPHS["chiral centre"][1][::-1]))
    with pytest.raises(InputError, match=message):
        check_same_topology(reference, _topology(elements, bonds, names))


def test_equal_residues_in_two_chains_get_names_of_their_own():
    water = app.PDBFile(str(PDB)).topology.__class__()
    for _ in range(2):
        residue = water.addResidue("HOH", water.addChain(), id="1")
        oxygen = water.addAtom("O", app.element.oxygen, residue)
        for name in ("H1", "H2"):
            water.addBond(oxygen, water.addAtom(name, app.element.hydrogen, residue))
    assert bond_graph(water).names == ("HOH1:O#0", "HOH1:H1#1", "HOH1:H2#2", "HOH1:O#3", "HOH1:H1#4", "HOH1:H2#5")


# Sampling in either set of coordinates


class Springs:
    """A Gaussian density of shape: springs of rest length 0, so that exact samples are at hand."""

    def __init__(self, n_atoms: int, seed: int = 1) -> None:
        strength = 1 + 3 * torch.rand(
            n_atoms, n_atoms, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
        )
        self.stiffness = torch.diag((strength + strength.T).sum(1)) - strength - strength.T
        self.event_shape = torch.Size([n_atoms, 3])
        values, vectors = torch.linalg.eigh(self.stiffness)
        self.factor = vectors[:, 1:] / values[1:].sqrt()

    def energy(self, x: Tensor) -> Tensor:
        return 0.5 * (x * (self.stiffness @ x)).sum((-1, -2))

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return self.factor @ torch.randn(n, self.factor.shape[1], 3, dtype=torch.float64, generator=generator)


def _without_jacobian(transform: Transform) -> Transform:
    """A transform that forgets its Jacobian: what every sampling test must notice."""
    broken = ComposeTransform([transform])
    broken.log_abs_det_jacobian = lambda x, y: torch.zeros_like(y[..., 0])
    return broken


def _hmc(target, z: Tensor, trajectories: int, step: float, leapfrog: int = 4) -> Tensor:
    kernel = HMC(LinearPath(target, target), step_size=step, leapfrog_steps=leapfrog, repeats=trajectories)
    moved, _ = kernel.step(0.0, 1.0, kernel.start(0.0, z), generator=torch.Generator().manual_seed(11))
    return moved.x


def _worst_z(one: Tensor, other: Tensor, edges: Tensor) -> tuple[float, float]:
    """Largest z-score of the bins of two independent samples' histograms, and the largest standard error."""
    shares = [torch.histogram(values, edges)[0] / len(values) for values in (one, other)]
    mean = (shares[0] + shares[1]) / 2
    error = (mean * (1 - mean) * (1 / len(one) + 1 / len(other))).sqrt()
    return float(((shares[0] - shares[1]).abs() / error.clamp(min=1e-12)).max()), float(error.max())


TURN = torch.linspace(-math.pi, math.pi, 9, dtype=torch.float64)


@pytest.mark.parametrize("name", ["chiral centre", "ion, then water", "water dimer"])
def test_walkers_moved_in_internal_coordinates_keep_every_torsion_of_exact_samples(name):
    internal = _joined(name)
    n = internal.zmatrix.n_atoms
    springs = Springs(n)
    x, fresh = (springs.sample(3000, generator=torch.Generator().manual_seed(seed)) for seed in (2, 3))
    z, expected = carry(internal, x), carry(internal, fresh)
    moved = internal.wrap(_hmc(TransformedTarget(springs, internal), z, 8, 0.08))
    broken = internal.wrap(_hmc(TransformedTarget(springs, _without_jacobian(internal)), z, 8, 0.08))
    worst = 0.0
    for i in range(z.shape[1]):
        torsion = i >= 2 * n - 3
        edges = TURN if torsion else torch.quantile(expected[:, i], torch.linspace(0, 1, 9, dtype=torch.float64))
        z_score, error = _worst_z(moved[:, i], expected[:, i], edges)
        assert z_score <= 4, internal.names[i]
        assert error < 0.012
        worst = max(worst, _worst_z(broken[:, i], expected[:, i], edges)[0])
    assert worst > 8


@pytest.fixture(scope="module")
def pentane():
    """Five beads with soft bonds and angles, two torsions with three basins, and ends that repel."""
    system = openmm.System()
    bonds, angles = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    torsions, ends = openmm.PeriodicTorsionForce(), openmm.CustomBondForce("8*exp(-(r/0.3)^2)")
    for i in range(5):
        system.addParticle(14.0)
        if i < 4:
            bonds.addBond(i, i + 1, 0.15, 2500.0)
        if i < 3:
            angles.addAngle(i, i + 1, i + 2, 1.9, 40.0)
    torsions.addTorsion(0, 1, 2, 3, 3, 0.0, 1.5)
    torsions.addTorsion(0, 1, 2, 3, 1, 0.7, 1.5)
    torsions.addTorsion(1, 2, 3, 4, 3, 0.0, 1.5)
    ends.addBond(0, 4)
    for force in (bonds, angles, torsions, ends):
        system.addForce(force)
    return system


def test_torsions_sampled_in_whitened_coordinates_are_those_of_molecular_dynamics(pentane):
    from nessampler.molecular.force_field import TorchForceFieldTarget
    from nessampler.molecular.torch_dynamics import LangevinMiddle, Phase

    generator = torch.Generator().manual_seed(5)
    target = TorchForceFieldTarget(pentane, 300.0)
    internal = InternalCoordinates(ZMatrix.from_bonds(5, [(0, 1), (1, 2), (2, 3), (3, 4)]))
    hard = torch.tensor([0.16] * 4 + [1.9] * 3, dtype=torch.float64).expand(1500, 7)
    torsions = math.pi * (2 * torch.rand(1500, 2, dtype=torch.float64, generator=generator) - 1)
    start = internal.inv(torch.cat([hard, torsions], -1))

    dynamics = LangevinMiddle.of(pentane, 300.0, timestep=0.004, friction=5.0, dtype=torch.float64)
    still = torch.zeros_like(start)
    direct = internal(dynamics.run(Phase(start, still), 300, generator=generator).x)

    whiten = fit_standardizer(direct[:300], internal.circular)
    chain = ComposeTransform([internal, whiten])
    u = chain(start)
    moved = whiten.inv(_hmc(TransformedTarget(target, chain), u, 15, 0.35))
    broken = whiten.inv(_hmc(TransformedTarget(target, _without_jacobian(chain)), u, 15, 0.35))
    worst = at_start = 0.0
    for i in range(9):
        quantiles = torch.quantile(direct[:, i], torch.linspace(0, 1, 9, dtype=torch.float64))
        edges = TURN if i > 6 else quantiles
        theirs = internal.wrap(direct)[:, i]
        z_score, error = _worst_z(internal.wrap(moved)[:, i], theirs, edges)
        assert z_score <= 4, internal.names[i]
        assert error < 0.02
        worst = max(worst, _worst_z(internal.wrap(broken)[:, i], theirs, edges)[0])
        if i > 6:
            at_start = max(at_start, _worst_z(torsions[:, i - 7], theirs, edges)[0])
    assert worst > 6
    assert at_start > 6  # the torsions did turn
    spread = chain(internal.inv(moved))[:, ~internal.circular].std(0)
    assert ((spread - 1).abs() < 0.25).all()  # whitened


# Centred positions


@pytest.mark.parametrize("n_atoms", [2, 3, 13])
@pytest.mark.parametrize("masses", [False, True])
def test_centred_positions_come_back_with_their_centre_at_the_origin(n_atoms, masses):
    weights = torch.linspace(1, 16, n_atoms, dtype=torch.float64) if masses else None
    centred, x = CentredCartesian(n_atoms, weights), _random(n_atoms)
    y = centred(x)
    assert y.shape == (20, 3 * n_atoms - 3)
    assert centred.forward_shape(x.shape) == y.shape
    assert centred.inverse_shape(y.shape) == x.shape
    w = torch.ones(n_atoms, dtype=torch.float64) if weights is None else weights
    centre = (w[:, None] * x).sum(1, keepdim=True) / w.sum()
    assert (centred.inv(y) - (x - centre)).abs().max() < 1e-9
    assert (centred(centred.inv(y)) - y).abs().max() < 1e-9
    assert (centred(x + torch.tensor([1.0, -2.0, 3.0])) - y).abs().max() < 1e-9


@pytest.mark.parametrize("masses", [None, torch.tensor([1.0, 12.0, 16.0, 35.0], dtype=torch.float64)])
def test_the_volume_left_out_is_that_of_the_centre(masses):
    """dx = N^{3/2} d(centre) dy: with the shift the Jacobian has this determinant, without it its Gram matrix has 1."""
    centred, y = CentredCartesian(4, masses), _random(4)[0, :3].flatten()
    shape = torch.autograd.functional.jacobian(lambda w: centred.inv(w).flatten(), y)
    shift = torch.eye(3, dtype=torch.float64).repeat(4, 1)
    full = torch.linalg.slogdet(torch.cat([shift, shape], -1)).logabsdet
    assert float(full) == pytest.approx(1.5 * math.log(4), abs=1e-12)
    assert torch.equal(centred.log_abs_det_jacobian(centred.inv(y), y), torch.zeros((), dtype=torch.float64))
    if masses is None:
        assert torch.linalg.slogdet(shape.T @ shape).logabsdet.abs() < 1e-12


def test_a_trapped_cluster_without_its_centre_has_the_documented_normaliser():
    """Z of the trapped atoms is Z of the subspace times (2π/κ)^{3/2}, here by exact Gaussian integrals."""
    cluster = LennardJonesCluster(5, strength=0.0, trap=2.0, free_center=True)
    seen = TransformedTarget(cluster, CentredCartesian(5))
    y = torch.randn(7, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(seen.energy(y), y.square().sum(-1))
    log_z = 6 * math.log(2 * math.pi / 2.0)  # of the 12 coordinates
    assert log_z + 1.5 * math.log(2 * math.pi / 2.0) == pytest.approx(7.5 * math.log(math.pi))


def test_a_cluster_sampled_without_its_centre_is_the_one_sampled_with_it():
    cluster = LennardJonesCluster(3, strength=1.0, trap=1.0)
    centred = CentredCartesian(3)
    triangle = torch.tensor([[0.0, 0, 0], [1.2, 0, 0], [0.6, 1.0, 0]], dtype=torch.float64)
    start = triangle + 0.02 * _random(3, 2000)
    whole = _hmc(cluster, start, 40, 0.05, 8)
    free = TransformedTarget(LennardJonesCluster(3, strength=1.0, trap=1.0, free_center=True), centred)
    shape = centred.inv(_hmc(free, centred(start), 40, 0.05, 8))
    edges = torch.tensor([0.8, 1.0, 1.1, 1.2, 1.4, 1.8, 2.4, 3.2, 6.0], dtype=torch.float64)
    ours, theirs = (distance(x, 0, 2) for x in (shape, whole))
    z_score, error = _worst_z(ours, theirs, edges)
    assert z_score <= 4
    assert error < 0.016
    assert _worst_z(distance(start, 0, 2), theirs, edges)[0] > 8


def test_whitened_centred_positions_have_unit_covariance():
    springs = Springs(4)
    centred = CentredCartesian(4)
    y = carry(centred, springs.sample(4000, generator=torch.Generator().manual_seed(6)))
    chain = ComposeTransform([centred, fit_standardizer(y, shrink=1.0)])
    fresh = springs.sample(4000, generator=torch.Generator().manual_seed(7))
    u = carry(chain, fresh)
    assert (u.T.cov() - torch.eye(9)).abs().max() < 0.1
    assert (chain.inv(u) - (fresh - fresh.mean(1, keepdim=True))).abs().max() < 1e-9
    jacobian = torch.autograd.functional.jacobian(lambda w: chain.inv(w).flatten(), u[0])
    expected = -torch.linalg.slogdet(jacobian.T @ jacobian).logabsdet / 2
    torch.testing.assert_close(chain.log_abs_det_jacobian(fresh[:1], u[:1])[0], expected, rtol=0, atol=1e-9)


def test_centred_positions_refuse_what_has_no_centre():
    with pytest.raises(InputError, match="two atoms or more: got 1"):
        CentredCartesian(1)
    with pytest.raises(InputError, match=r"3 positive numbers: got \(3,\), smallest 0"):
        CentredCartesian(3, torch.tensor([1.0, 0.0, 1.0]))
    with pytest.raises(InputError, match=r"\(n, 3, 3\).*got \(5, 4, 3\)"):
        CentredCartesian(3)(torch.zeros(5, 4, 3))
    with pytest.raises(InputError, match=r"\(n, 6\).*got \(5, 9\)"):
        CentredCartesian(3).inv(torch.zeros(5, 9))


# Renaming of equal atoms

EQUAL: dict[str, tuple[str, list[tuple[int, int]], list[int]]] = {
    "toluene": (*GRAPHS["toluene"], [6]),
    "ethane": ("CHHHCHHH", [*METHYL, (0, 4), (4, 5), (4, 6), (4, 7)], [9]),
    "methanol": ("CHHHOH", [*METHYL, (0, 4), (4, 5)], [3]),
    "acetate": ("CHHHCOO", [*METHYL, (0, 4), (4, 5), (4, 6)], [6]),
    "propane": ("CHHHCHHCHHH", [*METHYL, (0, 4), (4, 5), (4, 6), (4, 7), (7, 8), (7, 9), (7, 10)], [3, 3, 2]),
    "xylene": (
        "CHHHCCCCCCHHHHCHHH",
        [
            *[*METHYL, (0, 4), (5, 10), (6, 11), (8, 12), (9, 13), (7, 14), (14, 15), (14, 16), (14, 17)],
            *((4 + i, 4 + (i + 1) % 6) for i in range(6)),
        ],
        [6, 3],
    ),
    "methylguanidinium": (
        "CHHHNHCNHHNHH",
        [*METHYL, (0, 4), (4, 5), (4, 6), (6, 7), (7, 8), (7, 9), (6, 10), (10, 11), (10, 12)],
        [2, 3, 2, 2],
    ),
    "methylguanidinium in another order": (
        "CNNHHHHNHCHHH",
        [(0, 1), (0, 2), (1, 3), (1, 4), (2, 5), (2, 6), (0, 7), (7, 8), (7, 9), (9, 10), (9, 11), (9, 12)],
        [2, 3, 2, 2],
    ),
    "dimethylformamide": (
        "COHNCHHHCHHH",
        [(0, 1), (0, 2), (0, 3), (3, 4), (4, 5), (4, 6), (4, 7), (3, 8), (8, 9), (8, 10), (8, 11)],
        [3, 3],
    ),
    "fluoroethane": ("CHHHCHHF", [*METHYL, (0, 4), (4, 5), (4, 6), (4, 7)], [3, 2]),
    "chiral centre": (*GRAPHS["chiral centre"], []),
    "water dimer": (*GRAPHS["water dimer"], []),
    "cyclohexanol": (
        "C" * 6 + "O" + "H" * 12,
        [*((i, (i + 1) % 6) for i in range(6)), (0, 6), (6, 7), (0, 8)]
        + [(i, 9 + 2 * (i - 1) + j) for i in range(1, 6) for j in range(2)],
        [2] * 5,
    ),
    "isopropanol": (
        "CHHHCHOHCHHH",
        [*METHYL, (0, 4), (4, 5), (4, 6), (6, 7), (4, 8), (8, 9), (8, 10), (8, 11)],
        [3, 3],
    ),
    "tert-butyl chloride": (
        "CHHHCClCHHHCHHH".replace("Cl", "F"),
        [*METHYL, (0, 4), (4, 5), (4, 6), (6, 7), (6, 8), (6, 9), (4, 10), (10, 11), (10, 12), (10, 13)],
        [3, 3, 3],
    ),
}


@pytest.fixture(params=EQUAL)
def equal(request) -> tuple[Relabelling, BondGraph, Tensor, list[int]]:
    elements, bonds, orders = EQUAL[request.param]
    graph = bond_graph(_topology(elements, bonds))
    return Relabelling.from_graph(graph), graph, 5 * _random(len(elements), 400), orders


def _orbit(found: Relabelling, x: Tensor) -> Tensor:
    """All conformations of one x under every choice of renamings: (|G|, atoms, 3)."""
    orbit = x[None]
    for symmetry in found.symmetries:
        orbit = torch.cat([orbit[:, list(permutation)] for permutation in symmetry.permutations])
    return orbit


def test_the_renamings_of_a_graph_are_found(equal):
    found, _, _, orders = equal
    assert sorted(s.order for s in found.symmetries) == sorted(orders)
    assert found.order == math.prod(orders)


def test_renaming_keeps_elements_and_bonds(equal):
    found, graph, _, _ = equal
    bonds = {frozenset(pair) for pair in graph.bonds}
    for symmetry in found.symmetries:
        for p in symmetry.permutations:
            assert sorted(p) == list(range(found.atoms))
            assert [graph.elements[i] for i in p] == list(graph.elements)
            assert {frozenset((p[a], p[b])) for a, b in bonds} == bonds


def test_every_orbit_has_one_representative_and_as_many_members_as_stated(equal):
    found, _, x, _ = equal
    for one in x[:5]:
        orbit = _orbit(found, one)
        assert len({tuple(member.flatten().tolist()) for member in orbit}) == found.order
        assert int(found.is_representative(orbit).sum()) == 1
        assert (found(orbit) == found(one[None])).all()


def test_renaming_does_not_depend_on_names(equal):
    found, _, x, _ = equal
    assert (found(found.spread(x, generator=torch.Generator().manual_seed(3))) == found(x)).all()
    assert (found(found(x)) == found(x)).all()


def test_the_share_of_representatives_is_one_over_the_order(equal):
    """Independent normal positions are blind to names, so this is the ratio of normalisers."""
    found, _, _, _ = equal
    n = 20000
    share = float(found.is_representative(_random(found.atoms, n, seed=9)).double().mean())
    error = math.sqrt(share * (1 - share) / n)
    assert error < 0.004
    assert abs(share - 1 / found.order) <= 4 * error
    if found.order > 1:
        assert abs(share - 2 / found.order) > 4 * error


def test_turns_keep_every_chirality_and_mirror_pairs_only_change_their_own(equal):
    found, graph, x, _ = equal

    def volumes(y: Tensor) -> dict[int, Tensor]:
        four = {i: near for i, near in enumerate(graph.neighbours) if len(near) == 4}
        edges = {i: y[:, near[:3]] - y[:, near[3:]] for i, near in four.items()}
        return {i: torch.linalg.det(e) for i, e in edges.items()}

    before = volumes(x)
    for symmetry in found.symmetries:
        for p in symmetry.permutations[1:]:
            for centre, volume in volumes(x[:, list(p)]).items():
                mirrored = isinstance(symmetry, MirrorPair) and symmetry.centre == centre
                torch.testing.assert_close(volume, -before[centre] if mirrored else before[centre])


def test_gradients_pass_through_renaming(equal):
    found, _, x, _ = equal
    x = x[:3].clone().requires_grad_()
    (gradient,) = torch.autograd.grad((found(x) * torch.arange(found.atoms).view(1, -1, 1)).sum(), x)
    expected = found.permutation(x).argsort(-1)[..., None].expand_as(gradient)
    assert torch.equal(gradient, expected.to(gradient))


def test_representatives_are_cut_where_nothing_is_sampled(dipeptide):
    """With a reference, a turning methyl is cut half way between its basins, and the first frame keeps its names."""
    topology, x = dipeptide
    frames = x + 0.01 * _random(22, 400)
    found = Relabelling.from_topology(topology, frames)
    assert found.order == 27
    assert found.is_representative(frames).all()
    mixed = found.spread(frames, generator=torch.Generator().manual_seed(0))
    assert 0.01 < float(found.is_representative(mixed).double().mean()) < 0.12
    assert torch.equal(found(mixed), frames)
    internal = InternalCoordinates.from_topology(topology, x)
    column = internal.names.index("torsion(HB1-CB-CA-ALA2:N)")
    assert internal(found(mixed))[:, column].std() < 0.2 < internal(mixed)[:, column].std()


def test_what_the_energy_tells_apart_is_left_alone(dipeptide):
    from nessampler.molecular.force_field import TorchForceFieldTarget

    topology, x = dipeptide
    system = app.ForceField("amber14-all.xml").createSystem(topology, constraints=None, rigidWater=False)
    target = TorchForceFieldTarget(system, 300.0)
    whole = Relabelling.from_topology(topology, x, energy=target.energy)
    assert whole.order == 27
    whole.check(target.energy, x)
    frames = x + 0.01 * _random(22, 5)
    torch.testing.assert_close(target.energy(whole.spread(frames, generator=torch.Generator())), target.energy(frames))

    (nonbonded,) = (f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    names = bond_graph(topology).names
    charge, sigma, epsilon = nonbonded.getParticleParameters(names.index("HB2"))
    nonbonded.setParticleParameters(names.index("HB2"), charge * 1.01, sigma, epsilon)
    uneven = TorchForceFieldTarget(system, 300.0)
    with pytest.raises(InputError, match=r"for atoms \[11, 12, 13\] it changes by .* kT; give `energy`"):
        whole.check(uneven.energy, x)
    found = Relabelling.from_topology(topology, x, energy=uneven.energy)
    assert found.order == 9
    assert not any(isinstance(s, SymmetricRotor) and names.index("CB") in s.axis for s in found.symmetries)


def test_one_end_of_a_bond_is_kept_where_the_other_is_told_apart():
    """A ring with an uneven charge keeps its methyl, though both turn about one bond."""
    elements, bonds = GRAPHS["toluene"]
    graph = bond_graph(_topology(elements, bonds))

    def energy(x: Tensor) -> Tensor:
        pairs = torch.tensor(list(combinations(range(len(elements)), 2))).T
        charge = torch.ones(len(elements), dtype=x.dtype)
        charge[5] = 1.1
        return (charge[pairs[0]] * charge[pairs[1]] / distance(x, *pairs)).sum(-1)

    found = Relabelling.from_graph(graph, _random(len(elements), 3), energy=energy)
    assert [s.order for s in found.symmetries] == [3]
    found.check(energy, _random(len(elements), 3))


def test_a_mirror_pair_is_named_as_in_the_reference():
    graph = bond_graph(_topology(*EQUAL["propane"][:2]))
    x = 5 * _random(11, 40)
    (pair,) = (s for s in Relabelling.from_graph(graph).symmetries if isinstance(s, MirrorPair))
    left = x[pair.choose(x) == 1]
    assert (pair.seen_in(left).choose(left) == 0).all()
    assert pair.seen_in(left).sign == -1


def test_renaming_refuses_other_shapes_and_an_energy_without_frames(dipeptide):
    found = Relabelling.from_topology(dipeptide[0])
    with pytest.raises(InputError, match=r"\(n, 22, 3\).*got \(4, 21, 3\)"):
        found(torch.zeros(4, 21, 3))
    with pytest.raises(InputError, match="without `reference`"):
        Relabelling.from_topology(dipeptide[0], energy=lambda x: x.sum((-1, -2)))
    with pytest.raises(InputError, match=r"\(n, 22, 3\)"):
        Relabelling.from_topology(dipeptide[0], torch.zeros(2, 5, 3))


def test_the_orders_of_both_ends_multiply():
    graph = bond_graph(_topology(*EQUAL["ethane"][:2]))
    (rotor,) = Relabelling.from_graph(graph).symmetries
    assert rotor.order == len(list(product(*rotor.heads))) == 9
