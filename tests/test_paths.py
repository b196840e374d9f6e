"""Paths between two targets: which end is asked, how often, and what comes of it."""

from __future__ import annotations

import math

import pytest
import torch

from nessampler.errors import InputError
from nessampler.fields import PathScore
from nessampler.paths import EndpointPath, LinearPath, Path
from nessampler.targets import Counted, Gaussian, Tally


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
