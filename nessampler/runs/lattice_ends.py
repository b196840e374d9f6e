"""Magnetisation and two-point function in samples of two lattice states."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.estimators import statistical_inefficiency
from nessampler.methods.rungs.lattice import on_a_lattice
from nessampler.plots import Lattice
from nessampler.runs.prepared import Prepared
from nessampler.targets.phi4 import Phi4

__all__ = ["lattice_ends_of", "lattice_of"]


def lattice_ends_of(prepared: Prepared) -> tuple[Lattice, Lattice] | None:
    """Observables of both samples; None where the states are not fields on a lattice."""
    if not (on_a_lattice(prepared.target_a) and on_a_lattice(prepared.target_b)):
        return None
    axes = len(prepared.target_a.event_shape)
    return lattice_of(prepared.samples_a, axes), lattice_of(prepared.samples_b, axes)


def lattice_of(samples: Float[Tensor, "*batch_and_event"], dimensions: int) -> Lattice:
    r"""Observables of equally weighted fields, with errors that know of the chains' memory.

    $$\mathrm{se}^2 = g\, s^2 / n$$

    g is the statistical inefficiency of each observable, 1 for independent fields.

    Args:
        samples: `(n, *event)` independent or `(chains, draws, *event)` correlated.
        dimensions: of the lattice.

    Example:
        >>> fields = torch.randn(400, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> found = lattice_of(fields, 2)
        >>> bool(abs(found.two_point[0][0] - 1) < 4 * found.two_point[1][0]), found.two_point[0].shape
        (True, (3,))
    """
    batch = samples.shape[: samples.ndim - dimensions]
    flat = samples.flatten(0, len(batch) - 1)
    m = _in_chunks(Phi4.magnetisation, flat)
    moments = torch.stack([m, m.abs(), m**2], -1)
    weight = np.full(len(flat), 1 / len(flat))
    return Lattice(m.numpy(), weight, _averaged(moments, batch), _averaged(_in_chunks(Phi4.two_point, flat), batch))


def _averaged(values: Tensor, batch: torch.Size) -> tuple[np.ndarray, np.ndarray]:
    """Means of columns, and their standard errors."""
    columns = values.numpy().T
    errors = [_error(column.reshape(batch)) for column in columns]
    return columns.mean(1), np.array(errors)


def _error(series: np.ndarray) -> float:
    g = statistical_inefficiency(series) if series.ndim == 2 else 1.0
    return math.sqrt(g * series.var(ddof=1) / series.size) if series.size > 1 else math.nan


def _in_chunks(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Fourier transforms of all samples at once would need several times their memory."""
    return torch.cat([function(part).cpu() for part in x.split(512)])
