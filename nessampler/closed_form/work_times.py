"""Times at which steps along analytic fields share their work's variance evenly."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from nessampler.closed_form.mixture_interpolant import MixtureFields
from nessampler.fields import Fields

__all__ = ["equal_work_times"]

PLACES = 129
SHARED = 0.1  # of the steps are placed like cosines, whatever the pilots say
OFFSET = 1e-4  # of a finite difference, in units of the spread within components


def equal_work_times(
    fields: Fields, base: MixtureFields, steps: int, *, generator: torch.Generator, walkers: int = 128
) -> tuple[float, ...]:
    r"""Times for a Langevin pair whose work fluctuates because it sees $\nabla\cdot b$ through one random probe a step.

    A step $h$ in coordinates in which $\varepsilon = 1$ adds $2h^2\,E|\nabla b|_F^2$ to the variance of the work, so
    a number of steps is best spread with a density proportional to $(E|\nabla b|_F^2)^{1/2}$. That is measured on
    `walkers` draws of the interpolant at each of 129 times, by a random probe.

    Example:
        >>> from nessampler.closed_form.component_pairs import pair_components
        >>> from nessampler.targets.mixture import GaussianMixture
        >>> a = GaussianMixture(torch.zeros(1, 1).double(), torch.tensor([0.1]))
        >>> b = GaussianMixture(torch.zeros(1, 1).double(), torch.tensor([1.0]))
        >>> fields = MixtureFields(pair_components(a, b))
        >>> times = equal_work_times(fields, fields, 10, generator=torch.Generator().manual_seed(0))
        >>> times[1] < 0.02  # where the density widens fastest, steps are short
        True
    """
    places = 0.5 - 0.5 * torch.cos(math.pi * torch.linspace(0, 1, PLACES, dtype=torch.float64))
    rate = torch.stack([_rate(fields, base, t, walkers, generator) for t in places.tolist()])
    rate = rate.cpu()
    share = 0.5 * (rate[1:] + rate[:-1]) * places.diff()
    share = (1 - SHARED) * share / share.sum() + SHARED / (PLACES - 1)
    reached = np.concatenate([[0.0], np.cumsum(share.numpy())])
    inside = np.interp(np.linspace(0, reached[-1], steps + 1)[1:-1], reached, places.numpy())
    return (0.0, *inside.tolist(), 1.0)


def _rate(fields: Fields, base: MixtureFields, t: float, walkers: int, generator: torch.Generator) -> Tensor:
    x, scale = base.sample(t, walkers, generator=generator), base.variance(t).sqrt()
    probe = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=generator.device).to(x.device)
    time = torch.full((2 * walkers,), t, dtype=x.dtype, device=x.device)
    velocity = fields(time, torch.cat([x + OFFSET * scale * probe, x - OFFSET * scale * probe])).velocity
    assert velocity is not None
    change = (velocity[:walkers] - velocity[walkers:]) / (2 * OFFSET * scale)
    return change.square().sum(1).mean().sqrt()
