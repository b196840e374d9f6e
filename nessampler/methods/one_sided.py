"""Absolute free energies: the difference to a base whose log Z is known, from samples of one state alone."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import ComposeTransform, ReshapeTransform, Transform

from nessampler.closed_form.affine import fit_standardizer
from nessampler.closed_form.wrapped_mixture import fit_wrapped_mixture
from nessampler.errors import InputError
from nessampler.estimators import Flag, FreeEnergy
from nessampler.estimators.free_energy import estimate, no_estimate
from nessampler.methods.arguments import check_coordinates, check_kind, check_seed
from nessampler.methods.difference import Difference, free_energy
from nessampler.methods.effort import Effort
from nessampler.methods.ends import generator_for, split_by_time
from nessampler.methods.front_door import one_state
from nessampler.methods.ladder import Method
from nessampler.methods.rungs.one_sided import ONE_SIDED
from nessampler.methods.rungs.structure import Structure
from nessampler.methods.tables import flag_lines, html
from nessampler.targets import AnglesAndNormals, Gaussian, Tally, Target, TransformedTarget, carry

__all__ = ["Absolute", "absolute_free_energy"]


@dataclass(frozen=True, repr=False)
class Absolute:
    r"""$F = -\log Z$ of one state, in kT.

    Attributes:
        free_energy: F with its error, flags and interval; `delta_f` is F itself.
        base: the density it was measured from.
        difference: between base and state, with rungs, bounds and costs.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> one, two = Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), torch.full((1,), 2.0))
        >>> a, b = (absolute_free_energy(x, x.sample(500, generator=g).double(), method="plain") for x in (one, two))
        >>> difference = b - a  # exact: log Z of one less that of two
        >>> abs(difference.delta_f - (one.log_z - two.log_z)) < 4 * difference.std_error + 1e-6
        True
    """

    free_energy: FreeEnergy
    base: Target
    difference: Difference

    @property
    def log_z(self) -> float | None:
        r"""$\log Z = -F$; None where no number would be honest."""
        return None if self.free_energy.delta_f is None else -self.free_energy.delta_f

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """One-sided 99.9 % limits of F from below and from above, by the second law."""
        low, high = self.difference.bounds.tightest_limits
        offset = _offset(self.base)
        return None if low is None else low + offset, None if high is None else high + offset

    def __sub__(self, other: Absolute) -> FreeEnergy:
        """Of this state relative to the other: errors add in quadrature, as far as the samples of both are independent.

        Draws of the bases and noise are: each result has its own, by the order of its samples. Doubts about either
        state are doubts about the difference.
        """
        mine, theirs = self.free_energy, other.free_energy
        common = {
            "n": mine.n + theirs.n,
            "ess": mine.ess + theirs.ess,
            "flags": tuple(dict.fromkeys((*self._flags, *other._flags))),
            "estimator": "difference of absolute free energies",
        }
        if mine.delta_f is None or theirs.delta_f is None or mine.std_error is None or theirs.std_error is None:
            return no_estimate(**common)
        return estimate(mine.delta_f - theirs.delta_f, mine.std_error**2 + theirs.std_error**2, **common)

    @property
    def _flags(self) -> tuple[Flag, ...]:
        """Of the estimate and of the samples."""
        return (*self.difference.flags, *self.free_energy.flags)

    def to(self, unit: str, temperature: float | None = None) -> FreeEnergy:
        """F in "kcal/mol" or "kJ/mol", at a temperature in kelvin: see `FreeEnergy.to`."""
        return self.free_energy.to(unit, temperature)

    def _repr_html_(self) -> str:
        return html(str(self), self.difference.to_dataframe())

    def __repr__(self) -> str:
        return f"<Absolute {str(self).splitlines()[0]}; {self.difference.chosen}, {self.difference.verdict.level}>"

    def __str__(self) -> str:
        text = str(self.free_energy).replace("ΔF", "F", 1)
        return f"{text}{flag_lines(self.difference.flags, self.free_energy.flags)}"


def absolute_free_energy(
    target: object,
    samples: Any,
    *,
    base: Target | None = None,
    method: Method = "auto",
    coordinates: Transform | None = None,
    structure: Structure | None = None,
    seed: int = 0,
    effort: Effort | None = None,
    endstate_evaluations: Tally | int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Absolute:
    r"""$F = -\log\int e^{-U(x)}\,dx$ from equilibrium samples of one state:

    $$F = F_\text{base} + \Delta F(\text{base} \to \text{state}), \qquad F_\text{base} = -\log Z_\text{base}$$

    The base is a standard normal in coordinates that standardise the block that fits transports, beside angles of a
    mixture of wrapped Gaussians where there are circular coordinates, which the means of the others then follow. It is
    sampled exactly, as many times as there are samples. All rungs of `free_energy` apply; those of fields and `feat`
    also try the one-sided interpolant, in which the base is the noise, where nothing is circular. The difference of two
    states is that of two results: `b - a`.

    Args:
        target: the state: a target with its energy in kT, a distribution, or a log density of vectors.
        samples: `(n, *event)` of independent samples, or `(chains, draws, *event)` of time-ordered, correlated ones;
            a tensor or an array.
        base: a density with `sample` and `log_z`, in `coordinates`, in place of the normal (and of the angles).
        method, effort, endstate_evaluations, say: as of `free_energy`.
        seed: the same seed and samples give the same result; at one seed, other samples have other draws of the base.
        coordinates: a bijection to the vector that is standardised; by default the entries of a sample. Its attribute
            `circular`, if any, marks the angles.
        structure: how rungs are built; by default those of vectors with the one-sided candidates.

    Raises:
        InputError: as of `free_energy`; a base without `sample` or `log_z`.

    References:
        He et al., FEAT: Free energy Estimators with Adaptive Transport, 2025, arXiv:2504.11516 (one-sided).

    Example:
        >>> from nessampler.targets import AnharmonicWell
        >>> well = AnharmonicWell([1.0], stiffness=[2.0], quartic=[0.1], skew=[-1.0], coupling=0.0)
        >>> x = well.sample(1000, generator=torch.Generator().manual_seed(0))
        >>> found = absolute_free_energy(well, x, method="plain")
        >>> abs(found.log_z - well.log_z) < 4 * found.free_energy.std_error < 0.2
        True
    """
    check_seed(seed)
    check_kind("effort", effort, Effort, "pass Effort()")
    state, samples = one_state(target, samples, "the state")
    effort, event = effort or Effort(), state.event_shape
    check_coordinates(coordinates, event)
    _check_event(samples, event)
    seed = _own_seed(seed, samples, event, effort.blocks[0])
    if coordinates is None and len(event) != 1:
        coordinates = ReshapeTransform(event, torch.Size([event.numel()]))
    circular = _circular(coordinates, event)
    structure = replace(structure or ONE_SIDED, fitted=base is None)
    if base is None:
        coordinates, base = _standardised(samples, coordinates, circular, effort, seed)
    if coordinates is not None:
        state, samples = TransformedTarget(state, coordinates), carry(coordinates, samples)
    _check_base(base, state)
    number = samples.shape[: samples.ndim - len(state.event_shape)]
    generator = generator_for(seed, "base of an absolute free energy")
    start = base.sample(number.numel(), generator=generator)  # pyright: ignore[reportAttributeAccessIssue]
    found = free_energy(
        base,
        state,
        start.to(samples).view(samples.shape),
        samples,
        coordinates=_Marked(circular) if bool(circular.any()) else None,
        method=method,
        structure=structure,
        seed=seed,
        effort=effort,
        endstate_evaluations=(0, endstate_evaluations),
        say=say,
    )
    return Absolute(_shifted(found.delta_f, _offset(base)), base, found)


def _circular(coordinates: Transform | None, event: torch.Size) -> Tensor:
    shape = event if coordinates is None else torch.Size(coordinates.forward_shape(event))
    return getattr(coordinates, "circular", torch.zeros(shape.numel(), dtype=torch.bool))


def _standardised(
    samples: Tensor, coordinates: Transform | None, circular: Tensor, effort: Effort, seed: int
) -> tuple[Transform, Target]:
    """Coordinates in which the samples that fit are standard given their angles, and the base: no others are seen."""
    seen = samples if coordinates is None else carry(coordinates, samples)
    chains = seen[None] if seen.ndim == 2 else seen
    fit = split_by_time(chains, chains, effort.blocks, correlated=True)[0].flat_b
    angular = bool(circular.any())
    standard = fit_standardizer(fit, circular, conditional=angular)
    both = standard if coordinates is None else ComposeTransform([coordinates, standard])
    if not angular:
        zero = torch.zeros(len(circular), dtype=torch.float64, device=samples.device)
        return both, Gaussian(zero, torch.ones_like(zero))
    generator = generator_for(seed, "angles of a base")
    angles = fit_wrapped_mixture(fit[:, circular], generator=generator)
    return both, AnglesAndNormals(angles.weights, angles.means, angles.variances.sqrt(), circular)


def _own_seed(seed: int, samples: Tensor, event: torch.Size, fit: float) -> int:
    """Another for every set of samples, whose errors would share the base and the noise of one seed otherwise.

    The order of the samples that fit decides, along every coordinate: it does not change with units, and nothing but
    the base's own block is looked at.
    """
    chains = samples[None] if samples.ndim == len(event) + 1 else samples
    seen = chains[:, : round(fit * chains.shape[1])].flatten(0, 1).flatten(1)
    order = seen.argsort(dim=0, stable=True).cpu().numpy()
    return int(np.random.SeedSequence([seed, zlib.crc32(order.tobytes())]).generate_state(1)[0])


class _Marked(Transform):
    """The identity, which tells which coordinates are angles."""

    bijective = True
    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(self, circular: Tensor) -> None:
        super().__init__()
        self.circular = circular

    def _call(self, x: Tensor) -> Tensor:
        return x

    def _inverse(self, y: Tensor) -> Tensor:
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Zero."""
        return torch.zeros_like(x[..., 0])


def _check_event(samples: Tensor, event: torch.Size) -> None:
    batch = samples.ndim - len(event)
    if batch not in (1, 2) or samples.shape[batch:] != event:
        raise InputError(
            f"samples must be (n, *event) or (chains, draws, *event) with event shape {tuple(event)}: got "
            f"{tuple(samples.shape)}"
        )


def _check_base(base: Target, target: Target) -> None:
    missing = [name for name in ("sample", "log_z") if not hasattr(base, name)]
    shape = getattr(base, "event_shape", None)
    if missing or shape != target.event_shape:
        raise InputError(
            f"a base has `sample`, `log_z` and the event shape {tuple(target.event_shape)}: got a "
            f"{type(base).__name__} of shape {None if shape is None else tuple(shape)}, without "
            f"{' and '.join(missing) or 'that shape'}"
        )


def _offset(base: Target) -> float:
    return -float(base.log_z)  # pyright: ignore[reportAttributeAccessIssue]


def _shifted(found: FreeEnergy, by: float) -> FreeEnergy:
    if found.delta_f is None or not math.isfinite(by):
        return found
    ci95 = None if found.ci95 is None else (found.ci95[0] + by, found.ci95[1] + by)
    return replace(found, delta_f=found.delta_f + by, ci95=ci95)
