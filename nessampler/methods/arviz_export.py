"""Results as ArviZ `InferenceData`: what `.to_arviz()` returns and what `works.nc` and `samples.nc` hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nessampler.errors import InputError
from nessampler.methods.ends import generator_for
from nessampler.weights import LogWeights, systematic

if TYPE_CHECKING:
    from arviz import InferenceData

    from nessampler.methods.density.result import Sampled
    from nessampler.methods.difference import Difference

__all__ = ["CHAINS", "samples_data", "works_data"]

CHAINS = 4  # as many as ArviZ wants to see for R-hat


def works_data(result: Difference) -> InferenceData:
    """Groups `forward` and `reverse` with `work_RUNG` in kT and `log_weight_RUNG`, `(chain, draw)`.

    Rungs that were not climbed have the works of their pilot in `pilot_forward` and `pilot_reverse`. Works of a part of
    a block, or of all samples beside those of a block, lie along a dimension `draw_RUNG` of their own.
    """
    groups: dict[str, dict[str, Any]] = {}
    for rung in result.rungs:
        prefix = "pilot_" if rung.block == "select" else ""
        apart = rung.block == "all" if not prefix else rung.pilot.share < 1
        draw = f"draw_{rung.name}" if apart and len(result.rungs) > 1 else "draw"
        for direction, work in zip(("forward", "reverse"), rung.works, strict=True):
            variables = groups.setdefault(prefix + direction, {})
            draws = (("chain", draw), np.atleast_2d(work))
            correlated = int(np.ndim(work) == 2)  # a single chain, or independent works: both are one row here
            variables[f"work_{rung.name}"] = (*draws, {"units": "kT", "correlated": correlated})
            variables[f"log_weight_{rung.name}"] = (draws[0], -draws[1])
    return _inference_data(groups)


def samples_data(
    result: Sampled, *, chains: int = CHAINS, seed: int = 0, names: Sequence[str] | None = None
) -> InferenceData:
    r"""Weighted walkers, and unweighted draws of them in chains.

    - `posterior`: `x` `(chain, draw, *event)`. Each chain is resampled, in order, from walkers of its own, so chains
      are independent and R-hat means something, and a heavy walker repeats in neighbouring draws, which `az.ess` sees.
      One chain of all walkers where some chain has no walker of any weight; absent where none has.
    - `walkers`: the walkers `x` and their `log_weight`, one chain: weigh them for exact averages.
    - `sample_stats`: `log_weight` again, where ArviZ users look for it.

    Args:
        result: of `sample`.
        chains: in which the walkers are dealt out.
        seed: of the resampling: the same seed gives the same draws.
        names: of the coordinates of a vector, each of which becomes a variable of its own in place of `x`.

    Raises:
        InputError: fewer than one chain, or fewer than four walkers in each; not one name for each coordinate.
    """
    if chains < 1 or len(result.x) < 4 * chains:
        raise InputError(
            f"chains are one or more, of four walkers at least: got chains={chains} for {len(result.x)} walkers; ask "
            "for fewer"
        )
    if names is not None and (result.x.ndim != 2 or len(set(names)) != len(names) or len(names) != result.x.shape[1]):
        raise InputError(
            f"names are different ones, one for each coordinate of a vector: got {len(names)} for walkers of shape "
            f"{tuple(result.x.shape[1:])}"
        )
    log_weight = ("chain", "draw"), result.log_weight.cpu().numpy()[None]
    groups: dict[str, dict[str, Any]] = {
        "sample_stats": {"log_weight": (*log_weight, {"of": "the walkers in group walkers, row by row"})},
        "walkers": {**_variables(result.x[None], names), "log_weight": log_weight},
    }
    draws = _chains(result, chains, seed)
    return _inference_data(groups if draws is None else {"posterior": _variables(draws, names), **groups})


def _chains(result: Sampled, chains: int, seed: int) -> Tensor | None:
    size = len(result.x) // chains
    parts = torch.arange(size * chains, device=result.x.device).view(chains, size)
    alive = torch.isfinite(result.log_weight)
    if not bool(alive.any()):
        return None
    if not bool(alive[parts].any(dim=1).all()):
        parts = torch.arange(len(result.x), device=result.x.device)[None]
    generator = generator_for(seed, "draws", result.x.device)
    chosen = [p[systematic(LogWeights(result.log_weight[p]).normalized, generator=generator)] for p in parts]
    return torch.stack([result.x[index] for index in chosen])


def _variables(x: Tensor, names: Sequence[str] | None) -> dict[str, Any]:
    if names is None:
        return {"x": _variable(x)}
    return {name: _variable(x[..., k]) for k, name in enumerate(names)}


def _variable(x: Tensor) -> tuple[tuple[str, ...], np.ndarray]:
    """`(chain, draw, *event)` with named axes."""
    return ("chain", "draw", *(f"axis_{k}" for k in range(x.ndim - 2))), x.detach().cpu().numpy()


def _inference_data(groups: Mapping[str, Mapping[str, Any]]) -> InferenceData:
    import arviz  # takes a second to import
    import xarray

    datasets: dict[str, Any] = {group: xarray.Dataset(variables) for group, variables in groups.items()}
    return arviz.InferenceData(warn_on_custom_groups=False, **datasets)
