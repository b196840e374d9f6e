"""Samplers of other packages on a density that is known: same target and base, log Z, draws, counted evaluations.

They have a virtual environment of their own: `make test-peers`.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from nessampler.bench.density_cell import density_row
from nessampler.bench.peers import PEERS
from nessampler.bench.peers.whitened import Whitened
from nessampler.bench.row import Row
from nessampler.errors import InputError
from nessampler.runs import catalogue
from nessampler.runs.config import DensityConfig, load, resolve
from nessampler.runs.density_problem import prepare_density
from nessampler.targets import Counted, Gaussian
from nessampler.targets.mixture import GaussianMixture
from nessampler.targets.normal import Normal
from nessampler.targets.phi4 import FreeField
from nessampler.targets.triangular_normal import TriangularNormal

BUDGET = 60_000
MIXTURE = """
name = "three-modes"
title = "Three Gaussians in the plane"
kind = "density"
target = { name = "mixture", means = [[-2.0, 0.0], [2.0, 0.0], [0.0, 3.0]], scales = [0.7, 1.0, 0.6], weights = [0.5, 0.3, 0.2] }
base = { kind = "gaussian", scale = 3.0 }
reference = { value = 0.0, std_error = 0.0, source = "normalised by construction" }
"""  # noqa: E501
GIVES_LOG_Z = ("blackjax", "pocomc", "dynesty")


def mixture(seed: int = 0) -> DensityConfig:
    found = resolve(tomllib.loads(MIXTURE), run={"seed": seed})
    assert isinstance(found, DensityConfig)
    return found


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    return {name: density_row(mixture(), Path(), name, BUDGET, Path()) for name in PEERS}


# ---- without the packages ------------------------------------------------------------------------------------------


BASES = {
    "gaussian": Gaussian(torch.tensor([1.0, -2.0]), torch.tensor([2.0, 0.5])),
    "normal": Normal(torch.tensor([0.5, 0.5]), torch.tensor([[2.0, 0.7], [0.7, 1.5]])),
    "triangular": TriangularNormal(
        torch.tensor([0.3, 0.1]),
        torch.tensor([[0.0, 0.4], [0.0, 0.0]]),
        torch.tensor([0.2, 0.5]),
        torch.tensor([[0.0, 0.1], [0.0, 0.0]]),
        torch.tensor([1, 0]),
    ),
}


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_the_evidence_of_the_whitened_problem_is_z(base):
    """Over a grid of z, whatever the normal: the prior times the likelihood integrates to that of the target."""
    target = GaussianMixture(torch.tensor([[0.0, 0.0], [1.0, -1.0]]).double(), torch.tensor([0.5, 0.8]).double())
    problem = Whitened(base, Counted(target))
    line = np.linspace(-9, 9, 401)
    z = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    prior = np.exp(-0.5 * (z**2).sum(1)) / (2 * np.pi)
    total = float((np.exp(problem.log_likelihood(z)) * prior).sum() * (line[1] - line[0]) ** 2)
    assert total == pytest.approx(1.0, abs=1e-4)


def test_gradients_of_the_whitened_likelihood_are_its_differences_and_all_is_counted():
    counted = Counted(prepare_density(mixture(), Path()).problem.path.end)
    problem = Whitened(Gaussian(torch.zeros(2).double(), torch.full((2,), 3.0).double()), counted)
    z = np.random.default_rng(0).normal(size=(5, 2))
    value, gradient = problem.log_likelihood_and_gradient(z)
    h = 1e-5
    for k, e in enumerate(np.eye(2)):
        slope = (problem.log_likelihood(z + h * e) - problem.log_likelihood(z - h * e)) / (2 * h)
        np.testing.assert_allclose(gradient[:, k], slope, atol=1e-6)
    np.testing.assert_allclose(value, problem.log_likelihood(z))
    assert (counted.tally().gradient, counted.tally().energy) == (5, 25)
    np.testing.assert_allclose(problem.at(z).numpy(), 3 * z)


@pytest.mark.parametrize("base", [*BASES.values(), FreeField.massive(4, mass_squared=1.0)], ids=[*BASES, "free field"])
def test_the_base_itself_has_a_likelihood_of_one_over_its_normaliser(base):
    """L = ρ/q with ρ = q unnormalised: log Z everywhere, and no slope."""
    z = np.random.default_rng(0).normal(size=(6, base.event_shape.numel()))
    value, gradient = Whitened(base, Counted(base)).log_likelihood_and_gradient(z)
    np.testing.assert_allclose(value, base.log_z, atol=1e-9)
    np.testing.assert_allclose(gradient, 0, atol=1e-9)
    x = Whitened(base, Counted(base)).at(np.random.default_rng(1).normal(size=(20_000, base.event_shape.numel())))
    drawn = base.sample(20_000, generator=torch.Generator().manual_seed(0)).to(x)
    assert float((x.flatten(1).var(0) / drawn.flatten(1).var(0)).log().abs().max()) < 0.2


def test_a_lattice_has_the_gradient_of_its_likelihood():
    path = catalogue.find("phi4-8")
    config = resolve(load(path), source=str(path))
    assert isinstance(config, DensityConfig)
    made = prepare_density(config, path.parent).problem.path
    problem = Whitened(made.start, Counted(made.end))
    z = np.random.default_rng(0).normal(size=(3, problem.dimension))
    value, gradient = problem.log_likelihood_and_gradient(z)
    np.testing.assert_allclose(value, problem.log_likelihood(z))
    for k in range(3):
        e = np.eye(problem.dimension)[k] * 1e-5
        slope = (problem.log_likelihood(z + e) - problem.log_likelihood(z - e)) / 2e-5
        np.testing.assert_allclose(gradient[:, k], slope, atol=1e-5)


def test_fields_about_two_magnetisations_are_refused():
    field = FreeField.massive(4, mass_squared=1.0, magnetisation=0.6)
    with pytest.raises(InputError, match="is no image of normal noise: got ±"):
        Whitened(field, Counted(field))


def test_a_base_that_is_no_normal_is_refused():
    with pytest.raises(InputError, match="the base is a GaussianMixture here"):
        Whitened(GaussianMixture(torch.zeros(2, 2), torch.ones(2)), Counted(Gaussian(torch.zeros(2), torch.ones(2))))


# ---- with them -----------------------------------------------------------------------------------------------------


@pytest.mark.peers
@pytest.mark.parametrize("name", GIVES_LOG_Z)
def test_log_z_of_a_peer_is_the_exact_one_within_its_error(rows, name):
    row = rows[name]
    assert row.value is not None
    assert row.std_error is not None
    assert 0 < row.std_error < 0.15
    assert abs(row.value) < 4 * row.std_error, row
    base = 2 * np.log(3 * np.sqrt(2 * np.pi))  # log Z of the base, unnormalised: what a forgotten normaliser gives
    assert abs(row.value - base) > 8 * row.std_error


@pytest.mark.peers
@pytest.mark.parametrize("name", PEERS)
def test_draws_of_a_peer_have_the_shares_of_the_modes_and_the_right_energies(rows, name):
    metrics = rows[name].metrics
    assert metrics["modes_missing"] == 0
    assert metrics["modes_tv"] < 0.12
    assert metrics["energy_w1_kT"] < 0.2
    assert metrics["w2"] < 1.0


@pytest.mark.peers
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_spends_about_its_budget_and_every_evaluation_counts(rows, name):
    at_least, at_most = {"pocomc": (0.8, 1.0), "dynesty": (0.8, 1.05)}.get(name, (0.1, 1.25))
    assert at_least * BUDGET < rows[name].evaluations <= at_most * BUDGET


@pytest.mark.peers
@pytest.mark.parametrize("name", ["dynesty", "pocomc"])
def test_a_twentieth_of_the_budget_gives_an_answer_of_a_larger_error(rows, name):
    small = density_row(mixture(), Path(), name, BUDGET // 20, Path())
    assert small.value is not None
    assert small.verdict == "trusted"
    assert (rows[name].std_error or 0) < (small.std_error or 0) < 0.5
    assert abs(small.value) < 4 * (small.std_error or 0)
    assert 0.5 * BUDGET / 20 < small.evaluations < 1.1 * BUDGET / 20


@pytest.mark.peers
def test_a_budget_that_ends_before_pocomc_reaches_the_target_gives_no_answer():
    row = density_row(mixture(), Path(), "pocomc", 400, Path())
    assert (row.value, row.std_error, row.draws_only) == (None, None, False)
    assert row.note == "the budget ended before 64 active particles reached the target"
    assert row.evaluations <= 400


@pytest.mark.peers
def test_nuts_gives_draws_and_an_r_hat_and_no_log_z(rows):
    row = rows["nuts"]
    assert row.draws_only
    assert (row.value, row.std_error, row.error) == (None, None, None)
    assert row.metrics["rhat"] < 1.1
    assert 100 < row.metrics["effective_draws"] < row.evaluations


@pytest.mark.peers
@pytest.mark.parametrize("name", PEERS)
def test_rows_of_peers_come_back_from_their_files(rows, name):
    assert Row.of(json.loads(json.dumps(rows[name].to_dict()))) == rows[name]
