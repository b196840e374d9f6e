"""Rung 2: a closed-form map between the ends, fitted in milliseconds."""

from __future__ import annotations

from nessampler.closed_form.affine import ConditionalAffine, fit_map
from nessampler.errors import InputError
from nessampler.kernels import Map
from nessampler.methods.ends import Block, Ends
from nessampler.methods.transport import Transport
from nessampler.paths import EndpointPath

__all__ = ["candidate_maps", "mapped"]


def candidate_maps(ends: Ends, fit: Block) -> dict[str, ConditionalAffine]:
    """The maps worth trying, from the stiffest to the most flexible, as far as the samples allow them."""
    variants: dict[str, dict] = {
        "shift of means": {"scale": "none"},
        "shift and scale": {"scale": "diagonal"},
        "affine, correlations × 0.25": {"scale": "full", "shrink": 0.25},
        "affine, correlations × 0.75": {"scale": "full", "shrink": 0.75},
    }
    soft = int(ends.circular.sum())
    if soft:
        variants |= {
            f"shift and scale, conditional on {soft} torsions": {"scale": "diagonal", "conditional": True},
            f"affine × 0.25, conditional on {soft} torsions": {"scale": "full", "shrink": 0.25, "conditional": True},
            f"affine × 0.75, conditional on {soft} torsions": {"scale": "full", "shrink": 0.75, "conditional": True},
        }
    maps = {}
    for name, options in variants.items():
        try:
            maps[name] = fit_map(fit.flat_a, fit.flat_b, ends.circular, **options)
        except InputError:
            if not maps:  # not even the means can be moved
                raise
    return maps


def mapped(ends: Ends, name: str, transform: ConditionalAffine) -> Transport:
    """Targeted FEP in both directions through one map."""
    state = {
        "map.matrix": transform.matrix,
        "map.mean_in": transform.mean_in,
        "map.mean_out": transform.mean_out,
        "map.circular": transform.circular,
    }
    path = EndpointPath(ends.a, ends.b)
    return Transport("map", name, Map(transform), path, (0.0, 1.0), state=state)
