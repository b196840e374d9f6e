"""Rung 2: a closed-form map between the ends, fitted in milliseconds."""

from __future__ import annotations

from torch import Tensor
from torch.distributions.transforms import ComposeTransform, Transform

from nessampler.closed_form.affine import ConditionalAffine, fit_map
from nessampler.closed_form.periodic_density import PeriodicDensity
from nessampler.closed_form.score_affine import fit_map_by_scores
from nessampler.errors import InputError
from nessampler.kernels import Map
from nessampler.methods.ends import Block, Ends
from nessampler.methods.transport import Transport
from nessampler.paths import EndpointPath
from nessampler.targets import energy_and_score

__all__ = ["candidate_maps", "mapped", "score_maps"]


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


def score_maps(ends: Ends, fit: Block) -> dict[str, ConditionalAffine]:
    """Maps fitted to the scores of the fit block, one gradient of its state a sample; none where that cannot be."""
    x_a, x_b = fit.flat_a, fit.flat_b
    if min(len(x_a), len(x_b)) < 2 * x_a.shape[1]:
        return {}
    try:
        score_a, score_b = energy_and_score(ends.a, x_a)[1], energy_and_score(ends.b, x_b)[1]
    except InputError:  # a density without a gradient
        return {}
    maps, soft = {}, int(ends.circular.sum())
    for harmonics in (0, 1, 2) if soft else (0,):
        name = "affine by scores" + (f", conditional on {soft} torsions × {harmonics}" if harmonics else "")
        try:
            maps[name] = fit_map_by_scores(x_a, score_a, x_b, score_b, ends.circular, harmonics=harmonics)
        except InputError:
            continue
    return maps


def mapped(ends: Ends, name: str, transform: Transform) -> Transport:
    """Targeted FEP in both directions through one map."""
    path = EndpointPath(ends.a, ends.b)
    return Transport("map", name, Map(transform), path, (0.0, 1.0), state=_state("map", transform))


def _state(name: str, part: object) -> dict[str, Tensor]:
    """The tensors of a map; those of maps in a row are numbered."""
    if isinstance(part, ComposeTransform):
        return {k: v for i, one in enumerate(part.parts) for k, v in _state(f"{name}.{i}", one).items()}
    found = {}
    for key, value in vars(part).items():
        if isinstance(value, PeriodicDensity):
            found |= _state(f"{name}.{key}", value)
        elif isinstance(value, Tensor) and not key.startswith("_"):
            found[f"{name}.{key}"] = value
    return found
