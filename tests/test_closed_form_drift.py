"""Dictionaries of vector fields, and the drift solved in them by least squares."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from nessampler.closed_form.dictionary import Dictionary
from nessampler.closed_form.lattice_dictionary import LatticeDictionary
from nessampler.closed_form.least_squares_drift import (
    LeastSquaresDrift,
    SolvedDrift,
    interpolated,
    solve_drift,
    stein_regression,
)
from nessampler.closed_form.ridge_dictionary import RidgeDictionary
from nessampler.errors import InputError
from nessampler.kernels import HMC, RandomWalk
from nessampler.methods.density.dictionaries import (
    coordinate_sines,
    curvature_fields,
    default_dictionary,
    lattice_sines,
    random_fourier,
)
from nessampler.paths import DifferentiablePath, LinearPath, MixturePath, PathPoint
from nessampler.targets import Gaussian
from nessampler.targets.mixture import random_mixture
from nessampler.targets.normal import Normal
from nessampler.targets.phi4 import FreeField, Phi4


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


MIXTURE = random_mixture(4, 3, scale=0.7, spread=2.0, seed=3)


def curvature(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of a mixture, whatever the time."""
    return MIXTURE.energy_and_score(x)[1], MIXTURE.laplacian(x)


def lattice(size: int = 4, dimensions: int = 2) -> LatticeDictionary:
    return LatticeDictionary((size,) * dimensions, (math.inf, 0.5), (math.inf, 0.3), normal(2, 5, seed=1))


def ridge(linear: str, curved: bool, modulated: bool = False) -> RidgeDictionary:
    waves = (normal(3), normal(3, seed=1).exp(), normal(6, 3, seed=2), normal(6, seed=3))
    bend = {"curvature": curvature} if curved else {}
    if modulated:
        bend |= {"modulation": normal(4, 3, seed=4), "modulation_phases": normal(4, seed=5)}
    return RidgeDictionary(*waves, linear, **bend)  # pyright: ignore[reportArgumentType]


DICTIONARIES: dict[str, tuple[Dictionary, tuple[int, ...]]] = {
    "chain": (lattice(5, 1), (5,)),
    "square": (lattice(4, 2), (4, 4)),
    "odd square": (lattice(3, 2), (3, 3)),
    "with phases": (
        LatticeDictionary((3, 3), (math.inf, 0.5), (0.3,), normal(2, 4, seed=1), normal(4, seed=3)),
        (3, 3),
    ),
    "cube": (lattice(3, 3), (3, 3, 3)),
    "no smearing": (LatticeDictionary((3, 3), (math.inf,), (math.inf,), normal(1, 4, seed=2)), (3, 3)),
    "isotropic": (ridge("isotropic", False), (3,)),
    "diagonal": (ridge("diagonal", False), (3,)),
    "full": (ridge("full", False), (3,)),
    "curved": (ridge("diagonal", True), (3,)),
    "modulated": (ridge("full", True, True), (3,)),
    "contraction": (
        RidgeDictionary(torch.zeros(3), torch.ones(3), torch.zeros(0, 3), torch.zeros(0), "isotropic", curvature),
        (3,),
    ),
}


# ---- dictionaries --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DICTIONARIES)
def test_the_divergence_is_the_trace_of_the_jacobian(name: str) -> None:
    fields, shape = DICTIONARIES[name]
    x, theta = normal(3, *shape, seed=6), normal(fields.size, seed=7)

    def velocity(y: Tensor) -> Tensor:
        return fields.velocity(0.3, y[None], theta)[0][0]

    found = fields.velocity(0.3, x, theta)[1]
    d = math.prod(shape)
    exact = torch.stack([torch.autograd.functional.jacobian(velocity, y).reshape(d, d).trace() for y in x])  # pyright: ignore[reportAttributeAccessIssue]
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-9)
    assert float((found - exact.mean()).abs().max()) > 0.1  # it depends on where


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-4)])
@pytest.mark.parametrize("name", DICTIONARIES)
def test_stein_features_are_divergence_and_work_of_every_field(name: str, dtype: torch.dtype, tolerance: float) -> None:
    fields, shape = DICTIONARIES[name]
    x, theta = normal(5, *shape, seed=8).to(dtype), normal(fields.size, seed=9)
    score = curvature(x, x)[0] if shape == (3,) else normal(5, *shape, seed=10).to(dtype)
    features = fields.stein(0.3, x, PathPoint(torch.zeros(5), score, torch.zeros(5)))
    velocity, divergence = fields.velocity(0.3, x, theta)
    assert features.shape == (5, fields.size)
    assert (features.dtype, divergence.dtype, velocity.dtype) == (torch.float64, torch.float64, dtype)
    expected = divergence + (velocity * score).flatten(1).sum(1).double()
    torch.testing.assert_close(features @ theta, expected, rtol=tolerance, atol=tolerance * 10)


@pytest.mark.parametrize("shape", [(3,), (5, 5)])
def test_blocks_of_walkers_make_no_difference(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    fields = ridge("full", True, True) if shape == (3,) else lattice(5)
    module = "ridge_dictionary" if shape == (3,) else "lattice_dictionary"
    x, score, theta = normal(7, *shape), normal(7, *shape, seed=1), normal(fields.size)
    point = PathPoint(torch.zeros(7), score, torch.zeros(7))
    whole = (fields.stein(0.1, x, point), *fields.velocity(0.1, x, theta))
    monkeypatch.setattr(f"nessampler.closed_form.{module}.BLOCK", 2)  # one walker at a time
    pieces = (fields.stein(0.1, x, point), *fields.velocity(0.1, x, theta))
    torch.testing.assert_close(pieces, whole, rtol=1e-12, atol=1e-12)


def mean_scores(fields: Dictionary, x: Tensor, score: Tensor) -> Tensor:
    """Means of the Stein features in standard errors of theirs."""
    features = fields.stein(0.5, x, PathPoint(torch.zeros(len(x)), score, torch.zeros(len(x))))
    error = features.std(0) / len(x) ** 0.5
    # The features' own size is about their standard deviation: means are known to a few hundredths of it.
    assert float((error / features.std(0)).max()) < 0.02
    return features.mean(0) / error


@pytest.mark.parametrize("kind", ["isotropic", "diagonal", "full", "modulated", "lattice"])
def test_stein_features_average_to_zero_under_the_density(kind: str) -> None:
    if kind == "lattice":
        field = FreeField.massive(4, mass_squared=0.5)
        fields, x = lattice(4), field.sample(4000, generator=seeded(11))
        score = field.energy_and_score(x)[1]
    else:
        fields = ridge("full" if kind == "modulated" else kind, kind == "modulated", kind == "modulated")
        x = MIXTURE.sample(10000, generator=seeded(12))
        score = MIXTURE.energy_and_score(x)[1]
    assert float(mean_scores(fields, x, score).abs().max()) < 4
    assert float(mean_scores(fields, x, 0.85 * score).abs().max()) > 4
    assert float(mean_scores(fields, 1.1 * x, score).abs().max()) > 4


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_lattice_fields_commute_with_the_symmetries(dtype: torch.dtype, tolerance: float) -> None:
    fields = lattice(5)
    x, theta = normal(3, 5, 5).to(dtype), normal(fields.size, seed=1)
    velocity, divergence = fields.velocity(0.2, x, theta)
    symmetries: list[Callable[[Tensor], Tensor]] = [
        lambda y: y.roll((1, 2), (1, 2)),
        lambda y: y.rot90(1, (1, 2)),
        lambda y: y.flip(1),
        lambda y: y.transpose(1, 2),
        lambda y: -y,
    ]
    for act in symmetries:
        moved, same = fields.velocity(0.2, act(x), theta)
        torch.testing.assert_close(moved, act(velocity), rtol=tolerance, atol=tolerance * 10)
        torch.testing.assert_close(same, divergence, rtol=tolerance, atol=tolerance * 25)
    swapped = x[:, [1, 0, 2, 3, 4]]
    assert not torch.allclose(fields.velocity(0.2, swapped, theta)[0], velocity[:, [1, 0, 2, 3, 4]], atol=1e-2)


def test_dictionaries_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(InputError, match="equal sides"):
        LatticeDictionary((4, 5), (1.0,), (1.0,), torch.ones(1, 2))
    with pytest.raises(InputError, match="one row of weights"):
        LatticeDictionary((4, 4), (1.0, 2.0), (1.0,), torch.ones(1, 2))
    with pytest.raises(InputError, match="positive mass"):
        LatticeDictionary((4, 4), (0.0,), (1.0,), torch.ones(1, 2))
    one = torch.ones(2)
    with pytest.raises(InputError, match="none of them zero"):
        RidgeDictionary(one, one, torch.zeros(1, 2), one[:1])
    with pytest.raises(InputError, match="modulations need"):
        RidgeDictionary(one, one, torch.eye(2), one, modulation=torch.eye(2), modulation_phases=one)


# ---- which dictionary ----------------------------------------------------------------------------------------------


def test_the_default_dictionary_fits_the_walkers_and_their_number() -> None:
    def chosen(path: LinearPath | MixturePath, walkers: int) -> Dictionary:
        x = path.start.sample(walkers, generator=seeded(0)).double()  # pyright: ignore[reportAttributeAccessIssue]
        return default_dictionary(path)(x, seeded(1))

    lattice_path = LinearPath(FreeField.massive(4, mass_squared=0.5), Phi4(4, quartic=0.8))
    assert isinstance(chosen(lattice_path, 200), LatticeDictionary)
    assert isinstance(chosen(MixturePath(3.0, MIXTURE), 200), RidgeDictionary)
    for d, walkers in ((2, 1000), (10, 2048), (60, 2048), (200, 2048), (1600, 2048), (60, 100)):
        wide = Normal(torch.zeros(d), torch.eye(d))
        fields = chosen(LinearPath(wide, wide), walkers)
        assert 1 <= fields.size <= walkers / 4
    table = Gaussian(torch.zeros(4), torch.ones(4))
    table.event_shape = torch.Size([2, 2])
    with pytest.raises(InputError, match="pass a dictionary"):
        default_dictionary(LinearPath(table, table))


def test_random_dictionaries_are_the_same_for_the_same_seed() -> None:
    x, path = normal(500, 2), MixturePath(2.0, random_mixture(3, 2, scale=1.0, spread=2.0, seed=1))
    for make in (random_fourier(20), curvature_fields(path, modulations=5, waves=5), coordinate_sines()):
        one, same = (make(x, seeded(4)) for _ in range(2))
        assert torch.equal(one.frequencies, same.frequencies)  # pyright: ignore[reportAttributeAccessIssue]
    phi = FreeField.massive(4, mass_squared=1.0).sample(100, generator=seeded(0))
    one, same, other = (lattice_sines(8)(phi, seeded(s)) for s in (4, 4, 5))
    assert torch.equal(one.weights, same.weights)  # pyright: ignore[reportAttributeAccessIssue]
    assert not torch.equal(one.weights, other.weights)  # pyright: ignore[reportAttributeAccessIssue]


# ---- regression ----------------------------------------------------------------------------------------------------


def test_a_linear_drift_is_recovered() -> None:
    features, exact = normal(800, 6) * torch.tensor([1.0, 10.0, 0.1, 1.0, 1.0, 3.0]), normal(6, seed=1)
    found = stein_regression(features + 5, features @ exact + 3.0, torch.ones(800))
    torch.testing.assert_close(found.coefficients, exact, rtol=5e-4, atol=5e-4)  # shrunk by the ridge
    assert found.r_squared > 0.9999
    assert found.residual_variance < 1e-4


def test_features_of_noise_explain_nothing_on_held_out_walkers() -> None:
    for p in (1, 20, 100):
        found = stein_regression(normal(400, p), normal(400, seed=1), torch.ones(400))
        assert found.r_squared < 0.02
        rate = normal(400, seed=1)
        fitted = 1 - float((rate - normal(400, p) @ found.coefficients).var() / rate.var())
        assert fitted > found.r_squared  # what a fit thinks of itself
    assert stein_regression(normal(400, 100), normal(400, seed=1), torch.ones(400)).r_squared < -0.1


def test_the_residual_is_that_of_held_out_walkers() -> None:
    features, rate = normal(800, 2), normal(800, 2).sum(1) + 0.5 * normal(800, seed=2)
    found = stein_regression(features, rate, torch.ones(800))
    assert abs(found.residual_variance - 0.25) < 4 * 0.25 * math.sqrt(2 / 200)
    assert found.r_squared == pytest.approx(1 - 0.25 / 2.25, abs=0.05)


def test_weights_stand_for_repeated_walkers() -> None:
    features, rate = normal(300, 3), normal(300, seed=1) + normal(300, 3).square().sum(1)
    counts = torch.randint(0, 4, (300,), generator=seeded(2))
    weighted = stein_regression(features, rate, counts.double() / counts.sum()).coefficients
    repeated = stein_regression(
        features.repeat_interleave(counts, 0), rate.repeat_interleave(counts), torch.ones(int(counts.sum()))
    ).coefficients
    torch.testing.assert_close(weighted, repeated, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(weighted, stein_regression(features, rate, torch.ones(300)).coefficients, atol=1e-3)


def test_walkers_outside_the_support_and_constant_features_do_no_harm() -> None:
    features, exact = normal(200, 2), torch.tensor([1.0, -2.0], dtype=torch.float64)
    rate = features @ exact
    dirty, broken = torch.cat([features, torch.ones(200, 1, dtype=torch.float64)], 1), rate.clone()
    broken[3], weights = torch.inf, torch.ones(200)
    dirty[7], weights[7] = torch.nan, 0.0
    dirty[:, 2] += 1e-13 * torch.where(torch.arange(200) % 2 == 0, 1.0, -1.0)  # rounding, not a feature
    found = stein_regression(dirty, broken, weights)
    torch.testing.assert_close(found.coefficients[:2], exact, rtol=1e-3, atol=1e-3)
    assert found.coefficients[2] == 0
    with pytest.raises(InputError, match="only 3 of 200 have weight"):
        stein_regression(features, rate, (torch.arange(200) < 3).double())


# ---- the drift along a path ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Broken:
    """A dictionary whose divergence is wrong by a factor."""

    fields: RidgeDictionary

    @property
    def size(self) -> int:
        return self.fields.size

    def stein(self, t: float, x: Tensor, point: PathPoint) -> Tensor:
        right = self.fields.stein(t, x, point)
        still = self.fields.stein(t, x, point._replace(score=torch.zeros_like(point.score)))
        return right + 0.5 * still

    def velocity(self, t: float, x: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        velocity, divergence = self.fields.velocity(t, x, coefficients)
        return velocity, 1.5 * divergence


END = Gaussian(torch.tensor([1.0, -0.5, 0.2]).double(), torch.tensor([0.5, 1.5, 1.0]).double())
START = Gaussian(torch.zeros(3).double(), torch.ones(3).double())


def affine(linear: str = "diagonal") -> RidgeDictionary:
    one = torch.ones(3, dtype=torch.float64)
    return RidgeDictionary(0 * one, one, torch.zeros(0, 3).double(), torch.zeros(0).double(), linear)  # pyright: ignore[reportArgumentType]


def solved_on_gaussians(fields: Dictionary) -> SolvedDrift:
    path = LinearPath(START, END)
    x = START.sample(1000, generator=seeded(20))
    relax = HMC(path, 0.4)
    return solve_drift(path, fields, [k / 10 for k in range(11)], x, relax=relax, generator=seeded(21))


def exact_affine(t: float) -> tuple[Tensor, Tensor]:
    """b = c + a x between Gaussians: with precision p_t and mean m_t, a = -p'/(2p) and c = m' - a m."""
    pull, precision = END.mean / END.scale**2, (1 - t) + t / END.scale**2
    rate, mean = 1 / END.scale**2 - 1, t * pull / precision
    slope = -rate / (2 * precision)
    return (pull - rate * mean) / precision - slope * mean, slope


def test_the_drift_between_gaussians_is_the_exact_affine_one() -> None:
    solved = solved_on_gaussians(affine())
    assert min(solved.r_squared) > 0.9999
    assert max(solved.residual_variance) < 1e-3
    assert solved.times == tuple(k / 10 for k in range(11))
    assert min(solved.acceptance[1:]) > 0.5
    for t, theta in zip(solved.times, solved.field.coefficients, strict=True):
        torch.testing.assert_close(theta, torch.cat(exact_affine(t)), rtol=0.01, atol=0.01)
    x = normal(4, 3)
    constant, slope = exact_affine(0.5)
    velocity, divergence = solved.field(0.5, x)
    torch.testing.assert_close(velocity, constant + slope * x, rtol=0.01, atol=0.02)
    torch.testing.assert_close(divergence, slope.sum().expand(4), rtol=0.01, atol=0.01)


def test_a_wrong_divergence_or_too_small_a_dictionary_shows_in_the_held_out_residual() -> None:
    assert min(solved_on_gaussians(affine("isotropic")).r_squared) < 0.9
    broken = solved_on_gaussians(Broken(affine()))
    # A regression on wrong Stein features still fits; what is wrong is the drift, by far.
    theta, exact = broken.field.coefficients[5], torch.cat(exact_affine(0.5))
    assert float((theta - exact).abs().max()) < 0.05  # constant features: the mean is subtracted, so none is wrong
    assert float((broken.field(0.5, normal(4, 3))[1] - exact[3:].sum()).abs().min()) > 0.1


def test_pilots_survive_a_support_that_comes_nearer() -> None:
    class Half:
        """The half of a normal above -1/2."""

        event_shape = torch.Size([2])

        def energy(self, x: Tensor) -> Tensor:
            return torch.where(x[:, 0] > -0.5, 0.5 * x.square().sum(1), torch.inf)

    start = Gaussian(torch.zeros(2).double(), torch.ones(2).double())
    path = LinearPath(start, Half())
    one = torch.ones(2, dtype=torch.float64)
    fields = RidgeDictionary(0 * one, one, torch.eye(2).double(), one)
    solved = solve_drift(
        path,
        fields,
        [0.0, 0.1, 0.5, 1.0],
        start.sample(500, generator=seeded(1)),
        relax=HMC(path, 0.3),
        generator=seeded(2),
    )
    assert torch.isfinite(solved.field.coefficients).all()


def test_moves_that_tell_nothing_and_times_out_of_order_are_refused() -> None:
    path, x = LinearPath(START, END), START.sample(100, generator=seeded(0))
    with pytest.raises(InputError, match="must cache what the path knows"):
        solve_drift(path, affine(), [0.0, 1.0], x, relax=RandomWalk(path, 0.5), generator=seeded(0))
    with pytest.raises(InputError, match="must increase"):
        solve_drift(path, affine(), [0.0, 0.5, 0.5, 1.0], x, relax=HMC(path, 0.5), generator=seeded(0))


def test_a_path_that_is_not_a_number_is_named() -> None:
    def energy(t: Tensor, x: Tensor) -> Tensor:
        return 0.5 * x.square().sum(1) + torch.where(t > 0.4, torch.nan, 0.0)

    path = DifferentiablePath(START, START, energy)
    with pytest.raises(InputError, match="log-weight must be finite"):
        solve_drift(
            path,
            affine(),
            [0.0, 0.5, 1.0],
            START.sample(100, generator=seeded(0)),
            relax=HMC(path, 0.5),
            generator=seeded(0),
        )


def test_coefficients_are_linear_in_time_and_constant_beyond() -> None:
    times, values = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([[0.0], [1.0], [5.0]])
    found = [interpolated(t, times, values).item() for t in (-1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 2.0)]
    assert found == [0.0, 0.0, 0.5, 1.0, 3.0, 5.0, 5.0]
    drift = LeastSquaresDrift(affine(), times, normal(3, 6))
    halfway = drift.dictionary.velocity(0.25, normal(2, 3), 0.5 * (drift.coefficients[0] + drift.coefficients[1]))
    torch.testing.assert_close(drift(0.25, normal(2, 3)), halfway)
    assert replace(drift, times=times + 1)(0.25, normal(2, 3))[0] is not None
