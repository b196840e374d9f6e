"""The error of integrated log-determinants: what halving the steps measures, against exact determinants."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from nessampler.closed_form.least_squares_drift import SolvedDrift, solve_drift
from nessampler.errors import InputError
from nessampler.kernels import HMC, Compose, Flow, Identity, SpectralMass, VelocityField
from nessampler.methods.density.counted import CountedPath
from nessampler.methods.density.dictionaries import lattice_sines
from nessampler.methods.density.flow_error import NEGLIGIBLE, flow_error
from nessampler.methods.density.lsq import FLOW_TOLERANCE, Solved, least_squares, least_variance, production_times
from nessampler.methods.density.tuning import Hamiltonian
from nessampler.paths import AnnealingPath, LinearPath
from nessampler.targets import Gaussian
from nessampler.targets.phi4 import FreeField, Phi4


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Lattice(NamedTuple):
    """φ⁴ from a free field, with a drift solved on pilots."""

    base: FreeField
    path: LinearPath
    relax: HMC
    drift: SolvedDrift

    def times(self, steps: int) -> tuple[float, ...]:
        return production_times(self.drift, steps)


@functools.cache
def lattice(size: int) -> Lattice:
    base = FreeField.massive(size, mass_squared=0.3)
    path = LinearPath(base, Phi4(size, quartic=0.8))
    relax = HMC(path, 0.3, 5, SpectralMass(base.precision))
    x = base.sample(500, generator=seeded(0))
    fields = lattice_sines(8)(x, seeded(0))
    grid = [k / 8 for k in range(9)]
    return Lattice(base, path, relax, solve_drift(path, fields, grid, x, relax=relax, order=2, generator=seeded(1)))


@torch.no_grad()
def exact_shift(
    flow: Flow, relax: HMC, path: AnnealingPath, times: Sequence[float], x: Tensor, generator: torch.Generator
) -> tuple[float, float]:
    """What integrated instead of exact log-determinants do to log Z, and its error: by slogdet of every step's map."""
    n, d, walkers = len(x), x[0].numel(), relax.start(times[0], x)
    integrated, exact = (torch.zeros(n, dtype=torch.float64) for _ in range(2))
    for t0, t1 in pairwise(times):

        def moved(y: Tensor, t0: float = t0, t1: float = t1) -> Tensor:
            return flow.step(t0, t1, flow.start(t0, y[None]), generator=generator)[0].x[0]

        jacobian = torch.func.vmap(torch.func.jacrev(moved))(walkers.x).reshape(n, d, d)  # pyright: ignore[reportPrivateImportUsage]
        before = walkers.energy
        after, ratio = flow.step(t0, t1, walkers, generator=generator)
        change = path.energy(torch.full((n,), t1, dtype=x.dtype), after.x).double()
        assert before is not None
        integrated += before + ratio - change
        exact += before + torch.linalg.slogdet(jacobian)[1] - change
        walkers, _ = relax.step(t0, t1, after, generator=generator)
    influence = torch.softmax(integrated, 0) - torch.softmax(exact, 0)
    return float(integrated.logsumexp(0) - exact.logsumexp(0)), float(influence.square().sum().sqrt())


# ---- where the steps lie -------------------------------------------------------------------------------------------


def solved(residual: Callable[[float], float]) -> SolvedDrift:
    """A drift of which only the residual is known, at 41 times."""
    times = tuple(k / 40 for k in range(41))
    left = tuple(residual(t) for t in times)
    return SolvedDrift(None, times, (0.0,) * 41, left, (1.0,) * 41)  # pyright: ignore[reportArgumentType]


def test_steps_crowd_where_the_drift_leaves_a_residual_and_nowhere_otherwise() -> None:
    crowded = production_times(solved(lambda t: 25.0 if 0.4 <= t <= 0.5 else 1e-4), 40)
    flat = production_times(solved(lambda t: 2.0), 40)
    for times in (crowded, flat, production_times(solved(lambda t: 0.0), 40)):
        assert (times[0], times[-1], len(times)) == (0.0, 1.0, 41)
        assert all(later > earlier for earlier, later in pairwise(times))
    shares = [sum(0.4 <= t <= 0.5 for t in times[1:-1]) / 39 for times in (crowded, flat)]
    assert 0.4 < shares[0] < 0.65  # half of the steps by the residual, and a tenth of the others
    assert shares[1] < 0.15
    assert max(later - earlier for earlier, later in pairwise(crowded)) < 2.1 / 40  # half are where the pilot's were
    assert flat == pytest.approx([k / 40 for k in range(41)], abs=1e-12)


def test_a_residual_without_bound_does_not_take_the_steps_away() -> None:
    times = production_times(solved(lambda t: math.inf if t == 0.0 else math.nan if t == 1.0 else 2.0), 10)
    assert times[1:-1] == pytest.approx([k / 10 for k in range(1, 10)], abs=0.02)


# ---- against exact determinants ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "order", "steps", "walkers", "cap"),
    [(4, 2, 4, 100, 3e-3), (4, 4, 4, 100, 1e-3), (8, 2, 10, 12, 3e-3), (8, 4, 10, 8, 1e-3)],
)
def test_the_measured_shift_is_that_of_the_determinant(
    size: int, order: int, steps: int, walkers: int, cap: float
) -> None:
    case = lattice(size)
    flow, times = Flow(case.drift.field, order), case.times(steps)
    pilots = case.base.sample(3000 if size == 4 else 300, generator=seeded(2))
    measured = flow_error(flow, case.relax, case.path, times, pilots, generator=seeded(3))
    x = case.base.sample(walkers, generator=seeded(4))
    true, error = exact_shift(flow, case.relax, case.path, times, x, seeded(5))
    assert measured.std_error < cap
    assert error < cap
    # Extrapolation from one halving is right to the next order of h: a fifth of the shift is allowed for that.
    assert abs(measured.shift - true) < 4 * math.hypot(measured.std_error, error) + 0.2 * abs(true)
    if order == 2:
        assert measured.shift > 4 * measured.std_error  # there is something to be measured
        assert abs(measured.shift + true) > 4 * math.hypot(measured.std_error, error)  # and its sign is seen


def production_shift(size: int, walkers: int, features: int) -> tuple[float, float, float]:
    base = FreeField.massive(size, mass_squared=0.3)
    path = CountedPath(LinearPath(base, Phi4(size, quartic=0.8)))
    solved = least_squares(
        path,
        lattice_sines(features),
        mover=Hamiltonian(5, mass=SpectralMass(base.precision)),
        pilots=300,
        pilot_steps=10,
        steps=16,
        generator=seeded(6),
    )
    kernel = solved.annealing.kernel
    assert isinstance(kernel, Compose)
    assert isinstance(kernel.first, Flow)
    assert isinstance(kernel.second, HMC)
    x, times = base.sample(walkers, generator=seeded(7)), solved.annealing.times
    return *exact_shift(kernel.first, kernel.second, path, times, x, seeded(8)), solved.flow_error.bound


def test_the_production_setting_is_right_to_two_thousandths_of_log_z() -> None:
    true, error, bound = production_shift(8, 6, 8)
    assert abs(true) + 4 * error < 0.002
    assert abs(true) < bound + 4 * error
    assert bound < max(4 * FLOW_TOLERANCE, 0.002)


@pytest.mark.slow
def test_the_production_setting_is_right_to_two_thousandths_of_log_z_on_a_larger_lattice() -> None:
    true, error, bound = production_shift(16, 6, 8)
    assert abs(true) + 4 * error < 0.002
    assert abs(true) < bound + 4 * error


def test_few_walkers_ask_for_no_finer_rule_than_their_own_error() -> None:
    base = FreeField.massive(4, mass_squared=0.3)

    def solved(walkers: float | None) -> Solved:
        return least_squares(
            CountedPath(LinearPath(base, Phi4(4, quartic=0.8))),
            lattice_sines(8),
            mover=Hamiltonian(5, mass=SpectralMass(base.precision)),
            pilots=200,
            pilot_steps=6,
            steps=6,
            tolerance=1e-9,
            walkers=walkers,
            generator=seeded(11),
        )

    few, many, unknown = (solved(n) for n in (4.0, 1e12, None))
    times = few.annealing.times
    allowed = NEGLIGIBLE * math.sqrt(least_variance(few.drift, times) / 4)
    assert 1e-9 < few.flow_error.bound < allowed
    assert few.annealing.systematic == few.flow_error.bound  # it is in the result's error all the same
    for finest in (many, unknown):
        assert sum(finest.field.evaluations.values()) > 2 * sum(few.field.evaluations.values())
        assert finest.flow_error.bound < few.flow_error.bound


def test_finer_steps_shift_less_by_the_order_of_the_rule() -> None:
    case, x = lattice(4), lattice(4).base.sample(1000, generator=seeded(9))
    times = case.times(3)

    def shift(order: int, substeps: int) -> float:
        flow = Flow(case.drift.field, order, substeps)
        return flow_error(flow, case.relax, case.path, times, x, generator=seeded(10)).shift

    coarse, fine = shift(2, 1), shift(2, 2)
    assert 2.5 < coarse / fine < 6.5  # a rule of second order: four
    assert abs(shift(4, 1)) < 0.1 * coarse


# ---- a flow whose shift is known -----------------------------------------------------------------------------------

ONE = torch.ones(1, dtype=torch.float64)
STILL = LinearPath(Gaussian(0 * ONE, ONE), Gaussian(0 * ONE, 1.5 * ONE))


def stretching(rate: float, claimed: float) -> VelocityField:
    """b = rate · x, with whatever divergence is claimed."""
    return lambda t, x: (rate * x, torch.full((len(x),), claimed, dtype=torch.float64))


@pytest.mark.parametrize(("order", "share"), [(2, 0.03), (4, 0.03)])
def test_the_shift_of_a_linear_flow_is_the_known_one(order: int, share: float) -> None:
    # The divergence is integrated exactly; the map multiplies by the Taylor polynomial of exp(rate h).
    rate, steps = 0.8, 2
    h = rate / steps
    exact = steps * (h - math.log(sum(h**k / math.factorial(k) for k in range(order + 1))))
    x, times = STILL.start.sample(4000, generator=seeded(11)), [k / steps for k in range(steps + 1)]  # pyright: ignore[reportAttributeAccessIssue]
    found = flow_error(Flow(stretching(rate, rate), order), HMC(STILL, 0.5), STILL, times, x, generator=seeded(12))
    assert found.std_error < 0.15 * exact
    assert abs(found.shift - exact) < 4 * found.std_error + 5 * share * exact
    assert abs(found.shift - 2 * exact) > 4 * found.std_error
    assert found.bound == abs(found.shift) + found.std_error


def test_a_wrong_divergence_is_not_seen_by_halving() -> None:
    x, times = STILL.start.sample(2000, generator=seeded(13)), [0.0, 0.25, 0.5, 0.75, 1.0]  # pyright: ignore[reportAttributeAccessIssue]
    wrong = Flow(stretching(0.4, 0.4 * 1.25), 4)
    found = flow_error(wrong, HMC(STILL, 0.5), STILL, times, x, generator=seeded(14))
    true, _ = exact_shift(wrong, HMC(STILL, 0.5), STILL, times, x[:200], seeded(15))
    assert abs(true - 0.1) < 0.001
    assert found.bound < 0.001


def test_walkers_that_leave_the_support_weigh_nothing() -> None:
    class Half:
        """The right half of a normal."""

        event_shape = torch.Size([1])

        def energy(self, x: Tensor) -> Tensor:
            return torch.where(x[:, 0] > 0, 0.5 * x.square().sum(1), torch.inf)

    path = LinearPath(Gaussian(ONE, ONE), Half())
    x = path.start.sample(500, generator=seeded(16))  # pyright: ignore[reportAttributeAccessIssue]
    found = flow_error(Flow(stretching(0.4, 0.4), 2), HMC(path, 0.3), path, [0.0, 0.5, 1.0], x, generator=seeded(17))
    assert math.isfinite(found.bound)
    with pytest.raises(InputError, match="must know the energy"):
        flow_error(Flow(stretching(0.4, 0.4), 2), Identity(), path, [0.0, 1.0], x, generator=seeded(18))
