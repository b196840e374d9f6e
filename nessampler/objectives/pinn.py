"""The transport equation as a loss: its squared residual, over walkers of any law."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.divergence import exact_divergence, probed_divergence, rademacher
from nessampler.errors import InputError
from nessampler.objectives.rollout import Rollout, quadrature

__all__ = ["FreeEnergyRate", "PinnObjective"]


class FreeEnergyRate(nn.Module):
    r"""$\partial_t F_t$, $F_t = -\log Z_t$, as a learned function that is linear between equidistant knots; float64.

    Example:
        >>> rate = FreeEnergyRate(3)
        >>> rate.calibrate(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 4.0]))
        >>> rate(torch.tensor([0.25])).item()
        1.0
    """

    reached: Tensor  # the last time that it was calibrated at

    def __init__(self, knots: int = 33) -> None:
        super().__init__()
        if knots < 2:
            raise InputError(f"a piecewise linear function needs two knots at least: got {knots}")
        self.values = nn.Parameter(torch.zeros(knots, dtype=torch.float64))
        self.register_buffer("reached", torch.tensor(-1.0, dtype=torch.float64))

    def forward(self, t: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
        r"""$\partial_t F$ at times in [0, 1]."""
        place = t.to(self.values).clamp(0, 1) * (len(self.values) - 1)
        left = place.long().clamp(max=len(self.values) - 2)
        return torch.lerp(self.values[left], self.values[left + 1], place - left)

    @torch.no_grad()
    def calibrate(self, times: Float[Tensor, " k"], values: Float[Tensor, " k"]) -> None:
        """Start from values known at some times, so that Adam need not walk there.

        Knots before the last time of an earlier call are left as they were learned since.
        """
        knots = torch.linspace(0, 1, len(self.values), dtype=torch.float64, device=self.values.device)
        times, values = times.to(self.values), values.to(self.values)
        right = torch.searchsorted(times, knots).clamp(1, len(times) - 1)
        fraction = ((knots - times[right - 1]) / (times[right] - times[right - 1])).clamp(0, 1)
        known = torch.lerp(values[right - 1], values[right], fraction)
        self.values.copy_(torch.where(knots > self.reached, known, self.values))
        self.reached.copy_(torch.maximum(self.reached, times[-1]))


class PinnObjective(nn.Module):
    r"""Mean squared residual of the transport equation, $s_t = -\nabla U_t$:

    $$\frac1T\int_0^T E\,\big|\nabla\cdot b + s_t\cdot b - \partial_t U_t + \partial_t F_t\big|^2\, dt$$

    The expectation may be under any law with the support of $e^{-U_t}$, so that replayed walkers serve; zero, the
    least value, is reached by the drift that keeps all weights equal. Without `rate`, $\partial_t F$ is profiled
    out: the variance of the residual over the walkers of each time (divided by $n - 1$, unbiased) is minimised.

    | symbol | argument | |
    |---|---|---|
    | $b$ | `network` | `(t: (n,), x)` to a velocity; its `velocity_and_divergence` is used where it has one |
    | $\partial_t F$ | `rate` | learned along with b, such as `FreeEnergyRate`; None: the variance form |
    | | `probes` | None: the exact divergence; a generator: Hutchinson, two independent probes per walker |

    With probes, the two residuals of a walker are multiplied: the square of one would be biased by the variance of
    its divergence. A fit with probes resumes to the same bits only where `probes` is the fit's own generator.

    Raises:
        InputError: the variance form on fewer than two walkers per time.

    References:
        Albergo & Vanden-Eijnden, NETS: A Non-Equilibrium Transport Sampler, 2024, arXiv:2410.02711 (the PINN loss).

    Example:
        >>> walkers, one = torch.randn(2, 4, 1, generator=torch.Generator().manual_seed(0)), torch.ones(2, 4)
        >>> batch = Rollout(torch.tensor([0.0, 1.0]), walkers, 0 * one, -walkers, one, 0 * one)
        >>> PinnObjective(lambda t, x: torch.zeros_like(x))(batch).item()  # a rate that is the same for all walkers
        0.0
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        rate: nn.Module | None = None,
        probes: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.network, self.rate, self.probes = network, rate, probes

    def forward(self, batch: Rollout) -> Float[Tensor, ""]:
        """The loss of a batch of walkers grouped by time."""
        first, second = self.residuals(batch)
        alive = batch.alive
        count = alive.sum(1)
        if self.rate is None:
            if int(count.min()) < 2:
                raise InputError(
                    f"the variance form needs two walkers with density at every time: got {int(count.min())} at "
                    f"t = {float(batch.times[int(count.argmin())]):.3g}; use more walkers, or learn the rate"
                )
            first, second = (torch.where(alive, r - (r.sum(1) / count)[:, None], 0.0) for r in (first, second))
            count = count - 1
        per_time = (first * second).sum(1) / count.clamp(min=1)
        weights = quadrature(batch.times).to(per_time)
        return (weights * per_time).sum() / weights.sum()

    def residuals(self, batch: Rollout) -> tuple[Float[Tensor, "k n"], Float[Tensor, "k n"]]:
        """The residual of every walker twice, from independent probes where there are probes; 0 without density."""
        velocity, divergences = self._velocity(batch.flat_times, batch.flat_x)
        along = (velocity * batch.score.flatten(0, 1)).flatten(1).sum(1, dtype=torch.float64)
        known = along.view(batch.energy.shape) - batch.time_derivative.to(torch.float64)
        if self.rate is not None:
            known = known + self.rate(batch.times)[:, None]
        first, second = (
            torch.where(batch.alive, d.to(torch.float64).view(known.shape) + known, 0.0) for d in divergences
        )
        return first, second

    def calibrate(self, batch: Rollout) -> None:
        r"""Start the rate from $\partial_t F = \langle\partial_t U\rangle$ where no walkers had come before."""
        if isinstance(self.rate, FreeEnergyRate):
            weights = torch.softmax(batch.log_weight, 1)
            known = torch.where(weights > 0, batch.time_derivative.to(torch.float64), 0.0)
            self.rate.calibrate(batch.times, (weights * known).sum(1))

    def _velocity(self, t: Tensor, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if self.probes is not None:
            pair = [rademacher(x, generator=self.probes) for _ in range(2)]
            velocity, (one, other) = probed_divergence(self.network, t, x, *pair)
            return velocity, (one, other)
        if hasattr(self.network, "velocity_and_divergence"):
            velocity, divergence = self.network.velocity_and_divergence(t, x)  # pyright: ignore
        else:
            velocity, divergence = exact_divergence(self.network, t, x)
        return velocity, (divergence, divergence)
