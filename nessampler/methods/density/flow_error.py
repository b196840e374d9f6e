"""How much integrated log-determinants shift log Z, measured on pilot walkers by halving the steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.closed_form.least_squares_drift import NoDriftError
from nessampler.errors import InputError
from nessampler.estimators import Flag
from nessampler.kernels import Flow, Kernel, VelocityField, Walkers
from nessampler.paths import AnnealingPath
from nessampler.weights import LogWeights

__all__ = ["FLOW_TOLERANCE", "FlowError", "NoDriftError", "fine_enough", "flow_error", "unmet"]

FLOW_TOLERANCE = 5e-4  # in log Z, beyond which a finer rule is tried
NEGLIGIBLE = 0.1  # of a standard error
RULES = ((2, 1), (4, 1), (4, 2), (4, 4))  # order and substeps, by cost


@dataclass(frozen=True)
class FlowError:
    """Shift of log Z by the flow's discrete steps, and the standard error of that measurement."""

    shift: float
    std_error: float

    @property
    def bound(self) -> float:
        """What goes into the result's error."""
        return abs(self.shift) + self.std_error


@torch.no_grad()
def flow_error(
    flow: Flow,
    relax: Kernel,
    path: AnnealingPath,
    times: Sequence[float],
    x: Float[Tensor, " n *event"],
    *,
    generator: torch.Generator,
) -> FlowError:
    r"""Carry weighted walkers along and take every flow step twice: whole, and as two halves.

    The weight of a step with exact log-determinant averages to the ratio of partition functions for any map, so the
    averages of a whole step and of two halves differ by the quadrature's errors alone,

    $$\delta_k = \log\langle w^{(h)}\rangle - \log\langle w^{(h/2)}\rangle, \qquad
      \text{shift of } \log Z = \frac{1}{1 - 2^{-p}} \sum_k \delta_k$$

    for a rule of order p. Both are taken from the same walkers, which makes the difference far sharper than either.

    What this measures is the step size's error, extrapolated from one halving. A field whose *divergence is wrong*
    shifts whole and halved steps alike and is not seen here: divergences are tested against autograd's Jacobian.

    Steps of an affine field have the log-determinant of the discrete step itself (`Flow.exact`): their error is zero,
    and nothing is measured.

    Args:
        flow: the rule under test.
        relax: leaves U_t invariant and knows the energy, such as `HMC`; it follows every flow step.
        path: with an interior.
        times: of the run.
        x: walkers in equilibrium at `times[0]`.
        generator: source of randomness.

    Raises:
        InputError: moves that do not know the energy.
        NoDriftError: no walker is left inside the support.

    References: Hairer, Nørsett & Wanner, Solving Ordinary Differential Equations I, 1993, section II.4 (extrapolation).
    """
    if flow.exact:
        return FlowError(0.0, 0.0)
    halves = replace(flow, substeps=2 * flow.substeps)
    walkers = relax.start(times[0], x)
    shift = 0.0
    log_weight, influence = (torch.zeros(len(x), dtype=torch.float64, device=x.device) for _ in range(2))
    for t0, t1 in pairwise(times):
        before = _energy(walkers)
        whole, one = flow.step(t0, t1, walkers, generator=generator)
        split, two = halves.step(t0, t1, walkers, generator=generator)
        time = torch.full((len(x),), t1, dtype=x.dtype, device=x.device)
        dead = log_weight == -torch.inf
        coarse, fine = (
            torch.where(dead, -torch.inf, log_weight + before + ratio - path.energy(time, moved.x).to(torch.float64))
            for ratio, moved in ((one, whole), (two, split))
        )
        if not bool(torch.isfinite(coarse).any() & torch.isfinite(fine).any()):
            raise NoDriftError(t0, len(x))
        shift += LogWeights(coarse).log_mean - LogWeights(fine).log_mean
        influence += LogWeights(coarse).normalized - LogWeights(fine).normalized
        walkers, _ = relax.step(t0, t1, split, generator=generator)
        log_weight = fine - LogWeights(fine).log_mean
    gain = 1 / (1 - 2.0**-flow.order)
    return FlowError(gain * shift, gain * float(influence.square().sum().sqrt()))


def fine_enough(
    field: VelocityField,
    relax: Kernel,
    path: AnnealingPath,
    times: Sequence[float],
    x: Float[Tensor, " n *event"],
    *,
    tolerance: float = FLOW_TOLERANCE,
    generator: torch.Generator,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Flow, FlowError]:
    """The cheapest Runge–Kutta rule whose `flow_error` is within the tolerance, and that error; else the finest."""
    rules = [Flow(field, order, substeps) for order, substeps in RULES]
    for flow in rules:
        error = flow_error(flow, relax, path, times, x, generator=generator)
        say(
            f"flow of order {flow.order}, {flow.substeps} substep{'s' if flow.substeps > 1 else ''}: shifts log Z by "
            f"{error.shift:+.1e} ± {error.std_error:.0e}"
        )
        if error.bound <= tolerance or flow is rules[-1]:
            return flow, error
    raise AssertionError("there is at least one rule")


def unmet(bound: float, tolerance: float, std_error: float | None, *, of: str = "log Z") -> tuple[Flag, ...]:
    """A flag where even the finest rule shifts log Z by more than the tolerance, or may, and by a part of its error.

    The same `of` a difference, ΔF.

    >>> [flag.code for flag in unmet(2e-3, FLOW_TOLERANCE, 0.01)], unmet(4e-4, FLOW_TOLERANCE, 0.001)
    (['coarse_flow'], ())
    """
    if bound <= max(tolerance, NEGLIGIBLE * (std_error or 0.0)):
        return ()
    message = (
        f"flow steps shift {of} by up to {bound:.1e}, above the tolerance of {tolerance:.1e}: the error has it, "
        "but steps so long, or walkers so few, measure it badly; take more steps, or more pilot walkers"
    )
    return (Flag("coarse_flow", message),)


def _energy(walkers: Walkers) -> Tensor:
    if walkers.energy is None:
        raise InputError("the moves between flow steps must know the energy, as HMC does: these do not")
    return walkers.energy.to(torch.float64)
