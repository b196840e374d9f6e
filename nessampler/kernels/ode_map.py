"""The flow of a velocity as one bijection, integrated adaptively to t = 1."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform
from torchdiffeq import odeint

from nessampler.errors import InputError
from nessampler.kernels.flow import VelocityField

__all__ = ["OdeMap"]

MOST_STEPS = 5000


class OdeMap(Transform):
    r"""$x(0) \mapsto x(1)$ along $\dot x = b(t, x)$, with $\log|\det| = \int_0^1 \nabla\cdot b\,dt$.

    Position and log-determinant are one system, which Dormand–Prince's pair of orders 5 and 4 integrates in steps that
    keep the local error of *every* walker below $\text{tolerance} \times (1 + |x|)$. The inverse integrates from 1 to 0
    and is the inverse to about that tolerance, not to rounding: measure what it does to works, and report it.

    Args:
        field: the velocity and its exact divergence, in the dtype of x; float64 where the tolerance is below 1e-5.
        tolerance: relative and absolute, per walker and step.

    Raises:
        InputError: a tolerance that is not positive; a flow so stiff or wild that it takes more than 5,000 steps.

    References:
        Chen et al., Neural Ordinary Differential Equations, 2018, arXiv:1806.07366, eq. 8; Dormand & Prince, A family
        of embedded Runge-Kutta formulae, 1980, doi:10.1016/0771-050X(80)90013-3; integrated by torchdiffeq.

    Example:
        >>> shrink = OdeMap(lambda t, x: (-x, -x.new_ones(len(x))))
        >>> x = torch.ones(1, 1, dtype=torch.float64)
        >>> y = shrink(x)
        >>> round(y.item(), 6), round(shrink.log_abs_det_jacobian(x, y).item(), 6)
        (0.367879, -1.0)
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, field: VelocityField, tolerance: float = 1e-6) -> None:
        super().__init__()
        if not tolerance > 0:
            raise InputError(f"the tolerance of an integrated flow must be positive: got {tolerance}; 1e-6 is usual")
        self.field, self.tolerance = field, tolerance
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def log_abs_det_jacobian(self, x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """What the integration that gave x or y found; otherwise a new one, from x."""
        if self._last is not None and self._last[0] is x and self._last[1] is y:
            return self._last[2]
        return self._integrated(x, 0.0, 1.0)[1]

    def _call(self, x: Tensor) -> Tensor:
        y, log_det = self._integrated(x, 0.0, 1.0)
        self._last = (x, y, log_det)
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        x, log_det = self._integrated(y, 1.0, 0.0)
        self._last = (x, y, -log_det)
        return x

    @torch.no_grad()
    def _integrated(self, x: Tensor, t0: float, t1: float) -> tuple[Tensor, Tensor]:
        def rate(t: Tensor, state: Tensor) -> Tensor:
            velocity, divergence = self.field(float(t), state[:, :-1])
            return torch.cat([velocity, divergence.to(velocity).unsqueeze(-1)], -1)

        times = torch.tensor([t0, t1], dtype=torch.float64, device=x.device)
        start = torch.cat([x, x.new_zeros(len(x), 1)], -1)
        try:
            end = odeint(
                rate,
                start,
                times,
                rtol=self.tolerance,
                atol=self.tolerance,
                method="dopri5",
                options={"norm": _worst, "max_num_steps": MOST_STEPS},
            )
        except AssertionError as error:  # torchdiffeq's way to say that it gave up
            raise InputError(
                f"a flow must be integrable in {MOST_STEPS} steps at tolerance {self.tolerance:g}: {error}; train it "
                "longer or with less, or allow a larger tolerance"
            ) from error
        assert isinstance(end, Tensor)
        return end[-1, :, :-1], end[-1, :, -1]


def _worst(error: Tensor) -> Tensor:
    """Every walker is to be accurate, not their average."""
    return error.abs().max()
