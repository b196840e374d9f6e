"""Two densities made ready: exact samples where they are known, else draws of many Hamiltonian chains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.estimators import Flag, r_hat, statistical_inefficiency
from nessampler.kernels import HMC, Compose, Kernel, Mirror
from nessampler.methods.ends import SMALLEST_BLOCK, generator_for
from nessampler.paths import ScheduledPath
from nessampler.runs.config import AnalyticState, DifferenceConfig, TargetState
from nessampler.runs.config.difference import Chains
from nessampler.runs.density_targets import build_target
from nessampler.runs.prepared import Prepared
from nessampler.targets import AnharmonicWell, Counted, Tally, Target
from nessampler.targets.differences import billed

__all__ = ["check_targets", "named_targets", "prepare_targets"]

Array = np.ndarray
LARGEST_R_HAT = 1.1  # as of molecular replicas
FEWEST_INDEPENDENT = 50
MOST_COORDINATES = 64  # of a vector that are watched one by one
LOWEST_ACCEPTANCE = 0.1
EXACT = {"replicas": 1, "equilibration_frames": 0, "statistical_inefficiency": 1.0}
SHORTEST_STEP = 0.3  # of a trajectory, in units of the tuned one


@dataclass(frozen=True)
class _End:
    """Samples of one state: `(n, *event)` exact and independent ones, or `(chains, draws, *event)`."""

    x: Tensor
    spent: Tally
    described: dict[str, Any]
    flags: tuple[Flag, ...] = ()


def named_targets(config: DifferenceConfig, folder: Path = Path()) -> tuple[Any, Any]:
    """The targets of both states, wells or densities by name: what can be wrong with them is found here."""
    a, b = (_target(s, folder, n) for n, s in (("state_a", config.state_a), ("state_b", config.state_b)))
    if a.event_shape != b.event_shape:
        hint = (
            "give both `center` the same length"
            if isinstance(a, AnharmonicWell)
            else "name two densities of the same variables"
        )
        raise InputError(f"both states must have the same coordinates: A has {_shape(a)}, B has {_shape(b)}; {hint}")
    return a, b


def check_targets(config: DifferenceConfig, folder: Path) -> tuple[Target, Target]:
    """Both densities: everything that can be wrong is found here, before any sampling."""
    targets = named_targets(config, folder)
    for name, target, n in zip("AB", targets, (config.samples.a, config.samples.b), strict=True):
        if hasattr(target, "sample"):
            chains, draws, what = 1, n, f"samples.{name.lower()} = {n}"
        elif config.chains is None:
            raise InputError(
                f"a density without exact samples needs chains: state {name} ({_label(config, name)}) has neither; add "
                "a table [chains], such as chains = { chains = 64, draws = 50 }"
            )
        else:
            chains, draws = config.chains.chains, config.chains.draws
            what = f"{chains} chains of {draws} draws"
        if chains * int(draws * min(config.ladder.blocks)) < SMALLEST_BLOCK:
            raise InputError(
                f"every block needs at least {SMALLEST_BLOCK} samples: state {name} gives {what}; ask for more"
            )
    return targets


def prepare_targets(
    config: DifferenceConfig,
    folder: Path,
    *,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> Prepared:
    """Two densities with samples of both.

    Args:
        config, folder: the problem, and where its files lie.
        say: told what is being done.
        progress: trajectories done, in all, and what is running.
    """
    targets = check_targets(config, folder)
    independent = all(hasattr(target, "sample") for target in targets)
    ends = []
    for name, target, n in zip("ab", targets, (config.samples.a, config.samples.b), strict=True):
        label = _label(config, name)
        if hasattr(target, "sample"):
            say(f"drawing exact samples of {label}")
            x = target.sample(n, generator=generator_for(config.run.seed, f"samples {name}"))  # pyright: ignore[reportAttributeAccessIssue]
            # Beside chains, independent draws count as one long chain.
            ends.append(_End(x if independent else x[None], Tally(), dict(EXACT, frames=n)))
        else:
            assert config.chains is not None  # checked above
            say(f"sampling {label} by {config.chains.chains} Hamiltonian chains")
            ends.append(_chains(target, config.chains, name.upper(), config.run.seed, config.run.device, progress))
    a, b = ends
    device = torch.device(config.run.device)
    return Prepared(
        targets[0],
        targets[1],
        a.x.to(device),
        b.x.to(device),
        evaluations=(a.spent, b.spent),
        flags=(*a.flags, *b.flags),
        endstates={"state_a": a.described, "state_b": b.described},
    )


def _label(config: DifferenceConfig, name: str) -> str:
    return (config.state_a if name.lower() == "a" else config.state_b).label


@torch.no_grad()
def _chains(
    target: Target, settings: Chains, name: str, seed: int, device: str, progress: Callable[[int, int, str], None]
) -> _End:
    """A leapfrog step tuned in the first half of the equilibration, then draws at a distance.

    Every trajectory takes a random part of the step: in a stiff corner, where none of the full size is accepted, a
    chain would stay, and come there too rarely. Where the density names a `mirror`, an involution that keeps
    volumes and leads where trajectories do not, such as a magnet's reversal, each trajectory begins with that proposal.
    """
    generator = generator_for(seed, f"chains {name.lower()}", device)
    counted = Counted(target)
    path = ScheduledPath([counted], lambda t: torch.ones_like(t)[:, None], counted, counted)
    size, acceptance = settings.step_size, torch.zeros(())
    walkers = HMC(path, size, settings.leapfrog_steps).start(1.0, _starts(target, settings, seed, name).to(device))
    if not bool(torch.isfinite(walkers.energy).all()):  # pyright: ignore[reportArgumentType]
        raise InputError(
            f"chains must start inside the support: some of state {name} do not; choose another chains.start_scale"
        )
    total, draws, energies = settings.equilibration + settings.draws * settings.interval, [], []
    for n in range(total):
        part = float(torch.empty((), device=device).uniform_(SHORTEST_STEP, 1.0, generator=generator))
        kernel = _moves(path, target, part * size, settings.leapfrog_steps)
        walkers, _ = kernel.step(1.0, 1.0, walkers, generator=generator)
        assert walkers.acceptance is not None
        assert walkers.energy is not None
        if n < settings.equilibration // 2:
            gain = 1.5 * (float(walkers.acceptance.mean()) - settings.acceptance)
            size *= float(np.exp(np.clip(gain, -0.7, 0.4)))
        elif n >= settings.equilibration:
            acceptance = acceptance + walkers.acceptance.mean().cpu() / (total - settings.equilibration)
            if (n - settings.equilibration + 1) % settings.interval == 0:
                draws.append(walkers.x)
                energies.append(walkers.energy.double())
        progress(n + 1, total, f"chains of state {name}")
    x = torch.stack(draws, 1)
    settled = {"acceptance": float(acceptance), "step_size": size}
    spent = billed(target, counted.tally())
    return _judged(x, _observables(target, x, torch.stack(energies, 1)), settled, settings, name, spent)


def _moves(path: ScheduledPath, target: Target, step_size: float, leapfrog_steps: int) -> Kernel:
    trajectory = HMC(path, step_size, leapfrog_steps)
    if not hasattr(target, "mirror"):
        return trajectory
    return Compose(trajectory, Mirror(path, target.mirror))  # pyright: ignore[reportAttributeAccessIssue]


def _starts(target: Target, settings: Chains, seed: int, name: str) -> Tensor:
    """Where the density says, or in a normal."""
    generator = generator_for(seed, f"starts {name.lower()}")
    if hasattr(target, "start"):
        return target.start(settings.chains, generator=generator)  # pyright: ignore[reportAttributeAccessIssue]
    noise = torch.randn(settings.chains, *target.event_shape, generator=generator, dtype=torch.float64)
    return settings.start_scale * noise


def _judged(
    x: Tensor, watched: dict[str, Array], settled: dict[str, float], settings: Chains, name: str, spent: Tally
) -> _End:
    """Do the chains agree, and how many independent draws are there of the slowest observable?"""
    frames = x.shape[0] * x.shape[1]
    inefficiency = {k: statistical_inefficiency(v) for k, v in watched.items()}
    r_hats = {k: r_hat(v) for k, v in watched.items()}
    slowest, worst = max(inefficiency, key=inefficiency.__getitem__), max(r_hats, key=r_hats.__getitem__)
    independent = frames / inefficiency[slowest]
    flags = []
    if settled["acceptance"] < LOWEST_ACCEPTANCE:
        text = f"state {name}: {settled['acceptance']:.0%} of the trajectories are accepted; raise chains.equilibration"
        flags.append(Flag("stuck_chains", text))
    if independent < FEWEST_INDEPENDENT:
        text = f"state {name}: {slowest} gave about {independent:.0f} independent draws"
        flags.append(Flag("slow_coordinate", f"{text}; raise chains.draws or chains.interval"))
    if r_hats[worst] > LARGEST_R_HAT:
        text = f"state {name}: R-hat of {worst} is {r_hats[worst]:.2f}, above {LARGEST_R_HAT}: the chains have not "
        flags.append(
            Flag("chains_disagree", text + "seen the same states; raise chains.equilibration and chains.draws")
        )
    described = {
        "replicas": len(x),
        "frames": frames,
        "equilibration_frames": 0,
        "statistical_inefficiency": inefficiency[slowest],
        "slowest": slowest,
        "r_hat": r_hats[worst],
        **settled,
        "equilibration_trajectories": settings.equilibration,
        "trajectories_per_draw": settings.interval,
    }
    return _End(x, spent, described, tuple(flags))


def _observables(
    target: Target, x: Float[Tensor, "chains draws *event"], energy: Float[Tensor, "chains draws"]
) -> dict[str, Float[Array, "chains draws"]]:
    """The energy, and what the density itself names; else the mean coordinate, its mean square, and every coordinate.

    Every coordinate only of a short vector.
    """
    found = {"the energy": energy}
    if hasattr(target, "observables"):
        named = target.observables(x.flatten(0, 1))  # pyright: ignore[reportAttributeAccessIssue]
        found |= {name: series.reshape(x.shape[:2]) for name, series in named.items()}
        return {name: series.cpu().numpy() for name, series in found.items()}
    flat = x.flatten(2).double()
    found |= {"the mean coordinate": flat.mean(-1), "the mean square": flat.square().mean(-1)}
    if x.ndim == 3 and x.shape[-1] <= MOST_COORDINATES:
        found |= {f"coordinate {k}": flat[..., k] for k in range(x.shape[-1])}
    return {name: series.cpu().numpy() for name, series in found.items()}


def _target(state: object, folder: Path, name: str) -> Target:
    if isinstance(state, TargetState):
        return build_target(state.target.name, state.target.parameters, folder, source=f"{name}.target")
    assert isinstance(state, AnalyticState)
    return AnharmonicWell(
        state.center, stiffness=state.stiffness, quartic=state.quartic, skew=state.skew, coupling=state.coupling
    )


def _shape(target: Target) -> str:
    return " × ".join(map(str, target.event_shape))
