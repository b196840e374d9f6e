"""Paths between two targets: which end is asked, how often, and what comes of it."""

from __future__ import annotations

import math

import pytest
import torch

from nessampler.errors import InputError
from nessampler.fields import PathScore
from nessampler.paths import AnnealingPath, DifferentiablePath, EndpointPath, LinearPath, MixturePath, Path
from nessampler.targets import Counted, Gaussian, Tally
from nessampler.targets.mixture import GaussianMixture, gmm_40


def counted_path(wells) -> tuple[LinearPath, Counted, Counted]:
    start, end = Counted(wells[0]), Counted(wells[1])
    return LinearPath(start, end), start, end


def times(t: float, n: int) -> torch.Tensor:
    return torch.full((n,), t, dtype=torch.float64)


@pytest.mark.parametrize(("t", "start_calls", "end_calls"), [(0.0, 5, 0), (1.0, 0, 5), (0.3, 5, 5)])
def test_a_linear_path_asks_each_end_once_and_only_where_it_has_weight(wells, t, start_calls, end_calls):
    path, start, end = counted_path(wells)
    x = torch.ones(5, 3, dtype=torch.float64)
    path.energy_and_score(times(t, 5), x)
    assert (start.tally(), end.tally()) == (Tally(0, start_calls), Tally(0, end_calls))
    path.energy(times(t, 5), x)
    assert (start.tally(), end.tally()) == (Tally(start_calls, start_calls), Tally(end_calls, end_calls))


def test_a_linear_path_mixes_energies_and_scores_with_a_time_per_walker(wells):
    path, x = LinearPath(*wells), torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).double()
    t = torch.tensor([0.0, 0.25, 0.9, 1.0], dtype=torch.float64)
    point = x.clone().requires_grad_()
    expected = (1 - t) * wells[0].energy(point) + t * wells[1].energy(point)
    (gradient,) = torch.autograd.grad(expected.sum(), point)
    energy, score = path.energy_and_score(t, x)
    torch.testing.assert_close(path.energy(t, x), expected.detach())
    torch.testing.assert_close(energy, expected.detach())
    torch.testing.assert_close(score, -gradient)


class Cut:
    """A standard normal with x <= 0 removed."""

    event_shape = torch.Size([1])

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x[:, 0] > 0, 0.5 * x[:, 0].square(), torch.inf)


def test_an_end_without_weight_may_be_infinite_for_one_walker_of_a_mixed_batch():
    path = LinearPath(Cut(), Gaussian(torch.zeros(1), torch.ones(1)))
    t, x = torch.tensor([1.0, 0.5, 0.5]), torch.tensor([[-2.0], [-2.0], [2.0]])
    energy, score = path.energy_and_score(t, x)
    assert energy.tolist() == path.energy(t, x).tolist() == [2.0, math.inf, 2.0]
    assert score.tolist() == [[2.0], [0.0], [-2.0]]


def test_energies_at_several_times_cost_each_end_one(wells):
    path, start, end = counted_path(wells)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).double()
    several = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    found = path.energies(x, several)
    assert (start.tally(), end.tally()) == (Tally(4, 0), Tally(4, 0))
    torch.testing.assert_close(found, torch.stack([path.energy(times(float(t), 4), x) for t in several]))


def test_energies_at_an_end_are_finite_where_the_other_end_forbids_it():
    path = LinearPath(Cut(), Gaussian(torch.zeros(1), torch.ones(1)))
    found = path.energies(torch.tensor([[-2.0], [2.0]]), torch.tensor([0.5, 1.0]))
    assert found.tolist() == [[math.inf, 2.0], [2.0, 2.0]]


def test_an_endpoint_path_knows_its_ends_and_refuses_the_interior(wells):
    path, x = EndpointPath(*wells), torch.ones(2, 3, dtype=torch.float64)
    assert torch.equal(path.energy(times(0.0, 2), x), wells[0].energy(x))
    assert torch.equal(path.energy(times(1.0, 2), x), wells[1].energy(x))
    with pytest.raises(InputError, match=r"t = 0 and t = 1 only: got t = 0\.5"):
        path.energy(times(0.5, 2), x)


@pytest.mark.parametrize("kind", [EndpointPath, LinearPath])
def test_ends_of_different_shape_are_refused(wells, wells_1d, kind):
    with pytest.raises(InputError, match=r"one event shape: got \(3,\) and \(1,\)"):
        kind(wells[0], wells_1d[0])


@pytest.mark.parametrize("kind", [EndpointPath, LinearPath])
def test_paths_satisfy_the_protocol(wells, kind):
    assert isinstance(kind(*wells), Path)


def test_annealing_needs_interior_energies(wells):
    with pytest.raises(InputError, match="such as LinearPath: got"):
        PathScore(EndpointPath(*wells))


def test_fields_of_annealing_are_the_path_score_and_the_given_velocity(wells):
    path, start, end = counted_path(wells)
    x = torch.ones(3, 3, dtype=torch.float64)
    still, moving = PathScore(path)(times(0.4, 3), x), PathScore(path, lambda t, x: t[:, None] * x)(times(0.4, 3), x)
    energy, score = LinearPath(*wells).energy_and_score(times(0.4, 3), x)
    assert still.velocity is None
    assert moving.velocity is not None
    assert torch.equal(moving.velocity, 0.4 * x)
    for fields in (still, moving):
        assert fields.energy is not None
        assert torch.equal(fields.score, score)
        assert torch.equal(fields.energy, energy)
    assert start.tally() == end.tally() == Tally(0, 6)


# --- mixtures whose parameters move -----------------------------------------------------------------------------

UNEVEN = GaussianMixture(
    torch.tensor([[-2.0, 1.0, 0.5], [1.5, 0.0, -1.0]], dtype=torch.float64),
    torch.tensor([0.6, 1.1], dtype=torch.float64),
    torch.tensor([0.3, 0.7], dtype=torch.float64),
)


def moved_by_hand(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The same energy from torch's own distributions, component by component."""
    logits = []
    for mean, scale, weight in zip(UNEVEN.means, UNEVEN.scales[:, 0], UNEVEN.weights, strict=True):
        normal = torch.distributions.Normal(t[:, None] * mean, ((1 - t) * 2.5 + t * scale)[:, None])
        logits.append(weight.log() + normal.log_prob(x).sum(-1))
    return -torch.logsumexp(torch.stack(logits), 0)


def test_a_mixture_path_is_the_mixture_with_moved_parameters():
    path = MixturePath(2.5, UNEVEN)
    x = 2 * torch.randn(9, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    t = torch.linspace(0, 1, 9, dtype=torch.float64)  # a time per walker
    expected = DifferentiablePath(path.start, path.end, moved_by_hand).evaluate(t, x)
    found = path.evaluate(t, x)
    for one, other in zip(found[:3], expected[:3], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)
    energy, score = path.energy_and_score(t, x)
    torch.testing.assert_close(energy, expected.energy)
    torch.testing.assert_close(path.energy(t, x), expected.energy)
    torch.testing.assert_close(score, expected.score)
    assert isinstance(path, AnnealingPath)


def test_the_laplacian_of_a_mixture_path_is_the_trace_of_autograds_hessian():
    path = MixturePath(2.5, UNEVEN)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    t = torch.tensor([0.0, 0.3, 0.8, 1.0], dtype=torch.float64)
    for one, time, value in zip(x, t, path.laplacian(t, x), strict=True):
        hessian = torch.autograd.functional.hessian(lambda z, s=time: path.energy(s[None], z[None])[0], one)
        torch.testing.assert_close(torch.trace(hessian), value, rtol=1e-10, atol=1e-10)  # pyright: ignore[reportArgumentType]


def test_a_mixture_path_ends_at_its_targets_and_is_normalised_in_between():
    path = MixturePath(2.5, UNEVEN)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    torch.testing.assert_close(path.energy(times(0.0, 5), x), path.start.energy(x))
    torch.testing.assert_close(path.energy(times(1.0, 5), x), path.end.energy(x))
    assert path.start.log_z == path.end.log_z == 0.0
    line = MixturePath(3.0, GaussianMixture(torch.tensor([[-4.0], [5.0]]), torch.tensor([0.5, 1.0])))
    grid = torch.linspace(-40, 40, 8001, dtype=torch.float64)[:, None]
    for t in (0.0, 0.35, 0.9):
        total = float(torch.exp(-line.energy(times(t, len(grid)), grid)).sum() * 0.01)
        assert total == pytest.approx(1.0, abs=1e-12)


def test_what_a_mixture_path_knows_of_a_walker_serves_at_another_time():
    path = MixturePath(20.0, gmm_40())
    x = path.end.sample(6, generator=torch.Generator().manual_seed(6))
    known = path.evaluate(times(0.2, 6), x)
    for one, other in zip(path.evaluate(times(0.7, 6), x, known), path.evaluate(times(0.7, 6), x), strict=True):
        torch.testing.assert_close(one, other)
    assert path.evaluate(times(0.2, 6), x.float()).score.dtype == torch.float32


def test_a_mixture_path_refuses_what_it_cannot_pull_apart():
    with pytest.raises(InputError, match="positive, finite scale: got 0"):
        MixturePath(0.0, UNEVEN)
    oblong = GaussianMixture(torch.zeros(1, 2), torch.tensor([[1.0, 2.0]]))
    with pytest.raises(InputError, match="one width in all directions"):
        MixturePath(1.0, oblong)
