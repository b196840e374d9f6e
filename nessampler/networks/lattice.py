"""A drift on a periodic lattice with the symmetries of the action and an exact divergence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.closed_form.lattice_dictionary import BLOCK, LatticeDictionary
from nessampler.closed_form.least_squares_drift import LeastSquaresDrift
from nessampler.errors import InputError
from nessampler.targets.phi4 import lattice_momenta, mode_multiplicity

__all__ = ["LatticeNetwork"]


class LatticeNetwork(nn.Module):
    r"""Smearing, mixing site by site, sine, mixing with weights of time, smearing:

    $$b(t, \varphi) = \sum_c K_c * \Big(\theta_{c0}(t)\,\varphi + \sum_j \theta_{cj}(t) \sin(S_j * \varphi)\Big),
      \qquad S_j = \sum_b W_{bj} S_b$$
    $$\nabla\cdot b = \sum_c \theta_{c0}(t)\, L^D K_c(0)
      + \sum_{cj} \theta_{cj}(t)\, (K_c * S_j)(0) \sum_x \cos\big((S_j * \varphi)(x)\big)$$

    with $S_b = m_b/(\hat k^2 + m_b)$ and $K_c = m_c/(\hat k^2 + m_c)$ in momentum space: the network commutes with
    translations, rotations by 90°, reflections and $\varphi \to -\varphi$. It is `LatticeDictionary` with everything
    trainable: W, the finite masses, and $\theta = \theta^0 + u\,\delta$, piecewise linear in t, where $\delta$ starts
    at zero and the unit u is the size of $\theta^0$ along t, so that one learning rate suits all.

    | symbol | argument | |
    |---|---|---|
    | $L^D$ | `shape` | of one configuration |
    | $m_b, m_c$ | `inner`, `outer` | initial masses; `inf` (no smearing) stays |
    | $W$ | `weights` | `(inner, features)`, initial |
    | | `times` | knots of $\theta$, increasing |
    | $\theta^0$ | `coefficients` | `(times, outer, 1 + features)`; zero where None |
    | $p_j$ | `phases` | initial phases $\sin(S_j * \varphi + p_j)$, for actions not even in φ; none where None |

    Parameters are float64, since closed-form coefficients may cancel one another; arithmetic is in the dtype of x.

    Attributes:
        evaluations: walkers evaluated since construction; not part of the state.

    Raises:
        InputError: shapes that do not belong together, or masses that are not positive.

    Example:
        >>> network = LatticeNetwork((4, 4), (math.inf, 1.0), (math.inf,), torch.ones(2, 3), torch.tensor([0.0, 1.0]))
        >>> velocity, divergence = network.velocity_and_divergence(torch.zeros(2), torch.ones(2, 4, 4))
        >>> velocity.shape, divergence.dtype
        (torch.Size([2, 4, 4]), torch.float64)
    """

    log_inner: nn.Parameter
    log_outer: nn.Parameter
    times: Tensor
    start: Tensor
    unit: Tensor
    momenta: Tensor
    multiplicity: Tensor
    inner_finite: Tensor
    outer_finite: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        inner: Sequence[float],
        outer: Sequence[float],
        weights: Float[Tensor, "inner features"],
        times: Float[Tensor, " k"],
        coefficients: Float[Tensor, "k outer terms"] | None = None,
        phases: Float[Tensor, " features"] | None = None,
    ) -> None:
        super().__init__()
        size = (len(times), len(outer), 1 + weights.shape[1])
        given = torch.zeros(size) if coefficients is None else coefficients
        if len(weights) != len(inner) or given.shape != size or len(times) < 2 or not bool((times.diff() > 0).all()):
            raise InputError(
                "a lattice network needs weights (inner, features), two or more increasing times and coefficients "
                f"(times, outer, 1 + features): got {tuple(weights.shape)}, {times.tolist()} and {tuple(given.shape)}"
            )
        if not min(*inner, *outer) > 0:
            raise InputError(f"smearing masses must be positive: got {min(*inner, *outer)}; `inf` stands for none")
        self.shape, start, self.evaluations = tuple(shape), given.to(torch.float64), 0
        unit = start.square().mean(0).sqrt()
        buffers = {
            "times": times.to(torch.float64).clone(),
            "start": start.clone(),
            "unit": torch.where(unit > 0, unit, 0.1),
            "momenta": lattice_momenta(self.shape[0], len(self.shape)),
            "multiplicity": mode_multiplicity(self.shape).contiguous(),
        }
        for name, masses in (("inner", inner), ("outer", outer)):
            mass = torch.tensor(masses, dtype=torch.float64)
            buffers[f"{name}_finite"] = torch.isfinite(mass)
            setattr(self, f"log_{name}", nn.Parameter(torch.where(torch.isfinite(mass), mass, 1.0).log()))
        for name, value in buffers.items():
            self.register_buffer(name, value)
        self.weights = nn.Parameter(weights.to(torch.float64).clone())
        self.change = nn.Parameter(torch.zeros(size, dtype=torch.float64))
        self.phases = None if phases is None else nn.Parameter(phases.to(torch.float64).clone())

    @classmethod
    def from_drift(cls, drift: LeastSquaresDrift) -> LatticeNetwork:
        """The network that equals a drift solved in closed form in a `LatticeDictionary`.

        Raises:
            InputError: a drift in another dictionary.
        """
        known = drift.dictionary
        if not isinstance(known, LatticeDictionary):
            raise InputError(
                f"a lattice network starts from a drift in a LatticeDictionary: got {type(known).__name__}"
            )
        coefficients = drift.coefficients.reshape(len(drift.times), len(known.outer), -1)
        return cls(known.shape, known.inner, known.outer, known.weights, drift.times, coefficients, known.phases)

    def forward(self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]) -> Float[Tensor, " n *event"]:
        """The velocity."""
        return torch.cat([self._evaluate(*block)[0] for block in self._blocks(t, x)])

    def velocity_and_divergence(
        self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]
    ) -> tuple[Float[Tensor, " n *event"], Float[Tensor, " n"]]:
        """Also the exact divergence, float64, from the same sines' arguments."""
        pieces = [self._with_divergence(*block) for block in self._blocks(t, x)]
        return torch.cat([v for v, _ in pieces]), torch.cat([d for _, d in pieces])

    def _with_divergence(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        velocity, inside, theta, smear, kernel = self._evaluate(t, x)
        weighted = (kernel * self.multiplicity).flatten(1) / math.prod(self.shape)
        contact = torch.cat([weighted.sum(1, keepdim=True), weighted @ smear.flatten(1).T @ self.weights], 1)
        slope = (theta * contact).sum(1)
        divergence = (inside.cos().sum(2).to(torch.float64) * slope[:, 1:]).sum(1) + inside.shape[2] * slope[:, 0]
        return velocity, divergence

    def _blocks(self, t: Tensor, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        size = max(1, BLOCK // (math.prod(self.shape) * max(1, self.weights.shape[1])))
        return zip(t.split(size), x.split(size), strict=True)

    def _evaluate(self, t: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        self.evaluations += len(x)
        smear = self._responses(self.log_inner, self.inner_finite)
        kernel = self._responses(self.log_outer, self.outer_finite)
        axes = tuple(range(-len(self.shape), 0))
        smeared = torch.fft.irfftn(torch.fft.rfftn(x, dim=axes).unsqueeze(1) * smear.to(x), s=self.shape, dim=axes)
        inside = self.weights.T.to(x) @ smeared.flatten(2)
        if self.phases is not None:
            inside = inside + self.phases.to(x)[:, None]
        theta = self._theta(t)
        mixed = theta[..., :1].to(x) * x.flatten(1)[:, None] + theta[..., 1:].to(x) @ inside.sin()
        modes = torch.fft.rfftn(mixed.unflatten(2, self.shape), dim=axes)
        velocity = torch.fft.irfftn((modes * kernel.to(x)).sum(1), s=self.shape, dim=axes)
        return velocity, inside, theta, smear, kernel

    def _theta(self, t: Tensor) -> Tensor:
        """Coefficients per walker, `(n, outer, 1 + features)`, constant beyond the knots."""
        values, t = self.start + self.unit * self.change, t.to(self.times)
        right = torch.searchsorted(self.times, t, right=True).clamp(1, len(self.times) - 1)
        left = self.times[right - 1]
        fraction = ((t - left) / (self.times[right] - left)).clamp(0, 1).view(-1, 1, 1)
        return torch.lerp(values[right - 1], values[right], fraction)

    def _responses(self, log_mass: Tensor, finite: Tensor) -> Tensor:
        mass = log_mass.exp().view(-1, *[1] * self.momenta.ndim)
        return torch.where(finite.view(mass.shape), mass / (self.momenta + mass), 1.0)
