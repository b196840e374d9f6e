"""The exact answers of the calibration problems, by other means."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from calibration_problems import DENSITIES, DIFFERENCES, PHI4_LOG_Z, WORKS, gamma_works
from scipy.sparse.linalg import LinearOperator, eigsh


def phi4_by_transfer_matrix(points: int, reach: float, quartic: float = 0.8) -> float:
    r"""log Z of the 4 × 4 lattice at m² = -1: $\log \operatorname{tr} T^4$, T from row to row on a grid of $\varphi$.

    The trapezoidal rule converges geometrically; of the spectrum only what weighs anything is found.
    """
    grid, step = np.linspace(-reach, reach, points, retstep=True)
    rows = np.stack(np.meshgrid(*[grid] * 4, indexing="ij")).reshape(4, -1)
    within = (3 * rows**2 + quartic * rows**4 - 2 * rows * np.roll(rows, 1, 0)).sum(0)
    half = np.exp(-0.5 * within) * step**2
    between = np.exp(2 * np.outer(grid, grid))

    def apply(v: np.ndarray) -> np.ndarray:
        t = (half * v.ravel()).reshape([points] * 4)
        for axis in range(4):
            t = np.moveaxis(np.tensordot(between, t, (1, axis)), 0, axis)
        return half * t.ravel()

    operator = LinearOperator((points**4,) * 2, matvec=apply, dtype=np.float64)  # pyright: ignore
    values = eigsh(operator, k=60, tol=1e-9, v0=half, return_eigenvectors=False)
    assert abs(values).min() ** 4 < 1e-9 * (values**4).sum()
    return float(np.log((values**4).sum()))


def test_phi4_on_four_by_four_sites() -> None:
    assert phi4_by_transfer_matrix(15, 2.1) == pytest.approx(PHI4_LOG_Z, abs=2e-5)  # 19 points give the rest
    assert phi4_by_transfer_matrix(11, 2.1, quartic=0.81) != pytest.approx(PHI4_LOG_Z, abs=2e-2)


def integral(target: object, reach: float, points: int) -> float:
    """log ∫ exp(-U) in the plane, by the trapezoidal rule."""
    axis = torch.linspace(-reach, reach, points, dtype=torch.float64)
    energy = torch.cat([target.energy(x) for x in torch.cartesian_prod(axis, axis).split(2**18)])  # pyright: ignore
    return float(torch.logsumexp(-energy, 0) + 2 * math.log(2 * reach / (points - 1)))


def test_differences_and_modes_in_the_plane_are_those_of_quadrature() -> None:
    # Tails of ν = 4 beyond 40 scales hold less than 1e-5.
    for name in ("wells-2", "students"):
        problem = DIFFERENCES[name]
        found = integral(problem.a, 40.0, 801) - integral(problem.b, 40.0, 801)
        assert found == pytest.approx(problem.truth, abs=1e-4)
    modes = DENSITIES["student-modes"]
    assert integral(modes.target, 40.0, 801) == pytest.approx(modes.truth, abs=1e-4)


def test_synthetic_works_obey_crooks_and_jarzynski() -> None:
    for problem in WORKS.values():
        rng = np.random.default_rng(0)
        pairs = [gamma_works(problem, rng) for _ in range(150)]
        for k, sign in ((0, 1.0), (1, -1.0)):
            means = np.array([np.exp(-pair[k]).mean() for pair in pairs]) * math.exp(sign * problem.truth)
            error = means.std(ddof=1) / math.sqrt(len(means))
            assert abs(means.mean() - 1) < 4 * error < 0.13
