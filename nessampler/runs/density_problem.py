"""A density made ready: target, base, path, and the masses and draws that go with them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nessampler.errors import InputError
from nessampler.kernels import DenseMass, SpectralMass
from nessampler.methods.density.bases import Base, laplace, learned_base, pilot_base
from nessampler.methods.density.dictionaries import default_dictionary, in_space
from nessampler.methods.density.effort import DensityEffort, check_effort
from nessampler.methods.density.magnetised import magnetised_field
from nessampler.methods.density.modes import laplace_mixture
from nessampler.methods.density.problem import DensityProblem
from nessampler.methods.density.variational import variational_base
from nessampler.methods.ends import generator_for
from nessampler.paths import AnnealingPath, LinearPath, MixturePath, coupling_path
from nessampler.runs.config import DensityConfig
from nessampler.runs.config.density import (
    FreeFieldBase,
    GaussianBase,
    LaplaceBase,
    LaplaceMixtureBase,
    LearnedBase,
    MixtureBase,
    PilotBase,
    PriorBase,
    VariationalBase,
)
from nessampler.runs.density_targets import build_target
from nessampler.targets import Counted, Gaussian, Tally, Target
from nessampler.targets.laplacian import LARGEST_TRACE
from nessampler.targets.mixture import GaussianMixture
from nessampler.targets.phi4 import FreeField, Phi4, lattice_momenta

__all__ = ["PreparedDensity", "check_density", "prepare_density"]

MODES = "the modes"
MAGNETISATION = "the magnetisation"
ACCELERATION = 0.3  # mass squared of momenta on the lattice: near criticality long waves are softer than the base


@dataclass(frozen=True)
class PreparedDensity:
    """The problem, and what its base cost."""

    problem: DensityProblem
    evaluations: Tally
    seconds: float


def check_density(config: DensityConfig, folder: Path) -> Target:
    """The target, with everything found that can be wrong before work starts."""
    target = build_target(config.target.name, config.target.parameters, folder)
    base = config.base
    check_effort(DensityEffort(**config.sampling.model_dump()), config.run.method, target.event_shape)
    if isinstance(base, FreeFieldBase) and not isinstance(target, Phi4):
        raise InputError(f"a free-field base is for lattices (phi4): got {config.target.name}; use the pilot base")
    if isinstance(base, PriorBase) and not hasattr(target, "prior"):
        raise InputError(f"a prior base is for posteriors (logistic, cox): got {config.target.name}; use another base")
    if (
        isinstance(base, LaplaceBase | LaplaceMixtureBase | LearnedBase | VariationalBase)
        and len(target.event_shape) != 1
    ):
        raise InputError(
            f"a {base.kind.capitalize()} base is for vectors: got {config.target.name}; use the pilot base"
        )
    if isinstance(base, VariationalBase) and base.rank is not None and base.rank >= target.event_shape.numel():
        raise InputError(
            f"`base.rank` must be below the number of coordinates, {target.event_shape.numel()}: got {base.rank}; "
            "leave it out for a full covariance"
        )
    fields_known = len(target.event_shape) == 1 or isinstance(target, Phi4) or in_space(target.event_shape)
    solves = config.run.method == "lsq" or (config.run.method == "nets" and config.sampling.nets_start != "zero")
    if solves and not fields_known:
        raise InputError(
            f"method {config.run.method} is for vectors, lattices and points in space: got {config.target.name}, "
            f"shape {tuple(target.event_shape)}; choose ais, smc or pt"
        )
    if config.sampling.end_gradients:
        _check_end_gradients(target, config.target.name)
    _path(config, None, target)
    if isinstance(base, GaussianBase | MixtureBase):
        _stated_base(base, target, config.target.name)
    return target


def prepare_density(
    config: DensityConfig, folder: Path, *, say: Callable[[str], None] = lambda _: None
) -> PreparedDensity:
    """The problem as the recipe takes it. A Laplace or pilot base is fitted here, and its evaluations are counted."""
    started = time.perf_counter()
    target = check_density(config, folder)
    counted = Counted(target)
    base = _base(config, target, counted, say)
    path = _path(config, base, target)
    assert path is not None
    draws = getattr(target, "sample", None)
    problem = DensityProblem(
        path=path,
        dictionary=lambda x, generator: default_dictionary(path)(x, generator),
        mass=base.mass,
        step_size=config.numerics.step_size,
        knowledge=_knowledge(config),
        target_samples=None if draws is None else lambda n, generator: _drawn(draws, n, generator),
        origin=None if draws is None else "exact",
        symmetry=_sign_flips if isinstance(target, Phi4) else None,
        dtype=getattr(torch, config.numerics.dtype),
        chunk_size=config.numerics.chunk_size,
    )
    return PreparedDensity(problem, counted.tally("base"), time.perf_counter() - started)


def _base(config: DensityConfig, target: Target, counted: Counted, say: Callable[[str], None]) -> Base:
    base = config.base
    if isinstance(base, PriorBase):
        prior = target.prior  # pyright: ignore[reportAttributeAccessIssue]
        # A dense prior is as stiff as what it comes from; its factor makes moves that are not.
        return Base(prior, DenseMass(prior.factor)) if hasattr(prior, "factor") else Base(prior)
    if isinstance(base, FreeFieldBase):
        assert isinstance(target, Phi4)
        field = _free_field(base, config, target, counted)
        precision = 2 * (lattice_momenta(target.size, target.dimensions) + ACCELERATION)
        return Base(field, SpectralMass(precision))
    if isinstance(base, LearnedBase):
        return _learned(base, config, target, counted, say)
    with counted.stage("base"):
        if isinstance(base, LaplaceBase):
            return laplace(counted, inflation=base.inflation, hessian=getattr(target, "hessian", None))
        if isinstance(base, LaplaceMixtureBase):
            return _about_modes(base, config, counted, getattr(target, "hessian", None), say)
        if isinstance(base, VariationalBase):
            options = base.model_dump(exclude={"kind"})
            return variational_base(counted, **options, generator=generator_for(config.run.seed, "base"), say=say)
        if isinstance(base, PilotBase):
            return pilot_base(
                counted,
                walkers=base.walkers,
                steps=base.steps,
                start_scale=base.start_scale,
                inflation=base.inflation,
                lattice=isinstance(target, Phi4),
                generator=generator_for(config.run.seed, "base"),
            )
    return Base(_stated_base(base, target, config.target.name))


def _free_field(base: FreeFieldBase, config: DensityConfig, target: Phi4, counted: Counted) -> FreeField:
    if base.magnetisation == "pilot":
        options = {"counted": counted, "generator": generator_for(config.run.seed, "base")}
        with counted.stage("base"):
            return magnetised_field(target, mass_squared=base.mass_squared, **options)
    options = {"dimensions": target.dimensions, "magnetisation": base.magnetisation}
    return FreeField.massive(target.size, mass_squared=base.mass_squared, **options)


def _about_modes(
    base: LaplaceMixtureBase,
    config: DensityConfig,
    target: Target,
    hessian: Callable[[Tensor], Tensor] | None,
    say: Callable[[str], None],
) -> Base:
    generator = generator_for(config.run.seed, "base")
    shape = (base.starts, target.event_shape.numel())
    starts = base.wide_scale * torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)
    return laplace_mixture(target, starts, inflation=base.inflation, hessian=hessian, generator=generator, say=say)


def _learned(
    base: LearnedBase, config: DensityConfig, target: Target, counted: Counted, say: Callable[[str], None]
) -> Base:
    d = target.event_shape.numel()
    wide = Gaussian(torch.zeros(d, dtype=torch.float64), torch.full((d,), base.wide_scale, dtype=torch.float64))
    found = learned_base(
        target,
        wide,
        pilots=base.pilots,
        rounds=base.rounds,
        generator=generator_for(config.run.seed, "base"),
        say=say,
    )
    if found.learned is not None:  # it counts for itself
        spent, tally = found.learned.evaluations, counted.tally("base")
        tally.energy, tally.gradient = tally.energy + spent.energy, tally.gradient + spent.gradient
    return found


def _check_end_gradients(target: Target, name: str) -> None:
    d = target.event_shape.numel()
    if len(target.event_shape) != 1 or not (hasattr(target, "laplacian") or d <= LARGEST_TRACE):
        raise InputError(
            f"`sampling.end_gradients` is for vectors whose density has a Laplacian, or at most {LARGEST_TRACE} "
            f"coordinates: got {name}, shape {tuple(target.event_shape)}; leave it out"
        )


def _stated_base(base: GaussianBase | MixtureBase, target: Target, name: str) -> Target:
    """A base whose numbers stand in the file."""
    d = target.event_shape.numel()
    if len(target.event_shape) != 1:
        raise InputError(f"a {base.kind} base is for vectors: got {name}; use the pilot base")
    if isinstance(base, GaussianBase):
        return Gaussian(_filled(base.mean, d, "mean"), _filled(base.scale, d, "scale"))
    means = _target_means(target, name) if base.means is None else torch.tensor(base.means, dtype=torch.float64)
    if means.ndim != 2 or means.shape[1] != d:
        raise InputError(f"`base.means` must hold rows of {d} numbers: got shape {tuple(means.shape)}")
    return GaussianMixture(means, torch.full((len(means),), base.scale, dtype=torch.float64))


def _filled(value: float | list[float], d: int, name: str) -> Tensor:
    numbers = torch.as_tensor(value, dtype=torch.float64).expand(d) if not isinstance(value, list) else None
    if numbers is None:
        numbers = torch.tensor(value, dtype=torch.float64)
    if len(numbers) != d:
        raise InputError(f"`base.{name}` must be one number or {d} of them: got {len(numbers)}")
    return numbers.clone()


def _target_means(target: Target, name: str) -> Tensor:
    if not hasattr(target, "means"):
        raise InputError(
            f"a mixture base without `means` takes those of the target: {name} has none; give `base.means`"
        )
    return target.means  # pyright: ignore[reportAttributeAccessIssue]


def _path(config: DensityConfig, base: Base | None, target: Target) -> AnnealingPath | None:
    """From the base to the target; before there is a base, what can be wrong all the same."""
    if config.path.kind == "mixture":
        return _mixture_path(config, target)
    if config.path.kind == "couplings":
        if not isinstance(config.base, FreeFieldBase) or not isinstance(target, Phi4):
            raise InputError(
                f"a path of couplings is for lattices from a free field: got {config.target.name} from a "
                f"{config.base.kind} base; use the linear path"
            )
        if config.base.magnetisation:
            raise InputError(
                f"a path of couplings starts from a field about zero: got `base.magnetisation` = "
                f"{config.base.magnetisation!r}; leave it out, or use the linear path"
            )
        return coupling_path(target, start_mass_squared=config.base.mass_squared)
    return None if base is None else LinearPath(base.target, target)


def _mixture_path(config: DensityConfig, target: Target) -> MixturePath:
    base = config.base
    if not isinstance(target, GaussianMixture):
        raise InputError(f"a mixture path is for Gaussian mixtures: got {config.target.name}; use the linear path")
    if not isinstance(base, GaussianBase) or isinstance(base.scale, list) or base.mean != 0.0:
        raise InputError(
            "a mixture path starts from a Gaussian about the origin: got another base; "
            'give base = { kind = "gaussian", scale = 10.0 } with one number for the scale'
        )
    return MixturePath(base.scale, target)


def _knowledge(config: DensityConfig) -> str:
    """What base or path were told, whether or not the file owns up to it."""
    if config.knowledge:
        return config.knowledge
    if isinstance(config.base, FreeFieldBase) and config.base.magnetisation not in (0.0, "pilot"):
        return MAGNETISATION
    return MODES if config.path.kind == "mixture" or isinstance(config.base, MixtureBase) else ""


def _sign_flips(x: Tensor, generator: torch.Generator) -> Tensor:
    """An even action does not know the sign of its field."""
    sign = torch.randint(2, (len(x), *[1] * (x.ndim - 1)), generator=generator, device=x.device)
    return x * (2 * sign - 1).to(x)


def _drawn(draws: Any, n: int, generator: torch.Generator) -> Tensor:
    return draws(n, generator=generator)
