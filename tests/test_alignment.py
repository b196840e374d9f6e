"""Rotations, mirror images and labels of clusters."""

from itertools import permutations

import pytest
import torch
from torch import Tensor

from nessampler.alignment import Aligned, aligned_distances, relabelling, rotation_onto
from nessampler.errors import InputError


def clouds(n: int, atoms: int, seed: int) -> Tensor:
    return torch.randn(n, atoms, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turns(n: int, seed: int, mirrored: bool = False) -> Tensor:
    q = torch.linalg.qr(clouds(n, 3, seed)).Q
    q = q * torch.linalg.det(q).sign()[:, None, None]
    return -q if mirrored else q


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_turned_and_shifted_copy_is_brought_back(mirrored: bool):
    x, q = clouds(6, 5, 0), turns(6, 1, mirrored)
    y = x @ q + 3.0
    found = rotation_onto(x, y)
    assert torch.allclose(found, q.mT, atol=1e-10)
    assert torch.allclose(torch.linalg.det(found), torch.full((6,), -1.0 if mirrored else 1.0).double())


def test_without_mirrors_a_mirror_image_stays_one():
    x = clouds(20, 6, 2)
    q = rotation_onto(x, -x, mirrors=False)
    assert torch.allclose(torch.linalg.det(q), torch.ones(20).double())
    assert float((-x @ q - x).square().sum((1, 2)).min()) > 0.1


def test_no_small_turn_comes_closer():
    x, y = clouds(8, 7, 3), clouds(8, 7, 4)
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    best = y @ rotation_onto(x, y, mirrors=False)
    for axis in range(3):
        for angle in (0.05, -0.05):
            skew = torch.zeros(3, 3).double()
            skew[axis - 1, axis - 2], skew[axis - 2, axis - 1] = angle, -angle
            other = best @ torch.matrix_exp(skew)
            assert bool(((other - x).square().sum((1, 2)) > (best - x).square().sum((1, 2))).all())


def test_the_relabelling_is_the_best_of_all():
    x, y = clouds(3, 5, 5), clouds(3, 5, 6)
    order = relabelling(x, y)
    for k in range(3):
        cost = min(float((x[k] - y[k, list(p)]).square().sum()) for p in permutations(range(5)))
        assert float((x[k] - y[k, order[k]]).square().sum()) == pytest.approx(cost, rel=1e-12)


ORDER = torch.tensor([3, 0, 5, 1, 4, 2])


def test_a_relabelled_and_slightly_turned_copy_is_found_again():
    x = clouds(5, 6, 7)
    skew = torch.tensor([[0.0, 0.1, -0.05], [-0.1, 0.0, 0.15], [0.05, -0.15, 0.0]]).double()
    x = x - x.mean(1, keepdim=True)  # which alignment would keep
    found = Aligned()(x, (x @ torch.matrix_exp(skew))[:, ORDER])
    assert torch.allclose(found, x, atol=1e-10)


def test_more_starts_come_closer_and_find_a_mirror_image():
    x = clouds(5, 6, 7)
    x = x - x.mean(1, keepdim=True)
    y = (x @ turns(5, 8, mirrored=True))[:, ORDER]
    one, many = ((Aligned(starts=s)(x, y) - x).square().sum((1, 2)) for s in (1, 60))
    assert bool((many <= one).all())
    assert float(many.min()) < 1e-12
    assert float(one.min()) > 1  # the first labelling decides
    unmirrored = (Aligned(starts=60, mirrors=False)(x, y) - x).square().sum((1, 2))
    assert float(unmirrored.min()) > 0.1


def test_alignment_never_moves_partners_apart_and_keeps_every_distance():
    x, y = clouds(10, 8, 9), clouds(10, 8, 10)
    found = Aligned()(x, y)
    assert bool(((found - x).square().sum((1, 2)) <= (y - x).square().sum((1, 2))).all())
    assert torch.allclose(
        torch.cdist(found, found).flatten(1).sort().values, torch.cdist(y, y).flatten(1).sort().values
    )
    assert torch.allclose(found.mean(1), y.mean(1))
    assert torch.equal(Aligned()(x.flatten(1), y.flatten(1)), found.flatten(1))


def test_aligned_distances_know_an_image_from_a_stranger():
    x = clouds(4, 5, 11)
    x = x - x.mean(1, keepdim=True)
    order = torch.tensor([2, 0, 3, 1])
    skew = torch.tensor([[0.0, 0.1, -0.05], [-0.1, 0.0, 0.15], [0.05, -0.15, 0.0]]).double()
    images = (x @ torch.matrix_exp(skew))[order][:, torch.tensor([4, 2, 0, 1, 3])]
    cost = aligned_distances(x, images)
    assert torch.equal(cost.argmin(0), order)
    assert float(cost[order, torch.arange(4)].max()) < 1e-10
    assert torch.allclose(cost[0, 2], (Aligned()(x[:1], images[2:3]) - x[:1]).square().sum())


def test_other_shapes_are_refused():
    with pytest.raises(InputError, match="one shape"):
        rotation_onto(torch.zeros(2, 4, 3), torch.zeros(2, 5, 3))
    with pytest.raises(InputError, match="3 atoms"):
        Aligned()(torch.zeros(2, 4), torch.zeros(2, 4))
