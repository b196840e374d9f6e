"""Maps fitted to scores: exact for Gaussians at once, honest elsewhere; and which angles are worth moving."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nessampler.closed_form.affine import fit_map
from nessampler.closed_form.score_affine import fit_map_by_scores
from nessampler.errors import InputError
from nessampler.methods.ends import Block, Ends
from nessampler.methods.maps import mapped, score_maps
from nessampler.methods.soft_maps import moving_angles, soft_map
from nessampler.targets import Counted, Gaussian, energy_and_score

CIRCULAR = torch.tensor([False, True, False, False])
NONE = torch.zeros(3, dtype=torch.bool)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Rotor:
    """Three Gaussian coordinates whose means follow an angle; the angle has a density of its own."""

    event_shape = torch.Size([4])

    def __init__(self, seed: int) -> None:
        g = seeded(seed)
        factor = torch.eye(3).double() + 0.4 * torch.randn(3, 3, generator=g, dtype=torch.float64)
        self.precision = factor @ factor.T
        self.waves = torch.randn(3, 3, generator=g, dtype=torch.float64)

    def mean(self, angle: Tensor) -> Tensor:
        return torch.stack([torch.ones_like(angle), angle.cos(), angle.sin()], -1) @ self.waves

    def energy(self, x: Tensor) -> Tensor:
        h = x[:, ~CIRCULAR] - self.mean(x[:, 1])
        return 0.5 * (h @ self.precision * h).sum(-1) - 1.3 * x[:, 1].cos()

    def sample(self, n: int, g: torch.Generator) -> Tensor:
        angle = torch.randn(n, generator=g, dtype=torch.float64)
        h = (
            torch.randn(n, 3, generator=g, dtype=torch.float64)
            @ torch.linalg.cholesky(torch.linalg.inv(self.precision)).T
        )
        h = h + self.mean(angle)
        return torch.stack([h[:, 0], angle, h[:, 1], h[:, 2]], 1)


def test_conditional_gaussians_are_mapped_exactly_from_few_samples():
    a, b, g = Rotor(1), Rotor(2), seeded(0)
    x_a, x_b = a.sample(40, g), b.sample(40, g)
    by_scores = fit_map_by_scores(
        x_a, energy_and_score(a, x_a)[1], x_b, energy_and_score(b, x_b)[1], CIRCULAR, harmonics=1
    )
    by_samples = fit_map(x_a, x_b, CIRCULAR, scale="full", shrink=1.0, conditional=True)
    fresh = a.sample(500, g)
    spread = []
    for transform in (by_scores, by_samples):
        y = transform(fresh)
        spread.append(float((b.energy(y) - a.energy(fresh) - transform._log_det).std()))  # pyright: ignore
    assert spread[0] < 0.05  # the ridge on waves is all that is left
    assert spread[1] > 0.4


def test_the_covariance_tends_to_that_of_the_samples_where_nothing_is_gaussian(wells):
    g = seeded(3)
    x_a, x_b = (well.sample(10_000, generator=g) for well in wells)
    by_scores = fit_map_by_scores(
        x_a, energy_and_score(wells[0], x_a)[1], x_b, energy_and_score(wells[1], x_b)[1], NONE
    )
    by_samples = fit_map(x_a, x_b, NONE, scale="full", shrink=1.0)
    torch.testing.assert_close(by_scores.matrix, by_samples.matrix, rtol=0, atol=0.04)
    assert float((by_scores.matrix - torch.eye(3).double()).abs().max()) > 0.1


def test_scores_of_a_barrier_are_refused():
    x = torch.randn(100, 1, generator=seeded(0), dtype=torch.float64)
    with pytest.raises(InputError, match="curvature"):
        fit_map_by_scores(x, x, x, -x, torch.zeros(1, dtype=torch.bool))
    with pytest.raises(InputError, match="sample longer"):
        fit_map_by_scores(x[:3], -x[:3], x, -x, torch.zeros(1, dtype=torch.bool))


def ends_of(a, b, circular: Tensor) -> Ends:
    counted = Counted(a), Counted(b)
    return Ends(*counted, circular, counted)


def test_maps_by_scores_cost_a_gradient_a_sample_and_no_gradient_means_no_map():
    a, b, g = Rotor(1), Rotor(2), seeded(0)
    ends = ends_of(a, b, CIRCULAR)
    block = Block(a.sample(100, g)[None], b.sample(120, g)[None], False)
    found = score_maps(ends, block)
    assert list(found) == [
        "affine by scores",
        "affine by scores, conditional on 1 torsions × 1",
        "affine by scores, conditional on 1 torsions × 2",
    ]
    assert [c.tally().gradient for c in ends.counted] == [100, 120]
    assert set(mapped(ends, "one", found["affine by scores"]).state) == {
        "map.matrix", "map.mean_in", "map.mean_out", "map.circular",
    }  # fmt: skip
    few = Block(block.a[:, :7], block.b[:, :7], False)
    assert score_maps(ends, few) == {}


def test_the_angle_that_differs_between_the_ends_comes_first_and_a_badly_sampled_one_is_left_out():
    g, n = seeded(0), 800
    still = torch.randn(2, n, 1, generator=g, dtype=torch.float64)
    turned = torch.stack([still[0] * 0.5, still[1] * 0.5 + 1.0])
    late = torch.where(torch.arange(n)[:, None] < n // 2, -2.0, 2.0) + 0.3 * still.flip(1)  # two halves, one jump
    late[1] = late[1] * 0.9
    x = torch.cat([late, still.roll(7, 1), turned], -1)
    circular = torch.ones(3, dtype=torch.bool)
    nothing = Gaussian(torch.zeros(3), torch.ones(3))
    order = moving_angles(ends_of(nothing, nothing, circular), Block(x[:1], x[1:], True))
    assert order.tolist()[0] == 2
    assert 0 not in order.tolist()
    soft = soft_map(ends_of(nothing, nothing, circular), Block(x[:1], x[1:], True))
    assert soft is not None
    assert soft.index.tolist() == order.tolist()
    assert soft_map(ends_of(nothing, nothing, ~circular), Block(x[:1], x[1:], True)) is None


def test_samples_too_few_to_move_angles_are_named():
    x, nothing, said = torch.randn(1, 30, 2, generator=seeded(1)), Gaussian(torch.zeros(2), torch.ones(2)), []
    for circular in (torch.tensor([True, False]), torch.zeros(2, dtype=torch.bool)):
        assert soft_map(ends_of(nothing, nothing, circular), Block(x, x, False), said.append) is None
    [told] = said  # nothing is said where no coordinate is an angle
    assert "40 samples of each end in the block that fits: got 30" in told
