"""The mapped end of A and the end of B in coordinates that standardise B, where interpolant fields live."""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributions.transforms import ComposeTransform, Transform

from nessampler.closed_form.affine import fit_standardizer
from nessampler.closed_form.gaussian_interpolant import GaussianFields, fit_gaussian_fields
from nessampler.fields import Fields
from nessampler.interpolants import Schedule
from nessampler.kernels import Langevin
from nessampler.methods.stage import Stage
from nessampler.methods.transport import Transport
from nessampler.paths import EndpointPath
from nessampler.targets import TransformedTarget, carry

__all__ = ["DIFFUSIONS", "StandardisedEnds", "equidistant"]

DIFFUSIONS = (0.25, 0.5, 1.0, 2.0)  # eps in units of the path's variance


class StandardisedEnds:
    r"""Between $T_\# A$ and B, in coordinates that standardise B given the circular ones, which stay where they are.

    Attributes:
        moving: which coordinates are transported; the circular ones are carried along.
        path: endpoints only; interior energies are never asked for.
        encode_a, encode_b: from common coordinates to these.
        u_a, u_b: the fit block in these coordinates; `held_a`, `held_b` the select block.
    """

    def __init__(self, stage: Stage, transform: Transform) -> None:
        ends, self._stage = stage.ends, stage
        self.moving = ~ends.circular
        standard = fit_standardizer(stage.fit.flat_b, ends.circular, conditional=bool(ends.circular.any()))
        self.encode_a, self.encode_b = ComposeTransform([transform, standard]), standard
        self.path = EndpointPath(
            TransformedTarget(TransformedTarget(ends.a, transform), standard), TransformedTarget(ends.b, standard)
        )
        self.u_a, self.u_b = self._encoded(stage.fit.flat_a, stage.fit.flat_b)
        self.held_a, self.held_b = self._encoded(stage.select.flat_a, stage.select.flat_b)

    def gaussian_fields(self, schedule: Schedule | None = None) -> GaussianFields:
        """Fields between the Gaussians of both ends, correlations shrunk."""
        return fit_gaussian_fields(self.u_a, self.u_b, shrink=0.75, schedule=schedule, moving=self.moving)

    def tuned(
        self, name: str, fields: Fields, base: GaussianFields, times: tuple[float, ...], what: str, module: nn.Module
    ) -> Transport:
        """Of a few diffusions the one with the smallest BAR error of pilot walkers, frozen from there on.

        Args:
            base: its variance is the scale of the diffusion.
            module: whose state makes the fields again.
        """
        candidates = (self.transport(name, fields, base, times, what, module, factor) for factor in DIFFUSIONS)
        return self._stage.tuned(candidates, what)

    def transport(
        self,
        name: str,
        fields: Fields,
        base: GaussianFields,
        times: tuple[float, ...],
        what: str,
        module: nn.Module,
        factor: float = 1.0,
    ) -> Transport:
        """At a diffusion of `factor` times the path's variance."""

        def diffusion(t: float) -> Tensor:
            return factor * base.variance(t)

        return Transport(
            name,
            f"{what}, {len(times) - 1} steps, ε = {factor:g} × path variance",
            Langevin(fields, diffusion),
            self.path,
            times,
            self.encode_a,
            self.encode_b,
            {f"{name}.{k}": v for k, v in module.state_dict().items()},
        )

    def _encoded(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return carry(self.encode_a, a), carry(self.encode_b, b)


def equidistant(steps: int) -> tuple[float, ...]:
    """Times from 0 to 1.

    >>> equidistant(2)
    (0.0, 0.5, 1.0)
    """
    return tuple(k / steps for k in range(steps + 1))
