"""Which fields to solve a drift in, when the user has no preference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.closed_form.dictionary import Dictionary
from nessampler.closed_form.gradient_dictionary import GradientDictionary
from nessampler.closed_form.joined_dictionary import JoinedDictionary
from nessampler.closed_form.lattice_dictionary import LatticeDictionary
from nessampler.closed_form.pair_dictionary import PairDictionary
from nessampler.closed_form.ridge_dictionary import RidgeDictionary
from nessampler.closed_form.shared_dictionary import SharedDictionary
from nessampler.errors import InputError
from nessampler.paths import AnnealingPath
from nessampler.targets.laplacian import score_and_laplacian
from nessampler.targets.normal import Normal
from nessampler.targets.phi4 import FreeField

__all__ = [
    "NoFieldsError",
    "coordinate_sines",
    "curvature_fields",
    "default_dictionary",
    "end_gradients",
    "in_space",
    "lattice_sines",
    "pair_fields",
    "random_fourier",
    "shared_sines",
]


class NoFieldsError(InputError):
    """Walkers of a shape that no dictionary is for."""


Affine = Literal["isotropic", "diagonal", "full"]
Factory = Callable[[Tensor, torch.Generator], Dictionary]


def default_dictionary(path: AnnealingPath) -> Factory:
    """A factory of fields for walkers of this path: by the shape of a walker, and by what the path knows.

    Raises:
        NoFieldsError: walkers that are neither vectors, periodic lattices nor points in space.
    """
    if isinstance(path.start, FreeField):
        return lattice_sines()
    shape = tuple(path.start.event_shape)
    if in_space(shape):
        return pair_fields()
    if len(shape) != 1:
        raise NoFieldsError(
            f"a drift in closed form needs fields for walkers of shape {shape}: pass a dictionary, or use method='ais',"
            " 'smc' or 'pt'"
        )
    if hasattr(path, "laplacian"):
        return curvature_fields(path)
    if isinstance(path.start, Normal) and path.start.event_shape[0] > MANY:
        return shared_sines(path.start.covariance)
    return random_fourier() if path.start.event_shape[0] <= 3 else coordinate_sines()


def in_space(shape: Sequence[int]) -> bool:
    """Whether walkers are points in space, `(atoms, 3)`.

    >>> in_space((13, 3)), in_space((8, 8)), in_space((1, 3))
    (True, False, False)
    """
    return len(shape) == 2 and shape[0] > 1 and shape[1] == 3


def lattice_sines(
    features: int = 32,
    *,
    inner: tuple[float, ...] = (math.inf, 1.0, 0.3, 0.1),
    outer: tuple[float, ...] = (math.inf, 1.0, 0.1),
    even: bool = True,
) -> Callable[[Tensor, torch.Generator], LatticeDictionary]:
    """Sines of random sums of smeared fields; each term of a sum has unit variance over the walkers, on average.

    The widths are those of walkers of *both* ends: scaled to the base alone, sines miss the long waves of a
    near-critical target, and the held-out R² at t = 1 falls from .96 to .82 at L = 16, λ = 0.8. Directions of the
    sums are orthogonal in blocks, which leaves less to chance than independent ones.

    Where the action is not `even` in φ the sines get random phases, and the last of them is a constant.
    """

    def make(x: Tensor, generator: torch.Generator) -> LatticeDictionary:
        shape = tuple(x.shape[1:])
        mixing = _orthogonal(len(inner), features, generator)
        bare = LatticeDictionary(shape, inner, outer, torch.eye(len(inner), dtype=torch.float64))
        weights = mixing / bare.spread(x)[:, None]
        if even:
            return LatticeDictionary(shape, inner, outer, weights)
        phases = math.pi * torch.rand(features, generator=generator, dtype=torch.float64, device=generator.device).cpu()
        weights[:, -1], phases[-1] = 0.0, math.pi / 2
        return LatticeDictionary(shape, inner, outer, weights, phases)

    return make


def pair_fields(splines: int = 24) -> Factory:
    """Along the lines between points, functions of their distance up to the largest among the walkers."""

    def make(x: Tensor, generator: torch.Generator) -> PairDictionary:
        return PairDictionary(float(torch.cdist(x, x).max()), splines)

    return make


def _orthogonal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Columns distributed as white noise, orthogonal within each block of `rows` of them."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64, device=generator.device).cpu()

    blocks = [torch.linalg.qr(normal(rows, rows))[0] * normal(rows, rows).norm(dim=0) for _ in range(0, columns, rows)]
    return torch.cat(blocks, 1)[:, :columns]


MANY = 256  # coordinates beyond which they share their functions
PILOTS_PER_FIELD = 4  # a regression wants at least as many


def random_fourier(most: int = 500, *, shortest: float = 0.0125, longest: float = 1.25) -> Factory:
    """Gradients of random Fourier features, wavelengths log-uniform between fractions of the base's width."""

    def make(x: Tensor, generator: torch.Generator) -> RidgeDictionary:
        mean, scale = _moments(x)
        d = len(mean)
        features = max(0, min(most, len(x) // PILOTS_PER_FIELD - d * (1 + d)))
        waves, phases = _random_waves(features, d, 1 / longest, 1 / shortest, generator)
        return RidgeDictionary(mean, scale, waves, phases, "full")

    return make


def coordinate_sines(waves: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0), *, largest_full: int = 16) -> Factory:
    """Sines and cosines of every coordinate along itself, and linear fields that mix coordinates where there are few.

    With too few walkers for all of these, the shortest waves are left out first, then all waves, then coordinates of
    their own: one contraction of all of them is what remains.
    """

    def make(x: Tensor, generator: torch.Generator) -> RidgeDictionary:
        mean, scale = _moments(x)
        d, most = len(mean), len(x) // PILOTS_PER_FIELD
        linear: Affine = "full" if d <= largest_full and d + d * d <= most else "diagonal"
        linear = linear if 2 * d <= most else "isotropic"
        affine = {"full": d + d * d, "diagonal": 2 * d, "isotropic": 1}[linear]
        kept = waves[: max(0, most - affine) // (2 * d)]
        unit = torch.eye(d, dtype=torch.float64)
        frequencies = torch.cat([unit[:0], *(w * unit for w in kept for _ in range(2))])
        phases = torch.cat([unit[0, :0], *(torch.full((d,), p).double() for _ in kept for p in (0.0, math.pi / 2))])
        return RidgeDictionary(mean, scale, frequencies, phases, linear)

    return make


def shared_sines(covariance: Tensor, waves: tuple[float, ...] = (0.4, 0.8, 1.2)) -> Factory:
    """Sines and cosines that all coordinates share, as they are and carried along by the base's covariance."""

    def make(x: Tensor, generator: torch.Generator) -> SharedDictionary:
        mean, scale = _moments(x)
        white = covariance.double().cpu() / covariance.diagonal().mean().double().cpu()
        matrices = torch.stack([torch.eye(len(mean), dtype=torch.float64), white])
        frequencies = torch.tensor([w for w in waves for _ in range(2)], dtype=torch.float64)
        phases = torch.tensor([p for _ in waves for p in (0.0, math.pi / 2)], dtype=torch.float64)
        return SharedDictionary(mean, scale, matrices.to(x.dtype), frequencies, phases)

    return make


def curvature_fields(
    path: AnnealingPath, *, modulations: int = 0, waves: int = 0, shortest: float = 0.1, affine: Affine = "diagonal"
) -> Factory:
    """Contraction towards the origin and along the path's own gradient: right for modes that part and narrow."""

    def curvature(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return path.energy_and_score(t, x)[1], path.laplacian(t, x)  # pyright: ignore[reportAttributeAccessIssue]

    def make(x: Tensor, generator: torch.Generator) -> RidgeDictionary:
        mean, scale = _moments(x)
        d = len(mean)
        linear = affine if 2 * d < len(x) // PILOTS_PER_FIELD else "isotropic"
        sines, cosines = (_random_waves(n, d, 1.0, 1 / shortest, generator) for n in (waves, modulations))
        return RidgeDictionary(mean, scale, *sines, linear, curvature, *cosines)

    return make


def end_gradients(
    path: AnnealingPath, factory: Factory, *, asked: Callable[[Tensor], None] = lambda _: None
) -> Factory:
    r"""Further fields, along $\nabla U_0$ and $\nabla U_1$ apart: see `GradientDictionary`.

    Worth their two gradients where the ends have structure that the fields of `factory` do not know: on the linear
    path to 40 modes in the plane the held-out R² rises from .80 to .89, on that to 32 wells from .49 to .86
    (`docs/benchmarks/end-gradients.md`).

    Args:
        path: whose ends have Laplacians, or few coordinates.
        factory: of the other fields.
        asked: told the walkers of every call, to count them.

    Raises:
        InputError: walkers that are not vectors, on making the fields; what `score_and_laplacian` refuses, on using
            them.
    """

    def slope(x: Tensor) -> tuple[Tensor, Tensor]:
        asked(x)
        return score_and_laplacian(path.end, x)

    def make(x: Tensor, generator: torch.Generator) -> JoinedDictionary:
        if x.ndim != 2:
            raise InputError(
                f"fields along the gradients of the ends are for vectors: got walkers of shape {tuple(x.shape[1:])}; "
                "leave end_gradients out"
            )
        mean, scale = _moments(x)
        ends = (lambda x: score_and_laplacian(path.start, x), slope)
        return JoinedDictionary(
            (factory(x, generator), GradientDictionary(ends, mean, scale, mean.new_zeros(0, len(mean)), mean[:0]))
        )

    return make


def _random_waves(
    n: int, d: int, smallest: float, largest: float, generator: torch.Generator
) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
    """Frequencies of random direction and log-uniform length, and phases."""
    options = {"generator": generator, "dtype": torch.float64, "device": generator.device}
    direction = torch.randn(n, d, **options)
    length = smallest * (largest / smallest) ** torch.rand(n, 1, **options)
    phases = 2 * math.pi * torch.rand(n, **options)
    return (direction / direction.norm(dim=1, keepdim=True) * length).cpu(), phases.cpu()


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    flat = x.double().cpu()
    return flat.mean(0), flat.std(0)
