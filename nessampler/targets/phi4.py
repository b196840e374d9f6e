"""Lattice φ⁴ theory: the action, its free field, and the observables of a magnet."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["FreeField", "Phi4", "lattice_momenta", "mode_multiplicity"]


def lattice_momenta(size: int, dimensions: int) -> Float[Tensor, " *modes"]:
    r"""$\hat k^2 = \sum_\mu 4 \sin^2(k_\mu / 2)$ over the modes of `torch.fft.rfftn`, float64."""
    full = 4 * torch.sin(torch.pi * torch.arange(size, dtype=torch.float64) / size).square()
    axes = [full] * (dimensions - 1) + [full[: size // 2 + 1]]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).sum(0)


def mode_multiplicity(shape: Sequence[int]) -> Float[Tensor, " *modes"]:
    """How many modes each mode of `torch.fft.rfftn` stands for: two where k and -k differ along the last axis."""
    last = torch.full((shape[-1] // 2 + 1,), 2.0, dtype=torch.float64)
    last[0] = 1.0
    if shape[-1] % 2 == 0:
        last[-1] = 1.0
    return last.expand(*shape[:-1], -1)


class Phi4:
    r"""Scalar field on a periodic lattice of $L^D$ sites, double well where $m^2 < 0$.

    $$U(\varphi) = \sum_x \Big[-2 \sum_\mu \varphi_x \varphi_{x+\mu} + (2D + m^2)\,\varphi_x^2
      + \lambda\,\varphi_x^4\Big]
      = \sum_x \Big[\sum_\mu (\varphi_{x+\mu} - \varphi_x)^2 + m^2 \varphi_x^2 + \lambda \varphi_x^4\Big]$$

    Every bond counts once for each site it leaves in positive direction; on two sites a side that is twice.
    In two dimensions at $m^2 = -1$ the field is ordered below $\lambda$ of about 0.75, disordered above. At 0.8 it is
    disordered, so near to criticality that lattices of up to 20 sites a side still have two maxima of $P(M)$.

    | symbol | argument |
    |---|---|
    | $L$ | `size` |
    | $\lambda \ge 0$ | `quartic` |
    | $m^2$ | `mass_squared` |
    | $D$ | `dimensions`, 1, 2 or 3 |

    Shapes: walkers `(n, L, ..., L)` in float32 or float64; energies float64, in kT; scores in the walkers' dtype.

    Raises:
        InputError: fewer than two sites a side, dimensions other than 1 to 3, or an action without a floor.

    References:
        Albergo & Vanden-Eijnden, NETS: A Non-Equilibrium Transport Sampler, 2024, arXiv:2410.02711.

    Example:
        >>> Phi4(4, quartic=0.8).energy(torch.ones(1, 4, 4))
        tensor([-3.2000], dtype=torch.float64)
    """

    def __init__(self, size: int, *, quartic: float, mass_squared: float = -1.0, dimensions: int = 2) -> None:
        if size < 2 or dimensions not in (1, 2, 3):
            raise InputError(
                f"a lattice has at least 2 sites a side in 1, 2 or 3 dimensions: got {size} in {dimensions}"
            )
        finite = math.isfinite(quartic) and math.isfinite(mass_squared)
        if not finite or quartic < 0 or (quartic == 0 and mass_squared <= 0):
            raise InputError(
                f"the action must have a floor: λ > 0, or λ = 0 and m² > 0; got λ = {quartic}, m² = {mass_squared}"
            )
        self.size, self.dimensions = size, dimensions
        self.quartic, self.mass_squared = float(quartic), float(mass_squared)
        self.event_shape = torch.Size([size] * dimensions)

    def energy(self, x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """U in kT, summed over sites in float64."""
        return self._energy(x, self._neighbours(x), x.square())

    def energy_and_score(self, x: Float[Tensor, " n *event"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n *event"]]:
        r"""$U$ and $-\nabla U$; neighbours are summed once."""
        neighbours, square = self._neighbours(x), x.square()
        stiffness = 2 * self.dimensions + self.mass_squared
        score = 2 * neighbours - x * (2 * stiffness + 4 * self.quartic * square)
        return self._energy(x, neighbours, square), score

    def _energy(self, x: Tensor, neighbours: Tensor, square: Tensor) -> Tensor:
        stiffness = 2 * self.dimensions + self.mass_squared
        density = square * (stiffness + self.quartic * square) - x * neighbours
        return density.flatten(1).sum(1, dtype=torch.float64)

    def _neighbours(self, x: Tensor) -> Tensor:
        # By slices: rolls are copies, and copies are most of what an action of so little arithmetic costs.
        total = torch.zeros_like(x)
        for axis in range(1, 1 + self.dimensions):
            field, out = x.movedim(axis, 1), total.movedim(axis, 1)
            out[:, 1:] += field[:, :-1]
            out[:, :-1] += field[:, 1:]
            out[:, 0] += field[:, -1]
            out[:, -1] += field[:, 0]
        return total

    @staticmethod
    def mirror(x: Float[Tensor, " n *event"]) -> Float[Tensor, " n *event"]:
        r"""$-\varphi$, which has the same energy: the proposal that carries chains between both magnetisations."""
        return -x

    # Observables: functions of configurations, to be averaged.

    @staticmethod
    def magnetisation(x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        r"""$M = L^{-D} \sum_x \varphi_x$, float64."""
        return x.flatten(1).mean(1, dtype=torch.float64)

    @staticmethod
    def two_point(x: Float[Tensor, " n *event"]) -> Float[Tensor, "n distances"]:
        r"""$G(r) = \frac{1}{D L^D} \sum_{x, \mu} \varphi_x \varphi_{x + r\mu}$, $r = 0 \dots \lfloor L/2 \rfloor$."""
        axes = tuple(range(1, x.ndim))
        power = torch.fft.fftn(x.to(torch.float64), dim=axes).abs().square()
        correlation = torch.fft.ifftn(power, dim=axes).real / x[0].numel()
        reach = x.shape[1] // 2 + 1
        along = [correlation.movedim(axis, -1)[(slice(None), *[0] * (x.ndim - 2))][:, :reach] for axis in axes]
        return torch.stack(along).mean(0)

    def susceptibility(self, mean_square: Tensor, mean_absolute: Tensor | float = 0.0) -> Tensor:
        r"""$\chi = L^D (\langle M^2 \rangle - \langle |M| \rangle^2)$; the disconnected part is subtracted if given."""
        return self.size**self.dimensions * (mean_square - torch.as_tensor(mean_absolute) ** 2)

    @staticmethod
    def binder(mean_square: Tensor, mean_fourth: Tensor) -> Tensor:
        r"""Binder's cumulant $1 - \langle M^4 \rangle / (3 \langle M^2 \rangle^2)$: 0 disordered, 2/3 ordered."""
        return 1 - mean_fourth / (3 * mean_square**2)


class FreeField:
    r"""A Gaussian field that is diagonal in Fourier space, sampled exactly by one FFT.

    $$U(\varphi) = \tfrac12 \sum_{x,y} \varphi_x K(x - y)\, \varphi_y, \qquad
      \log Z = \tfrac12 \sum_k \log \frac{2\pi}{\tilde K(k)}$$

    With a magnetisation c it is two of them in equal shares, about $\varphi = c$ and $\varphi = -c$, for actions that
    are ordered: a path from there crosses no transition, and no walls are left between domains. With $V = L^D$ sites
    and the mean M of the field this adds to U, and log Z stays:

    $$\tfrac12 V \tilde K(0)\, c^2 - \log\cosh\big(V \tilde K(0)\, c\, M\big)$$

    Args:
        precision: $\tilde K(k) = \tilde K(-k) > 0$ over the modes of `torch.fft.rfftn`, float64.
        size: sites a side.
        magnetisation: c, finite.

    Raises:
        InputError: a spectrum of the wrong shape, not positive, or not even in k; a magnetisation that is not finite.

    Example:
        >>> field = FreeField.massive(4, mass_squared=1.0)
        >>> field.energy(torch.ones(1, 4, 4)).item(), round(field.log_z, 3)
        (16.0, -2.858)
    """

    def __init__(self, precision: Float[Tensor, " *modes"], size: int, *, magnetisation: float = 0.0) -> None:
        shape = (*[size] * (precision.ndim - 1), size // 2 + 1)
        if tuple(precision.shape) != shape or not bool((precision > 0).all()):
            raise InputError(
                f"a free field on {size} sites a side needs a positive spectrum of shape {shape}: "
                f"got {tuple(precision.shape)}, at least {float(precision.min()):.3g}"
            )
        # Along the last axis `rfftn` leaves -k out, but where k = -k there, the other axes show both.
        own = precision.movedim(-1, 0)[[0, size // 2] if size % 2 == 0 else [0]]
        others = tuple(range(1, own.ndim))
        if others and not torch.allclose(own, own.flip(others).roll([1] * len(others), others), rtol=1e-6):
            raise InputError(
                "the spectrum of a real field must be even, the same at k and -k: it is not; average it over both"
            )
        if not math.isfinite(magnetisation):
            raise InputError(f"the magnetisation of a field is a finite number: got {magnetisation}; 0 for none")
        self.precision, self.size, self.magnetisation = precision.to(torch.float64), size, float(magnetisation)
        self.event_shape = torch.Size([size] * precision.ndim)
        self.log_z = float(0.5 * (mode_multiplicity(self.event_shape) * torch.log(2 * math.pi / self.precision)).sum())

    @classmethod
    def massive(cls, size: int, *, mass_squared: float, dimensions: int = 2, magnetisation: float = 0.0) -> FreeField:
        r"""The φ⁴ action with $\lambda = 0$: $\tilde K = 2 (\hat k^2 + m^2)$."""
        return cls(2 * (lattice_momenta(size, dimensions) + mass_squared), size, magnetisation=magnetisation)

    def energy(self, x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """U in kT, float64."""
        return self.energy_and_score(x)[0]

    def energy_and_score(self, x: Float[Tensor, " n *event"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n *event"]]:
        r"""$U$ and $-\nabla U$, one pair of FFTs."""
        score = -self._filtered(x, self.precision)
        energy = -0.5 * (x * score).flatten(1).sum(1, dtype=torch.float64)
        if self.magnetisation == 0:
            return energy, score
        wells, pull = self.wells(x)
        return energy + wells, score + pull.to(x).view(-1, *[1] * (x.ndim - 1))

    def wells(self, x: Float[Tensor, " n *event"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        r"""What the magnetisation adds to U, and to $-\partial U/\partial\varphi_x$ at any site; float64."""
        pull = self._stiffness * self.magnetisation
        a = pull * x.flatten(1).sum(1, dtype=torch.float64)
        log_cosh = a.abs() + torch.log1p(torch.exp(-2 * a.abs())) - math.log(2)
        return 0.5 * x[0].numel() * pull * self.magnetisation - log_cosh, pull * torch.tanh(a)

    def sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, " n *event"]:
        """Independent draws, float64."""
        options = {"generator": generator, "device": generator.device}
        noise = torch.randn(n, *self.event_shape, dtype=torch.float64, **options)
        x = self._smooth(noise)
        if self.magnetisation == 0:
            return x
        sign = 2 * torch.randint(2, (n, *[1] * len(self.event_shape)), **options) - 1
        return x + self.magnetisation * sign

    def push(self, noise: Float[Tensor, " n *event"]) -> tuple[Float[Tensor, " n *event"], Float[Tensor, " n"]]:
        r"""x made of standard normal noise, and $\log|\det \partial x/\partial\mathrm{noise}|$; differentiable.

        Raises:
            InputError: a field about two magnetisations, which is no image of one normal.
        """
        if self.magnetisation != 0:
            raise InputError(
                f"a field about two magnetisations is no image of normal noise: got ± {self.magnetisation:g}; use "
                "one about zero"
            )
        d = self.event_shape.numel()
        return self._smooth(noise), noise.new_full((len(noise),), self.log_z - 0.5 * d * math.log(2 * math.pi))

    def _smooth(self, noise: Tensor) -> Tensor:
        return self._filtered(noise, self.precision.rsqrt())

    @property
    def _stiffness(self) -> float:
        r"""$\tilde K(0)$."""
        return float(self.precision.flatten()[0])

    def _filtered(self, x: Tensor, response: Tensor) -> Tensor:
        axes = tuple(range(1, x.ndim))
        return torch.fft.irfftn(torch.fft.rfftn(x, dim=axes) * response.to(x), s=x.shape[1:], dim=axes)
