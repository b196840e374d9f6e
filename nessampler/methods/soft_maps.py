"""Which angles a map should move: those whose distributions differ most between the ends, noise discounted."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from nessampler.closed_form.periodic_density import fit_periodic_density, quiet_angle
from nessampler.closed_form.rosenblatt import CircularRosenblatt, fit_rosenblatt
from nessampler.errors import InputError
from nessampler.methods.ends import Block, Ends

__all__ = ["moving_angles", "soft_map"]

CELLS, WIDTH = 48, 0.2
FEWEST_SAMPLES = 40  # of an end: of each half in time, a density of angles needs 20


def soft_map(ends: Ends, fit: Block, say: Callable[[str], None] = lambda _: None) -> CircularRosenblatt | None:
    """Knothe–Rosenblatt on the two angles that differ most, or the one there is; None without angles or samples.

    Where there are angles and samples are too few, `say` is told.
    """
    try:
        index = moving_angles(ends, fit)[:2]
        return fit_rosenblatt(fit.flat_a, fit.flat_b, index) if len(index) else None
    except InputError as error:
        say(f"map: no angle is moved; {error}")
        return None


def moving_angles(ends: Ends, fit: Block) -> Tensor:
    r"""Indices of the circular coordinates that differ between the ends, those that do most first.

    The measure is the squared Hellinger distance $1 - \int \sqrt{p_A p_B}$ of A to B, less the mean of those between
    the two halves in time of A and of B: an angle that is only badly sampled differs from itself as well, and is left
    out where it does so more.

    Raises:
        InputError: fewer than 40 samples of an end.
    """
    circular = ends.circular.nonzero().flatten()
    fewest = min(len(fit.flat_a), len(fit.flat_b))
    if len(circular) and fewest < FEWEST_SAMPLES:
        raise InputError(
            f"angles that differ are told by {FEWEST_SAMPLES} samples of each end in the block that fits: got "
            f"{fewest}; sample longer"
        )
    a, b = fit.flat_a[:, circular], fit.flat_b[:, circular]
    halves = [_halves(x[..., circular]) for x in (fit.a, fit.b)]
    excess = [
        _distance(a[:, [i]], b[:, [i]]) - 0.5 * sum(_distance(one[:, [i]], two[:, [i]]) for one, two in halves)
        for i in range(len(circular))
    ]
    order = sorted((i for i, e in enumerate(excess) if e > 0), key=lambda i: -excess[i])
    return circular[order]


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    middle = x.shape[1] // 2
    return x[:, :middle].flatten(0, 1), x[:, middle:].flatten(0, 1)


def _distance(one: Tensor, two: Tensor) -> float:
    cut = quiet_angle(one, two)
    p, q = (fit_periodic_density(x, cut=cut, cells=CELLS, width=WIDTH).values for x in (one, two))
    return 1 - float((p * q).sqrt().mean()) * 2 * math.pi
