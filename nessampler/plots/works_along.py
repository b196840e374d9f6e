"""Works of both directions as they grow on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from nessampler.plots.along_path import Curve, along_path
from nessampler.plots.table import Table, rows

__all__ = ["WorksAlong", "works_along_path", "works_along_table"]


class WorksAlong(NamedTuple):
    r"""The works so far, over the walkers of one direction; the first entry is the start.

    $$W_t = U_t(x_t) - U_{t_0}(x_0) - \sum \log\frac{B}{F}$$

    Attributes:
        times: from 0 to 1, or from 1 to 0; not all of a long path.
        ess: effective fraction of $e^{-W_t}$.
        mean_work: $\langle W_t \rangle$ in kT; +inf where a walker is outside the support.
        delta_f: $-\log \langle e^{-W_t} \rangle$ in kT; +inf where every walker is.

    Example:
        >>> t = np.linspace(0, 1, 3)
        >>> along = WorksAlong(t, 1 - 0.5 * t, 2 * t, 1.5 * t)
        >>> (along.mean_work - along.delta_f).tolist()  # dissipated so far
        [0.0, 0.25, 0.5]
    """

    times: Float[np.ndarray, " k"]
    ess: Float[np.ndarray, " k"]
    mean_work: Float[np.ndarray, " k"]
    delta_f: Float[np.ndarray, " k"]


def works_along_path(along: Mapping[str, WorksAlong]) -> Figure:
    """Effective samples, mean work, and what of it is dissipated, over the time of the path.

    The dissipated work $\\langle W_t \\rangle + \\log\\langle e^{-W_t} \\rangle$ is not negative, and is 0 for a
    transport that keeps up.

    Args:
        along: by direction, "forward" and "reverse".

    Example:
        >>> t = np.linspace(0, 1, 3)
        >>> works_along_path({"forward": WorksAlong(t, 1 - 0.5 * t, 2 * t, 1.5 * t)}).get_label()
        'Along the path from t = 0 to 1: ESS so far of forward ends at 0.50; mean work so far / kT of forward ends at
        2.00; dissipated so far / kT of forward ends at 0.50.'
    """
    return along_path(_quantities(along), ("A", "B"))


def works_along_table(along: Mapping[str, WorksAlong]) -> Table:
    """One row per direction and time.

    >>> t = np.linspace(0, 1, 2)
    >>> works_along_table({"forward": WorksAlong(t, 1 - 0.5 * t, 2 * t, 1.5 * t)})["mean_work_kT"]
    [0.0, 2.0]
    """
    return rows(
        ["direction", "t", "ess", "mean_work_kT", "delta_f_kT"],
        [(way, *map(float, entry)) for way, found in along.items() for entry in zip(*found, strict=True)],
    )


def _quantities(along: Mapping[str, WorksAlong]) -> dict[str, dict[str, Curve]]:
    def curves(way: str, found: WorksAlong) -> dict[str, Curve]:
        mean = np.where(np.isfinite(found.mean_work), found.mean_work, np.nan)
        return {
            "ESS so far": (found.times, found.ess),
            "mean work so far / kT": (found.times, mean),
            "dissipated so far / kT": (found.times, mean - np.where(np.isfinite(mean), found.delta_f, 0.0)),
        }

    each = {way: curves(way, found) for way, found in along.items()}
    titles = dict.fromkeys(title for found in each.values() for title in found)
    return {title: {way: found[title] for way, found in each.items()} for title in titles}
