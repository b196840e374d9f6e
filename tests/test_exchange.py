"""Layouts of other packages: alchemlyb's frames, pymbar's arrays, mdtraj's trajectories, openmmtools' states."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import pandas as pd
import pymbar
import pytest
import torch
from alchemlyb.estimators import BAR, MBAR
from alchemlyb.parsing.gmx import extract_u_nk
from alchemlyb.postprocessors.units import to_kcalmol, to_kJmol
from openmm import unit
from openmmtools import states, testsystems

from nessampler.errors import InputError
from nessampler.estimators import bar, mbar
from nessampler.exchange import read_both_directions
from nessampler.exchange.alchemlyb import from_u_nk, to_u_nk, works_from_u_nk, works_to_u_nk
from nessampler.exchange.pymbar_arrays import ReducedEnergies, checked, cross_energies, from_u_kln, works_between
from nessampler.methods.staged import staged
from nessampler.molecular import samples_of, state_target, trajectory_of
from nessampler.paths import LinearPath
from nessampler.targets import AnharmonicWell, Gaussian


def wells() -> tuple[AnharmonicWell, AnharmonicWell]:
    return (
        AnharmonicWell([0.0, 0.0], stiffness=[1.0, 2.0], quartic=[0.1, 0.2], skew=[0.6, -0.4], coupling=0.5),
        AnharmonicWell([0.6, -0.5], stiffness=[2.0, 1.0], quartic=[0.3, 0.0], skew=[-0.5, 0.8], coupling=-0.4),
    )


def ends(n_a: int = 300, n_b: int = 200) -> ReducedEnergies:
    a, b = wells()
    generator = torch.Generator().manual_seed(0)
    return cross_energies([a, b], [a.sample(n_a, generator=generator), b.sample(n_b, generator=generator)])


def test_cross_energies_give_bar_and_mbar_of_alchemlyb_and_ours() -> None:
    energies = ends()
    ours = bar(*works_between(energies))
    frame = to_u_nk(*energies, temperature=300.0)
    by_bar = BAR(relative_tolerance=1e-13).fit(frame)
    assert by_bar.delta_f_.loc[0.0, 1.0] == pytest.approx(ours.delta_f, abs=1e-9)
    assert by_bar.d_delta_f_.loc[0.0, 1.0] == pytest.approx(ours.std_error, rel=1e-6)
    by_mbar = MBAR(relative_tolerance=1e-13).fit(frame)
    both = mbar(*energies)
    assert by_mbar.delta_f_.loc[0.0, 1.0] == pytest.approx(both.delta_f, abs=1e-8)
    assert by_mbar.d_delta_f_.loc[0.0, 1.0] == pytest.approx(both.std_error, rel=1e-5)
    assert both.delta_f == pytest.approx(ours.delta_f, abs=1e-8)  # two states: MBAR is BAR
    a, b = wells()
    assert ours.delta_f == pytest.approx(float(a.log_z - b.log_z), abs=4 * (ours.std_error or 0))


def test_works_of_switching_go_through_alchemlyb() -> None:
    rng = np.random.default_rng(2)
    forward, reverse = 3 + 1.5 * rng.normal(size=400), -0.7 + 1.5 * rng.gamma(2.0, size=300)
    frame = works_to_u_nk(forward, reverse, temperature=310.0)
    found = BAR(relative_tolerance=1e-13).fit(frame)
    assert found.delta_f_.loc[0.0, 1.0] == pytest.approx(bar(forward, reverse).delta_f, abs=1e-9)
    assert found.delta_f_.attrs == {"temperature": 310.0, "energy_unit": "kT"}
    for given, back in zip((forward, reverse), works_from_u_nk(frame), strict=True):
        np.testing.assert_array_equal(given, back)


def test_staged_samples_go_to_alchemlyb_with_ends_that_were_not_sampled() -> None:
    one = torch.ones(1, dtype=torch.float64)
    path = LinearPath(Gaussian(0 * one, one), Gaussian(one, one))  # at t a unit Gaussian about t; exact: 0

    def sampler(times: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        noise = torch.randn(len(times), 1, 500, 1, generator=generator, dtype=torch.float64)
        return times[:, None, None, None] + noise

    found = staged(path, sampler, points=4, generator=torch.Generator().manual_seed(0))
    lambdas = [0.0, *found.times, 1.0]
    frame = to_u_nk(found.energies, found.counts, lambdas, temperature=300.0)
    theirs = MBAR(relative_tolerance=1e-12, initial_f_k=None).fit(frame)
    assert found.counts[0] == found.counts[-1] == 0
    assert theirs.delta_f_.loc[0.0, 1.0] == pytest.approx(found.multistate.delta_f, abs=1e-7)
    assert abs(theirs.delta_f_.loc[0.0, 1.0]) < 4 * theirs.d_delta_f_.loc[0.0, 1.0] < 0.3
    np.testing.assert_array_equal(from_u_nk(frame).u_kn, found.energies)


@pytest.mark.parametrize("convert", [to_kJmol, to_kcalmol])
def test_frames_in_other_units_and_orders_come_back_in_kt(convert: Any) -> None:
    energies = ends(30, 20)
    frame = to_u_nk(*energies, temperature=310.0)
    shuffled = convert(frame).iloc[np.random.default_rng(0).permutation(50)].sort_index(level="time", kind="stable")
    back = from_u_nk(shuffled)
    np.testing.assert_array_equal(back.n_k, [30, 20])
    np.testing.assert_allclose(back.u_kn, energies.u_kn, rtol=1e-9)


def test_lambda_may_have_components() -> None:
    states_ = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)]
    u = np.random.default_rng(0).normal(size=(3, 60)) * 0.3
    frame = to_u_nk(u, [20, 20, 20], states_, temperature=300.0, names=("coul-lambda", "vdw-lambda"))
    theirs = MBAR().fit(frame)
    ours = mbar(u, [20, 20, 20])
    assert theirs.delta_f_.iloc[0, 2] == pytest.approx(ours.delta_f, abs=1e-7)
    forward, reverse = works_from_u_nk(frame, (1.0, 0.0), (1.0, 1.0))
    np.testing.assert_array_equal(forward, (u[2] - u[1])[20:40])
    np.testing.assert_array_equal(reverse, (u[1] - u[2])[40:])


def test_our_reading_of_gromacs_agrees_with_alchemlyb(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    paths = []
    for state in (0, 1):
        own = float(state)
        legends = [f'@ s0 legend "dH/d\\xl\\f{{}} fep-lambda = {own:.4f}"']
        legends += [f'@ s{i + 1} legend "\\xD\\f{{}}H \\xl\\f{{}} to {to:.4f}"' for i, to in enumerate((0.0, 1.0))]
        header = [
            '@    title "dH/d\\xl\\f{} and \\xD\\f{}H"',
            '@    xaxis  label "Time (ps)"',
            '@    yaxis  label "dH/d\\xl\\f{} and \\xD\\f{}H (kJ/mol [\\xl\\f{}]\\S-1\\N)"',
            "@TYPE xy",
            f'@ subtitle "T = 298.15 (K) \\xl\\f{{}} state {state}: fep-lambda = {own:.4f}"',
        ]
        rows = []
        for i in range(50):
            cells = [0.0, 0.0]
            cells[1 - state] = 4 + 2 * rng.normal()
            rows.append(f"{i}.0000 2.5 {cells[0]:.6f} {cells[1]:.6f}")
        path = tmp_path / f"dhdl{state}.xvg"
        path.write_text("\n".join(["# GROMACS", *header, *legends, *rows]) + "\n")
        paths.append(str(path))
    frame = pd.concat([extract_u_nk(path, T=298.15) for path in paths])
    frame.attrs = {"temperature": 298.15, "energy_unit": "kT"}
    kt = 8.31446261815324e-3 * 298.15
    for given, theirs in zip(read_both_directions(*paths), works_from_u_nk(frame), strict=True):
        assert given is not None
        assert given.temperature == 298.15
        np.testing.assert_allclose(given.values[0] / kt, theirs, rtol=1e-7)


def test_pymbar_layouts() -> None:
    energies = ends(30, 20)
    padded = np.full((2, 2, 30), np.nan)
    padded[0], padded[1, :, :20] = energies.u_kn[:, :30], energies.u_kn[:, 30:]
    np.testing.assert_array_equal(from_u_kln(np.nan_to_num(padded), energies.n_k).u_kn, energies.u_kn)
    theirs = pymbar.MBAR(*energies).compute_free_energy_differences()["Delta_f"][0, 1]
    assert mbar(*energies).delta_f == pytest.approx(theirs, abs=1e-7)


FRAME = to_u_nk([[0.0, 1.0], [2.0, 0.5]], [1, 1], temperature=300.0)


def without_attrs() -> pd.DataFrame:
    bare = FRAME.copy()
    bare.attrs = {}
    return bare


BAD = {
    "no index": (lambda: from_u_nk(pd.DataFrame([[0.0]])), "index of time and λ"),
    "no unit": (lambda: from_u_nk(without_attrs()), "says its unit"),
    "foreign column": (lambda: from_u_nk(FRAME.assign(note="x")), "the columns of u_nk are λ"),
    "column of a sampled state missing": (lambda: from_u_nk(FRAME[[0.0]]), "λ = 1.0 is none of"),
    "NaN": (lambda: from_u_nk(FRAME * np.nan), "sample 0 has nan in state 0"),
    "unknown λ": (lambda: works_from_u_nk(FRAME, 0.0, 0.5), "λ = 0.5 is none of"),
    "not sampled": (lambda: works_between(checked(np.zeros((2, 3)), [3, 0])), "state 1 has none"),
    "counts": (lambda: checked(np.zeros((2, 3)), [1, 1]), "add up to all"),
    "λ twice": (lambda: to_u_nk(np.zeros((2, 2)), [1, 1], [0.0, 0.0], temperature=300.0), "a λ of its own"),
    "temperature": (lambda: to_u_nk(np.zeros((2, 2)), [1, 1], temperature=-1.0), "a temperature is positive"),
    "states without samples": (lambda: cross_energies(wells(), [None]), "2 states and 1 sets"),
    "no trajectory": (lambda: samples_of([]), "with frames"),
    "two lengths": (
        lambda: samples_of([mdtraj.Trajectory(np.zeros((n, 2, 3)), None) for n in (3, 4)]),
        "chains of one length",
    ),
    "not a state": (lambda: state_target(wells()[0]), "an openmmtools state has"),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD.keys())
def test_bad_layouts_are_named(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_trajectories_are_samples_and_back(tmp_path: Path) -> None:
    system = testsystems.AlanineDipeptideVacuum(constraints=None)
    topology = mdtraj.Topology.from_openmm(system.topology)
    x = np.asarray(system.positions.value_in_unit(unit.nanometer)) + 0.01 * np.random.default_rng(0).normal(
        size=(2, 5, 22, 3)
    )
    written = [trajectory_of(torch.from_numpy(chain), system.topology) for chain in x]
    written[0].save_dcd(str(tmp_path / "a.dcd"))
    assert written[0].topology == topology
    chains = samples_of(written)
    assert chains.shape == (2, 5, 22, 3)
    assert chains.dtype == torch.float64
    np.testing.assert_allclose(chains, x, atol=1e-6)
    np.testing.assert_allclose(samples_of(mdtraj.load(str(tmp_path / "a.dcd"), top=topology)), x[0], atol=1e-6)


def test_a_periodic_trajectory_is_refused() -> None:
    boxed = mdtraj.Trajectory(
        np.zeros((2, 1, 3)), None, unitcell_lengths=np.ones((2, 3)), unitcell_angles=np.full((2, 3), 90.0)
    )
    with pytest.raises(InputError, match="periodic box"):
        samples_of(boxed)


def test_a_thermodynamic_state_is_a_target() -> None:
    system = testsystems.AlanineDipeptideVacuum(constraints=None)
    state = states.ThermodynamicState(system.system, 310 * unit.kelvin)
    target = state_target(state)
    x = torch.from_numpy(np.asarray(system.positions.value_in_unit(unit.nanometer)))[None]
    sampler = states.SamplerState(system.positions)
    import openmm

    context = state.create_context(openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    sampler.apply_to_context(context)
    assert float(target.energy(x)) == pytest.approx(state.reduced_potential(context), rel=1e-9)
    water = testsystems.WaterBox(box_edge=1.5 * unit.nanometer, cutoff=0.6 * unit.nanometer)
    with pytest.raises(InputError, match="no volume"):
        state_target(states.ThermodynamicState(water.system, 300 * unit.kelvin, 1 * unit.atmosphere))


def test_type_hints_are_shipped() -> None:
    assert (files("nessampler") / "py.typed").is_file()
