"""Torch force fields on whole systems: the catalogue's molecules, openmmtools' test systems, and alchemical ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("openmm")

import openmm
from openmm import app, unit
from openmm_reference import assert_agrees, disagreement, perturbed, reference

from nessampler.errors import InputError
from nessampler.molecular import (
    Molecule,
    OpenMMTarget,
    TorchForceField,
    UnsupportedForce,
    load_structure,
    openmm_target,
    parameterize,
)
from nessampler.runs import catalogue
from nessampler.runs.config import load

NM: Any = unit.nano * unit.meter

# openmmtools builds these on purpose with the radii of another model
pytestmark = pytest.mark.filterwarnings("ignore:Non-optimal GB parameters:UserWarning")

STRUCTURES = sorted(catalogue.root().glob("*/*.pdb"))
DIPEPTIDE = catalogue.find("alanine-solvation").parent / "alanine-dipeptide.pdb"
FORCE_FIELDS = {
    "amber14": ["amber14-all.xml"],
    "amber19, with maps": ["amber19-all.xml"],
    "amber96": ["amber96.xml"],
    "amber96, OBC2 as GBSAOBCForce": ["amber96.xml", "amber96_obc.xml"],
    **{f"amber14, {m}": ["amber14-all.xml", f"implicit/{m}.xml"] for m in ("hct", "obc1", "obc2", "gbn", "gbn2")},
}


def catalogued() -> dict[str, tuple[Path, list[str]]]:
    """Structure and force field of every state in the catalogue, AMOEBA apart, which torch does not cover."""
    found = {}
    for folder in sorted({p.parent for p in STRUCTURES}):
        config = load(folder / "system.toml")
        for name in ("state_a", "state_b"):
            state = config[name]
            if not any("amoeba" in f for f in state["force_field"]):
                found[f"{folder.name}, {state['label']}"] = (folder / state["structure"], list(state["force_field"]))
    return found


CASES = {**{k: (DIPEPTIDE, files) for k, files in FORCE_FIELDS.items()}, **catalogued()}


@pytest.mark.parametrize(("structure", "files"), CASES.values(), ids=CASES)
def test_molecules_of_the_catalogue_agree_with_openmm(structure: Path, files: list[str]) -> None:
    molecule = load_structure(structure)
    system = parameterize(molecule, files, folder=structure.parent)
    assert_agrees(system, perturbed(molecule.positions, 2, 0.01))


@pytest.mark.parametrize("force_field", ["charmm36.xml", "amber19-all.xml"])
def test_a_small_protein_agrees_with_openmm(force_field: str) -> None:
    """The villin headpiece of OpenMM's own test file, 582 atoms: correction maps, NBFIX-style custom forces."""
    protein = villin()
    assert_agrees(parameterize(protein, [force_field]), perturbed(protein.positions, 1, 0.005))


def villin() -> Molecule:
    file = app.PDBFile(str(Path(app.__file__).parent / "data" / "test.pdb"))
    modeller = app.Modeller(file.topology, file.positions)
    modeller.delete([r for r in file.topology.residues() if r.name in {"HOH", "Cl"}])
    positions = np.array([list(p) for p in modeller.positions.value_in_unit(NM)])
    return Molecule(modeller.topology, positions)


# --- openmmtools' test systems ---------------------------------------------------------------------------------------

QUALIFY: dict[str, dict[str, Any]] = {
    "HarmonicOscillator": {},
    "PowerOscillator": {},
    "Diatom": {},
    "CustomExternalForcesTestSystem": {},
    "HarmonicOscillatorArray": {},
    "SodiumChlorideCrystal": {},
    "LennardJonesPair": {},
    "LennardJonesCluster": {},
    "LennardJonesGrid": {},
    "LennardJonesFluid": {"nparticles": 216, "cutoff": 0.8 * NM},
    "WCAFluid": {},
    "DoubleWellDimer_WCAFluid": {},
    "DoubleWellChain_WCAFluid": {},
    "IdealGas": {},
    "CustomGBForceSystem": {},
    "AlanineDipeptideVacuum": {"constraints": None},
    "AlanineDipeptideImplicit": {"constraints": None},
    "TolueneVacuum": {"constraints": None},
    **{f"TolueneImplicit{m}": {"constraints": None} for m in ("", "HCT", "OBC1", "OBC2", "GBn", "GBn2")},
    "HostGuestVacuum": {"constraints": None},
    **{f"HostGuestImplicit{m}": {"constraints": None} for m in ("", "HCT", "OBC1", "OBC2", "GBn", "GBn2")},
    "MethanolBox": {"constraints": None},
    "LennardJonesFluidTruncated": {"nparticles": 216, "cutoff": 0.8 * NM},
    "LennardJonesFluidSwitched": {"nparticles": 216, "cutoff": 0.8 * NM},
    "UnconstrainedDiatomicFluid": {"nmolecules": 27},
    "UnconstrainedDipolarFluid": {"nmolecules": 27},
    "AlchemicalAlanineDipeptide": {"constraints": None},
}
REFUSED = {
    "WaterCluster": ({}, "constraints"),
    "ConstraintCoupledHarmonicOscillator": ({}, "constraints"),
    "MolecularIdealGas": ({}, "constraints"),
    "ConstrainedDiatomicFluid": ({}, "constraints"),
    "ConstrainedDipolarFluid": ({}, "constraints"),
    "CustomLennardJonesFluidMixture": ({}, "long-range correction"),
    "DischargedWaterBox": ({"box_edge": 1.9 * NM, "cutoff": 0.9 * NM}, "constraints|PME"),
    "FlexibleWaterBox": ({"box_edge": 1.9 * NM, "cutoff": 0.9 * NM}, "PME"),
    "FlexibleDischargedWaterBox": ({"box_edge": 1.9 * NM, "cutoff": 0.9 * NM}, "PME"),
    "WaterBox": ({"box_edge": 1.9 * NM, "constrained": False, "cutoff": 0.9 * NM}, "PME"),
    "FourSiteWaterBox": (
        {"box_edge": 1.9 * NM, "constrained": False, "cutoff": 0.9 * NM},
        "constraints|virtual sites",
    ),
}


NOT_BUILT = {  # what they hold is in the lists above, or known from their force fields
    **dict.fromkeys(("DiatomicFluid", "DipolarFluid"), "bases of the Constrained and Unconstrained ones"),
    **dict.fromkeys(("PMEWaterBox", "FlexiblePMEWaterBox", "GiantFlexibleWaterBox"), "PME, as WaterBox"),
    **dict.fromkeys(("GiantFlexibleDischargedWaterBox", "DischargedWaterBoxHsites"), "PME, as DischargedWaterBox"),
    **dict.fromkeys(("FlexibleReactionFieldWaterBox", "AlchemicalWaterBox"), "PME as built, as FlexibleWaterBox"),
    "FiveSiteWaterBox": "virtual sites, as FourSiteWaterBox",
    **dict.fromkeys(("AlanineDipeptideExplicit", "HostGuestExplicit", "DHFRExplicit"), "PME and constraints"),
    **dict.fromkeys(("DNADodecamerExplicit", "SrcExplicit", "SrcExplicitReactionField"), "PME and constraints"),
    **dict.fromkeys(("LysozymeImplicit", "SrcImplicit"), "covered, but 2,600 atoms and more are too many for a test"),
    **dict.fromkeys(("AMOEBAIonBox", "AMOEBAProteinBox"), "AMOEBA, which the bridge evaluates"),
}


def test_every_openmmtools_test_system_is_in_a_list() -> None:
    testsystems = pytest.importorskip("openmmtools.testsystems")
    base = testsystems.TestSystem
    classes = {name for name, c in vars(testsystems).items() if isinstance(c, type) and issubclass(c, base)}
    assert classes - {"TestSystem"} == {*QUALIFY, *REFUSED, *NOT_BUILT}


def built_by_openmmtools(name: str, options: dict[str, Any]) -> Any:
    testsystems = pytest.importorskip("openmmtools.testsystems")
    return getattr(testsystems, name)(**options)


@pytest.mark.parametrize("name", QUALIFY)
def test_openmmtools_test_systems_agree_with_openmm(name: str) -> None:
    built = built_by_openmmtools(name, QUALIFY[name])
    x = perturbed(built.positions.value_in_unit(NM), 1 if "Grid" in name else 2, 0.005)
    assert_agrees(built.system, x)


@pytest.mark.parametrize("name", REFUSED)
def test_openmmtools_test_systems_that_do_not_qualify_say_why(name: str) -> None:
    options, reason = REFUSED[name]
    with pytest.raises(InputError, match=reason):
        TorchForceField(built_by_openmmtools(name, options).system)


# --- derivatives -----------------------------------------------------------------------------------------------------

DIFFERENTIATED = [
    c for c in FORCE_FIELDS if c in ("amber19, with maps", "amber96, OBC2 as GBSAOBCForce", "amber14, gbn2")
]


def dipeptide(files: list[str]) -> tuple[openmm.System, Tensor]:
    molecule = load_structure(catalogue.root() / "alanine-solvation" / "alanine-dipeptide.pdb")
    return parameterize(molecule, files), perturbed(molecule.positions, 2, 0.01)


@pytest.mark.parametrize("case", DIFFERENTIATED)
def test_second_derivatives_are_differences_of_forces(case: str) -> None:
    system, x = dipeptide(FORCE_FIELDS[case])
    target = openmm_target(system, 300.0, "torch")
    along = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    position = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target.energy(position).sum(), position, create_graph=True)
    (product,) = torch.autograd.grad((gradient * along).sum(), position)
    h = 1e-5
    near, far = (
        target.energy_and_score(x - k * h * along)[1] - target.energy_and_score(x + k * h * along)[1] for k in (1, 2)
    )
    expected = (8 * near - far) / (12 * h)
    tolerance = 1e-6 * float(expected.abs().max())
    torch.testing.assert_close(product, expected, rtol=0, atol=tolerance)
    assert (product - 1.0001 * expected).abs().max() > tolerance  # the test can see it


@pytest.mark.parametrize("case", FORCE_FIELDS)
def test_a_charge_that_is_off_by_a_millionth_is_seen(case: str) -> None:
    system, x = dipeptide(FORCE_FIELDS[case])
    force_field = TorchForceField(system)
    force_field.terms["NonbondedForce"].charge[1] *= 1 + 1e-6  # pyright: ignore
    energy, force = disagreement(system, x, force_field=force_field)["NonbondedForce"]
    assert energy > 1e-9
    assert force > 1e-8


def alchemical(vacuum: bool) -> tuple[openmm.System, Tensor]:
    alchemy = pytest.importorskip("openmmtools.alchemy")
    built = built_by_openmmtools("TolueneVacuum" if vacuum else "TolueneImplicitOBC2", {"constraints": None})
    region = alchemy.AlchemicalRegion(alchemical_atoms=range(6), annihilate_sterics=True)
    factory = alchemy.AbsoluteAlchemicalFactory(consistent_exceptions=False)
    system = factory.create_alchemical_system(built.system, region)
    return system, perturbed(built.positions.value_in_unit(NM), 2, 0.01)


@pytest.mark.parametrize("vacuum", [True, False], ids=["vacuum", "OBC2"])
@pytest.mark.parametrize("sterics", [1.0, 0.4])
def test_alchemical_systems_agree_with_openmm(vacuum: bool, sterics: float) -> None:
    system, x = alchemical(vacuum)
    assert_agrees(system, x, {"lambda_sterics": sterics, "lambda_electrostatics": 0.7})


@pytest.mark.parametrize("vacuum", [True, False], ids=["vacuum", "OBC2"])
def test_derivatives_in_lambda_are_differences_of_openmm(vacuum: bool) -> None:
    system, x = alchemical(vacuum)
    force_field = TorchForceField(system)
    start = {"lambda_sterics": 0.6, "lambda_electrostatics": 0.3}
    values = {k: torch.tensor(v, dtype=torch.float64, requires_grad=True) for k, v in start.items()}
    slopes = torch.autograd.grad(force_field(x, **values).sum(), list(values.values()))
    h = 1e-4
    for name, slope in zip(values, slopes, strict=True):
        sides = []
        for k in (-2, -1, 1, 2):
            truth = reference(system, x, {**start, name: start[name] + k * h})
            sides.append(sum(float(energy.sum()) for energy, _ in truth.values()))
        expected = (sides[0] - 8 * sides[1] + 8 * sides[2] - sides[3]) / (12 * h)
        assert abs(expected) > 1e-2
        assert float(slope) == pytest.approx(expected, rel=1e-6)


# --- backends --------------------------------------------------------------------------------------------------------


def test_amoeba_goes_to_the_bridge_and_says_so() -> None:
    molecule = load_structure(catalogue.root() / "amber-to-amoeba" / "alanine-dipeptide.pdb")
    target = openmm_target(parameterize(molecule, ["amoeba2018.xml"]), 300.0)
    assert isinstance(target, OpenMMTarget)
    assert "Amoeba" in target.reason
    with pytest.raises(UnsupportedForce, match=r"Amoeba.*backend"):
        openmm_target(parameterize(molecule, ["amoeba2018.xml"]), 300.0, "torch")


@pytest.mark.parametrize("files", [["amber14-all.xml"], ["amber14-all.xml", "implicit/obc2.xml"]], ids="-".join)
def test_published_systems_keep_their_energies_in_torch(files: list[str]) -> None:
    system, x = dipeptide(files)
    automatic = openmm_target(system, 300.0)
    assert automatic.backend == "torch"
    bridge = openmm_target(system, 300.0, "openmm")
    torch.testing.assert_close(automatic.energy(x), bridge.energy(x), rtol=0, atol=1e-9)


def test_walkers_of_a_batch_do_not_see_one_another() -> None:
    system, x = dipeptide(FORCE_FIELDS["amber14, gbn2"])
    many = torch.cat([x + 0.01 * math.sin(k) * torch.ones_like(x) * (x > 0) for k in range(9)])
    force_field = TorchForceField(system, chunk_size=4)
    one_by_one = torch.cat([force_field(row[None]) for row in many])
    torch.testing.assert_close(force_field(many), one_by_one, rtol=1e-12, atol=0)
