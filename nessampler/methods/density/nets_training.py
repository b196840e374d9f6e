"""What a network for a density learns from, and on how many walkers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.kernels import Kernel
from nessampler.methods.density.budget import TRAINING_SHARE
from nessampler.methods.density.context import Context
from nessampler.methods.density.counted import CountedPath
from nessampler.methods.density.effort import DensityEffort
from nessampler.methods.density.nets import Diffusion, NetsProgress, NetsTraining, train_nets
from nessampler.methods.density.training_budget import TrainingPrice, TrainingSizes
from nessampler.networks.drift import DriftNetwork
from nessampler.objectives.action_matching import ActionMatchingObjective
from nessampler.objectives.log_variance import LogVarianceObjective
from nessampler.objectives.pinn import FreeEnergyRate, PinnObjective
from nessampler.targets.laplacian import LARGEST_TRACE

__all__ = ["LEARNING_RATE", "ROLLOUT_STEPS", "divergence_passes", "objective_for", "trained"]

ROLLOUT_WALKERS, BATCH_WALKERS, PILOTS = 256, 64, 512  # of as many base samples as there are, or a share of them
ROLLOUT_STEPS = 32  # as `train_nets` has them
PATIENCE = 10  # pilot runs, one every 100 steps, without a better ESS: training ends
LEARNING_RATE = 2e-3  # of a network that starts as a closed form
CURRICULUM, FIRST_TIME = 0.4, 0.1  # of one that starts from zero: it learns the way from its beginning


def trained(
    path: CountedPath,
    x: Float[Tensor, " n *event"],
    network: nn.Module,
    context: Context,
    *,
    kernel: Callable[[nn.Module], Kernel],
    diffusion: Diffusion = 1.0,
    learning_rate: float = LEARNING_RATE,
    pilot_times: tuple[float, ...] | None = None,
    metrics: list[Mapping[str, Any]],
    generator: torch.Generator,
) -> NetsTraining:
    """Train in place, from `x` and by the objective and the start that the effort names; `metrics` gets the curve.

    Within a budget for as many steps, and judged by as many pilot walkers, as training's share of it pays for.
    """
    effort, n = context.effort, len(x)
    zero, objective = effort.nets_start == "zero", effort.nets_objective
    walkers = min(ROLLOUT_WALKERS, n // 2)
    batch = walkers if objective == "action-matching" else min(BATCH_WALKERS, n // 8)
    sizes = TrainingSizes(effort.nets_steps, walkers, batch, min(PILOTS, n // 4))
    if context.budget is not None:
        own, pilot_steps = context.generator("price"), ROLLOUT_STEPS if pilot_times is None else len(pilot_times) - 1
        loss = objective_for(effort, network, diffusion, own)
        price = TrainingPrice.of(path, network, loss, kernel, x, generator=own)
        share = TRAINING_SHARE * context.budget.evaluations
        sizes = price.within(share, sizes, rollout_steps=ROLLOUT_STEPS, pilot_steps=pilot_steps)
    # Path weights need whole paths; averages over weighted walkers need even weights, and all walkers there are.
    resampled = {"log-variance": 0.0, "action-matching": 0.9}.get(objective, 0.7)

    def tell(now: NetsProgress) -> None:
        context.progress(now.step, now.steps, "training")
        context.report(loss=now.loss, ess=None if math.isnan(now.ess) else now.ess)

    with torch.enable_grad():
        done = train_nets(
            path,
            x,
            network,
            objective_for(effort, network, diffusion, generator),
            steps=sizes.steps,
            kernel=kernel,
            learning_rate=learning_rate,
            walkers=sizes.walkers,
            batch_walkers=sizes.batch,
            pilots=sizes.pilots,
            resample_below=resampled,
            pilot_times=pilot_times,
            curriculum=CURRICULUM if zero else 0.0,
            first_time=FIRST_TIME if zero else 1.0,
            patience=PATIENCE,
            checkpoint=context.checkpoint,
            progress=tell,
            generator=generator,
        )
    rows = zip(done.steps, done.loss, done.ess, strict=True)
    metrics.extend({"step": s, "loss": loss, "ess": ess} for s, loss, ess in rows)
    return done


def objective_for(
    effort: DensityEffort, network: nn.Module, diffusion: Diffusion, generator: torch.Generator
) -> nn.Module:
    """The loss that the effort names; two probes take the place of a divergence where coordinates are many.

    Args:
        effort: its `nets_objective`, and whether its `nets_kernel` and `nets_start` allow probes.
        network: a velocity, or for action matching a potential and its gradient.
        diffusion: of the Langevin pair whose path weights vary.
        generator: of the training, so that probes resume with it.
    """
    if effort.nets_objective == "action-matching":
        return ActionMatchingObjective(network)
    if effort.nets_objective == "log-variance":
        return LogVarianceObjective(network, diffusion)
    probes = generator if _probed(effort, network) else None
    rate = FreeEnergyRate().to(generator.device) if effort.nets_objective == "pinn-rate" else None
    return PinnObjective(network, rate=rate, probes=probes)


def divergence_passes(effort: DensityEffort, d: int) -> int:
    """Backward passes of one divergence of a perceptron in d dimensions: two probes, or one for each coordinate."""
    return d if effort.nets_kernel == "flow" or d <= LARGEST_TRACE else 2


def _probed(effort: DensityEffort, network: nn.Module) -> bool:
    """A closed form knows its divergence, and so do the networks of lattices and clusters."""
    if not isinstance(network, DriftNetwork) or effort.nets_start != "zero":
        return False
    d = network.center.numel()
    return divergence_passes(effort, d) < d
