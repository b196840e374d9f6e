"""A base by variational inference: where theory says it goes, and what it costs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nessampler.errors import InputError
from nessampler.methods.density.bases import laplace
from nessampler.methods.density.variational import _Parameters, variational_base
from nessampler.targets import Counted, Gaussian
from nessampler.targets.normal import Normal


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


ROOT = normal(4, 4, seed=1)
CORRELATED = Normal(normal(4, seed=2), ROOT @ ROOT.T / 4 + 0.2 * torch.eye(4))


def test_a_full_normal_finds_a_normal() -> None:
    base = variational_base(CORRELATED, inflation=1.0, steps=1500, generator=seeded(0)).target
    assert isinstance(base, Normal)
    torch.testing.assert_close(base.mean, CORRELATED.mean, rtol=0, atol=2e-3)
    torch.testing.assert_close(base.covariance, CORRELATED.covariance, rtol=0, atol=0.02)


def test_a_diagonal_normal_has_the_conditional_variances() -> None:
    """The best factorised normal keeps the diagonal of the precision: narrower than the marginals."""
    base = variational_base(CORRELATED, rank=0, inflation=1.0, steps=1500, generator=seeded(0)).target
    assert isinstance(base, Normal)
    precise = 1 / torch.linalg.inv(CORRELATED.covariance).diagonal()
    torch.testing.assert_close(base.covariance.diagonal(), precise, rtol=0.05, atol=0)
    assert float((base.covariance.diagonal() / CORRELATED.covariance.diagonal()).min()) < 0.8


def test_a_factor_finds_the_direction_in_which_a_target_is_long() -> None:
    d, along = 30, normal(30, seed=3)
    along = along / along.norm()
    target = Normal(torch.ones(d).double(), 0.25 * torch.eye(d) + 4 * along.outer(along))
    base = variational_base(target, rank=1, inflation=1.0, steps=2000, generator=seeded(0)).target
    assert isinstance(base, Normal)
    values, vectors = torch.linalg.eigh(base.covariance)
    assert float((vectors[:, -1] @ along).abs()) > 0.99
    assert float(values[-1]) == pytest.approx(4.25, rel=0.1)
    flat = variational_base(target, rank=0, inflation=1.0, steps=2000, generator=seeded(0)).target
    assert float(flat.covariance.diagonal().max()) < 1.0  # pyright: ignore[reportAttributeAccessIssue]


class Gamma:
    """log of a gamma variable of shape a: skewed, with its mode off its mean."""

    event_shape = torch.Size([1])

    def __init__(self, shape: float) -> None:
        self.shape, self.log_z = shape, math.lgamma(shape)

    def energy(self, x: Tensor) -> Tensor:
        return (x.exp() - self.shape * x)[:, 0]


def test_it_lies_where_the_mass_is_and_not_at_the_mode() -> None:
    """For U = e^x - a x the bound is stationary where e^(μ + σ²/2) = a and σ² e^(μ + σ²/2) = 1."""
    a = 1.5
    found = variational_base(Gamma(a), inflation=1.0, steps=3000, draws=64, generator=seeded(0)).target
    assert isinstance(found, Normal)
    variance = 1 / a
    assert float(found.covariance) == pytest.approx(variance, abs=0.02)
    assert float(found.mean) == pytest.approx(math.log(a) - variance / 2, abs=0.02)
    at_mode = laplace(Gamma(a)).target
    assert float(at_mode.mean) == pytest.approx(math.log(a), abs=1e-6)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("rank", [None, 0, 2])
def test_scores_and_log_densities_of_the_parameters_are_those_of_their_normal(rank: int | None) -> None:
    found = _Parameters.start(4, rank, 1.7, seeded(0))
    with torch.no_grad():
        for k, tensor in enumerate(found.tensors):
            tensor += 0.3 * normal(*tensor.shape, seed=10 + k)
    x = normal(5, 4, seed=20)
    exact = Normal(*found.moments())
    torch.testing.assert_close(found.log_density(x), -exact.energy(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.score(x), exact.energy_and_score(x)[1], rtol=1e-9, atol=1e-9)
    drawn = found.draw(40000, seeded(1)).detach()
    covariance = exact.covariance
    error = ((covariance.diagonal().outer(covariance.diagonal()) + covariance.square()) / len(drawn)).sqrt()
    assert float(error.max() / covariance.diagonal().max()) < 0.02
    assert float(((drawn.T.cov() - covariance) / error).abs().max()) < 4
    assert float(((drawn.T.cov() - 1.1 * covariance) / error).abs().max()) > 4


def test_its_gradients_are_counted_and_the_bound_is_below_log_z() -> None:
    counted, said = Counted(CORRELATED), []
    with counted.stage("base"):
        variational_base(counted, steps=50, draws=8, generator=seeded(0), say=said.append)
    assert counted.tally("base").gradient == 400
    assert counted.tally("base").energy == 0
    variational_base(Gamma(1.5), steps=1000, generator=seeded(0), say=said.append)
    bound = float(said[-1].split("above ")[1].split()[0])
    assert Gamma(1.5).log_z - 0.2 < bound < Gamma(1.5).log_z


class Edge:
    event_shape = torch.Size([2])

    def energy(self, x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 0, x.square().sum(1), torch.inf)


class Flat:
    event_shape = torch.Size([2])

    def energy(self, x: Tensor) -> Tensor:
        return 0.0 * x.sum(1)


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        (Edge(), {}, "which has no edge"),
        (Gaussian(torch.zeros(2), torch.ones(2)), {"rank": 2}, "between 0, diagonal, and 1: got 2"),
        (Gaussian(torch.zeros(2), torch.ones(2)), {"start_scale": 0.0}, "positive scale: got 0"),
        (Flat(), {"steps": 4000, "learning_rate": 0.05}, "is the density normalisable"),
    ],
)
def test_what_a_normal_cannot_be_fitted_to_is_refused(target, options, said) -> None:
    with pytest.raises(InputError, match=said):
        variational_base(target, generator=seeded(0), **options)


def test_fields_are_refused() -> None:
    class Field(Flat):
        event_shape = torch.Size([2, 2])

    with pytest.raises(InputError, match="for vectors"):
        variational_base(Field(), generator=seeded(0))
