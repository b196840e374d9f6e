"""What to spend on a density."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args

from nessampler.errors import InputError

__all__ = [
    "DensityEffort",
    "MoveKernel",
    "NetsKernel",
    "NetsObjective",
    "NetsStart",
    "ParticleMass",
    "check_effort",
    "check_kernel",
    "check_nets",
    "check_smc",
]

MoveKernel = Literal["hmc", "langevin", "inertial", "walk"]
ParticleMass = Literal["problem", "diagonal", "dense", "spectral"]

NetsObjective = Literal["pinn", "pinn-rate", "action-matching", "log-variance"]
NetsStart = Literal["closed-form", "zero"]
NetsKernel = Literal["flow", "langevin", "inertial"]


@dataclass(frozen=True)
class DensityEffort:
    """What to spend.

    Attributes:
        walkers: that give the estimate; of parallel tempering, draws of the target.
        pilot_walkers, pilot_steps: of the walkers on which a drift is solved.
        steps: of the production run; parallel tempering takes as many replicas as swaps need. None, of plain annealing
            and SMC only: as many as their conditional ESS asks for.
        leapfrog_steps: of the Hamiltonian moves at each of them; proposals, of a random walk.
        kernel: "hmc", or with one leapfrog step MALA; of plain annealing also "langevin", steps without acceptance
            that are weighted exactly, and "inertial", underdamped ones: one gradient each and as many times more of
            them; of plain annealing and SMC also "walk": random walks, which ask for energies alone.
        precondition: mass of SMC's moves: "problem", one for all temperatures, or from the pilot's particles at
            each: "diagonal", "dense" of vectors, "spectral" of lattices.
        waste_free: of SMC, the length of chains all of whose states are particles; None for one move per particle.
        baseline_walkers: of the method that `auto` does not choose; a quarter of `walkers` by default.
        reverse_walkers: carried back from samples of the target, where there are any.
        reverse_steps: of long Hamiltonian chains that make such samples where nobody has them; 0 for none.
        nets_steps: gradient steps of a network.
        nets_objective: what it learns from: "pinn", the squared residual of the transport equation less its mean over
            the walkers of each time; "pinn-rate", the same with a learned rate of the free energy; "action-matching",
            the gradient of a potential from weighted walkers; "log-variance", of path weights of the Langevin pair.
        nets_start: "closed-form", the drift that `lsq` solves, or "zero", plain annealing, as in the paper: then the
            paths that the network learns from grow from a tenth of the way to all of it.
        nets_kernel: what carries walkers along the network: "flow" steps with Hamiltonian moves after each; the
            "langevin" pair, whose diffusion is tuned when training is over; or "inertial" steps. The latter two take
            one gradient each, and there are as many times more of them.
        training_walkers: draws of the base for its training and pilots.
        end_gradients: whether a drift in closed form also goes along the gradients of base and target, each by itself.
        flow_tolerance: in log Z, beyond which a flow is integrated by a finer rule.
        budget: evaluations of the target in all, pilots and training included. Then `walkers` are as many as it holds
            and not looked at, pilots and a drift's steps no more than fit, and plain annealing takes the steps that its
            first walkers ask for. Of `nets`, with the start and the kernel that it has by default.

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
    kernel: MoveKernel = "hmc"
    precondition: ParticleMass = "problem"
    waste_free: int | None = None
    reverse_walkers: int = 1024
    reverse_steps: int = 0
    nets_steps: int = 1000
    nets_objective: NetsObjective = "pinn"
    nets_start: NetsStart = "closed-form"
    nets_kernel: NetsKernel = "flow"
    training_walkers: int = 2048
    end_gradients: bool = False
    baseline_walkers: int | None = None
    flow_tolerance: float = 5e-4
    budget: int | None = None


def check_effort(effort: DensityEffort, method: str, event_shape: Sequence[int]) -> None:
    """Refuse what does not go together, whatever it concerns: moves, networks, particles.

    Raises:
        InputError: naming it, see `check_kernel`, `check_nets` and `check_smc`.

    Example:
        >>> check_effort(DensityEffort(), "auto", (3,))
    """
    check_kernel(effort.kernel, method, effort.reverse_steps, effort.budget)
    check_nets(effort, method)
    check_smc(effort, method, event_shape)


def check_kernel(kernel: str, method: str, reverse_steps: int = 0, budget: int | None = None) -> None:
    """Refuse moves that a method does not make.

    Raises:
        InputError: naming both; long chains, which ask for gradients, where nothing else does; Langevin and
            inertial steps, whose noise is tuned over the whole path, within a budget.
    """
    if kernel in ("langevin", "inertial") and budget is not None:
        raise InputError(
            "the noise of Langevin steps is tuned by pilots over the whole path, which no budget bounds: got "
            f"kernel = {kernel!r} and a budget of {budget}; leave the budget out, or choose kernel hmc"
        )
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


def check_nets(effort: DensityEffort, method: str) -> None:
    """Refuse trainings that cannot be, and choices that a method would not look at.

    Raises:
        InputError: naming what does not go together.

    Example:
        >>> check_nets(DensityEffort(nets_objective="log-variance", nets_start="zero"), "nets")
        Traceback (most recent call last):
        nessampler.errors.InputError: nets_objective = 'log-variance' is the variance of Langevin path weights: got ...
    """
    objective, start, kernel = effort.nets_objective, effort.nets_start, effort.nets_kernel
    known = {f.name: f.default for f in fields(DensityEffort)}
    for name, words in (("nets_objective", NetsObjective), ("nets_start", NetsStart), ("nets_kernel", NetsKernel)):
        chosen = getattr(effort, name)
        if chosen not in get_args(words):
            raise InputError(f"{name} must be one of {', '.join(get_args(words))}: got {chosen!r}")
        if method != "nets" and chosen != known[name]:
            raise InputError(
                f"{name} = {chosen!r} is for method nets: got method {method}; choose nets, or leave it out"
            )
    if effort.budget is not None and (start, kernel) != (known["nets_start"], known["nets_kernel"]):
        raise InputError(
            f"a budget is shared out for a closed form and flow steps: got nets_start = {start!r} and nets_kernel = "
            f"{kernel!r}; leave the budget out, and say walkers, steps and nets_steps"
        )
    if objective == "log-variance" and kernel != "langevin":
        raise InputError(
            f"nets_objective = 'log-variance' is the variance of Langevin path weights: got nets_kernel = {kernel!r}; "
            "choose nets_kernel langevin, or nets_objective pinn"
        )
    if objective == "action-matching" and start != "zero":
        raise InputError(
            f"nets_objective = 'action-matching' learns a potential: got nets_start = {start!r}, which "
            "has none; choose nets_start zero, or nets_objective pinn"
        )
    if objective == "action-matching" and kernel == "flow":
        raise InputError(
            "nets_objective = 'action-matching' learns a drift without its divergence: got nets_kernel = 'flow', which "
            "needs it at every step; choose nets_kernel langevin or inertial"
        )
    if effort.end_gradients and method == "nets" and start == "zero":
        raise InputError(
            "end_gradients is for a drift in closed form: got nets_start = 'zero', which solves for none; "
            "choose nets_start closed-form, or leave end_gradients out"
        )


def check_smc(effort: DensityEffort, method: str, event_shape: Sequence[int]) -> None:
    """Refuse masses and chains of SMC where nothing would look at them, or cannot be.

    Raises:
        InputError: naming what does not go together.

    Example:
        >>> check_smc(DensityEffort(precondition="dense"), "ais", (3,))
        Traceback (most recent call last):
        nessampler.errors.InputError: precondition = 'dense' is for SMC: got method ais; choose smc, or leave it out
    """
    mass, length = effort.precondition, effort.waste_free
    if mass not in get_args(ParticleMass):
        raise InputError(f"precondition must be one of {', '.join(get_args(ParticleMass))}: got {mass!r}")
    for name, value, known in (("precondition", mass, "problem"), ("waste_free", length, None)):
        if value != known and method != "smc":
            raise InputError(f"{name} = {value!r} is for SMC: got method {method}; choose smc, or leave it out")
    if mass != "problem" and effort.kernel == "walk":
        raise InputError(
            f"random walks take the particles' own covariance: got precondition = {mass!r} with kernel = 'walk'; "
            "leave it out"
        )
    shapes = {"dense": (len(event_shape) == 1, "vectors"), "spectral": (_periodic(event_shape), "square lattices")}
    fits, what = shapes.get(mass, (True, ""))
    if not fits:
        raise InputError(
            f"precondition = {mass!r} is for {what}: got walkers of shape {tuple(event_shape)}; choose diagonal, or "
            "leave it out"
        )
    island = effort.walkers // 8
    divides = effort.budget is not None or (length and not island % length and island // length >= 2)
    if length is not None and (length < 2 or not divides):
        raise InputError(
            "waste-free chains have two states at least and divide an eighth of the walkers into two chains at least: "
            f"got waste_free = {length} with {effort.walkers} walkers; choose, for example, 2048 walkers and "
            "waste_free = 8, or a budget"
        )


def _periodic(shape: Sequence[int]) -> bool:
    return len(shape) > 1 and len(set(shape)) == 1
