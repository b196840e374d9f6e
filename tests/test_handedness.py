"""Mirror images and crosswise numbered atoms are told apart, named, and refused before anything is sampled."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import nessampler

from nessampler.errors import InputError
from nessampler.runs import catalogue

openmm = pytest.importorskip("openmm")

from nessampler.molecular.handedness import check_same_handedness, handedness, handedness_flags  # noqa: E402
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
    assert flag.message.startswith("25% of the samples of B have the handedness of the mirror image at CA")


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
