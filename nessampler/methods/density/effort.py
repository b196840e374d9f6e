"""What to spend on a density."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nessampler.errors import InputError

__all__ = ["DensityEffort", "check_kernel"]


@dataclass(frozen=True)
class DensityEffort:
    """What to spend.

    Attributes:
        walkers: that give the estimate; of parallel tempering, draws of the target.
        pilot_walkers, pilot_steps: of the walkers on which a drift is solved.
        steps: of the production run; parallel tempering takes as many replicas as swaps need. None, of plain annealing
            and SMC only: as many as their conditional ESS asks for.
        leapfrog_steps: of the Hamiltonian moves at each of them; proposals, of a random walk.
        kernel: "hmc"; of plain annealing also "inertial": underdamped Langevin steps, one gradient each and as many
            times more of them; of plain annealing and SMC also "walk": random walks, which ask for energies alone.
        baseline_walkers: of the method that `auto` does not choose; a quarter of `walkers` by default.
        reverse_walkers: carried back from samples of the target, where there are any.
        reverse_steps: of long Hamiltonian chains that make such samples where nobody has them; 0 for none.
        nets_steps: gradient steps of a network.
        training_walkers: draws of the base for its training and pilots.
        end_gradients: whether a drift in closed form also goes along the gradients of base and target, each by itself.
        flow_tolerance: in log Z, beyond which a flow is integrated by a finer rule.
        budget: evaluations of the target in all, pilots and training included. Then `walkers` are as many as it holds
            and not looked at, pilots and a drift's steps no more than fit, and plain annealing takes the steps that its
            first walkers ask for.

    Example:
        >>> effort = DensityEffort(walkers=1024, steps=20)
        >>> effort.walkers * effort.steps * effort.leapfrog_steps  # gradients of the run that gives the estimate, about
        102400
    """

    walkers: int = 4096
    pilot_walkers: int = 2048
    pilot_steps: int = 30
    steps: int | None = 40
    leapfrog_steps: int = 5
    kernel: Literal["hmc", "inertial", "walk"] = "hmc"
    reverse_walkers: int = 1024
    reverse_steps: int = 0
    nets_steps: int = 1000
    training_walkers: int = 2048
    end_gradients: bool = False
    baseline_walkers: int | None = None
    flow_tolerance: float = 5e-4
    budget: int | None = None


def check_kernel(kernel: str, method: str, reverse_steps: int = 0) -> None:
    """Refuse moves that a method does not make.

    Raises:
        InputError: naming both; long chains, which ask for gradients, where nothing else does.
    """
    if kernel == "walk":
        if method not in ("ais", "smc", "auto"):
            raise InputError(
                f"kernel = 'walk' is for plain annealing and SMC: {method} asks for gradients; choose method ais, smc "
                "or auto, or kernel hmc"
            )
        if reverse_steps:
            raise InputError(
                f"long chains of the target ask for gradients, and kernel = 'walk' for none: got reverse_steps = "
                f"{reverse_steps}; set it to 0, or choose kernel hmc"
            )
    elif kernel != "hmc" and method not in ("ais", "auto"):
        raise InputError(
            f"kernel = {kernel!r} is for plain annealing: {method} moves by Hamiltonian trajectories; "
            "choose method ais or auto, or kernel hmc"
        )
