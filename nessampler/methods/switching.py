"""Rung 3a: non-equilibrium switching along the mapped path, in coordinates whitened by the forces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions.transforms import ComposeTransform, Transform

from nessampler.closed_form.preconditioner import Linear, force_whitening
from nessampler.fields import PathScore
from nessampler.kernels import Langevin
from nessampler.methods.ends import Block, Ends
from nessampler.methods.transport import Transport
from nessampler.paths import LinearPath
from nessampler.targets import TransformedTarget, carry, energy_and_score

__all__ = ["switching", "tuned_switching"]

RELAXATIONS = (0.02, 0.05, 0.1, 0.2)  # eps |h| per step, in units of the local variance


def switching(ends: Ends, transform: Transform, whitening: Linear, *, steps: int, relaxation: float) -> Transport:
    r"""Langevin walkers from $T_\# A$ to B along $U_t = (1-t)\,U_{T_\# A} + t\,U_B$ and back.

    In whitened coordinates the mean curvature is 1, so `relaxation` $= \varepsilon |h|$ is the fraction of a
    relaxation time that each of the `steps` takes. Works are exact at any value; small values do nothing, large
    ones pay for it in the works' variance.
    """
    encode_a = ComposeTransform([transform, whitening])
    path = LinearPath(
        TransformedTarget(TransformedTarget(ends.a, transform), whitening), TransformedTarget(ends.b, whitening)
    )
    times = tuple(k / steps for k in range(steps + 1))
    return Transport(
        "switching",
        f"{steps} Langevin steps along the mapped path, {relaxation:g} relaxations each",
        Langevin(PathScore(path), diffusion=relaxation * steps),
        path,
        times,
        encode_a,
        whitening,
        {"switching.whitening": whitening.matrix, "switching.relaxation": torch.tensor(relaxation)},
    )


def tuned_switching(
    ends: Ends,
    transform: Transform,
    pilot: Block,
    *,
    steps: int,
    generator: torch.Generator,
    relaxations: Sequence[float] = RELAXATIONS,
    say: Callable[[str], None] = lambda _: None,
) -> Transport:
    """Switching with the step size that gives pilot walkers the smallest BAR error, frozen from there on."""
    whitening = force_whitening(_scores(ends, transform, pilot))
    candidates = {r: switching(ends, transform, whitening, steps=steps, relaxation=r) for r in relaxations}

    def error(relaxation: float) -> float:
        found = candidates[relaxation].pilot_error(pilot, generator=generator)
        say(f"{relaxation:g} relaxations per step: pilot error {found:.3f} kT")
        return found

    return candidates[min(candidates, key=error)]


def _scores(ends: Ends, transform: Transform, pilot: Block) -> Tensor:
    moved = TransformedTarget(ends.a, transform)
    _, score_a = energy_and_score(moved, carry(transform, pilot.flat_a))
    _, score_b = energy_and_score(ends.b, pilot.flat_b)
    return torch.cat([score_a, score_b])
