"""Mirror images and crosswise numbered atoms are told apart, named, and refused before anything is sampled."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import nessampler
from torch.distributions.transforms import ReshapeTransform

import nessampler as ns
from nessampler.errors import InputError
from nessampler.runs import catalogue

openmm = pytest.importorskip("openmm")

from openmm import app, unit  # noqa: E402

from nessampler.molecular.handedness import (  # noqa: E402
    check_same_handedness,
    handedness,
    handedness_flags,
    hands_of_samples,
)
from nessampler.molecular.systems import Molecule, load_structure  # noqa: E402
from nessampler.molecular.topology_tree import bond_graph  # noqa: E402

SYSTEM = catalogue.root() / "alanine-solvation"


@pytest.fixture(scope="module")
def dipeptide() -> Molecule:
    return load_structure(SYSTEM / "alanine-dipeptide.pdb")


def exchanged(molecule: Molecule, one: str, other: str) -> np.ndarray:
    """Positions with two atoms in each other's place."""
    names, x = list(bond_graph(molecule.topology).names), molecule.positions.copy()
    i, j = names.index(one), names.index(other)
    x[[i, j]] = x[[j, i]]
    return x


def test_handedness_is_kept_by_motion_and_turned_by_reflection(dipeptide: Molecule) -> None:
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    moved = dipeptide.positions @ rotation.T + 0.01 * rng.normal(size=dipeptide.positions.shape) + 3.0
    mirrored = dipeptide.positions * np.array([1, 1, -1])
    signs = handedness(bond_graph(dipeptide.topology), np.stack([dipeptide.positions, moved, mirrored]))
    assert signs.shape == (3, 4)
    assert (signs[0] == signs[1]).all()
    assert (signs[0] == -signs[2]).all()
    check_same_handedness(dipeptide.topology, dipeptide.positions, moved)


def test_a_mirror_image_is_named(dipeptide: Molecule) -> None:
    with pytest.raises(InputError, match=r"mirror image of A at all 4 tetrahedral atoms, .*; reflect the coordinates"):
        check_same_handedness(dipeptide.topology, dipeptide.positions, -dipeptide.positions)


def test_another_stereoisomer_is_named(dipeptide: Molecule) -> None:
    with pytest.raises(InputError, match=r"mirror images at CA, .* two molecules"):
        check_same_handedness(dipeptide.topology, dipeptide.positions, exchanged(dipeptide, "HA", "CB"))


def test_equal_atoms_numbered_crosswise_are_named(dipeptide: Molecule) -> None:
    with pytest.raises(InputError, match="HB1 and HB2 at CB are exchanged"):
        check_same_handedness(dipeptide.topology, dipeptide.positions, exchanged(dipeptide, "HB1", "HB2"))


def test_samples_that_turned_inside_out_are_flagged(dipeptide: Molecule) -> None:
    rng = np.random.default_rng(0)
    samples = dipeptide.positions + 0.005 * rng.normal(size=(40, *dipeptide.positions.shape))
    assert handedness_flags(dipeptide.topology, dipeptide.positions, samples, "B") == ()
    samples[30:] = exchanged(dipeptide, "HA", "CB")
    (flag,) = handedness_flags(dipeptide.topology, dipeptide.positions, samples, "B")
    assert flag.code == "mirror_image"
    assert flag.message.startswith("25% of the samples of B have the handedness of the mirror image at CA,")


@pytest.mark.parametrize(
    ("turned", "of", "told"), [(1, 5000, "1 in 5,000 of"), (4, 5000, "4 in 5,000 of"), (5, 5000, "0.1% of")]
)
def test_so_few_that_their_share_rounds_to_nothing_are_counted(turned: int, of: int, told: str) -> None:
    samples = np.broadcast_to(TETRAHEDRON, (of, 5, 3)).copy()
    samples[:turned] *= -1
    (flag,) = hands_of_samples(bond_graph(halomethane_topology()), TETRAHEDRON[None], samples)
    assert flag.code == "few_mirror_images"
    assert flag.message.startswith(f"{told} the samples of B have the handedness of the mirror image at C,")


def test_the_command_line_refuses_mirror_images_before_anything_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "mirrored"
    shutil.copytree(SYSTEM, folder)
    lines = (folder / "alanine-dipeptide.pdb").read_text().splitlines()
    turned = [
        f"{line[:46]}{-float(line[46:54]):8.3f}{line[54:]}" if line.startswith(("ATOM", "HETATM")) else line
        for line in lines
    ]
    (folder / "mirror.pdb").write_text("\n".join(turned))
    ended = nessampler("run", folder, "--out", tmp_path / "run", "--set", 'state_b.structure="mirror.pdb"')
    assert ended.code == 2
    assert "mirror image of A" in ended.err.replace("\n", " ")
    assert not (tmp_path / "run").exists()


# From Python ---------------------------------------------------------------------------------------------------------

SYMBOLS, LENGTHS = ("C", "H", "F", "Cl", "Br"), (0.109, 0.136, 0.176, 0.194)
TETRAHEDRON = np.array([[0, 0, 0], [0.06, 0.06, 0.06], [0.08, -0.08, -0.08], [-0.1, 0.1, -0.1], [-0.11, -0.11, 0.11]])


def halomethane(stiffness: float) -> openmm.System:
    """CHFClBr of bonds and angles alone: its mirror image has the same energy."""
    system, bonds, angles = openmm.System(), openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    for mass in (12.0, 1.0, 19.0, 35.0, 80.0):
        system.addParticle(mass)
    for i, length in enumerate(LENGTHS, 1):
        bonds.addBond(0, i, length, stiffness)
    for i, j in itertools.combinations(range(1, 5), 2):
        angles.addAngle(i, 0, j, 1.91, 400.0)
    system.addForce(bonds)
    system.addForce(angles)
    return system


def halomethane_topology() -> app.Topology:
    topology = app.Topology()
    residue = topology.addResidue("X", topology.addChain())
    carbon, *others = (topology.addAtom(s, app.Element.getBySymbol(s), residue) for s in SYMBOLS)
    for other in others:
        topology.addBond(carbon, other)
    return topology


@pytest.fixture(scope="module")
def halomethanes() -> tuple[np.ndarray, np.ndarray]:
    """One chain `(1, 300, 5, 3)` of each state."""

    def sampled(system: openmm.System, seed: int) -> np.ndarray:
        integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 5 / unit.picosecond, 0.0005 * unit.picosecond)
        integrator.setRandomNumberSeed(seed)
        context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
        context.setPositions(TETRAHEDRON)
        integrator.step(2000)
        frames = []
        for _ in range(300):
            integrator.step(100)
            frames.append(context.getState(getPositions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer))
        return np.array(frames)[None]

    return sampled(halomethane(2.0e5), 1), sampled(halomethane(2.6e5), 2)


STATES = halomethane(2.0e5), halomethane(2.6e5)


@pytest.mark.parametrize(
    ("arguments", "centre"),
    [
        ({"topology": halomethane_topology()}, "C"),
        # Bonds are then those of the system; that its energy would not do does not matter any more.
        ({"coordinates": ReshapeTransform(torch.Size([5, 3]), torch.Size([15]))}, "atom 0"),
    ],
)
def test_python_refuses_states_that_are_mirror_images(halomethanes, arguments, centre: str) -> None:
    a, b = halomethanes
    with pytest.raises(InputError, match=f"samples of both states .* mirror image of A at all 1 .*, {centre} first"):
        ns.free_energy(*STATES, a, -b, temperature=300.0, method="plain", **arguments)


def test_python_flags_samples_of_both_hands(halomethanes) -> None:
    a, b = halomethanes
    mixed = b.copy()
    mixed[:, ::4] *= -1
    given = {"temperature": 300.0, "topology": halomethane_topology(), "method": "plain"}
    for first, second, name in ((a, mixed, "B"), (mixed, a, "A")):
        found = ns.free_energy(*STATES, first, second, **given)
        (flag,) = [flag for flag in found.flags if flag.code == "mirror_image"]
        assert flag.message.startswith(f"25% of the samples of {name} have the handedness of the mirror image at C")
        assert found.verdict.level == "not trusted"
    right = ns.free_energy(*STATES, a, b, **given)
    assert not [flag for flag in right.flags if "mirror" in flag.code]
    mixed = b.copy()
    mixed[:, 7] *= -1
    found = ns.free_energy(*STATES, a, mixed, **given)
    (flag,) = [flag for flag in found.flags if flag.code == "few_mirror_images"]
    assert flag.message.startswith("0.3% of the samples of B have the handedness of the mirror image at C,")


def test_a_map_between_hands_is_wrong_though_it_overlaps_and_is_not_trusted(halomethanes) -> None:
    a, b = halomethanes
    given = {"temperature": 300.0, "topology": halomethane_topology(), "method": "map"}
    mixed = b.copy()
    mixed[:, ::2] *= -1
    right, wrong = (ns.free_energy(*STATES, a, x, **given) for x in (b, mixed))
    for found in (right, wrong):
        assert found.delta_f.delta_f is not None
        assert found.delta_f.std_error is not None
    assert right.delta_f.delta_f is not None
    assert wrong.delta_f.delta_f is not None
    assert right.delta_f.std_error is not None
    assert abs(right.delta_f.delta_f - 2 * np.log(1.3)) < 0.05  # four bonds, of which each has half a log
    assert abs(wrong.delta_f.delta_f - right.delta_f.delta_f) > 0.3
    assert (right.verdict.level, wrong.verdict.level) == ("trusted", "not trusted")
