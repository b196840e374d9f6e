"""A network carried by flow steps, with Hamiltonian moves to mend what it misses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from nessampler.kernels import HMC, Compose, Flow
from nessampler.methods.density.again import moves_state, network_for
from nessampler.methods.density.annealing import Annealing
from nessampler.methods.density.context import Context
from nessampler.methods.density.counted import CountedField, CountedPath
from nessampler.methods.density.flow_error import fine_enough
from nessampler.methods.density.lsq import TUNING_WALKERS, Solved
from nessampler.methods.density.nets_training import trained
from nessampler.methods.density.tuning import Pilot
from nessampler.methods.density.zero_drifts import Untrained, saved_network
from nessampler.networks.field import NetworkField

__all__ = ["flow_from_zero", "refined"]


def refined(
    solved: Solved,
    path: CountedPath,
    x: Tensor,
    context: Context,
    *,
    metrics: list[Mapping[str, Any]],
    generator: torch.Generator,
) -> tuple[Annealing, CountedField]:
    """A network that starts as the closed form, moved as that is, at its times; the rule is chosen after training."""
    annealing = solved.annealing
    assert isinstance(annealing.kernel, Compose)  # what `least_squares` makes
    assert isinstance(annealing.kernel.first, Flow)
    flow, relax = annealing.kernel.first, annealing.kernel.second
    network = network_for(solved.drift.field, x, generator)

    def kernel(module: nn.Module) -> Compose:
        return Compose(replace(flow, field=NetworkField(module)), relax)

    done = trained(path, x, network, context, kernel=kernel, metrics=metrics, generator=generator)
    field, few = CountedField(NetworkField(network), path), x[: solved.trial_walkers]
    field.evaluations[path.current] = done.evaluations or 0
    options = {"tolerance": solved.tolerance, "generator": generator, "say": context.say}
    moving, error = fine_enough(field, relax, path, annealing.times, few, **options)
    description = (
        f"network from the closed-form drift, {done.steps[-1]} training steps, " + annealing.description.split(", ")[-1]
    )
    state = {f"nets.{name}": value for name, value in network.state_dict().items()}
    return (
        replace(
            annealing,
            name="nets",
            description=description,
            kernel=Compose(moving, relax),
            systematic=error.bound,
            state={
                **annealing.state,
                **state,
                "rule": torch.tensor([moving.order, moving.substeps]),
                "systematic": torch.tensor(error.bound, dtype=torch.float64),
            },
        ),
        field,
    )


def flow_from_zero(
    start: Untrained,
    found: Pilot,
    path: CountedPath,
    x: Tensor,
    context: Context,
    *,
    steps: int,
    metrics: list[Mapping[str, Any]],
    generator: torch.Generator,
) -> tuple[Annealing, CountedField]:
    """The same from zero drift, along the times of equal difficulty without one; the rule is chosen after training."""
    mover, network = context.mover, start.network
    relax, times = HMC(path, found.step_sizes, mover.leapfrog_steps, mover.mass, mover.repeats), found.spaced(steps)

    def kernel(module: nn.Module) -> Compose:
        return Compose(Flow(NetworkField(module), order=2), relax)

    done = trained(
        path,
        x,
        network,
        context,
        kernel=kernel,
        learning_rate=start.learning_rate,
        metrics=metrics,
        generator=generator,
    )
    field, few = CountedField(NetworkField(network), path), x[:TUNING_WALKERS]
    field.evaluations[path.current] = done.evaluations or 0
    tolerance = context.effort.flow_tolerance
    flow, error = fine_enough(field, relax, path, times, few, tolerance=tolerance, generator=generator, say=context.say)
    words = f"{steps} steps of flow and HMC of {mover.leapfrog_steps} leapfrogs"
    state = {
        **moves_state(times, found.step_sizes, mover.leapfrog_steps),
        **saved_network(network),
        "rule": torch.tensor([flow.order, flow.substeps]),
        "systematic": torch.tensor(error.bound, dtype=torch.float64),
    }
    annealing = Annealing(
        "nets",
        f"network from zero, {done.steps[-1]} training steps, {words}",
        Compose(flow, relax),
        path,
        times,
        systematic=error.bound,
        dtype=context.problem.dtype,
        state=state,
    )
    return annealing, field
