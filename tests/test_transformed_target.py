"""A density seen through any bijection keeps its samples, its normaliser and its score."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import (
    AbsTransform,
    AffineTransform,
    ComposeTransform,
    ExpTransform,
    IndependentTransform,
    SigmoidTransform,
    StickBreakingTransform,
    Transform,
)

from nessampler.errors import InputError
from nessampler.targets import AnharmonicWell, Counted, Gaussian, Tally, TransformedTarget, energy_and_score, in_chart

CHAINS: dict[str, Transform] = {
    "affine, no event": AffineTransform(0.3, -2.0),
    "affine": AffineTransform(0.3, torch.tensor([2.0, 0.5, -3.0], dtype=torch.float64), event_dim=1),
    "exp": ExpTransform(),
    "exp of the event": IndependentTransform(ExpTransform(), 1),
    "sigmoid then affine": ComposeTransform([SigmoidTransform(), AffineTransform(1.0, -2.0)]),
    "affine then exp then affine": ComposeTransform(
        [AffineTransform(0.1, 0.5), ExpTransform(), AffineTransform(-1.0, 2.0)]
    ),
    "the way back": AffineTransform(0.3, -2.0).inv,
}


@pytest.fixture(params=CHAINS)
def transform(request) -> Transform:
    return CHAINS[request.param]


def _draws(well: AnharmonicWell, n: int = 200, seed: int = 0) -> Tensor:
    return well.sample(n, generator=torch.Generator().manual_seed(seed))


def _log_det(transform: Transform, x: Tensor) -> Tensor:
    """log|det ∂y/∂x| of each point by autograd."""
    jacobians = (torch.autograd.functional.jacobian(lambda p: transform(p[None])[0], one) for one in x)
    return torch.stack([torch.linalg.slogdet(j).logabsdet for j in jacobians])


def test_the_energy_is_that_of_x_plus_the_log_jacobian(wells, transform):
    x = _draws(wells[0], 20)
    energy = TransformedTarget(wells[0], transform).energy(transform(x))
    torch.testing.assert_close(energy, wells[0].energy(x) + _log_det(transform, x), rtol=0, atol=1e-9)


def test_the_score_is_minus_the_gradient_and_the_energy_twice_differentiable(wells, transform):
    image, y = TransformedTarget(wells[0], transform), transform(_draws(wells[0], 20))
    energy, score = image.energy_and_score(y)
    point = y.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(image.energy(point).sum(), point)
    torch.testing.assert_close(energy, image.energy(y))
    torch.testing.assert_close(score, -gradient)
    assert torch.autograd.gradgradcheck(lambda p: image.energy(p), (y[:2].clone().requires_grad_(),))


@pytest.mark.parametrize("name", ["exp", "sigmoid then affine", "affine then exp then affine", "the way back"])
def test_the_normaliser_stays(wells_1d, name):
    well = wells_1d[0]
    image = TransformedTarget(well, CHAINS[name])
    assert image.log_z == well.log_z
    low, high = sorted(CHAINS[name](torch.tensor([[-9.0], [9.0]], dtype=torch.float64)).flatten().tolist())
    peak = float(CHAINS[name](_draws(well, 2000).mean(0, keepdim=True)))

    def density(y: float) -> float:
        return math.exp(-float(image.energy(torch.tensor([[y]], dtype=torch.float64))))

    total = integrate.quad(density, low, high, points=[peak], epsabs=1e-12, limit=200)[0]
    assert total / math.exp(well.log_z) == pytest.approx(1, abs=1e-6)


def _worst(image: TransformedTarget, density, n: int) -> float:
    """Kolmogorov–Smirnov p-value of samples of the image against a density."""
    y = image.sample(n, generator=torch.Generator().manual_seed(4)).flatten().numpy()
    grid = torch.linspace(float(y.min()) - 1e-3, float(y.max()) + 1e-3, 4001, dtype=torch.float64)
    weight = torch.exp(-density(grid[:, None])).numpy()
    cumulative = integrate.cumulative_trapezoid(weight, grid.numpy(), initial=0)
    return stats.kstest(y, lambda v: np.interp(v, grid.numpy(), cumulative / cumulative[-1])).pvalue


@pytest.mark.parametrize("name", ["exp", "sigmoid then affine"])
def test_samples_follow_the_transformed_density_and_not_one_without_the_jacobian(wells_1d, name):
    image = TransformedTarget(wells_1d[0], CHAINS[name])
    assert _worst(image, image.energy, 4000) > 1e-4
    assert _worst(image, lambda y: wells_1d[0].energy(CHAINS[name].inv(y)), 4000) < 1e-8


def test_a_target_without_samples_has_none(wells):
    class Bare:
        event_shape = torch.Size([3])

        def energy(self, x: Tensor) -> Tensor:
            return x.square().sum(-1)

    image = TransformedTarget(Bare(), ExpTransform())
    assert not hasattr(image, "sample")
    assert not hasattr(image, "log_z")
    assert hasattr(TransformedTarget(wells[0], ExpTransform()), "sample")


@pytest.mark.parametrize("name", ["exp", "exp of the event", "sigmoid then affine", "affine then exp then affine"])
@pytest.mark.parametrize("beyond", [[1], [0, 1, 2]])
def test_beyond_the_codomain_the_density_is_zero_with_finite_gradients(wells, name, beyond):
    image, y = TransformedTarget(wells[0], CHAINS[name]), CHAINS[name](_draws(wells[0], 3))
    y[beyond, 1] = -7.0  # outside (0, inf), (-1, 1) and (-1, inf)
    assert (~in_chart(CHAINS[name], y)).nonzero().flatten().tolist() == beyond
    energy, score = image.energy_and_score(y)
    point = y.clone().requires_grad_()
    own = image.energy(point)
    (gradient,) = torch.autograd.grad(own.sum(), point)
    assert (energy == math.inf).nonzero().flatten().tolist() == beyond
    assert torch.equal(own.detach(), energy)
    torch.testing.assert_close(gradient, -score)
    assert torch.equal(score[beyond], torch.zeros(len(beyond), 3, dtype=torch.float64))
    assert torch.isfinite(score).all()


def test_outside_walkers_do_not_touch_the_others(wells):
    image, y = TransformedTarget(wells[0], ExpTransform()), _draws(wells[0], 5).exp()
    alone = image.energy_and_score(y[1:])
    y[0] = -1.0
    for some, other in zip(image.energy_and_score(y), alone, strict=True):
        assert torch.equal(some[1:], other)


def test_nan_is_not_taken_for_zero_density(wells):
    y = torch.ones(2, 3, dtype=torch.float64)
    y[0, 0] = math.nan
    for name in ("affine, no event", "exp", "affine then exp then affine"):
        assert TransformedTarget(wells[0], CHAINS[name]).energy(y).isnan().tolist() == [True, False]


class _Upper(Transform):
    """y = x, for x > 0 only: a chart that its codomain does not tell."""

    bijective = True
    domain = codomain = constraints.real_vector

    def _call(self, x: Tensor) -> Tensor:
        return x

    def _inverse(self, y: Tensor) -> Tensor:
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(y[..., 0])

    def in_chart(self, y: Tensor) -> Tensor:
        return (y > 0).all(-1)


def test_the_chart_of_a_transform_in_a_chain_is_heard():
    # y = -(x + 1) / 2 for x > 0, so y < -1/2
    chain = ComposeTransform(
        [_Upper(), AffineTransform(0.5, 0.5, event_dim=1), AffineTransform(0.0, -1.0, event_dim=1)]
    )
    y = torch.tensor([[-0.6], [-0.4], [0.4]])
    assert in_chart(chain, y).tolist() == [True, False, False]
    image = TransformedTarget(Gaussian(torch.zeros(1), torch.ones(1)), chain)
    assert (image.energy(y) == math.inf).tolist() == [False, True, True]


def test_it_composes_with_itself(wells):
    inner = TransformedTarget(wells[0], CHAINS["affine, no event"])
    nested = TransformedTarget(inner, CHAINS["exp"])
    at_once = TransformedTarget(wells[0], ComposeTransform([CHAINS["affine, no event"], CHAINS["exp"]]))
    y = nested.sample(10, generator=torch.Generator().manual_seed(1))
    for one, other in zip(nested.energy_and_score(y), energy_and_score(at_once, y), strict=True):
        torch.testing.assert_close(one, other)


def test_a_transform_to_another_shape_changes_the_event(wells):
    image = TransformedTarget(wells[0], StickBreakingTransform())
    assert image.event_shape == (4,)
    assert not hasattr(image, "log_z")  # a density of three numbers in a space of four
    assert image.sample(5, generator=torch.Generator().manual_seed(0)).sum(-1) == pytest.approx([1.0] * 5)


def test_every_evaluation_is_one_of_the_base(wells):
    counted = Counted(wells[0])
    image = TransformedTarget(counted, CHAINS["affine then exp then affine"])
    y = image.transform(_draws(wells[0], 9))
    y[4] = -7
    image.energy_and_score(y)
    assert counted.tallies == {"sampling": Tally(energy=0, gradient=9)}


def test_what_is_no_bijection_is_refused(wells):
    with pytest.raises(InputError, match="bijection: got AbsTransform"):
        TransformedTarget(wells[0], AbsTransform())
