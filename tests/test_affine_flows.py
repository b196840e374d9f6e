"""Flow steps of affine fields: the log-determinant is that of the discrete step, and nothing is left to measure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from nessampler.closed_form.dictionary import Dictionary
from nessampler.closed_form.lattice_dictionary import LatticeDictionary
from nessampler.closed_form.least_squares_drift import LeastSquaresDrift
from nessampler.closed_form.ridge_dictionary import RidgeDictionary
from nessampler.closed_form.shared_dictionary import SharedDictionary
from nessampler.kernels import HMC, Flow
from nessampler.kernels.flow import affine_part
from nessampler.methods.density.counted import CountedField, CountedPath
from nessampler.methods.density.dictionaries import coordinate_sines
from nessampler.methods.density.flow_error import flow_error
from nessampler.methods.density.lsq import least_squares
from nessampler.methods.density.tuning import Hamiltonian
from nessampler.paths import LinearPath
from nessampler.targets import Gaussian
from nessampler.targets.normal import Normal


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def ridge(linear: str, waves: int = 0) -> RidgeDictionary:
    return RidgeDictionary(normal(4), normal(4, seed=1).exp(), normal(waves, 4, seed=2), normal(waves, seed=3), linear)  # pyright: ignore[reportArgumentType]


def shared() -> SharedDictionary:
    root = normal(4, 4, seed=4)
    matrices = torch.stack([torch.eye(4, dtype=torch.float64), root @ root.T / 4])
    return SharedDictionary(normal(4), normal(4, seed=1).exp(), matrices, torch.zeros(0), torch.zeros(0))


def lattice(size: int, dimensions: int) -> LatticeDictionary:
    shape, none = (size,) * dimensions, torch.zeros(2, 0, dtype=torch.float64)
    return LatticeDictionary(shape, (math.inf, 0.5), (math.inf, 0.3, 2.0), none)


AFFINE = {
    "full": (ridge("full"), (4,)),
    "diagonal": (ridge("diagonal"), (4,)),
    "isotropic": (ridge("isotropic"), (4,)),
    "shared": (shared(), (4,)),
    "chain": (lattice(5, 1), (5,)),
    "square": (lattice(4, 2), (4, 4)),
    "cube": (lattice(3, 3), (3, 3, 3)),
}


def drift(fields: Dictionary, scale: float = 0.6) -> LeastSquaresDrift:
    """With coefficients that change in time."""
    times = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    return LeastSquaresDrift(fields, times, scale * normal(3, fields.size, seed=5))


def jacobian(flow: Flow, t0: float, t1: float, x: Tensor) -> Tensor:
    def moved(flat: Tensor) -> Tensor:
        walkers = flow.start(t0, flat.view(1, *x.shape[1:]))
        return flow.step(t0, t1, walkers, generator=seeded(0))[0].x.flatten()

    return torch.autograd.functional.jacobian(moved, x[0].flatten())  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize(("order", "substeps"), [(2, 1), (3, 1), (4, 1), (4, 3)])
def test_the_log_ratio_is_that_of_the_steps_own_jacobian(name: str, order: int, substeps: int) -> None:
    fields, shape = AFFINE[name]
    flow = Flow(drift(fields), order, substeps)
    x = normal(3, *shape, seed=6)
    assert flow.exact
    _, found = flow.step(0.2, 0.7, flow.start(0.2, x), generator=seeded(0))
    exact = torch.linalg.slogdet(jacobian(flow, 0.2, 0.7, x))[1]
    torch.testing.assert_close(found, exact.expand(3), rtol=1e-10, atol=1e-10)
    integrated = sum_of_divergences(flow, 0.2, 0.7, x)
    assert float((integrated - exact).abs().max()) > 1e-9  # what it would have been


def sum_of_divergences(flow: Flow, t0: float, t1: float, x: Tensor) -> Tensor:
    total, h = torch.zeros(len(x), dtype=torch.float64), (t1 - t0) / flow.substeps
    for k in range(flow.substeps):
        x, change = flow.advance(t0 + k * h, t0 + (k + 1) * h, x)
        total = total + change
    return total


@pytest.mark.parametrize("name", AFFINE)
def test_the_way_back_undoes_the_step_and_its_log_ratio(name: str) -> None:
    fields, shape = AFFINE[name]
    flow = Flow(drift(fields, 0.2), 4, 2, tolerance=1e-12)
    x = normal(3, *shape, seed=6)
    there, ratio = flow.step(0.2, 0.5, flow.start(0.2, x), generator=seeded(0))
    back, returned = flow.step(0.5, 0.2, there, generator=seeded(0))
    torch.testing.assert_close(back.x, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(returned, -ratio, rtol=0, atol=1e-12)


def test_fields_that_bend_are_not_taken_for_affine() -> None:
    assert not Flow(drift(ridge("full", waves=1))).exact
    assert not Flow(lambda t, x: (-x, torch.full((len(x),), -1.0))).exact
    waves = LatticeDictionary((4, 4), (math.inf,), (math.inf,), torch.ones(1, 1, dtype=torch.float64))
    assert not Flow(drift(waves)).exact
    counted = CountedField(
        drift(ridge("full")), CountedPath(LinearPath(*[Gaussian(torch.zeros(4), torch.ones(4))] * 2))
    )
    part = affine_part(counted, 0.3)
    assert part is not None
    assert part.shape == (4, 4)
    assert counted.evaluations == {}


@dataclass(frozen=True)
class Silent:
    """An affine field that does not say so."""

    field: LeastSquaresDrift

    def __call__(self, t: float, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.field(t, x)


def test_one_coarse_step_gives_the_partition_function_by_quadrature() -> None:
    start, end = Gaussian(torch.zeros(1).double(), torch.ones(1).double()), Gaussian(*normal(2, 1, seed=8).exp())
    one = torch.ones(1, dtype=torch.float64)
    field = LeastSquaresDrift(
        RidgeDictionary(0 * one, one, torch.zeros(0, 1), torch.zeros(0)),
        torch.tensor([0.0, 1.0], dtype=torch.float64),
        torch.tensor([[0.3, -0.9], [0.1, -0.5]], dtype=torch.float64),
    )
    x = torch.linspace(-30, 30, 60001, dtype=torch.float64)[:, None]

    def log_z(flow: Flow) -> float:
        moved, ratio = flow.step(0.0, 1.0, flow.start(0.0, x), generator=seeded(0))
        return float(torch.logsumexp(-end.energy(moved.x) + ratio, 0) + (x[1] - x[0]).log())

    assert log_z(Flow(field, 2)) == pytest.approx(end.log_z, abs=1e-8)
    assert abs(log_z(Flow(Silent(field), 2)) - end.log_z) > 1e-3
    assert start.log_z == pytest.approx(0.5 * math.log(2 * math.pi))


def test_nothing_is_measured_of_an_affine_drift_and_log_z_is_exact() -> None:
    root = normal(3, 3, seed=9)
    end = Normal(normal(3, seed=10), root @ root.T / 3 + 0.3 * torch.eye(3))
    path = CountedPath(LinearPath(Gaussian(torch.zeros(3).double(), torch.ones(3).double()), end))
    solved = least_squares(
        path, coordinate_sines(()), mover=Hamiltonian(3), pilots=600, pilot_steps=6, steps=6, generator=seeded(0)
    )
    assert solved.annealing.systematic == 0
    found = solved.annealing.draw(2000, generator=seeded(1))
    value, error = solved.annealing.base_log_z + found.log_z_ratio, found.log_z_error
    assert error < 0.01
    assert abs(value - end.log_z) < 4 * error
    relax = HMC(path, solved.tuning.step_sizes, 3)
    x = path.start.sample(400, generator=seeded(2))  # pyright: ignore[reportAttributeAccessIssue]
    silent = flow_error(Flow(Silent(solved.drift.field), 2), relax, path, (0.0, 0.5, 1.0), x, generator=seeded(3))
    assert abs(silent.shift) > 1e-4  # coarse steps whose field does not say that it is affine


def test_a_walker_that_runs_away_has_weight_zero_and_stays_where_it_was() -> None:
    def steep(t: float, x: Tensor) -> tuple[Tensor, Tensor]:
        return -x.pow(3), -3 * x.square().sum(1)

    flow = Flow(steep, 4)
    x = torch.tensor([[0.5], [1e4], [1e200]], dtype=torch.float64)
    found, ratio = flow.step(0.0, 1.0, flow.start(0.0, x[:1]), generator=seeded(0))
    assert torch.isfinite(ratio).all()
    moved, ratios = flow.step(0.0, 1.0, flow.start(0.0, x[:2]), generator=seeded(0))
    assert moved.x[:, 0].tolist() == [found.x.item(), 1e4]
    assert ratios.tolist() == [ratio.item(), -math.inf]
    lost, ratios = flow.step(0.0, 1.0, flow.start(0.0, x[2:]), generator=seeded(0))
    assert (lost.x.item(), ratios.item()) == (1e200, -math.inf)
