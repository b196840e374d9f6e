"""Fields along the gradients of both ends of a path: exact divergences, and what they are worth."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nessampler.closed_form.dictionary import Dictionary
from nessampler.closed_form.gradient_dictionary import GradientDictionary
from nessampler.closed_form.joined_dictionary import JoinedDictionary
from nessampler.closed_form.ridge_dictionary import RidgeDictionary
from nessampler.errors import InputError
from nessampler.methods.density.again import rebuilt
from nessampler.methods.density.counted import CountedPath
from nessampler.methods.density.dictionaries import coordinate_sines, end_gradients
from nessampler.methods.density.effort import DensityEffort
from nessampler.methods.density.lsq import least_squares
from nessampler.methods.density.problem import DensityProblem
from nessampler.methods.density.sample import sample_density
from nessampler.methods.density.tuning import Hamiltonian
from nessampler.paths import LinearPath, PathPoint
from nessampler.runs.config import load, resolve
from nessampler.runs.density_problem import check_density
from nessampler.targets import AnharmonicWell, Gaussian, Target
from nessampler.targets.cox import LogGaussianCox
from nessampler.targets.laplacian import score_and_laplacian, trace_passes
from nessampler.targets.logistic import LogisticRegression
from nessampler.targets.mixture import random_mixture

MIXTURE = random_mixture(4, 3, scale=0.7, spread=2.0, seed=3)
WELL = AnharmonicWell(
    [1.0, 0.0, 0.5], stiffness=[1.0, 2.0, 1.5], quartic=[0.5, 0.1, 0.2], skew=[0.5, 0.0, 0.1], coupling=0.3
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def slope(target: Target):
    return lambda x: score_and_laplacian(target, x)


def gradients(modulations: int) -> GradientDictionary:
    waves = normal(modulations, 3, seed=4), normal(modulations, seed=5)
    return GradientDictionary((slope(MIXTURE), slope(WELL)), normal(3), normal(3, seed=1).exp(), *waves)


def joined() -> JoinedDictionary:
    waves = RidgeDictionary(normal(3), normal(3, seed=1).exp(), normal(2, 3, seed=2), normal(2, seed=3), "full")
    return JoinedDictionary((waves, gradients(2)))


@pytest.mark.parametrize("fields", [gradients(0), gradients(3), joined()], ids=["bare", "modulated", "joined"])
def test_divergences_are_those_of_autograd_and_stein_features_follow(fields: Dictionary) -> None:
    x, theta = normal(5, 3, seed=7), normal(fields.size, seed=8)
    velocity, divergence = fields.velocity(0.4, x, theta)

    def flow(one: Tensor) -> Tensor:
        return fields.velocity(0.4, one[None], theta)[0][0]

    # By differences: a Laplacian from autograd has no graph of its own.
    h, unit = 1e-5, torch.eye(3, dtype=torch.float64)
    exact = torch.stack(
        [sum((flow(one + h * e) - flow(one - h * e)) @ e for e in unit) / (2 * h) for one in x]  # pyright: ignore
    )
    torch.testing.assert_close(divergence, exact, rtol=1e-6, atol=1e-6)
    assert float((divergence - 1.01 * exact).abs().max()) > 1e-3  # a control
    score = normal(5, 3, seed=9)
    point = PathPoint(normal(5), score, normal(5))
    stein = fields.stein(0.4, x, point)
    assert stein.dtype == torch.float64
    torch.testing.assert_close(stein @ theta, divergence + (velocity * score).sum(1), rtol=1e-10, atol=1e-10)


def posterior() -> LogisticRegression:
    return LogisticRegression(normal(20, 4, seed=1), (normal(20, seed=2) > 0).double(), prior_scale=1.5)


COX = LogGaussianCox(torch.tensor([[2, 0, 1], [1, 3, 0], [0, 0, 5]]))
NORMAL = Gaussian(torch.tensor([1.0, -1.0]), torch.tensor([0.5, 2.0]))


@pytest.mark.parametrize("target", [COX, COX.prior, posterior(), NORMAL, MIXTURE, WELL], ids=lambda t: type(t).__name__)
def test_laplacians_are_traces_of_the_hessian(target: Target) -> None:
    x = 0.3 * normal(4, target.event_shape.numel(), seed=6)
    score, laplacian = score_and_laplacian(target, x)
    hessian = [torch.autograd.functional.hessian(lambda z: target.energy(z[None])[0], row) for row in x]
    exact = torch.stack([torch.trace(h) for h in hessian])  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(laplacian, exact, rtol=1e-9, atol=1e-9)
    assert score.shape == x.shape
    assert trace_passes(target) == (1 if hasattr(target, "laplacian") else 1 + x.shape[1])


class Half:
    """Half of a normal, without a Laplacian of its own."""

    event_shape = torch.Size([2])

    def energy(self, x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 0, x.square().sum(1), torch.inf)


class Once:
    """A quartic whose gradient is handed to autograd as a number."""

    event_shape = torch.Size([2])

    def energy(self, x: Tensor) -> Tensor:
        value = x.detach().pow(4).sum(1)
        return value + ((x - x.detach()) * 4 * x.detach().pow(3)).sum(1)


def test_outside_the_support_a_gradient_is_zero() -> None:
    score, laplacian = score_and_laplacian(Half(), torch.tensor([[1.0, 2.0], [-1.0, 2.0]], dtype=torch.float64))
    assert score.tolist() == [[-2.0, -4.0], [0.0, 0.0]]
    assert laplacian.tolist() == [4.0, 0.0]


def test_what_has_no_exact_laplacian_is_refused() -> None:
    with pytest.raises(InputError, match="differentiates twice"):
        score_and_laplacian(Once(), normal(3, 2))

    class Wide:
        event_shape = torch.Size([65])

        def energy(self, x: Tensor) -> Tensor:
            return x.pow(4).sum(1)

    with pytest.raises(InputError, match="backward pass for each of 65 coordinates"):
        score_and_laplacian(Wide(), normal(2, 65))
    with pytest.raises(InputError, match="modulations"):
        GradientDictionary((), normal(2), normal(2).exp(), normal(0, 2), normal(0))
    with pytest.raises(InputError, match="has parts: got none"):
        JoinedDictionary(())


def modes() -> DensityProblem:
    path = LinearPath(Gaussian(torch.zeros(3).double(), torch.full((3,), 2.5).double()), MIXTURE)
    return DensityProblem(path, coordinate_sines((1.0,)))


def test_fields_along_both_ends_explain_more_of_a_path_between_modes() -> None:
    path, quality = CountedPath(modes().path), []
    few = coordinate_sines((1.0,))
    for factory in (few, end_gradients(path, few)):
        options = {"mover": Hamiltonian(3), "pilots": 800, "pilot_steps": 8, "steps": 8, "generator": seeded(0)}
        quality.append(sum(least_squares(path, factory, **options).drift.r_squared) / 9)
    assert quality[1] > quality[0] + 0.05
    assert quality[1] > 0.7


EFFORT = DensityEffort(walkers=2000, pilot_walkers=800, pilot_steps=8, steps=8, reverse_walkers=0, end_gradients=True)


def test_log_z_is_right_with_them_their_gradients_count_and_the_transport_opens_again() -> None:
    problem, target = modes(), MIXTURE
    found, plain = (
        sample_density(problem, method="lsq", effort=replace(EFFORT, end_gradients=ends)) for ends in (True, False)
    )
    assert found.log_z.value is not None
    assert found.log_z.std_error is not None
    assert found.log_z.std_error < 0.03
    assert abs(found.log_z.value - target.log_z) < 4 * found.log_z.std_error
    assert abs(found.log_z.value + math.log(1.2) - target.log_z) > 4 * found.log_z.std_error
    spent, before = (s.attempt.evaluations["target"]["sampling"]["gradient"] for s in (found, plain))
    assert spent >= before + 2000 * 8 * 2  # two stages of a flow at least, at every step
    first = found.attempt.annealing
    assert first is not None
    state = {key: value.clone() for key, value in first.state.items()}
    again = rebuilt(modes(), "lsq", state, torch.device("cpu"))
    one, other = (a.draw(50, generator=seeded(3)) for a in (first, again))
    torch.testing.assert_close(one.log_weight, other.log_weight, rtol=1e-9, atol=1e-9)


def test_a_budget_holds_with_them() -> None:
    budget = 300_000
    found = sample_density(modes(), method="lsq", effort=replace(EFFORT, budget=budget))
    spent = sum(t["gradient"] + t["energy"] for s, t in found.attempt.evaluations["target"].items() if s != "checks")
    assert 0.9 * budget < spent < 1.02 * budget


def test_a_file_asks_for_them_where_they_can_be() -> None:
    table = load(Path(__file__).parent.parent / "systems" / "many-well-32" / "system.toml")
    config = resolve(table, settings=["sampling.end_gradients=true"])
    assert config.sampling.end_gradients  # pyright: ignore[reportAttributeAccessIssue]
    check_density(config, Path())  # pyright: ignore[reportArgumentType]
