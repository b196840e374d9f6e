"""Molecules of the catalogue and what their references rest on: structure, exchange of replicas, the binding cycle."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

openmm = pytest.importorskip("openmm")

from command_line import nessampler  # noqa: E402

from nessampler.errors import InputError  # noqa: E402
from nessampler.molecular import TorchForceField, TorchForceFieldTarget, load_structure, parameterize  # noqa: E402
from nessampler.molecular.restraints import AxisRestraint, standard_state_correction  # noqa: E402
from nessampler.molecular.state_dynamics import LangevinStates, Swaps, exchange  # noqa: E402
from nessampler.paths import LinearPath, ScheduledPath  # noqa: E402
from nessampler.runs import catalogue  # noqa: E402
from nessampler.runs.config import load  # noqa: E402
from nessampler.targets.callable import LogDensity  # noqa: E402

PEPTIDE = catalogue.root() / "tetraalanine-solvation"
HOST_GUEST = catalogue.root() / "cb7-b2"


def script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}".replace("-", "_"), path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# --- tetra-alanine ---------------------------------------------------------------------------------------------------


def test_the_peptide_is_what_its_name_says() -> None:
    molecule = load_structure(PEPTIDE / "tetraalanine.pdb")
    residues = [(r.name, len(list(r.atoms()))) for r in molecule.topology.residues()]
    assert residues == [("ACE", 6), *[("ALA", 10)] * 4, ("NME", 6)]
    build = script(PEPTIDE / "build.py")
    assert len(build.handedness(molecule.topology, molecule.positions)) == 4
    assert min(build.handedness(molecule.topology, molecule.positions)) > 0.002  # nm^3: every residue is L
    assert max(build.handedness(molecule.topology, -molecule.positions)) < 0


def test_its_backbone_is_extended_and_trans() -> None:
    x = torch.as_tensor(load_structure(PEPTIDE / "tetraalanine.pdb").positions)[None]
    turns = script(PEPTIDE / "reference.py").backbone(x)[:, 0].view(4, 2, 2)  # residue, phi and psi, cosine and sine
    phi, psi = (torch.rad2deg(torch.atan2(turns[:, k, 1], turns[:, k, 0])) for k in range(2))
    assert bool(((phi > -90) & (phi < -55)).all())
    assert bool(((psi > 130) & (psi < 175)).all())


def test_the_structure_is_a_minimum() -> None:
    molecule = load_structure(PEPTIDE / "tetraalanine.pdb")
    field = TorchForceField(parameterize(molecule, ["amber14-all.xml", "implicit/obc2.xml"]))
    energy, forces = field.energy_and_forces(torch.as_tensor(molecule.positions)[None])
    assert float(energy) < -100  # kJ/mol
    assert float(forces.square().mean().sqrt()) < 200  # kJ/mol/nm, from three decimals of an angstrom in stiff bonds


def test_the_weakened_path_has_the_ends_that_it_joins() -> None:
    reference = script(PEPTIDE / "reference.py")
    walk, _, start = reference.path(torch.float64, compile=False)
    noise = torch.randn(2, *start.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = start + 0.003 * noise
    for t, end in ((0.0, walk.start), (1.0, walk.end)):
        torch.testing.assert_close(walk.energy(torch.full((2,), t, dtype=torch.float64), x), end.energy(x))
    times = torch.tensor([0.1, 0.6], dtype=torch.float64)
    table = walk.energies(x, times)
    torch.testing.assert_close(table.diagonal(), walk.energy(times, x))
    point = walk.evaluate(times, x)
    slopes = (reference.rates(times)[..., 0, 0] * torch.stack([term.energy(x) for term in walk.terms])).sum(0)
    torch.testing.assert_close(slopes, point.time_derivative)


@pytest.mark.slow  # the main job, in test_cli, takes the same way
def test_a_run_of_the_peptide_goes_through(tmp_path: Path) -> None:
    ended = nessampler("run", "tetraalanine-solvation", "--preset", "smoke", "--out", str(tmp_path / "run"))
    assert ended.code in (0, 3), ended.err
    assert (tmp_path / "run" / "result.json").is_file()


# --- exchange of replicas --------------------------------------------------------------------------------------------


def double_well(x: Tensor) -> Tensor:
    """Two minima 12 kT deep, the right one less deep by about 1 kT."""
    return (12 * (x.square() - 1).square() + 0.5 * x).squeeze(-1)


def tempered() -> ScheduledPath:
    """From the well to a tenth of it."""
    well, low = (LogDensity(lambda x, s=s: -s * double_well(x), torch.Size((1,))) for s in (1.0, 0.1))
    return ScheduledPath([well], lambda t: (1 - 0.9 * t)[:, None], well, low)


def always(path: ScheduledPath, times: Tensor, x: Tensor, first: int, *, generator: torch.Generator) -> Swaps:
    """A rule that is wrong."""
    order = list(range(len(times)))
    for k in range(first, len(times) - 1, 2):
        order[k], order[k + 1] = k + 1, k
    return Swaps(torch.arange(x[..., 0].numel()).view(x.shape[:2])[order], torch.ones(len(times) - 1))


def right(rule: Callable[..., Swaps] | None) -> tuple[float, float]:
    """The share of the right well at t = 0 with its error over chains that all start on the left."""
    generator, path = torch.Generator().manual_seed(0), tempered()
    times = torch.linspace(0, 1, 5, dtype=torch.float64)
    x = torch.full((5, 100, 1), -1.0, dtype=torch.float64)
    place, scale = times.repeat_interleave(100), 0.25 + 0.5 * times[:, None, None]
    share = torch.zeros(100, dtype=torch.float64)
    for k in range(1200):
        proposed = x + scale * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        now, then = (path.energy(place, y.flatten(0, 1)).view(5, 100) for y in (x, proposed))
        taken = torch.rand(5, 100, generator=generator, dtype=torch.float64).log() < now - then
        x = torch.where(taken[..., None], proposed, x)
        if rule is not None:
            x = x.flatten(0, 1)[rule(path, times, x, k % 2, generator=generator).source]
        if k >= 200:
            share += (x[0, :, 0] > 0) / 1000
    return float(share.mean()), float(share.std()) / math.sqrt(len(share))


def exact() -> float:
    grid = torch.linspace(-3, 3, 20001, dtype=torch.float64)[:, None]
    weight = (-double_well(grid)).exp()
    return float(weight[grid[:, 0] > 0].sum() / weight.sum())


def test_exchange_brings_a_double_well_to_its_density() -> None:
    found, error = right(exchange)
    assert error < 0.02
    assert abs(found - exact()) < 4 * error


def test_without_exchange_chains_stay_where_they_started() -> None:
    assert right(None)[0] < 0.1 * exact()


def test_swaps_that_are_always_accepted_give_another_density() -> None:
    found, error = right(always)
    assert abs(found - exact()) > 6 * error


def test_swaps_are_permutations_within_chains_between_neighbours() -> None:
    x = torch.randn(5, 7, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    times = torch.linspace(0, 1, 5)
    for first, gaps in ((0, [0, 2]), (1, [1, 3])):
        swaps = exchange(tempered(), times, x, first, generator=torch.Generator().manual_seed(2))
        assert sorted(swaps.source.flatten().tolist()) == list(range(35))
        assert bool((swaps.source % 7 == torch.arange(7)).all())  # of the same chain
        assert bool(((swaps.source // 7 - torch.arange(5)[:, None]).abs() <= 1).all())
        assert torch.isfinite(swaps.accepted).nonzero().flatten().tolist() == gaps
    alone = exchange(tempered(), times[:2], x[:2], 1, generator=torch.Generator())
    assert alone.source.tolist() == torch.arange(14).view(2, 7).tolist()


def test_dynamics_with_swaps_can_be_cut_and_resumed() -> None:
    shape = torch.Size((2, 3))
    ends = [LogDensity(lambda x, m=m: -50 * (x - m).square().sum((1, 2)), shape) for m in (0.0, 0.05)]
    path, times = LinearPath(*ends), torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    pace = {"timestep": 0.01, "chains": 4, "equilibration": 0.1, "production": 0.4, "interval": 0.05, "swap": True}
    dynamics = LangevinStates(path, torch.full((2,), 12.0), 300.0, torch.zeros(2, 3, dtype=torch.float64), **pace)  # pyright: ignore[reportArgumentType]
    whole = dynamics(times, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    first = dynamics.advance(times, dynamics.start(times, generator=generator), 4, generator=generator)
    rest = dynamics.advance(times, first.phase, 4, generator=generator)
    torch.testing.assert_close(torch.cat([first.x, rest.x], 2), whole, rtol=0, atol=0)
    assert float(first.accepted.min()) > 0.2


# --- host and guest --------------------------------------------------------------------------------------------------


def test_a_folder_without_a_system_is_no_entry_of_the_catalogue() -> None:
    assert HOST_GUEST.is_dir()
    assert "cb7-b2" not in catalogue.names()
    with pytest.raises(InputError, match=r"system\.toml"):
        load(catalogue.find(str(HOST_GUEST)))


@pytest.fixture(scope="module")
def host_guest() -> ModuleType:
    pytest.importorskip("openmmtools")
    return script(HOST_GUEST / "reference.py")


@pytest.mark.filterwarnings("ignore:Non-optimal GB parameters:UserWarning")
def test_the_complex_leg_starts_at_the_complex_and_ends_at_a_guest_that_feels_its_restraint_only(
    host_guest: ModuleType,
) -> None:
    leg = host_guest.leg("complex")
    path = leg.path(torch.float64, compile=False)
    x = leg.x[None] + 0.001
    apart = x.clone()
    apart[:, host_guest.GUEST] += torch.tensor([0.3, -0.2, 0.4], dtype=torch.float64)
    both, end = torch.cat([x, apart]), torch.ones(2, dtype=torch.float64)
    plain = TorchForceFieldTarget(host_guest.parameterized(host_guest.amber("complex-vacuum")[0]), 300.0)
    torch.testing.assert_close(path.energy(torch.zeros(1), x), plain.energy(x), rtol=1e-7, atol=1e-4)
    hold = openmm.System()
    for _ in range(156):
        hold.addParticle(1.0)
    hold.addForce(host_guest.restraint().force())
    restraint = TorchForceFieldTarget(hold, 300.0).energy(both)
    energy = path.energy(end, both)
    torch.testing.assert_close(energy.diff(), restraint.diff(), rtol=1e-6, atol=1e-6)
    assert float(restraint.diff()) > 1


@pytest.mark.filterwarnings("ignore:Non-optimal GB parameters:UserWarning")
def test_both_legs_end_at_the_same_guest(host_guest: ModuleType) -> None:
    """Without interactions, the guest in the complex has the energy of the guest alone, up to the host's."""
    paths = {n: host_guest.leg(n).path(torch.float64, compile=False) for n in ("complex", "solvent")}
    x = host_guest.leg("complex").x[None].repeat(2, 1, 1)
    noise = torch.randn(30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = [i for i in range(30) if i not in (2, 3)]  # bridgeheads stay, and the restraint with them
    x[1, [126 + i for i in moved]] += 0.002 * noise[: len(moved)]
    end = torch.ones(2, dtype=torch.float64)
    together, alone = paths["complex"].energy(end, x), paths["solvent"].energy(end, x[:, 126:])
    torch.testing.assert_close(together.diff(), alone.diff(), rtol=1e-6, atol=1e-6)
    assert float(alone.diff().abs()) > 0.1


def test_the_rims_of_the_host_and_the_axis_of_the_guest_are_where_they_should_be(host_guest: ModuleType) -> None:
    hold: AxisRestraint = host_guest.restraint()
    file, x = host_guest.amber("complex-vacuum")
    upper, lower = (x[list(rim)] for rim in hold.host)
    assert np.linalg.norm(upper.mean(0) - lower.mean(0)) == pytest.approx(0.58, abs=0.03)  # the height of the barrel
    middle = 0.5 * (upper.mean(0) + lower.mean(0))
    assert np.linalg.norm(middle - x[[128, 129]].mean(0)) < 0.05  # the guest sits in it
    bonds = {tuple(sorted((a.index, b.index))) for a, b in file.topology.bonds()}
    assert sum(128 in bond for bond in bonds) == sum(129 in bond for bond in bonds) == 4  # quaternary: bridgeheads
    release = standard_state_correction(hold, 300.0)
    assert release == pytest.approx(standard_state_correction(hold, 300.0, analytic=True), abs=1e-9)
    assert -8 < release < -6
