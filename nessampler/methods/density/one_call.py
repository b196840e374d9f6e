"""From anything that is a density to weighted samples and log Z in one call."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from nessampler.errors import InputError
from nessampler.kernels import Mass, UnitMass
from nessampler.methods.arguments import check_seed
from nessampler.methods.density.bases import check_proper, pilot_base
from nessampler.methods.density.dictionaries import default_dictionary
from nessampler.methods.density.effort import DensityEffort
from nessampler.methods.density.problem import DensityProblem
from nessampler.methods.density.result import Sampled
from nessampler.methods.density.sample import sample_density
from nessampler.methods.ends import generator_for
from nessampler.methods.front_door import density_of
from nessampler.paths import LinearPath
from nessampler.targets import Counted, Target
from nessampler.targets.callable import check_target
from nessampler.targets.differences import billed
from nessampler.targets.phi4 import Phi4

__all__ = ["sample"]

PROBES = 32


def sample(
    density: object,
    *,
    dim: int | tuple[int, ...] | None = None,
    batched: bool = True,
    gradient: Callable[[np.ndarray], np.ndarray] | None = None,
    temperature: Any = None,
    base: Target | None = None,
    method: Literal["ais", "smc", "pt", "lsq", "nets", "auto"] = "auto",
    seed: int = 0,
    effort: DensityEffort | None = None,
    target_samples: Callable[[int, torch.Generator], Tensor] | None = None,
    origin: str | None = None,
    knowledge: str = "",
    dtype: torch.dtype = torch.float64,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
    report: Callable[..., None] = lambda **_: None,
    checkpoint: Path | None = None,
    device: str = "cpu",
) -> Sampled:
    r"""Weighted samples of $\rho(x) \propto e^{-U(x)}$ and $\log Z = \log \int e^{-U}$, with an honest error.

    Walkers go from a base to the target along $U_t = (1 - t) U_0 + t U$ with exact weights. Without a base, a normal
    with the moments of short chains is fitted first; it knows the modes that these chains found, and no others.

    Args:
        density: a batched **log density** in torch or numpy, `(n, *event)` to `(n,)`; a
            `torch.distributions.Distribution`; a `bridgestan.StanModel` or a `pymc.Model`, which are sampled on their
            unconstrained parameters; an OpenMM `System` or `Simulation` that is held in place; or a target with
            `event_shape` and `energy`.
        dim: shape of one point, needed for a callable: `3` is `(3,)`.
        batched: whether a callable takes many points at once.
        gradient: of a log density in numpy; without it, differences of energies steer the walkers, two energies a
            coordinate, as the result says and its counts of energies tell.
        temperature: in kelvin, of an OpenMM `System`.
        base: where to start: a density with `sample(n, *, generator)` and `log_z` that covers the target.
        method: ais, smc, pt (parallel tempering), lsq (a drift solved in closed form), nets (a learned one), or auto.
        seed: the same seed gives the same result.
        effort: what to spend on it; `kernel="walk"` asks for energies alone, of methods ais, smc and auto, from a base.
        target_samples: `(n, generator)` to independent samples of the target, for a bound from the other side; by
            default the target's own `sample`.
        origin: where these samples come from, named in the result.
        knowledge: what your base was told about the target that no walker found out, such as "the modes"; the result
            owns up to it. A base that is fitted here was told nothing.
        dtype: of the walkers.
        say: told what is going on, one line at a time.
        progress: told what is done, of how much, and of what.
        report: told numbers as they stand by keyword: `loss`, `ess`, `r_squared`.
        checkpoint: a file where training leaves its state, to go on from.
        device: of walkers and networks.

    Raises:
        InputError: a density that cannot work, found by name at a few points before any work starts: the wrong shape,
            not batched, discrete, NaN, no gradient, not normalisable; a base without `sample` or `log_z`, or without
            the target's shape.

    Example:
        >>> from nessampler.methods.density.effort import DensityEffort
        >>> effort = DensityEffort(walkers=400, pilot_walkers=200, pilot_steps=6, steps=8)
        >>> found = sample(lambda x: -0.5 * x.square().sum(-1), dim=2, method="ais", effort=effort)
        >>> abs(found.log_z.value - torch.log(torch.tensor(2 * torch.pi))) < 4 * found.log_z.std_error + 0.01
        tensor(True)
    """
    check_seed(seed)
    target = density_of(density, dim=dim, batched=batched, gradient=gradient, temperature=temperature)
    effort = effort or DensityEffort()
    walks, lattice = effort.kernel == "walk", isinstance(target, Phi4)
    mass: Mass = UnitMass()
    counted, started = Counted(target), time.perf_counter()
    if base is None:
        if walks:
            raise InputError(
                "a base is fitted by chains that ask for gradients, and kernel = 'walk' for none: got no base; pass "
                "base=Gaussian(mean, scale), or another density with `sample` and `log_z` that covers the target"
            )
        probes = torch.randn(PROBES, *target.event_shape, generator=generator_for(seed, "probes"), dtype=torch.float64)
        _checked(counted, probes, gradient=True)
        say("fitting a base to short chains")
        with counted.stage("base"):
            fitted = pilot_base(counted, lattice=lattice, generator=generator_for(seed, "base"))
        base, mass = fitted.target, fitted.mass
    else:
        _check_base(base)
        probes = base.sample(PROBES, generator=generator_for(seed, "probes"))  # pyright: ignore[reportAttributeAccessIssue]
        _checked(counted, probes.to(dtype), gradient=not walks)
        with counted.stage("checks"):
            check_proper(counted, base, generator=generator_for(seed, "proper"), walks=walks)
    seconds = {"base": time.perf_counter() - started}
    path = LinearPath(base, target)
    own = getattr(target, "sample", None)
    if target_samples is None and own is not None:
        target_samples, origin = (lambda n, generator: own(n, generator=generator)), "exact"
    problem = DensityProblem(
        path=path,
        dictionary=lambda x, generator: default_dictionary(path)(x, generator),
        mass=mass,
        target_samples=target_samples,
        origin=origin or (None if target_samples is None else "given by the caller"),
        knowledge=knowledge,
        dtype=dtype,
    )
    found = sample_density(
        problem,
        method=method,
        seed=seed,
        effort=effort,
        say=say,
        progress=progress,
        report=report,
        checkpoint=checkpoint,
        device=device,
    )
    return replace(
        found,
        shared={stage: billed(target, spent) for stage, spent in counted.tallies.items()} | dict(found.shared),
        shared_seconds={**seconds, **found.shared_seconds},
    )


def _checked(counted: Counted, probes: Tensor, *, gradient: bool) -> None:
    """`check_target` on the target itself, which tells by what it offers where its gradient comes from."""
    check_target(counted.target, probes, gradient=gradient)
    tally = counted.tally("checks")
    if gradient:
        tally.gradient += len(probes)
    if not gradient or hasattr(counted.target, "energy_and_score"):
        tally.energy += len(probes)


def _check_base(base: Target) -> None:
    for name in ("sample", "log_z"):
        if not hasattr(base, name):
            raise InputError(
                f"a base must have `sample(n, *, generator)` and `log_z`: got {type(base).__name__} without {name}; "
                "use a Gaussian or a mixture, or leave the base out"
            )
