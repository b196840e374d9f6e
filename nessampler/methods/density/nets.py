"""NETS: a velocity along a path, learned from the walkers that it moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.errors import InputError
from nessampler.kernels import Kernel, Langevin, Walkers
from nessampler.networks.field import DriftFields
from nessampler.objectives.rollout import Rollout
from nessampler.paths import AnnealingPath, PathPoint
from nessampler.simulate import simulate
from nessampler.training import fit
from nessampler.weights import LogWeights, systematic

__all__ = [
    "NetsProgress",
    "NetsTraining",
    "TunedDiffusion",
    "most_effective",
    "roll_out",
    "train_nets",
    "tune_diffusion",
]

Diffusion = float | Tensor | Callable[[float], Tensor]


@dataclass(frozen=True)
class NetsProgress:
    """Where a training stands: the loss of the last step, the effective fraction of the last pilot run."""

    step: int
    steps: int
    loss: float
    ess: float


@dataclass(frozen=True)
class NetsTraining:
    """What a training did.

    Attributes:
        steps, loss, ess: per validation, the start first; `ess` is that of held-out pilot walkers.
        evaluations: walkers that the network was evaluated on since it was made, rollouts, losses and pilots together;
            None where it does not count.
    """

    steps: tuple[int, ...]
    loss: tuple[float | None, ...]
    ess: tuple[float, ...]
    evaluations: int | None


@dataclass(frozen=True)
class TunedDiffusion:
    """The diffusion of most effective pilot walkers, and the whole sweep as (factor, effective fraction)."""

    diffusion: Diffusion
    factor: float
    sweep: tuple[tuple[float, float], ...]


def train_nets(
    path: AnnealingPath,
    x: Float[Tensor, " m *event"],
    network: nn.Module,
    objective: nn.Module,
    *,
    steps: int,
    diffusion: Diffusion = 1.0,
    kernel: Callable[[nn.Module], Kernel] | None = None,
    learning_rate: float = 2e-3,
    rollout_steps: int = 32,
    walkers: int = 256,
    batch_walkers: int = 64,
    slots: int = 4,
    refresh: int = 10,
    curriculum: float = 0.4,
    first_time: float = 0.1,
    resample_below: float = 0.7,
    pilots: int = 512,
    pilot_times: Sequence[float] | None = None,
    every: int = 100,
    patience: int | None = None,
    clip: float = 1.0,
    ema_decay: float = 0.99,
    checkpoint: Path | None = None,
    progress: Callable[[NetsProgress], None] | None = None,
    generator: torch.Generator,
) -> NetsTraining:
    r"""Train a velocity on rollouts of itself: walkers from the base, moved by the kernel up to a growing time.

    Every `refresh` gradient steps a rollout of the current velocity replaces the oldest of `slots` rollouts; a step
    takes the loss of some walkers of one of them at all its times. Times are stratified and drawn anew for each
    rollout, 0 and the last time kept. The last time grows linearly from `first_time` to 1 over the first
    `curriculum` of the steps. The weights of least loss of held-out walkers are not what counts: the averaged network
    whose pilot walkers have the largest effective sample size wins, the start included.

    Args:
        path: with an interior.
        x: samples of the base, at `path.start`; the last `pilots` of them are held out for the pilot runs.
        network: the velocity, trained in place.
        objective: loss of a `Rollout`; a module that owns the network and whatever else it learns. Its
            `calibrate(rollout)`, where it has one, sees every rollout before any step on it.
        steps: gradient steps.
        diffusion: $\varepsilon$ of the Langevin pair, see there.
        kernel: another kernel for a network, such as a flow step then HMC; `diffusion` is not used then.
        learning_rate, every, patience, clip, ema_decay, checkpoint: as in `fit`; validations count for patience from
            the end of the curriculum, and a checkpoint holds the rollouts too.
        rollout_steps: of a rollout, and of a pilot run over all of [0, 1] on equidistant times.
        pilot_times: of a pilot run instead, such as those of production.
        walkers: of a rollout; `batch_walkers` of them enter a step.
        resample_below: effective fraction below which a rollout is resampled; 0 never, as path weights need.
        progress: called after every step.
        generator: the source of all randomness; with a checkpoint, a resumed training ends with the same bits.

    Raises:
        InputError: sizes that make no sense, an objective that does not hold the network, a loss that is not finite.

    References:
        Albergo & Vanden-Eijnden, NETS: A Non-Equilibrium Transport Sampler, 2024, arXiv:2410.02711.

    Example:
        >>> from nessampler.networks.drift import DriftNetwork
        >>> from nessampler.objectives.pinn import PinnObjective
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import Gaussian
        >>> a, b = Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.full((1,), 2.0), torch.ones(1))
        >>> g = torch.Generator().manual_seed(0)
        >>> network = DriftNetwork(center=torch.ones(1), scale=torch.ones(1), width=8, generator=g)
        >>> done = train_nets(LinearPath(a, b), a.sample(600, generator=g), network, PinnObjective(network), steps=60,
        ...                   rollout_steps=8, learning_rate=0.02, pilots=300, every=30, generator=g)
        >>> done.ess[-1] > done.ess[0] + 0.2
        True
    """
    _check(x, network, objective, pilots, batch_walkers, walkers, rollout_steps, slots, refresh, curriculum, first_time)
    make = kernel or (lambda module: Langevin(DriftFields(path, module), diffusion))
    learner = _Learner(network, objective, x, slots, walkers, rollout_steps + 1)
    pool, held_out = x[: len(x) - pilots], x[len(x) - pilots :]
    pilot_seed, growth = (
        int(torch.randint(2**62, (), generator=generator, device=generator.device)),
        max(1, round(curriculum * steps)),
    )
    last, tally = {"loss": float("nan"), "ess": float("nan")}, getattr(path, "tally", None)  # of a path that counts

    def pilot() -> float:
        own = torch.Generator(device=x.device).manual_seed(pilot_seed)
        times = torch.linspace(0, 1, rollout_steps + 1).double() if pilot_times is None else pilot_times
        last["ess"] = simulate(make(network), path, times, held_out, generator=own).ess
        return -last["ess"]

    def loss(batch: Rollout) -> Tensor:
        value = objective(batch)
        last["loss"] = float(value.detach())
        return value

    def batches() -> Iterator[Rollout]:
        while True:
            drawn = int(learner.drawn)
            if drawn % refresh == 0:
                end = first_time + (1 - first_time) * min(1.0, drawn / growth) if curriculum > 0 else 1.0
                start = pool[torch.randperm(len(pool), generator=generator, device=x.device)[:walkers]]
                times = _stratified(end, rollout_steps, generator)
                made = roll_out(make(network), path, times, start, resample_below=resample_below, generator=generator)
                learner.keep(made)
                if hasattr(objective, "calibrate"):
                    objective.calibrate(made)  # pyright: ignore
            learner.drawn += 1
            yield learner.draw(batch_walkers, generator)

    def report(step: int, total: int) -> None:
        if progress:
            progress(NetsProgress(step, total, last["loss"], last["ess"]))

    rows = fit(
        learner,
        loss,
        batches(),
        steps=steps,
        learning_rate=learning_rate,
        generator=generator,
        checkpoint=checkpoint,
        tallies=() if tally is None else (tally,),
        progress=report,
        validate=pilot,
        every=every,
        patience=patience,
        patience_from=growth if curriculum > 0 else 0,
        ema_decay=ema_decay,
        clip=clip,
    )
    columns = [tuple(row[name] for row in rows) for name in ("step", "loss", "validation")]
    found = tuple(-v for v in columns[2] if v is not None)
    return NetsTraining(tuple(int(s or 0) for s in columns[0]), columns[1], found, learner.evaluations)


@torch.no_grad()
def roll_out(
    kernel: Kernel,
    path: AnnealingPath,
    times: Sequence[float],
    x: Float[Tensor, " n *event"],
    *,
    resample_below: float = 0.0,
    generator: torch.Generator,
) -> Rollout:
    """Walkers at all times of a run, with what the path said about them; a source of data, not of estimates.

    Args:
        kernel: where it has evaluated the path, that is used again.
        path: with an interior.
        times: increasing.
        x: walkers in equilibrium at `times[0]`.
        resample_below: effective fraction below which walkers are resampled systematically before a step.
        generator: source of randomness.

    Example:
        >>> from nessampler.fields import PathScore
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import Gaussian
        >>> a, b = Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), torch.ones(1))
        >>> path, g = LinearPath(a, b), torch.Generator().manual_seed(0)
        >>> x = a.sample(4, generator=g)
        >>> roll_out(Langevin(PathScore(path), 1.0), path, [0.0, 0.5, 1.0], x, generator=g).x.shape
        torch.Size([3, 4, 1])
    """
    walkers, log_ratio = kernel.start(times[0], x), torch.zeros(len(x), dtype=torch.float64, device=x.device)
    before = log_weight = None
    seen: list[tuple[Tensor, ...]] = []
    for k, t in enumerate(times):
        point = _known(kernel, path, walkers)
        energy = point.energy.to(torch.float64)
        if before is None or log_weight is None:
            log_weight = log_ratio
        else:  # a walker without density stays without weight, whatever infinities follow
            arrived = log_weight + before + log_ratio - energy
            log_weight = torch.where(log_weight == -torch.inf, log_weight, arrived)
        seen.append((walkers.x, energy, point.score, point.time_derivative.to(torch.float64), log_weight))
        if k + 1 == len(times):
            break
        if resample_below and LogWeights(log_weight).ess < resample_below:
            index = systematic(LogWeights(log_weight).normalized, generator=generator)
            walkers, energy, log_weight = walkers[index], energy[index], torch.zeros_like(log_weight)
        before = energy
        walkers, log_ratio = kernel.step(t, times[k + 1], walkers, generator=generator)
    return Rollout(torch.tensor(times, dtype=torch.float64), *(torch.stack(v) for v in zip(*seen, strict=True)))


def tune_diffusion(
    path: AnnealingPath,
    x: Float[Tensor, " n *event"],
    network: Callable[..., Tensor],
    times: Sequence[float] | Tensor,
    *,
    diffusion: Diffusion = 1.0,
    factors: Sequence[float] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
    generator: torch.Generator,
) -> TunedDiffusion:
    r"""The multiple of `diffusion` whose pilot walkers are the most effective; frozen from here on.

    Weights are exact at any $\varepsilon$, so it may be chosen after training: large where walkers should forget,
    small where the velocity is good. All factors see the same walkers and the same noise. The pilot walkers must not
    be those that give the estimate.

    Args:
        path, network, times: as in production.
        x: pilot walkers at `times[0]`.
        diffusion: to be multiplied: a number, one per coordinate, or a function of an interval's midpoint.
        factors: positive multiples to try.
        generator: source of randomness.

    Raises:
        InputError: no factors, or one that is not positive.

    References:
        Albergo & Vanden-Eijnden, NETS: A Non-Equilibrium Transport Sampler, 2024, arXiv:2410.02711.

    Example:
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import Gaussian
        >>> a, b = Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), torch.ones(1))
        >>> g = torch.Generator().manual_seed(0)
        >>> exact = lambda t, x: torch.ones_like(x)
        >>> times = torch.linspace(0, 1, 17).double()
        >>> tune_diffusion(LinearPath(a, b), a.sample(200, generator=g), exact, times, generator=g).sweep[3][1] > 0.9
        True
    """
    if not factors or not min(factors) > 0:
        raise InputError(f"factors must be positive multiples of the diffusion, one at least: got {list(factors)}")
    tries = {float(f): Langevin(DriftFields(path, network), _times(f, diffusion)) for f in factors}
    best, sweep = most_effective(path, x, times, tries, generator=generator)
    return TunedDiffusion(_times(best, diffusion), best, sweep)


def most_effective(
    path: AnnealingPath,
    x: Float[Tensor, " n *event"],
    times: Sequence[float] | Tensor,
    tries: Mapping[float, Kernel],
    *,
    generator: torch.Generator,
) -> tuple[float, tuple[tuple[float, float], ...]]:
    """The value whose kernel leaves pilot walkers the most effective, and all as (value, effective fraction).

    All kernels see the same walkers and the same noise. One whose walkers run away has an effective fraction of 0.

    Raises:
        InputError: walkers run away with every kernel.

    Example:
        >>> from nessampler.fields import PathScore
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import Gaussian
        >>> a, b = Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), torch.ones(1))
        >>> path, g = LinearPath(a, b), torch.Generator().manual_seed(0)
        >>> tries = {e: Langevin(PathScore(path), e) for e in (0.1, 2.0)}
        >>> most_effective(path, a.sample(200, generator=g), torch.linspace(0, 1, 17).double(), tries, generator=g)[0]
        2.0
    """
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))

    def effective(kernel: Kernel) -> float:
        try:
            own = torch.Generator(device=x.device).manual_seed(seed)
            return simulate(kernel, path, times, x, generator=own).ess
        except InputError as error:  # steps so large that walkers run away: no candidate, and nobody's mistake
            faults.append(error)
            return 0.0

    faults: list[InputError] = []
    sweep = tuple((value, effective(kernel)) for value, kernel in tries.items())
    if len(faults) == len(tries):
        raise faults[-1]
    return max(sweep, key=lambda row: row[1])[0], sweep


class _Learner(nn.Module):
    """What is trained, and the replayed rollouts as buffers, so that a checkpoint holds all of it."""

    drawn: Tensor
    filled: Tensor
    times: Tensor

    def __init__(
        self, network: nn.Module, objective: nn.Module, x: Tensor, slots: int, walkers: int, times: int
    ) -> None:
        super().__init__()
        self.objective, self._network = objective, (network,)  # in a tuple: its parameters are counted once
        like, event = {"dtype": torch.float64, "device": x.device}, x.shape[1:]
        self.register_buffer("drawn", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self.register_buffer("times", torch.zeros(slots, times, **like))
        for name in ("x", "score"):
            self.register_buffer(name, x.new_zeros(slots, times, walkers, *event))
        for name in ("energy", "time_derivative", "log_weight"):
            self.register_buffer(name, torch.zeros(slots, times, walkers, **like))

    @property
    def evaluations(self) -> int | None:
        """The network's own count, where it keeps one; a checkpoint restores it."""
        return getattr(self._network[0], "evaluations", None)

    @evaluations.setter
    def evaluations(self, value: int) -> None:
        setattr(self._network[0], "evaluations", value)  # noqa: B010

    def keep(self, rollout: Rollout) -> None:
        """In the place of the oldest."""
        slot = int(self.filled) % len(self.times)
        for name, value in rollout._asdict().items():
            self.get_buffer(name)[slot] = value
        self.filled += 1

    def draw(self, walkers: int, generator: torch.Generator) -> Rollout:
        """Some walkers of one rollout, at all its times."""
        slots, total = min(int(self.filled), len(self.times)), self.get_buffer("x").shape[2]
        device = self.times.device
        slot = int(torch.randint(slots, (), generator=generator, device=device))
        columns = torch.randperm(total, generator=generator, device=device)[:walkers]
        return Rollout(*(self.get_buffer(name)[slot] for name in Rollout._fields)).select(columns)


def _known(kernel: Kernel, path: AnnealingPath, walkers: Walkers) -> PathPoint:
    if isinstance(walkers.cached, PathPoint):
        return walkers.cached
    if isinstance(kernel, Langevin) and isinstance(kernel.fields, DriftFields):
        return kernel.fields.point
    t = torch.full((len(walkers),), walkers.time, dtype=walkers.x.dtype, device=walkers.x.device)
    return path.evaluate(t, walkers.x)


def _stratified(end: float, steps: int, generator: torch.Generator) -> list[float]:
    """0 and `end`, and between them one uniform time in each of as many equal strata."""
    uniform = torch.rand(steps - 1, generator=generator, dtype=torch.float64, device=generator.device)
    # Away from the edges of the strata: a step of length zero has no density.
    inner = end * (torch.arange(steps - 1, device=generator.device) + 0.01 + 0.98 * uniform) / (steps - 1)
    return [0.0, *inner.tolist(), end]


def _times(factor: float, diffusion: Diffusion) -> Diffusion:
    if callable(diffusion):
        return lambda t: factor * diffusion(t)
    return factor * diffusion


def _check(
    x: Tensor,
    network: nn.Module,
    objective: nn.Module,
    pilots: int,
    batch_walkers: int,
    walkers: int,
    rollout_steps: int,
    slots: int,
    refresh: int,
    curriculum: float,
    first_time: float,
) -> None:
    if not (1 <= batch_walkers <= walkers <= len(x) - pilots and pilots >= 1):
        raise InputError(
            "a training needs 1 <= batch_walkers <= walkers <= samples that are not held out: got "
            f"{batch_walkers}, {walkers} and {len(x) - pilots} of {len(x)}; give more samples of the base"
        )
    if min(rollout_steps - 1, slots, refresh) < 1 or not (0 <= curriculum <= 1 and 0 < first_time <= 1):
        raise InputError(
            "rollouts need two steps, slots and refresh one at least, curriculum lies in [0, 1] and first_time in "
            f"(0, 1]: got {rollout_steps}, {slots}, {refresh}, {curriculum} and {first_time}"
        )
    if network is not objective and all(module is not network for module in objective.modules()):
        raise InputError(
            "the objective must hold the network that is trained: got one that holds another; build it anew"
        )
