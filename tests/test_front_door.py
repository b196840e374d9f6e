"""Whatever users hold in their hands becomes a target, and what cannot work is named before any work."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit
from scipy.integrate import quad
from torch.distributions import constraints

import nessampler as ns
from nessampler.methods.front_door import density_of
from nessampler.targets import AnharmonicWell, Gaussian, energy_and_score
from nessampler.targets.anything import target_of
from nessampler.targets.callable import LogDensity, check_target
from nessampler.targets.constrained import Constrained
from nessampler.targets.differences import central_differences, energies_per_gradient
from nessampler.targets.numpy_density import NumpyDensity
from nessampler.targets.pymc import PyMCDensity
from nessampler.targets.stan import StanDensity

BASE = Gaussian(torch.zeros(2), torch.ones(2))
LITTLE = ns.DensityEffort(walkers=512, pilot_walkers=300, pilot_steps=8, steps=8, reverse_walkers=0)


@np.errstate(over="ignore")
def log_well(x: np.ndarray) -> np.ndarray:
    """Two coupled, skewed coordinates; np.exp of a tensor would not keep its gradient."""
    return -0.5 * (x**2).sum(-1) - 0.2 * np.exp(np.asarray(x)[..., 0]) - 0.3 * np.asarray(x)[..., 1] ** 4


@np.errstate(over="ignore")
def slope(x: np.ndarray) -> np.ndarray:
    first, second = np.asarray(x)[..., 0], np.asarray(x)[..., 1]
    return np.stack([-first - 0.2 * np.exp(first), -second - 1.2 * second**3], -1)


def exact_log_z() -> float:
    first = quad(lambda x: np.exp(-0.5 * x**2 - 0.2 * np.exp(x)), -12, 12)[0]
    second = quad(lambda x: np.exp(-0.5 * x**2 - 0.3 * x**4), -12, 12)[0]
    return float(np.log(first * second))


# numpy ---------------------------------------------------------------------------------------------------------------


def test_differences_are_the_gradient_and_zero_across_the_edge_of_a_support():
    x = np.random.default_rng(0).normal(size=(50, 2))
    assert np.abs(central_differences(log_well)(x) - slope(x)).max() < 1e-8
    half_line = central_differences(lambda x: np.where(x[:, 0] > 0, -x[:, 0], -np.inf))
    assert half_line(np.array([[1.0], [1e-9]])).tolist() == [[pytest.approx(-1.0)], [0.0]]


@pytest.mark.parametrize("arguments", [{}, {"gradient": slope}])
def test_a_numpy_log_density_is_sampled_with_and_without_a_gradient(arguments):
    found = ns.sample(log_well, dim=2, base=BASE, effort=LITTLE, method="lsq", **arguments)
    assert abs(found.log_z.value - exact_log_z()) < 4 * found.log_z.std_error
    assert found.log_z.std_error < 0.05


def test_energies_that_gradients_are_made_of_are_told_counted_and_paid_from_the_budget():
    asked = [0]

    def counting(x: np.ndarray) -> np.ndarray:
        asked[0] += len(x)
        return log_well(x)

    def run(budget: int) -> tuple[ns.methods.density.result.Sampled, int, int]:
        asked[0], effort = 0, replace(LITTLE, budget=budget)
        target = NumpyDensity(counting, 2, central_differences(counting))
        found = ns.sample(target, base=BASE, effort=effort, method="ais")
        tallies = found.attempt.evaluations["target"].values()
        return found, sum(t["energy"] + t["gradient"] for t in tallies), asked[0]

    (few, billed, spent), (_, more, further) = run(100_000), run(150_000)
    assert further - spent == more - billed > 0  # looks before any work cost the same for both
    assert 0.9 * 150_000 < more < 1.06 * 150_000  # Stein's check of at most a thousand walkers comes on top
    sampling = few.attempt.evaluations["target"]["sampling"]
    assert sampling["energy"] == 4 * sampling["gradient"] > 0
    assert "differences of energies took its place, 4 energies for each gradient" in str(few)
    given = ns.sample(log_well, dim=2, base=BASE, effort=replace(LITTLE, budget=20_000), method="ais", gradient=slope)
    assert "differences" not in str(given)
    assert given.attempt.evaluations["target"]["sampling"]["energy"] == 0
    behind = Constrained(NumpyDensity(counting, 2, central_differences(counting)), constraints.positive)
    assert energies_per_gradient(behind) == 4


def test_a_difference_tells_and_counts_the_energies_that_its_gradients_are_made_of():
    asked = [0]

    def counting(x: np.ndarray) -> np.ndarray:
        asked[0] += len(x)
        return -0.5 * np.einsum("ni,ni->n", x, x)

    g, wide = torch.Generator().manual_seed(0), Gaussian(torch.zeros(2).double(), torch.full((2,), 1.5).double())
    narrow = Gaussian(torch.zeros(2).double(), torch.ones(2).double())
    samples = wide.sample(400, generator=g), narrow.sample(400, generator=g)
    said: list[str] = []
    found = ns.free_energy(wide, counting, *samples, method="switching", say=said.append)
    spent = sum(n for stage in found.evaluations["state_b"].values() for n in stage.values())
    gradients = sum(stage["gradient"] for stage in found.evaluations["state_b"].values())
    assert gradients > 0
    assert abs(asked[0] - spent) < 1500  # looks at the ends before any work
    assert found.remark in said[0]
    assert "differences of energies took its place, 4 energies for each gradient" in str(found)
    assert abs(found.delta_f.delta_f - 2 * math.log(1.5)) < 4 * found.delta_f.std_error
    assert ns.free_energy(wide, narrow, *samples, method="map").remark == ""


@pytest.mark.parametrize("gradient", [None, slope])
def test_a_numpy_log_density_of_one_point_is_that_of_many(gradient):
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, many = (target_of(log_well, event_shape=2, batched=b, gradient=gradient) for b in (False, True))
    for p, q in zip(energy_and_score(one, x), energy_and_score(many, x), strict=True):
        assert torch.allclose(p, q, rtol=0, atol=1e-12)


def test_a_wrong_gradient_costs_effective_samples_and_not_the_answer():
    wrong = ns.sample(log_well, dim=2, effort=LITTLE, base=BASE, method="ais", gradient=lambda x: slope(x) + 1.0)
    right = ns.sample(log_well, dim=2, effort=LITTLE, base=BASE, method="ais", gradient=slope)
    assert abs(wrong.log_z.value - exact_log_z()) < 4 * wrong.log_z.std_error
    assert wrong.ess < right.ess


def test_a_torch_callable_stays_one_of_torch_also_where_it_fails():
    assert isinstance(target_of(lambda x: -x.square().sum(-1), event_shape=2), LogDensity)
    assert isinstance(target_of(lambda x: x @ torch.ones(3), event_shape=2), LogDensity)


def test_a_gradient_without_a_numpy_log_density_is_refused():
    with pytest.raises(ns.InputError, match=r"`gradient` belongs to a log-density in numpy.*Normal.*leave it out"):
        ns.sample(torch.distributions.Normal(torch.zeros(2), 1.0), gradient=slope)


# Stan and PyMC -------------------------------------------------------------------------------------------------------


class Stan:
    """`bridgestan.StanModel` of `real mu; real<lower=0> s;` with `mu ~ normal(0, 2); s ~ exponential(1);`.

    Method names, keyword-only arguments, defaults and the exception are those of BridgeStan 2.9.
    """

    def param_unc_num(self) -> int:
        return 2

    def param_names(self, *, include_tp: bool = False, include_gq: bool = False) -> list[str]:
        return ["mu", "s"]

    def param_constrain(self, theta_unc, *, include_tp=False, include_gq=False, out=None, rng=None) -> np.ndarray:
        return np.array([theta_unc[0], np.exp(theta_unc[1])])

    def log_density(self, theta_unc, *, propto: bool = True, jacobian: bool = True) -> float:
        return self.log_density_gradient(theta_unc, propto=propto, jacobian=jacobian)[0]

    def log_density_gradient(self, theta_unc, *, propto: bool = True, jacobian: bool = True, out=None):
        assert theta_unc.dtype == np.float64
        assert theta_unc.flags["C_CONTIGUOUS"]
        mu, log_s = theta_unc
        if log_s > 30:
            raise RuntimeError("log_density() failed with exception: Exception: s is too large")
        value = -(mu**2) / 8 - np.exp(log_s) + (log_s if jacobian else 0.0)
        value -= 0.0 if propto else np.log(2 * np.sqrt(2 * np.pi))
        return float(value), np.array([-mu / 4, -np.exp(log_s) + (1.0 if jacobian else 0.0)])


class Variable:
    def __init__(self, name: str) -> None:
        self.name = name


class PyMC:
    """`pymc.Model` of `b = Normal("b", 1, 2, shape=2); s = Exponential("s", 1)`, with the names of PyMC 5.28."""

    discrete_value_vars: list[Variable] = []  # noqa: RUF012
    continuous_value_vars = [Variable("b"), Variable("s_log__")]  # noqa: RUF012

    def initial_point(self) -> dict[str, np.ndarray]:
        return {"b": np.ones(2), "s_log__": np.array(0.0)}

    def logp(self) -> str:
        return "logp"

    def dlogp(self) -> str:
        return "dlogp"

    def compile_logp(self):
        return self._logp

    def compile_dlogp(self):
        return self._dlogp

    def compile_fn(self, outs):
        assert outs == ["logp", "dlogp"]
        return lambda point: [self._logp(point), self._dlogp(point)]

    @np.errstate(over="ignore")
    def _logp(self, point):
        assert {k: v.shape for k, v in point.items()} == {"b": (2,), "s_log__": ()}
        normal = -((point["b"] - 1) ** 2).sum() / 8 - 2 * np.log(2 * np.sqrt(2 * np.pi))
        return np.array(normal - np.exp(point["s_log__"]) + point["s_log__"])

    @np.errstate(over="ignore")
    def _dlogp(self, point):
        return np.append(-(point["b"] - 1) / 4, 1 - np.exp(point["s_log__"]))


@pytest.mark.parametrize(("model", "dimension"), [(Stan(), 2), (PyMC(), 3)])
def test_log_z_of_a_normalised_model_is_zero(model, dimension):
    target = density_of(model)
    assert target.event_shape == (dimension,)
    check_target(target, torch.randn(20, dimension, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    base = Gaussian(torch.zeros(dimension), torch.full((dimension,), 2.0))
    found = ns.sample(model, base=base, effort=LITTLE, method="ais")
    assert abs(found.log_z.value) < 4 * found.log_z.std_error
    assert found.log_z.std_error < 0.15


@pytest.mark.parametrize("model", [Stan(), PyMC()])
def test_the_score_of_a_model_is_the_derivative_of_its_energy(model):
    target = density_of(model)
    x = torch.randn(5, *target.event_shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    energy, score = energy_and_score(target, x)
    assert torch.equal(energy, target.energy(x))
    differences = central_differences(lambda p: -target.energy(torch.from_numpy(p)).numpy())
    assert np.abs(score.numpy() - differences(x.numpy())).max() < 1e-8
    position = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target.energy(position).sum(), position)
    assert torch.allclose(gradient, -score)


def test_a_stan_model_that_rejects_has_density_zero_there_and_none_at_all_is_refused():
    target = StanDensity(Stan())
    energy, score = target.energy_and_score(torch.tensor([[0.0, 31.0], [0.0, 0.0]], dtype=torch.float64))
    assert energy[0] == torch.inf
    assert score[0].tolist() == [0.0, 0.0]
    assert energy[1] < torch.inf

    class Broken(Stan):
        def log_density(self, theta_unc, *, propto=True, jacobian=True):
            raise RuntimeError("normal_lpdf: Scale parameter is nan")

    with pytest.raises(ns.InputError, match=r"must have a density somewhere.*Scale parameter is nan"):
        ns.sample(Broken())


@pytest.mark.parametrize("method", ["ais", "lsq"])
def test_walkers_that_leave_a_support_stay_without_weight(method):
    def log_density(x):  # the Stan model, without its upper tail, which a wide base covers all the same
        mu, log_s = x[:, 0], x[:, 1]
        value = -(mu**2) / 8 - log_s.clamp(max=4.0).exp() + log_s - np.log(2 * np.sqrt(2 * np.pi))
        return torch.where(log_s > 4, -torch.inf, value)

    base = Gaussian(torch.zeros(2), torch.full((2,), 2.0))
    found = ns.sample(log_density, dim=2, base=base, effort=LITTLE, method=method)
    assert abs(found.log_z.value) < 4 * found.log_z.std_error < 0.1


def test_parameters_of_models_come_back_by_name():
    y = torch.tensor([[0.5, 0.0]], dtype=torch.float64)
    assert StanDensity(Stan()).names == ("mu", "s")
    assert StanDensity(Stan()).constrain(y).tolist() == [[0.5, 1.0]]
    parts = PyMCDensity(PyMC()).split(torch.arange(6.0).view(2, 3))
    assert {k: v.tolist() for k, v in parts.items()} == {"b": [[0.0, 1.0], [3.0, 4.0]], "s_log__": [2.0, 5.0]}


def test_discrete_variables_of_a_pymc_model_are_named():
    class Counting(PyMC):
        discrete_value_vars = [Variable("k")]  # noqa: RUF012

    with pytest.raises(ns.InputError, match="discrete k; sum them out"):
        ns.sample(Counting())


@pytest.mark.slow
def test_a_real_pymc_model_has_its_evidence():
    pymc = pytest.importorskip("pymc", reason="pip install pymc")
    y = np.array([0.3, 1.9, 1.1])
    with pymc.Model() as model:
        mu = pymc.Normal("mu", 0.0, 2.0)
        pymc.Normal("y", mu, 1.0, observed=y)
    found = ns.sample(model, effort=LITTLE, method="lsq")
    covariance = np.eye(3) + 4.0
    exact = -0.5 * (y @ np.linalg.solve(covariance, y) + np.linalg.slogdet(2 * np.pi * covariance)[1])
    assert abs(found.log_z.value - exact) < 4 * found.log_z.std_error < 0.1


def test_no_library_of_models_or_molecules_is_imported_for_a_callable():
    code = (
        "import sys, torch, nessampler as ns; from nessampler.methods.front_door import density_of; "
        "density_of(lambda x: -x.square().sum(-1), dim=2); "
        "print([m for m in ('openmm', 'mdtraj', 'pymc', 'bridgestan') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# Differences ---------------------------------------------------------------------------------------------------------


def test_callables_and_distributions_are_states_of_a_difference():
    g = np.random.default_rng(0)
    x_a, x_b = g.normal(size=(400, 2)), 1 + g.normal(size=(600, 2)) * [0.5, 2.0]
    scale = np.array([0.5, 2.0])
    b = torch.distributions.Normal(torch.ones(2), torch.tensor([0.5, 2.0]))
    for a in (lambda x: -0.5 * (x**2).sum(-1), lambda x: -0.5 * np.einsum("ni,ni->n", x, x)):
        found = ns.free_energy(a, b, x_a, x_b, method="plain")
        assert abs(found.delta_f.delta_f - np.log(2 * np.pi)) < 4 * found.delta_f.std_error < 0.5
    chains = ns.free_energy(
        lambda x: -0.5 * (x**2).sum(-1), b, x_a.reshape(4, 100, 2), x_b.reshape(4, 150, 2), method="plain"
    )
    assert chains.rung.works.forward.shape[0] == 4
    assert scale.prod() == 1.0


@pytest.mark.parametrize(
    ("b", "message"),
    [
        (lambda x: -x.square().sum(), r"state B at samples of A: .*shape \(8,\).*got shape \(\)"),
        (lambda x: x.log().sum(-1), "state B at samples of A: an energy must be a number: walker 0 has NaN"),
        (
            lambda x: x @ torch.ones(3).double(),
            r"state B at samples of A: a target must take walkers",
        ),
        (lambda x: torch.full((len(x),), torch.inf), "state B at samples of A: an energy must be bounded from below"),
    ],
)
def test_a_state_that_cannot_work_is_named_before_any_work(b, message):
    def a(x):
        return -0.5 * x.square().sum(-1)

    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with pytest.raises(ns.InputError, match=message):
        ns.free_energy(a, b, x, x)
    with pytest.raises(ns.InputError, match=message.replace("B at samples of A", "A at samples of A")):
        ns.free_energy(b, a, x, x)


def test_what_belongs_to_molecules_is_refused_elsewhere(wells):
    x = torch.zeros(100, 3)
    with pytest.raises(ns.InputError, match=r"temperature and topology belong to OpenMM systems.*AnharmonicWell"):
        ns.free_energy(*wells, x, x, temperature=300.0)
    with pytest.raises(ns.InputError, match="a temperature belongs to an OpenMM system"):
        ns.sample(wells[0], temperature=300.0)
    with pytest.raises(ns.InputError, match=r"samples are numbers.*those of A are str"):
        ns.free_energy(*wells, "samples.npy", x)


# OpenMM --------------------------------------------------------------------------------------------------------------

KT = 8.31446261815324e-3 * 300.0
LENGTH, ANGLE = 0.1, 1.9


def water(bond: float, bend: float) -> openmm.System:
    """A bent triatomic; force constants in kT/nm² and kT/rad²."""
    system, bonds, angles = openmm.System(), openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    for mass in (16.0, 1.0, 1.0):
        system.addParticle(mass)
    for hydrogen in (1, 2):
        bonds.addBond(0, hydrogen, LENGTH, bond * KT)
    angles.addAngle(1, 0, 2, ANGLE, bend * KT)
    system.addForce(bonds)
    system.addForce(angles)
    return system


def water_topology() -> app.Topology:
    topology = app.Topology()
    residue = topology.addResidue("HOH", topology.addChain())
    oxygen, *hydrogens = (topology.addAtom(n, app.Element.getBySymbol(n[0]), residue) for n in ("O", "H1", "H2"))
    for hydrogen in hydrogens:
        topology.addBond(oxygen, hydrogen)
    return topology


def simulated(bond: float, bend: float) -> app.Simulation:
    platform = openmm.Platform.getPlatformByName("Reference")
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.001)
    return app.Simulation(water_topology(), water(bond, bend), integrator, platform)


def water_samples(bond: float, bend: float, n: int, seed: int) -> np.ndarray:
    """Exact and independent, in nm: lengths and angle by inversion on a grid, orientation fixed."""
    rng = np.random.default_rng(seed)

    def drawn(grid: np.ndarray, log_density: np.ndarray, size: int) -> np.ndarray:
        total = np.cumsum(np.exp(log_density - log_density.max()))
        return np.interp(rng.random(size) * total[-1], total, grid)

    r = np.linspace(0.02, 0.25, 20001)
    lengths = drawn(r, 2 * np.log(r) - bond / 2 * (r - LENGTH) ** 2, 2 * n).reshape(2, n)
    theta = np.linspace(0.3, 3.13, 20001)
    angle = drawn(theta, np.log(np.sin(theta)) - bend / 2 * (theta - ANGLE) ** 2, n)
    x = np.zeros((n, 3, 3))
    x[:, 1, 0] = lengths[0]
    x[:, 2, 0], x[:, 2, 1] = lengths[1] * np.cos(angle), lengths[1] * np.sin(angle)
    return x


def water_free_energy(bond: float, bend: float) -> float:
    r = quad(lambda r: r**2 * np.exp(-bond / 2 * (r - LENGTH) ** 2), 0.0, 0.3, points=[LENGTH])[0]
    theta = quad(lambda t: np.sin(t) * np.exp(-bend / 2 * (t - ANGLE) ** 2), 0.0, np.pi, points=[ANGLE])[0]
    return -2 * np.log(r) - np.log(theta)


A, B = (4e4, 40.0), (2e4, 70.0)


@pytest.fixture(scope="module")
def waters() -> tuple[np.ndarray, np.ndarray]:
    return water_samples(*A, 600, 0), water_samples(*B, 600, 1)


def checked(found: ns.Difference) -> None:
    exact = water_free_energy(*B) - water_free_energy(*A)
    assert abs(found.delta_f.delta_f - exact) < 4 * found.delta_f.std_error < 0.2


def test_systems_with_a_temperature_and_a_topology_make_a_difference(waters):
    x = [torch.from_numpy(x) for x in waters]
    found = ns.free_energy(water(*A), water(*B), *x, temperature=300.0, topology=water_topology(), method="map")
    checked(found)
    given = {"temperature": 300 * unit.kelvin, "topology": water_topology()}
    plain = ns.free_energy(water(*A), water(*B), *waters, **given, method="plain")
    checked(plain)
    assert found.delta_f.std_error < plain.delta_f.std_error


def test_simulations_know_temperature_and_topology_and_trajectories_are_chains(waters):
    topology, states = water_topology(), [simulated(*k) for k in (A, B)]
    atoms = mdtraj.Topology.from_openmm(topology)
    one = [mdtraj.Trajectory(x.astype(np.float32), atoms) for x in waters]
    found = ns.free_energy(*states, *one, method="map")
    checked(found)
    assert found.rung.works.forward.shape[0] == 1
    two = [[t[:300], t[300:]] for t in one]
    several = ns.free_energy(water(*A), water(*B), *two, temperature=300.0, method="map")
    checked(several)
    assert several.rung.works.forward.shape[0] == 2


@pytest.mark.parametrize(
    ("states", "samples", "arguments", "message"),
    [
        ("systems", "given", {"topology": water_topology()}, "without a temperature; pass temperature=300.0"),
        ("systems", "given", {"temperature": "warm"}, "temperature must be a number in kelvin.*'warm'"),
        ("systems", "given", {"temperature": 300.0}, "free to drift .* need its bonds.*topology=pdb.topology"),
        ("systems", "uneven", {"temperature": 300.0}, r"chains of one state have one length: got .*\[100, 500\]"),
        (
            "systems",
            "flat",
            {"temperature": 300.0, "topology": water_topology()},
            r"of A must be .*\(600, 9\)",
        ),
        ("simulations", "given", {"temperature": 310.0}, "a state has one temperature: got temperature=310 .*300 K"),
    ],
)
def test_what_a_molecule_lacks_is_named(waters, states, samples, arguments, message):
    a, b = water(*A), water(*B)
    if states == "simulations":
        a = simulated(*A)
    x = [*waters]
    if samples == "uneven":
        trajectory = mdtraj.Trajectory(waters[0].astype(np.float32), mdtraj.Topology.from_openmm(water_topology()))
        x[0] = [trajectory[:100], trajectory[100:]]
    if samples == "flat":
        x[0] = waters[0].reshape(600, 9)
    with pytest.raises(ns.InputError, match=message):
        ns.free_energy(a, b, *x, **arguments)


def test_a_drifting_molecule_is_not_sampled_and_a_tethered_one_is():
    with pytest.raises(ns.InputError, match="free to drift"):
        ns.sample(water(*A), temperature=300.0)
    tether, system = openmm.CustomExternalForce("k * (x^2 + 2 * y^2 + z^2) / 2"), openmm.System()
    tether.addGlobalParameter("k", KT)
    system.addParticle(1.0)
    tether.addParticle(0, [])
    system.addForce(tether)
    found = ns.sample(system, temperature=300.0, effort=LITTLE, method="ais")
    exact = 1.5 * np.log(2 * np.pi) - 0.5 * np.log(2)
    assert abs(found.log_z.value - exact) < 4 * found.log_z.std_error < 0.2


def test_a_thermodynamic_state_brings_its_own_temperature(waters):
    states = pytest.importorskip("openmmtools.states")
    a, b = (states.ThermodynamicState(water(*k), temperature=300 * unit.kelvin) for k in (A, B))
    checked(ns.free_energy(a, b, *waters, topology=water_topology(), method="plain"))


def test_targets_are_taken_as_before(wells):
    assert isinstance(wells[0], AnharmonicWell)
    assert density_of(wells[0]) is wells[0]
