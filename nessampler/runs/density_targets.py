"""The densities that a file can name, each with the parameters that its table may hold."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pydantic
import torch

from nessampler.errors import InputError
from nessampler.runs.config.wording import broken
from nessampler.runs.system_files import file_inside, load_callable
from nessampler.targets import Target
from nessampler.targets.anything import target_of
from nessampler.targets.callable import check_target
from nessampler.targets.cox import LogGaussianCox, bin_counts, load_points
from nessampler.targets.curie_weiss import CurieWeiss
from nessampler.targets.funnel import Funnel
from nessampler.targets.lennard_jones import LennardJonesCluster
from nessampler.targets.logistic import LogisticRegression, standardised
from nessampler.targets.many_well import ManyWell
from nessampler.targets.mixture import GaussianMixture, gmm_40, random_mixture
from nessampler.targets.numpy_density import NumpyDensity
from nessampler.targets.phi4 import Phi4
from nessampler.targets.shapes import Ring, TwoMoons
from nessampler.targets.student import StudentMixture, student_mixture_50
from nessampler.targets.umbrella import Umbrella

__all__ = ["TARGETS", "build_target"]

PROBES = 32
STRICT = pydantic.ConfigDict(strict=True, allow_inf_nan=False)


def build_target(name: str, parameters: Mapping[str, Any], folder: Path, source: str = "target") -> Target:
    """The density of a `[target]` table.

    Args:
        name: a key of `TARGETS`.
        parameters: all other keys; those of the constructor.
        folder: where a file named by `data` lies.
        source: the table's name in messages.

    Raises:
        InputError: an unknown name or parameter (with the nearest known one), a missing one, or a bad value.

    Example:
        >>> build_target("funnel", {"dimension": 4}, Path()).event_shape
        torch.Size([4])
    """
    if name not in TARGETS:
        near = difflib.get_close_matches(name, TARGETS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"`{source}.name` must be one of {', '.join(TARGETS)}: got {name!r}{hint}")
    build = TARGETS[name]
    known = inspect.signature(build).parameters
    for key in parameters:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            takes = f"{name} takes {', '.join(known)}" if known else f"{name} takes none"
            hint = f"did you mean `{near[0]}`?" if near else takes
            raise InputError(f"unknown parameter `{source}.{key}`; {hint}")
    for key, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and key not in parameters:
            raise InputError(f"`{source}.{key}` is required for {name}")
    given = {k: _given(folder, k, v, source) for k, v in parameters.items()}
    try:
        return pydantic.validate_call(config=STRICT)(build)(**given)
    except pydantic.ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(map(str, (source, *detail["loc"])))
        raise InputError(broken(where, [detail["msg"]], detail["input"])) from error
    except (RuntimeError, MemoryError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else "not enough memory"
        raise InputError(
            f"`{source}`: {name} cannot be built from these parameters ({reason[:200]}); make it smaller"
        ) from error


def _given(folder: Path, key: str, value: object, source: str) -> object:
    """Names of files become paths, and names of Python what they name."""
    if key == "data":
        return _file(folder, value, f"{source}.data")
    if key == "files" and isinstance(value, list):
        return [_file(folder, name, f"{source}.files") for name in value]
    return load_callable(folder, value, source) if key == "callable" else value


def _file(folder: Path, name: object, source: str) -> Path:
    if not isinstance(name, str):
        raise InputError(f"`{source}` must be the name of a file: got {name!r}")
    path = file_inside(folder, name)
    if not path.is_file():
        raise InputError(f"`{source}` must be a file: {path} does not exist")
    return path


def _python(callable: Any, shape: list[int], files: list[Path] | None = None) -> Target:
    """A log density of the user's own, in torch or numpy, or a target; `files` are what its module reads besides."""
    target = target_of(callable, event_shape=tuple(shape))
    probes = torch.randn(PROBES, *target.event_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # A `NumpyDensity` without a gradient is for random walks; other methods will say so.
    check_target(target, probes, gradient=not (isinstance(target, NumpyDensity) and target.gradient is None))
    return target


def _mixture(means: list[list[float]], scales: list[float], weights: list[float] | None = None) -> GaussianMixture:
    return GaussianMixture(_rows(means), _double(scales), None if weights is None else _double(weights))


def _student_mixture(means: list[list[float]], scale: float = 1.0, degrees_of_freedom: float = 2.0) -> StudentMixture:
    return StudentMixture(_rows(means), scale, degrees_of_freedom)


def _random_mixture(modes: int, dimension: int, scale: float, spread: float, seed: int = 0) -> GaussianMixture:
    return random_mixture(modes, dimension, scale=scale, spread=spread, seed=seed)


def _funnel(dimension: int = 10, scale: float = 3.0) -> Funnel:
    return Funnel(dimension, scale)


def _many_well(pairs: int = 16) -> ManyWell:
    return ManyWell(pairs)


def _phi4(size: int, quartic: float, mass_squared: float = -1.0, dimensions: int = 2) -> Phi4:
    return Phi4(size, quartic=quartic, mass_squared=mass_squared, dimensions=dimensions)


def _phi4_umbrella(
    size: int, quartic: float, stiffness: float, center: float, mass_squared: float = -1.0, dimensions: int = 2
) -> Umbrella:
    magnet = Phi4(size, quartic=quartic, mass_squared=mass_squared, dimensions=dimensions)
    return Umbrella(magnet, stiffness=stiffness, center=center)


def _ring(radius: float, width: float) -> Ring:
    return Ring(radius, width)


def _two_moons() -> TwoMoons:
    return TwoMoons()


def _curie_weiss(spins: int, stiffness: float, coupling: float, field: float = 0.0) -> CurieWeiss:
    return CurieWeiss(spins, stiffness=stiffness, coupling=coupling, field=field)


def _lennard_jones(atoms: int, strength: float = 1.0, trap: float = 1.0) -> LennardJonesCluster:
    return LennardJonesCluster(atoms, strength, trap)


def _logistic(data: Path, prior_scale: float = 1.0) -> LogisticRegression:
    features, labels = standardised(data)
    return LogisticRegression(features, labels, prior_scale)


def _cox(
    data: Path, cells: int, mean: float | None = None, variance: float = 1.91, length: float = 1 / 33
) -> LogGaussianCox:
    counts = bin_counts(load_points(data), cells)
    return LogGaussianCox(counts, mean=mean, variance=variance, length=length)


def _rows(means: list[list[float]]) -> torch.Tensor:
    if len({len(row) for row in means}) != 1:
        raise InputError(f"`means` must hold rows of one length: got lengths {[len(row) for row in means]}")
    return _double(means)


def _double(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


TARGETS: dict[str, Callable[..., Target]] = {
    "mixture": _mixture,
    "gmm-40": gmm_40,
    "random-mixture": _random_mixture,
    "student-mixture": _student_mixture,
    "student-50": student_mixture_50,
    "funnel": _funnel,
    "many-well": _many_well,
    "ring": _ring,
    "two-moons": _two_moons,
    "phi4": _phi4,
    "phi4-umbrella": _phi4_umbrella,
    "curie-weiss": _curie_weiss,
    "lennard-jones": _lennard_jones,
    "logistic": _logistic,
    "cox": _cox,
    "python": _python,
}
"""What each name builds; the parameters of the function are the keys of the table."""
