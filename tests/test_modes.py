"""The Laplace mixture: every mode that searches reach, once, with its own curvature and its share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nessampler.errors import InputError
from nessampler.methods.density import modes
from nessampler.methods.density.modes import laplace_mixture
from nessampler.targets import Counted
from nessampler.targets.covariance_mixture import CovarianceMixture
from nessampler.targets.shapes import Ring

MEANS = torch.tensor([[-6.0, 0.0, 3.0], [5.0, 5.0, 0.0], [5.0, -5.0, -4.0]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def starts(n: int, d: int = 3, scale: float = 6.0) -> Tensor:
    return scale * torch.randn(n, d, generator=seeded(0), dtype=torch.float64)


def tilted() -> CovarianceMixture:
    factors = torch.randn(3, 3, 3, generator=seeded(1), dtype=torch.float64) * 0.3
    return CovarianceMixture(MEANS, torch.eye(3).double() * 0.5 + factors @ factors.mT, WEIGHTS)


def test_a_mixture_far_apart_is_found_as_it_is() -> None:
    target = tilted()
    found = laplace_mixture(target, starts(60), generator=seeded(2)).target
    assert isinstance(found, CovarianceMixture)
    order = torch.cdist(MEANS, found.means).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2]
    torch.testing.assert_close(found.means[order], target.means, rtol=0, atol=2e-3)
    torch.testing.assert_close(found.covariances[order], target.covariances, rtol=2e-3, atol=1e-3)
    torch.testing.assert_close(found.weights[order], WEIGHTS, rtol=2e-3, atol=0)
    wide = laplace_mixture(target, starts(60), inflation=1.5, generator=seeded(2)).target
    assert isinstance(wide, CovarianceMixture)
    torch.testing.assert_close(wide.covariances, 2.25 * found.covariances)


def test_a_mode_that_no_search_reaches_is_missing() -> None:
    near = MEANS[0] + starts(20, scale=0.5)
    found = laplace_mixture(tilted(), near, generator=seeded(0)).target
    assert isinstance(found, CovarianceMixture)
    assert len(found.means) == 1


def test_searches_are_counted() -> None:
    counted = Counted(tilted())
    said: list[str] = []
    with counted.stage("base"):
        laplace_mixture(counted, starts(10), generator=seeded(0), say=said.append)
    assert counted.tally("base").gradient > 10 * 5
    assert said[0].startswith("10 searches found")


class Wrinkled:
    """A minimum at every integer, of equal depth."""

    event_shape = torch.Size([2])

    def energy(self, x: Tensor) -> Tensor:
        return 50 * torch.sin(torch.pi * x).square().sum(1)


class Slope:
    """Nothing but downhill, ever more slowly."""

    event_shape = torch.Size([2])

    def energy(self, x: Tensor) -> Tensor:
        return torch.exp(-x.sum(1) / 10)


def test_landscapes_without_a_few_modes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes, "MOST_MODES", 20)
    with pytest.raises(InputError, match="60 searches found more than 20; use a learned base"):
        laplace_mixture(Wrinkled(), starts(60, 2), generator=seeded(0))
    with pytest.raises(InputError, match="none of 5 searches ended in one"):
        laplace_mixture(Slope(), starts(5, 2), generator=seeded(0))
    with pytest.raises(InputError, match=r"starts \(n, 3\).*\(4, 2\)"):
        laplace_mixture(tilted(), starts(4, 2), generator=seeded(0))


def test_a_valley_without_a_lowest_point_is_no_mode_of_full_rank() -> None:
    with pytest.raises(InputError, match="positive curvature"):
        laplace_mixture(Ring(2.0, 0.1), starts(5, 2), generator=seeded(0))
