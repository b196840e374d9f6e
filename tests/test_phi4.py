"""Lattice φ⁴: the action, its free field, its symmetries, and what is measured on configurations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from nessampler.errors import InputError
from nessampler.methods.density.ais import ais
from nessampler.paths import LinearPath
from nessampler.targets.phi4 import FreeField, Phi4, lattice_momenta, mode_multiplicity

LATTICES = [(2, 1), (3, 1), (4, 1), (2, 2), (3, 2), (4, 2), (2, 3), (3, 3), (4, 3)]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fields(n: int, size: int, dimensions: int, seed: int = 0) -> Tensor:
    return torch.randn(n, *[size] * dimensions, generator=seeded(seed), dtype=torch.float64)


def by_loops(phi: Tensor, quartic: float, mass_squared: float) -> float:
    """The action site by site, as it is written in words."""
    size, dimensions, total = len(phi), phi.ndim, 0.0
    for site in itertools.product(range(size), repeat=dimensions):
        here = float(phi[site])
        for axis in range(dimensions):
            ahead = list(site)
            ahead[axis] = (ahead[axis] + 1) % size
            total += (float(phi[tuple(ahead)]) - here) ** 2
        total += mass_squared * here**2 + quartic * here**4
    return total


# ---- the action ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "dimensions"), LATTICES)
def test_the_action_is_the_sum_over_sites_and_bonds(size: int, dimensions: int) -> None:
    target = Phi4(size, quartic=0.7, mass_squared=-1.3, dimensions=dimensions)
    x = fields(2, size, dimensions)
    expected = torch.tensor([by_loops(phi, 0.7, -1.3) for phi in x], dtype=torch.float64)
    torch.testing.assert_close(target.energy(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(target.energy_and_score(x)[0], expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(Phi4(size, quartic=0.7, mass_squared=1.3, dimensions=dimensions).energy(x), expected)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 3e-5)])
@pytest.mark.parametrize(("size", "dimensions"), LATTICES)
def test_the_score_is_minus_the_gradient(size: int, dimensions: int, dtype: torch.dtype, tolerance: float) -> None:
    target = Phi4(size, quartic=0.7, dimensions=dimensions)
    free = FreeField.massive(size, mass_squared=0.6, dimensions=dimensions)
    for density in (target, free):
        x = fields(3, size, dimensions).to(dtype).requires_grad_()
        (gradient,) = torch.autograd.grad(density.energy(x).sum(), x)
        score = density.energy_and_score(x.detach())[1]
        assert score.dtype == dtype
        assert density.energy(x.detach()).dtype == torch.float64
        torch.testing.assert_close(score, -gradient, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_action_has_the_symmetries_of_the_lattice(dtype: torch.dtype) -> None:
    target, x = Phi4(5, quartic=0.7), fields(3, 5, 2).to(dtype)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    images = [x.roll((2, 3), (1, 2)), x.rot90(1, (1, 2)), x.flip(1), x.transpose(1, 2), -x]
    for image in images:
        torch.testing.assert_close(target.energy(image), target.energy(x), rtol=tolerance, atol=tolerance)
    shuffled = x.flatten(1)[:, torch.randperm(25, generator=seeded(1))].view_as(x)
    assert not torch.allclose(target.energy(shuffled), target.energy(x), rtol=1e-3)


def test_without_quartic_coupling_the_theory_is_free() -> None:
    for size, dimensions in LATTICES:
        x = fields(3, size, dimensions)
        theory = Phi4(size, quartic=0.0, mass_squared=0.8, dimensions=dimensions).energy_and_score(x)
        field = FreeField.massive(size, mass_squared=0.8, dimensions=dimensions).energy_and_score(x)
        torch.testing.assert_close(theory, field, rtol=1e-11, atol=1e-11)


# ---- the free field ------------------------------------------------------------------------------------------------


def dense_precision(field: FreeField) -> Tensor:
    """The matrix K, from the scores of unit fields."""
    d = math.prod(field.event_shape)
    return -field.energy_and_score(torch.eye(d, dtype=torch.float64).view(d, *field.event_shape))[1].view(d, d)


@pytest.mark.parametrize(("size", "dimensions"), LATTICES)
def test_log_z_of_the_free_field_is_that_of_its_dense_precision(size: int, dimensions: int) -> None:
    field = FreeField.massive(size, mass_squared=0.3, dimensions=dimensions)
    matrix = dense_precision(field)
    torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-12)
    sign, log_det = torch.linalg.slogdet(matrix)
    assert sign == 1
    assert field.log_z == pytest.approx(0.5 * (len(matrix) * math.log(2 * math.pi) - float(log_det)), abs=1e-10)


@pytest.mark.parametrize(("size", "dimensions"), [(5, 1), (4, 2), (3, 3)])
def test_a_magnetised_field_is_half_of_each_of_two(size: int, dimensions: int) -> None:
    c, options = 0.4, {"mass_squared": 0.3, "dimensions": dimensions}
    both, single = FreeField.massive(size, magnetisation=c, **options), FreeField.massive(size, **options)
    x = fields(3, size, dimensions)
    apart = torch.stack([-single.energy(x - c), -single.energy(x + c)]).logsumexp(0) - math.log(2)
    torch.testing.assert_close(both.energy(x), -apart, rtol=1e-12, atol=1e-12)
    y = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(both.energy(y).sum(), y)
    torch.testing.assert_close(both.energy_and_score(x)[1], -gradient, rtol=1e-12, atol=1e-12)
    assert both.log_z == single.log_z
    assert torch.isfinite(both.energy(100 * x.abs())).all()  # the cosh of a magnetised lattice overflows


def test_the_partition_function_of_a_magnetised_field_is_that_of_the_field() -> None:
    grid = torch.linspace(-9, 9, 1201, dtype=torch.float64)
    x = torch.cartesian_prod(grid, grid)
    field = FreeField.massive(2, mass_squared=0.7, dimensions=1, magnetisation=1.1)
    log_z = torch.logsumexp(-field.energy(x), 0) + 2 * (grid[1] - grid[0]).log()
    assert field.log_z == pytest.approx(float(log_z), abs=1e-8)


def test_samples_of_a_magnetised_field_have_both_signs_and_its_moments() -> None:
    n, c, v = 20000, 0.4, 16
    field = FreeField.massive(4, mass_squared=0.3, magnetisation=c)
    m = Phi4.magnetisation(field.sample(n, generator=seeded(4)))
    spread = 1 / (v * float(field.precision[0, 0]))

    def score(expected: float) -> float:
        error = float(m.square().std()) / math.sqrt(n)
        assert error < 0.003
        return abs(float(m.square().mean()) - expected) / error

    assert score(c**2 + spread) < 4
    assert score(spread) > 4  # as if there were no magnetisation
    assert abs(float((m > 0).double().mean()) - 0.5) < 4 * 0.5 / math.sqrt(n)


def test_a_magnetisation_is_finite() -> None:
    with pytest.raises(InputError, match="finite number: got nan"):
        FreeField.massive(4, mass_squared=0.3, magnetisation=math.nan)


@pytest.mark.parametrize(("size", "dimensions"), [(3, 1), (4, 1), (3, 2), (4, 2), (3, 3), (4, 3)])
def test_every_mode_is_counted_once(size: int, dimensions: int) -> None:
    counts = mode_multiplicity([size] * dimensions)
    assert counts.shape == lattice_momenta(size, dimensions).shape
    assert counts.sum() == size**dimensions


@pytest.mark.parametrize(("size", "dimensions"), [(5, 1), (4, 2), (3, 2), (3, 3)])
def test_samples_of_the_free_field_have_its_covariance(size: int, dimensions: int) -> None:
    field, n = FreeField.massive(size, mass_squared=0.3, dimensions=dimensions), 20000
    x = field.sample(n, generator=seeded(2)).flatten(1)
    exact = torch.linalg.inv(dense_precision(field))

    def scores(covariance: Tensor) -> Tensor:
        # Var(x_i x_j) = C_ii C_jj + C_ij² for a Gaussian of mean zero.
        error = ((covariance.diagonal().outer(covariance.diagonal()) + covariance.square()) / n).sqrt()
        assert float(error.max()) < 0.02
        return ((x.T @ x / n - covariance) / error)[0]  # one row: by translation invariance the others repeat it

    assert float(scores(exact).abs().max()) < 4
    other = FreeField.massive(size, mass_squared=0.36, dimensions=dimensions)
    assert float(scores(torch.linalg.inv(dense_precision(other))).abs().max()) > 4
    means = x.mean(0) / (exact[0, 0] / n).sqrt()
    assert float(means.abs().max()) < 4.5  # of up to 27 correlated sites


# ---- observables ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "dimensions"), [(4, 1), (5, 1), (4, 2), (3, 2), (3, 3)])
def test_the_two_point_function_is_the_average_over_pairs_along_the_axes(size: int, dimensions: int) -> None:
    x = fields(2, size, dimensions, seed=3)
    found = Phi4.two_point(x)
    assert found.shape == (2, size // 2 + 1)
    for r in range(size // 2 + 1):
        pairs = torch.stack([x * x.roll(-r, axis) for axis in range(1, dimensions + 1)])
        torch.testing.assert_close(found[:, r], pairs.flatten(2).mean((0, 2)), rtol=1e-12, atol=1e-12)


def test_the_magnetisation_is_the_mean_over_sites_in_double_precision() -> None:
    x = fields(3, 4, 2)
    torch.testing.assert_close(Phi4.magnetisation(x), x.mean((1, 2)))
    assert Phi4.magnetisation(x.float()).dtype == torch.float64


def test_binder_cumulant_tells_order_from_disorder() -> None:
    signs = torch.tensor([1.0, -1.0]).repeat(50)
    ordered = Phi4.magnetisation(signs[:, None, None].expand(-1, 4, 4))
    assert Phi4.binder(ordered.square().mean(), ordered.pow(4).mean()).item() == pytest.approx(2 / 3, abs=1e-14)
    m = torch.randn(400_000, generator=seeded(4), dtype=torch.float64)
    cumulant = float(Phi4.binder(m.square().mean(), m.pow(4).mean()))
    assert abs(cumulant) < 4 * math.sqrt(24 / 9 / len(m))  # Var(m⁴ - 6 m² + 3) = 24


def test_susceptibility_counts_sites_and_subtracts_the_disconnected_part() -> None:
    target = Phi4(4, quartic=0.8)
    assert float(target.susceptibility(torch.tensor(0.25))) == 4.0
    assert float(target.susceptibility(torch.tensor(0.25), torch.tensor(0.5))) == 0.0
    # For the free field the susceptibility is the propagator at zero momentum, 1/K(0).
    field = FreeField.massive(4, mass_squared=0.5)
    square = Phi4.magnetisation(field.sample(40_000, generator=seeded(5))).square()
    found, error = float(target.susceptibility(square.mean())), float(16 * square.std() / 200)
    assert error < 0.01
    assert abs(found - 1.0) < 4 * error


# ---- log Z of the interacting theory -------------------------------------------------------------------------------


def by_transfer_matrix(size: int, quartic: float, mass_squared: float) -> float:
    """log Z of the chain: the trace of the transfer matrix to the power L, by the trapezoidal rule."""
    phi = np.linspace(-6, 6, 601)
    site = mass_squared * phi**2 + quartic * phi**4
    kernel = np.exp(-(np.subtract.outer(phi, phi) ** 2) - 0.5 * np.add.outer(site, site)) * (phi[1] - phi[0])
    return math.log(np.trace(np.linalg.matrix_power(kernel, size)))


def test_log_z_of_a_chain_by_annealing_agrees_with_quadrature() -> None:
    for size in (2, 3):
        target = Phi4(size, quartic=0.8, mass_squared=-1.0, dimensions=1)
        path = LinearPath(FreeField.massive(size, mass_squared=0.5, dimensions=1), target)
        generator = seeded(6)
        annealing = ais(path, times=[0.0, 0.25, 0.5, 0.75, 1.0], generator=generator, pilots=200)
        run = annealing.draw(4000, generator=generator)
        found, error = annealing.base_log_z + run.log_z_ratio, run.log_z_error
        assert error < 0.02
        assert abs(found - by_transfer_matrix(size, 0.8, -1.0)) < 4 * error
        assert abs(found - by_transfer_matrix(size, 0.8, -0.8)) > 4 * error


def test_the_transfer_matrix_gives_the_free_chain() -> None:
    for size in (2, 3, 5):
        exact = FreeField.massive(size, mass_squared=0.7, dimensions=1).log_z
        assert by_transfer_matrix(size, 0.0, 0.7) == pytest.approx(exact, abs=1e-9)


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 1, "quartic": 1.0}, "at least 2 sites"),
        ({"size": 4, "quartic": 1.0, "dimensions": 4}, "in 1, 2 or 3 dimensions"),
        ({"size": 4, "quartic": -0.1}, "must have a floor"),
        ({"size": 4, "quartic": 0.0, "mass_squared": -1.0}, "must have a floor"),
        ({"size": 4, "quartic": math.nan}, "must have a floor"),
    ],
)
def test_a_lattice_or_an_action_that_cannot_be_is_refused(arguments: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Phi4(**arguments)


def test_a_spectrum_that_is_no_real_fields_is_refused() -> None:
    momenta = lattice_momenta(4, 2)
    with pytest.raises(InputError, match="positive spectrum"):
        FreeField(momenta, 4)
    with pytest.raises(InputError, match="positive spectrum of shape"):
        FreeField(momenta + 1, 5)
    odd = momenta + 1
    odd[1, 0] += 0.5
    with pytest.raises(InputError, match="must be even"):
        FreeField(odd, 4)
    odd[3, 0] += 0.5
    assert FreeField(odd, 4).log_z == pytest.approx(
        0.5 * float(16 * math.log(2 * math.pi) - torch.linalg.slogdet(dense_precision(FreeField(odd, 4)))[1])
    )
