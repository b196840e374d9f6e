"""The generalized Born model of Onufriev, Bashford and Case, with a surface-area term."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import openmm
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nessampler.molecular.force_field.geometry import take
from nessampler.molecular.force_field.nonbonded import COULOMB
from nessampler.molecular.force_field.pairs import all_pairs, squared_distance, with_slopes
from nessampler.molecular.force_field.protocol import column, plain

__all__ = ["GBSAOBC"]

_OFFSET = 0.009  # nm, between an atom's radius and the one that screens
_PROBE = 0.14  # nm, a molecule of water
_TANH = (1.0, 0.8, 4.85)  # alpha, beta and gamma of OBC2


class GBSAOBC(nn.Module):
    r"""Implicit solvent, OBC2.

    With the screened radius $\tilde\rho_i = \rho_i - 0.009$ nm and the sum over the other atoms of the descreening
    integral $I(r_{ij}; \tilde\rho_i, s_j)$, $s_j$ being the scaled $\tilde\rho_j$,

    $$\Psi_i = \tfrac12 \tilde\rho_i \sum_{j \ne i} I, \qquad
      \frac1{B_i} = \frac1{\tilde\rho_i} - \frac{\tanh(\Psi_i - 0.8 \Psi_i^2 + 4.85 \Psi_i^3)}{\rho_i}$$

    $$U = -\tfrac12 k_e \left(\frac1{\epsilon_\mathrm{in}} - \frac1{\epsilon_\mathrm{out}}\right)
          \sum_{i,j} \frac{q_i q_j}{\sqrt{r_{ij}^2 + B_i B_j e^{-r_{ij}^2 / 4 B_i B_j}}}
          + 4\pi\gamma \sum_i (\rho_i + 0.14)^2 \left(\frac{\rho_i}{B_i}\right)^6$$

    Args:
        charge, radius, scale: by atom, in elementary charges, nm and without unit.
        solute, solvent: dielectric constants.
        surface: γ in kJ/mol/nm².
        cutoff: in nm, beyond which pairs neither screen nor interact; the energy is shifted to zero there.
        periodic: nearest images count.

    References:
        Exploring protein native states and large-scale conformational changes with a modified generalized Born
        model, 2004, Proteins 55, 383, equations 6 to 8.
    """

    pairs: Int[Tensor, "2 pairs"]

    def __init__(
        self,
        charge: Sequence[float],
        radius: Sequence[float],
        scale: Sequence[float],
        *,
        solute: float = 1.0,
        solvent: float = 78.3,
        surface: float = 2.25936,
        cutoff: float | None = None,
        periodic: bool = False,
    ) -> None:
        super().__init__()
        self.charge, self.radius, self.scale = column(charge), column(radius), column(scale)
        self.register_buffer("pairs", all_pairs(len(charge)))
        contrast = 1 / solute - 1 / solvent if solute != 0 and solvent != 0 else 0.0
        self.prefactor = -COULOMB * contrast
        self.surface, self.cutoff, self.periodic = surface, cutoff, periodic
        self.default_parameters: dict[str, float] = {}

    @classmethod
    def from_openmm(cls, force: openmm.GBSAOBCForce, system: openmm.System) -> GBSAOBC:
        """The same particles, constants and method."""
        rows = [plain(force.getParticleParameters(k)) for k in range(force.getNumParticles())]
        method = force.getNonbondedMethod()
        distance, surface = plain([force.getCutoffDistance(), force.getSurfaceAreaEnergy()])
        return cls(
            *([r[k] for r in rows] for k in range(3)),
            solute=force.getSoluteDielectric(),
            solvent=force.getSolventDielectric(),
            surface=surface,
            cutoff=None if method == openmm.GBSAOBCForce.NoCutoff else distance,
            periodic=method == openmm.GBSAOBCForce.CutoffPeriodic,
        )

    def forward(
        self, x: Float[Tensor, "3 atoms walkers"], globals: Mapping[str, Tensor], box: Tensor | None = None
    ) -> Float[Tensor, " walkers"]:
        """The sum of all contributions."""
        return sum((rows.sum(0) for rows in self._parts(x, box)), x.new_zeros(x.shape[-1]))

    def contributions(
        self, x: Float[Tensor, "3 atoms walkers"], globals: Mapping[str, Tensor], box: Tensor | None
    ) -> Float[Tensor, "summands walkers"]:
        """The energy of every pair, of every atom in its own field, and of every atom's surface."""
        return torch.cat(self._parts(x, box))

    def born_radii(
        self, square: Float[Tensor, "pairs walkers"], inside: Float[Tensor, "pairs walkers"] | None = None
    ) -> Float[Tensor, "atoms walkers"]:
        """Effective Born radii in nm, from the squared distances of all pairs."""
        i, j = self.pairs
        small = self.radius - _OFFSET
        large = small * self.scale
        # of either atom in the field of the other: (2, pairs, 1)
        screened = torch.stack([take(small, i), take(small, j)])
        screening = torch.stack([take(large, j), take(large, i)])
        integral = with_slopes(_descreening, (square,), (screened, screening))
        if inside is not None:
            integral = integral * inside
        total = square.new_zeros(len(small), square.shape[-1])
        total = total.index_add(0, i, integral[0]).index_add(0, j, integral[1])
        psi = 0.5 * small * total
        a, b, c = _TANH
        return 1 / (1 / small - torch.tanh(((c * psi - b) * psi + a) * psi) / self.radius)

    def _parts(self, x: Tensor, box: Tensor | None) -> list[Tensor]:
        i, j = self.pairs
        square = squared_distance(x, self.pairs, box if self.periodic else None)
        inside = None if self.cutoff is None else (square <= self.cutoff**2).to(x.dtype)
        born = self.born_radii(square, inside)
        product = self.prefactor * take(self.charge, i) * take(self.charge, j)
        pairs = with_slopes(_still, (square, take(born, i) * take(born, j)), (product,))
        if inside is not None:
            assert self.cutoff is not None
            pairs = (pairs - product / self.cutoff) * inside
        own = 0.5 * self.prefactor * self.charge.square() / born
        surface = 4 * math.pi * self.surface * (self.radius + _PROBE).square() * (self.radius / born) ** 6
        return [pairs, own, surface * (born > 0)]


def _descreening(
    square: Float[Tensor, "pairs walkers"], screened: Tensor, screening: Tensor
) -> tuple[Float[Tensor, "2 pairs walkers"], tuple[Tensor]]:
    r"""The integral of $|y|^{-4} / 2\pi$ over a ball of radius s at distance r, outside the ball of radius ρ.

    $$I = l - u + \tfrac14 \left(r - \tfrac{s^2}{r}\right)(u^2 - l^2) + \tfrac{1}{2r} \ln\tfrac{u}{l}, \quad
      l = \frac{1}{\max(\rho, |r - s|)}, \quad u = \frac{1}{r + s}$$

    and $2/\rho - 2l$ more where the ball of ρ lies inside the other. Moving a limit adds nothing, so the slope is that
    at fixed limits.
    """
    inverse = square.rsqrt()
    r = square * inverse
    apart = r - screening
    near = torch.maximum(apart.abs(), screened)
    lower = near.reciprocal()
    upper = torch.maximum(r + screening, screened).reciprocal()  # both limits are ρ where ρ's ball holds the other
    log = torch.log(near * upper)
    half = 0.5 * inverse
    width, middle = lower - upper, lower + upper
    moment = 0.25 * (r - screening.square() * inverse)
    value = width * (1 - moment * middle) + half * log
    # -apart > ρ: the third case. The clamp leaves ρ itself, whose contribution is zero.
    value = value + 2 * (screened.reciprocal() - torch.maximum(-apart, screened).reciprocal())
    fall = (0.25 + 0.25 * screening.square() * inverse * inverse) * (width * middle) + log * (half * inverse)
    return value, (-half * fall,)


def _still(
    square: Float[Tensor, "pairs walkers"], product: Float[Tensor, "pairs walkers"], charges: Tensor
) -> tuple[Float[Tensor, "pairs walkers"], tuple[Tensor, Tensor]]:
    """The energy of two charges as a function of the squared distance and of the product of their Born radii."""
    ratio = 0.25 * square / product
    decay = torch.exp(-ratio)
    inverse = torch.addcmul(square, product, decay).rsqrt()
    energy = charges * inverse
    pull = -0.5 * energy * inverse * inverse
    by_square = torch.addcmul(pull, pull, decay, value=-0.25)
    by_product = pull * decay * (1 + ratio)
    return energy, (by_square, by_product)
