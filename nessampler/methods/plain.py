"""Rung 1: no transport. Energy differences between the ends, free wherever samples exist."""

from nessampler.kernels import Identity
from nessampler.methods.ends import Ends
from nessampler.methods.transport import Transport
from nessampler.paths import EndpointPath

__all__ = ["plain"]


def plain(ends: Ends) -> Transport:
    """Free-energy perturbation in both directions; its BAR is the baseline of every run."""
    return Transport("plain", "no transport", Identity(), EndpointPath(ends.a, ends.b), (0.0, 1.0))
