"""A path whose mixture is pulled out of one Gaussian: its modes part slowly, and every weight stays as it is."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.paths.protocol import PathPoint
from nessampler.targets.mixture import GaussianMixture
from nessampler.targets.protocol import Target

__all__ = ["MixturePath"]


class MixturePath:
    r"""Means and widths of a mixture that move from a common Gaussian to their places; $\log Z = 0$ all the way.

    $$U_t(x) = -\log \sum_k w_k\, \mathcal N(x; t\mu_k, s_k(t)^2), \qquad s_k(t) = (1 - t)\, s_0 + t\, \sigma_k$$

    With responsibilities $r_k$, squared distances $q_k = |x - t\mu_k|^2$ and rates $\dot s_k = \sigma_k - s_0$,

    $$\partial_t U_t = \sum_k r_k \Big[\frac{d\, \dot s_k}{s_k} - \frac{(x - t\mu_k) \cdot \mu_k}{s_k^2}
      - \frac{\dot s_k q_k}{s_k^3}\Big].$$

    It knows where the modes are: results on it carry that label.

    | symbol | argument | |
    |---|---|---|
    | $s_0 > 0$ | `start_scale` | width of the Gaussian about 0 at t = 0 |
    | $w, \mu, \sigma$ | `mixture` | the target; every component of one width in all directions |

    Shapes: walkers `(n, d)`, a time per walker `(n,)`. Computed in float64, returned in the dtype of the walkers.

    Raises:
        InputError: a start scale that is not positive, or a component that is not equally wide in all directions.

    References:
        Albergo & Vanden-Eijnden, NETS: A Non-Equilibrium Transport Sampler, 2024, arXiv:2410.02711 (mixtures whose
        parameters are interpolated).

    Example:
        >>> modes = GaussianMixture(torch.tensor([[-4.0], [4.0]]), torch.ones(2))
        >>> path = MixturePath(2.0, modes)
        >>> path.energy(torch.tensor([0.0, 1.0]), torch.tensor([[0.0], [4.0]])) - 0.5 * math.log(2 * math.pi)
        tensor([0.6931, 0.6931])
    """

    def __init__(self, start_scale: float, mixture: GaussianMixture) -> None:
        if not 0 < start_scale < math.inf:
            raise InputError(f"the start of a mixture path needs a positive, finite scale: got {start_scale}")
        if not bool((mixture.scales == mixture.scales[:, :1]).all()):
            raise InputError(
                "a mixture path needs components of one width in all directions: got scales that differ between "
                "coordinates; use LinearPath for this mixture"
            )
        origin = torch.zeros(1, *mixture.event_shape, dtype=torch.float64)
        self.start: Target = GaussianMixture(origin, torch.full((1,), float(start_scale), dtype=torch.float64))
        self.end: Target = mixture
        self.start_scale = float(start_scale)
        self._means, self._scales = mixture.means.double(), mixture.scales[:, 0].double()
        self._log_weights, self._norms = mixture.weights.double().log(), self._means.square().sum(-1)

    def energy(self, t: Float[Tensor, " n"], x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """$U_t$ in kT."""
        _, _, logits = self._components(t, self._parts(x))
        return -torch.logsumexp(logits, -1).to(x)

    def energy_and_score(
        self, t: Float[Tensor, " n"], x: Float[Tensor, "n d"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        r"""$U_t$ and $-\nabla U_t$."""
        scale, _, logits = self._components(t, self._parts(x))
        return -torch.logsumexp(logits, -1).to(x), self._score(t, x, scale, logits).to(x)

    def evaluate(self, t: Float[Tensor, " n"], x: Float[Tensor, "n d"], known: PathPoint | None = None) -> PathPoint:
        r"""$U_t$, $-\nabla U_t$ and $\partial_t U_t$; `known` spares the products of walkers with means."""
        parts = known.parts if known is not None else self._parts(x)
        scale, squares, logits = self._components(t, parts)
        rate = self._scales.to(x.device) - self.start_scale
        along = parts[0] - t.double()[:, None] * self._norms.to(x.device)  # (x - tμ)·μ
        slopes = rate / scale * (x.shape[-1] - squares / scale.square()) - along / scale.square()
        derivative = (torch.softmax(logits, -1) * slopes).sum(-1)
        return PathPoint(
            -torch.logsumexp(logits, -1).to(x), self._score(t, x, scale, logits).to(x), derivative.to(x), parts
        )

    def laplacian(self, t: Float[Tensor, " n"], x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        r"""$\nabla^2 U_t = |\sum_k r_k s_k|^2 - \sum_k r_k (|s_k|^2 - d/s_k(t)^2)$, the $s_k$ within bars scores."""
        scale, squares, logits = self._components(t, self._parts(x))
        precision = scale.pow(-2)
        curvature = (torch.softmax(logits, -1) * precision * (squares * precision - x.shape[-1])).sum(-1)
        return (self._score(t, x, scale, logits).square().sum(-1) - curvature).to(x)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What does not change in time: x·μ `(n, m)` and |x|² `(n, 1)`."""
        y = x.double()
        return y @ self._means.to(x.device).mT, y.square().sum(-1, keepdim=True)

    def _components(self, t: Tensor, parts: tuple) -> tuple[Tensor, Tensor, Tensor]:
        """Widths, squared distances and log w_k N(x; tμ_k, s_k) of every component, `(n, m)`."""
        time, (dots, norm) = t.double()[:, None], parts
        scale = torch.lerp(torch.full_like(dots, self.start_scale), self._scales.to(dots).expand_as(dots), time)
        # Expanded squares may round to a negative number next to a mean.
        squares = (norm - 2 * time * dots + time.square() * self._norms.to(dots)).clamp(min=0)
        dimension = self._means.shape[1]
        logits = self._log_weights.to(dots) - dimension * torch.log(scale * math.sqrt(2 * math.pi))
        return scale, squares, logits - 0.5 * squares / scale.square()

    def _score(self, t: Tensor, x: Tensor, scale: Tensor, logits: Tensor) -> Tensor:
        pull = torch.softmax(logits, -1) / scale.square()
        return t.double()[:, None] * (pull @ self._means.to(x.device)) - x.double() * pull.sum(-1, keepdim=True)
