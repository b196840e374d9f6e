"""Both ends of a lattice difference side by side: A reflected where it is magnetised the other way."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions.transforms import AffineTransform, ComposeTransform, Transform

from nessampler.closed_form.gaussian_interpolant import GaussianFields
from nessampler.closed_form.hartley import Hartley, shell_spectrum
from nessampler.methods.ends import Block, Ends
from nessampler.methods.stage import Stage
from nessampler.paths import EndpointPath, LinearPath
from nessampler.targets import TransformedTarget, carry

__all__ = ["AlignedEnds", "ModeEnds", "opposed", "reflection"]

MAGNETISED = 0.25  # mean over standard deviation of the magnetisation, from which its sign is taken seriously


def reflection(shape: torch.Size) -> Transform:
    r"""$\varphi \to -\varphi$; volumes are kept."""
    return AffineTransform(0.0, -1.0, event_dim=len(shape))


def opposed(block: Block) -> bool:
    """Whether both ends are magnetised, and in opposite directions."""
    a, b = (_direction(x) for x in (block.flat_a, block.flat_b))
    return a * b < 0 and min(abs(a), abs(b)) > MAGNETISED


def _direction(x: Float[Tensor, " n *event"]) -> float:
    mean = x.flatten(1).mean(1, dtype=torch.float64)
    return float(mean.mean() / mean.std())


@dataclass(frozen=True)
class AlignedEnds:
    """The straight path from A, reflected or not, to B.

    Attributes:
        encode_a: the reflection, or None.
        path: $U_t = (1 - t) U_A + t U_B$.
        a, b: the fit block's fields in its coordinates.
        even: whether neither end is magnetised, so that drifts may be odd in the field.
    """

    encode_a: Transform | None
    path: LinearPath
    a: Float[Tensor, " n *event"]
    b: Float[Tensor, " m *event"]
    even: bool

    @classmethod
    def of(cls, ends: Ends, fit: Block) -> AlignedEnds:
        """Reflect where the fit block says so."""
        even = max(abs(_direction(x)) for x in (fit.flat_a, fit.flat_b)) < MAGNETISED
        if not opposed(fit):
            return cls(None, LinearPath(ends.a, ends.b), fit.flat_a, fit.flat_b, even)
        flip = reflection(ends.a.event_shape)
        path = LinearPath(TransformedTarget(ends.a, flip), ends.b)
        return cls(flip, path, carry(flip, fit.flat_a), fit.flat_b, even)

    def of_block(self, block: Block) -> tuple[Float[Tensor, " n *event"], Float[Tensor, " m *event"]]:
        """Fields of another block in these coordinates."""
        return block.flat_a if self.encode_a is None else carry(self.encode_a, block.flat_a), block.flat_b


class ModeEnds:
    r"""The mapped end $T_\# A$ and B as vectors of modes, where interpolant fields live; noise follows the spectra.

    Attributes:
        path: endpoints only; interior energies are never asked for.
        encode_a, encode_b: from fields to modes.
        u_a, u_b: the fit block in modes; `held_a`, `held_b` the select block.
    """

    def __init__(self, stage: Stage, transform: Transform) -> None:
        ends, modes = stage.ends, Hartley(stage.ends.a.event_shape)
        self.encode_a, self.encode_b = ComposeTransform([transform, modes]), modes
        self.path = EndpointPath(TransformedTarget(ends.a, self.encode_a), TransformedTarget(ends.b, modes))
        self.u_a, self.u_b = carry(self.encode_a, stage.fit.flat_a), carry(modes, stage.fit.flat_b)
        self.held_a, self.held_b = carry(self.encode_a, stage.select.flat_a), carry(modes, stage.select.flat_b)
        self._mapped, self._b = carry(transform, stage.fit.flat_a), stage.fit.flat_b

    def gaussian_fields(self) -> GaussianFields:
        """Fields between the free fields with the ends' means and spectra: diagonal, a variance per shell of waves."""
        means = [_mean_mode(x) for x in (self._mapped, self._b)]
        return GaussianFields(*means, *(torch.diag(shell_spectrum(x)) for x in (self._mapped, self._b)))


def _mean_mode(x: Tensor) -> Tensor:
    """All that a mean which is the same on every site shows among the modes."""
    mean = torch.zeros(x[0].numel(), dtype=torch.float64, device=x.device)
    mean[0] = x.double().mean() * x[0].numel() ** 0.5
    return mean
