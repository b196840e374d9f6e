"""Couplings change which samples meet, never the samples."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nessampler.couplings import Independent, OptimalTransport, squared_distances
from nessampler.errors import InputError
from nessampler.training import pairs


def _samples(n: int = 60) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, 3, generator=g), 2 + torch.randn(n, 3, generator=g) * torch.tensor([1.0, 3.0, 0.3])


def _cost(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().sum())


def test_optimal_transport_uses_every_sample_once_and_costs_less():
    a, b = _samples()
    left, right = OptimalTransport()(a, b)
    assert torch.equal(left, a)
    assert torch.equal(right[right[:, 0].argsort()], b[b[:, 0].argsort()])
    assert _cost(left, right) < 0.8 * _cost(*Independent()(a, b))
    # No exchange of two partners makes it cheaper.
    cost = squared_distances(left, right)
    swapped = cost + cost.T
    own = cost.diagonal()
    assert bool((swapped - own[:, None] - own[None, :]).min() > -1e-6)


def test_on_a_line_optimal_pairs_are_in_order():
    a, b = (v[:, :1] for v in _samples())
    left, right = OptimalTransport()(a, b)
    order = left[:, 0].argsort()
    assert bool((right[order, 0].diff() >= 0).all())


def test_cost_and_alignment_are_pluggable():
    a, b = _samples()
    far = OptimalTransport(cost=lambda x, y: -squared_distances(x, y))(a, b)
    assert _cost(*far) > _cost(a, b)
    mirrored = OptimalTransport(align=lambda x, y: torch.where((x * y).sum(-1, keepdim=True) < 0, -y, y))(a, b)
    assert bool(((mirrored[0] * mirrored[1]).sum(-1) >= 0).all())
    assert torch.equal(Independent(align=lambda x, y: y + 1)(a, b)[1], b + 1)


def test_coupled_batches_of_pairs_are_straighter_and_keep_their_noise():
    a, b = _samples(500)
    plain, coupled = (
        next(pairs(a, b, None, None, 200, torch.Generator().manual_seed(1), coupling=c))
        for c in (None, OptimalTransport())
    )
    assert torch.equal(plain.x_a, coupled.x_a)
    assert torch.equal(plain.z, coupled.z)
    assert torch.equal(plain.t, coupled.t)
    assert torch.equal(plain.x_b.sort(0).values, coupled.x_b.sort(0).values)
    assert _cost(coupled.x_a, coupled.x_b) < 0.8 * _cost(plain.x_a, plain.x_b)


def test_scores_along_with_a_coupling_are_refused_since_they_would_be_wrong():
    """Equal ends: the law of I_t of optimal pairs is the ends' own, of score -x; target scores say -x / (1 - t)."""
    g = torch.Generator().manual_seed(2)
    a, b = torch.randn(2000, 1, generator=g), torch.randn(2000, 1, generator=g)
    batch = next(pairs(a, b, None, None, 2000, g, coupling=OptimalTransport()))
    middle = 0.5 * (batch.x_a + batch.x_b)
    slope = float((middle * -batch.x_a / 0.5).sum() / middle.square().sum())  # regression of s_a/(1-t) on I_t
    assert slope == pytest.approx(-2, abs=0.1)
    with pytest.raises(InputError, match="say nothing about coupled pairs"):
        pairs(a, b, -a, -b, 10, g, coupling=OptimalTransport())


def test_batches_that_cannot_be_paired_are_refused():
    a, b = _samples()
    with pytest.raises(InputError, match="as many samples of A as of B: got 60 and 59"):
        OptimalTransport()(a, b[1:])
    with pytest.raises(InputError, match="costs of pairs must be finite"):
        OptimalTransport()(a, b * torch.inf)
