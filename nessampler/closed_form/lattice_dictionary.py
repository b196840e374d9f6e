"""Vector fields on a periodic lattice: random sines of smeared fields, with the symmetries of the lattice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.paths import PathPoint
from nessampler.targets.phi4 import lattice_momenta, mode_multiplicity

__all__ = ["LatticeDictionary"]

# Floats per block of work: few enough for a block of features to stay in a core's cache; many enough to fill a GPU.
BLOCK = 2**18
BLOCK_ELSEWHERE = 2**27


@dataclass(frozen=True)
class LatticeDictionary:
    r"""Fields $K_c * \sin(S_j * \varphi)$ and $K_c * \varphi$ on a periodic lattice, $S_j = \sum_b W_{bj} S_b$.

    The smearings $S_b = m_b/(\hat k^2 + m_b)$ before the sine, and $K_c = m_c/(\hat k^2 + m_c)$ after it, are diagonal
    in momentum space, so the fields commute with translations, rotations by 90°, reflections and
    $\varphi \to -\varphi$. Their divergence is exact:

    $$\nabla\cdot\varphi_{cj} = (K_c * S_j)(0) \sum_x \cos\big((S_j * \varphi)(x)\big)$$

    Only the few smearings take FFTs; the sines act site by site. One sine of a *sum* of differently smeared fields
    knows more than sines of each: at L = 20 near criticality 24 random sums explain 98 % of the variance of
    $\partial_t U$, sines of the same four fields one by one 80 %.

    | symbol | argument | |
    |---|---|---|
    | $m_b$ | `inner` | masses before the sine; `inf` leaves the field as it is |
    | $m_c$ | `outer` | masses after it |
    | $W$ | `weights` | `(inner, features)`, float64 |
    | $p_j$ | `phases` | `(features,)`; zero where None |
    | $L^D$ | `shape` | of one configuration |

    With phases the fields are $K_c * \sin(S_j * \varphi + p_j)$ and know the sign of $\varphi$, for actions that a bias
    or a source makes uneven. A feature of zero weights and phase π/2 is a constant: it shifts the mean.

    Fields come outer mass by outer mass, the linear one before the sines of each. Velocities have the dtype of the
    walkers; features and divergences are summed over sites in that dtype and handed on in float64.

    Raises:
        InputError: sides of different length, masses that are not positive, or weights and phases that do not fit.

    Example:
        >>> fields = LatticeDictionary((4, 4), (math.inf, 1.0), (math.inf,), torch.ones(2, 3, dtype=torch.float64))
        >>> velocity, divergence = fields.velocity(0.5, torch.zeros(2, 4, 4), torch.ones(fields.size))
        >>> velocity.shape, divergence.dtype
        (torch.Size([2, 4, 4]), torch.float64)
    """

    shape: tuple[int, ...]
    inner: tuple[float, ...]
    outer: tuple[float, ...]
    weights: Float[Tensor, "inner features"]
    phases: Float[Tensor, " features"] | None = None
    _smear: Tensor = field(init=False, repr=False)
    _kernel: Tensor = field(init=False, repr=False)
    _contact: Tensor = field(init=False, repr=False)  # (K_c * S_j)(0), the linear fields' column first

    def __post_init__(self) -> None:
        if len(set(self.shape)) != 1 or self.weights.ndim != 2 or len(self.weights) != len(self.inner):
            raise InputError(
                f"lattice fields need equal sides and one row of weights for each inner mass: got sides {self.shape}, "
                f"{len(self.inner)} masses and weights of shape {tuple(self.weights.shape)}"
            )
        if not all(m > 0 for m in (*self.inner, *self.outer)):
            raise InputError(f"a smearing needs a positive mass, inf for none: got {self.inner} and {self.outer}")
        if self.phases is not None and tuple(self.phases.shape) != (self.weights.shape[1],):
            raise InputError(
                f"every feature has one phase: got {tuple(self.phases.shape)} for {self.weights.shape[1]} features"
            )
        momenta = lattice_momenta(self.shape[0], len(self.shape))
        smear, kernel = _responses(momenta, self.inner), _responses(momenta, self.outer)
        weighted = (kernel * mode_multiplicity(self.shape)).flatten(1) / math.prod(self.shape)
        contact = torch.cat([weighted.sum(1, keepdim=True), weighted @ smear.flatten(1).T @ self.weights], 1)
        for name, value in (("_smear", smear), ("_kernel", kernel), ("_contact", contact)):
            object.__setattr__(self, name, value)

    @property
    def size(self) -> int:
        """Number of fields, outer masses times linear and sine features."""
        return self._contact.numel()

    def stein(self, t: float, x: Float[Tensor, " n *event"], point: PathPoint) -> Float[Tensor, "n p"]:
        r"""$\nabla\cdot\varphi_i + \varphi_i\cdot s_t$ with the score $s_t = -\nabla U_t$, float64."""
        block = self._block(x)
        return torch.cat([self._stein(a, s) for a, s in zip(x.split(block), point.score.split(block), strict=True)])

    def velocity(
        self, t: float, x: Float[Tensor, " n *event"], coefficients: Float[Tensor, " p"]
    ) -> tuple[Float[Tensor, " n *event"], Float[Tensor, " n"]]:
        r"""$b = \sum_i \theta_i \varphi_i$ and $\nabla\cdot b$."""
        theta = coefficients.to(x.device, torch.float64).reshape(self._contact.shape)
        pieces = [self._velocity(block, theta) for block in x.split(self._block(x))]
        return torch.cat([v for v, _ in pieces]), torch.cat([d for _, d in pieces])

    def affine(self, coefficients: Float[Tensor, " p"]) -> Float[Tensor, " sites"] | None:
        r"""Where there are no sines, $\sum_c \theta_c \tilde K_c(k)$ over all modes, each as often as it counts."""
        if self.weights.shape[1]:
            return None
        theta = coefficients.to(torch.float64).view(-1, *[1] * len(self.shape))
        spectrum = (theta * self._kernel.to(theta)).sum(0).flatten()
        return spectrum.repeat_interleave(mode_multiplicity(self.shape).flatten().long().to(spectrum.device))

    def fields(self, x: Float[Tensor, " n *event"]) -> Float[Tensor, "n p *event"]:
        r"""Every $\varphi_i(x)$ by itself."""
        features = torch.cat([x.flatten(1)[:, None], torch.sin(self._inside(x))], 1).unflatten(2, self.shape)
        modes = torch.fft.rfftn(features, dim=self._axes).unsqueeze(1) * self._kernel.unsqueeze(1).to(x)
        return torch.fft.irfftn(modes, s=self.shape, dim=self._axes).flatten(1, 2)

    def spread(self, x: Float[Tensor, " n *event"]) -> Float[Tensor, " inner"]:
        """Standard deviation of every smeared field over sites and walkers, to scale `weights` by."""
        blocks = [self._filtered(block, self.inner, self._smear).to(torch.float64) for block in x.split(self._block(x))]
        square = torch.stack([b.square().mean(tuple(range(2, b.ndim))).sum(0) for b in blocks]).sum(0)
        return (square / len(x)).sqrt().cpu()

    def _stein(self, x: Tensor, score: Tensor) -> Tensor:
        felt = self._filtered(score, self.outer, self._kernel).flatten(2)
        u = self._inside(x)
        features = torch.cat([x.flatten(1)[:, None], torch.sin(u)], 1)
        along = (felt @ features.transpose(1, 2)).to(torch.float64)
        slopes = torch.cat([torch.full_like(u[:, :1, 0], u.shape[2]), torch.cos(u).sum(2)], 1).to(torch.float64)
        return (along + slopes[:, None] * self._contact.to(x.device)).flatten(1)

    def _velocity(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        u = self._inside(x)
        mixed = theta[:, :1].to(x) * x.flatten(1)[:, None] + theta[:, 1:].to(x) @ torch.sin(u)
        velocity = self._smoothed(mixed.unflatten(2, self.shape))
        slope = (theta * self._contact.to(x.device)).sum(0)
        divergence = torch.cos(u).sum(2).to(torch.float64) @ slope[1:] + u.shape[2] * slope[0]
        return velocity, divergence

    def _inside(self, x: Tensor) -> Tensor:
        """The arguments of the sines, `(n, features, sites)`."""
        inside = self.weights.T.to(x) @ self._filtered(x, self.inner, self._smear).flatten(2)
        return inside if self.phases is None else inside + self.phases.to(x)[:, None]

    def _filtered(self, x: Tensor, masses: Sequence[float], responses: Tensor) -> Tensor:
        """Every response to x, `(n, masses, *shape)`; an infinite mass takes no transform."""
        bare, smeared = _split(masses)
        out = x.new_empty(len(x), len(masses), *self.shape)
        out[:, bare] = x.unsqueeze(1)
        if len(responses[smeared]) == 0:  # an FFT of no fields is an error
            return out
        modes = torch.fft.rfftn(x, dim=self._axes).unsqueeze(1) * responses[smeared].to(x)
        out[:, smeared] = torch.fft.irfftn(modes, s=self.shape, dim=self._axes)
        return out

    def _smoothed(self, fields: Tensor) -> Tensor:
        """Every outer response to its own field, summed."""
        bare, smeared = _split(self.outer)
        if len(self._kernel[smeared]) == 0:
            return fields.sum(1)
        modes = (torch.fft.rfftn(fields[:, smeared], dim=self._axes) * self._kernel[smeared].to(fields)).sum(1)
        return fields[:, bare].sum(1) + torch.fft.irfftn(modes, s=self.shape, dim=self._axes)

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(-len(self.shape), 0))

    def _block(self, x: Tensor) -> int:
        floats = BLOCK if x.device.type == "cpu" else BLOCK_ELSEWHERE
        return max(1, floats // (math.prod(self.shape) * max(1, self.weights.shape[1])))


def _split(masses: Sequence[float]) -> tuple[list[int] | slice, list[int] | slice]:
    """Which responses leave a field as it is, and which do not; slices, which copy nothing, where either come first."""
    bare = [k for k, m in enumerate(masses) if math.isinf(m)]
    smeared = [k for k in range(len(masses)) if k not in bare]
    if bare + smeared == list(range(len(masses))):
        return slice(len(bare)), slice(len(bare), None)
    return bare, smeared


def _responses(momenta: Tensor, masses: Sequence[float]) -> Tensor:
    return torch.stack([torch.ones_like(momenta) if math.isinf(m) else m / (momenta + m) for m in masses])
