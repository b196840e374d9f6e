"""Rung 3: a network that starts as the closed-form drift and learns what is left."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nessampler.kernels import Compose, Flow
from nessampler.methods.density.again import network_for
from nessampler.methods.density.annealing import Annealing
from nessampler.methods.density.counted import CountedField, CountedPath
from nessampler.methods.density.flow_error import flow_error
from nessampler.methods.density.lsq import TUNING_WALKERS, Solved
from nessampler.methods.density.nets import NetsProgress, train_nets
from nessampler.networks.field import NetworkField
from nessampler.objectives.pinn import PinnObjective

__all__ = ["TRAINING_MOVES", "refined"]

ROLLOUT_WALKERS, BATCH_WALKERS, PILOTS = 256, 64, 512  # of as many base samples as there are, or a share of them
PATIENCE = 10  # pilot runs, one every 100 steps, without a better ESS: training ends
# Of a training step, on average: rollouts of 32 steps every 10 of them, pilot runs every 100, see `train_nets`.
TRAINING_MOVES = 32 * (ROLLOUT_WALKERS / 10 + PILOTS / 100)


def refined(
    solved: Solved,
    path: CountedPath,
    *,
    walkers: int,
    steps: int,
    metrics: list[Mapping[str, Any]],
    checkpoint: Path | None,
    generator: torch.Generator,
    device: str,
    progress: Callable[[int, int, str], None],
    report: Callable[..., None],
) -> tuple[Annealing, CountedField]:
    """Train on the PINN loss, with flow and HMC as the closed form uses them; `metrics` gets the training curve."""
    annealing, drift = solved.annealing, solved.drift.field
    assert isinstance(annealing.kernel, Compose)  # what `least_squares` makes
    assert isinstance(annealing.kernel.first, Flow)
    flow, relax = annealing.kernel.first, annealing.kernel.second
    x = path.start.sample(walkers, generator=generator).to(device, annealing.dtype)  # pyright: ignore
    network = network_for(drift, x, generator)

    def tell(now: NetsProgress) -> None:
        progress(now.step, now.steps, "training")
        report(loss=now.loss, ess=None if math.isnan(now.ess) else now.ess)

    def kernel(module: torch.nn.Module) -> Compose:
        return Compose(replace(flow, field=NetworkField(module)), relax)

    with torch.enable_grad():
        done = train_nets(
            path,
            x,
            network,
            PinnObjective(network),
            steps=steps,
            kernel=kernel,
            walkers=min(ROLLOUT_WALKERS, walkers // 2),
            batch_walkers=min(BATCH_WALKERS, walkers // 8),
            pilots=min(PILOTS, walkers // 4),
            curriculum=0.0,
            first_time=1.0,
            patience=PATIENCE,
            checkpoint=checkpoint,
            progress=tell,
            generator=generator,
        )
    rows = zip(done.steps, done.loss, done.ess, strict=True)
    metrics.extend({"step": s, "loss": loss, "ess": ess} for s, loss, ess in rows)
    field = CountedField(NetworkField(network), path)
    trained = replace(flow, field=field)
    error = flow_error(trained, relax, path, annealing.times, x[:TUNING_WALKERS], generator=generator)
    description = (
        f"network from the closed-form drift, {done.steps[-1]} training steps, " + annealing.description.split(", ")[-1]
    )
    state = {f"nets.{name}": value for name, value in network.state_dict().items()}
    return (
        replace(
            annealing,
            name="nets",
            description=description,
            kernel=Compose(trained, relax),
            systematic=error.bound,
            state={**annealing.state, **state, "systematic": torch.tensor(error.bound, dtype=torch.float64)},
        ),
        field,
    )
