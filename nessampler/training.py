"""Fit a module by Adam: averaged weights, held-out choice of the best, and checkpoints that resume bit for bit."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from nessampler._files import write_atomically
from nessampler.couplings import Coupling
from nessampler.errors import InputError
from nessampler.objectives.interpolant import PairBatch
from nessampler.targets import Tally

__all__ = ["fit", "load_model", "pairs", "save_model"]

Row = dict[str, float | None]


def fit(
    module: nn.Module,
    loss: Callable[[Any], Tensor],
    batches: Iterator[Any],
    *,
    steps: int,
    learning_rate: float,
    generator: torch.Generator,
    checkpoint: Path | None = None,
    tallies: Sequence[Tally] = (),
    progress: Callable[[int, int], None] | None = None,
    report: Callable[..., None] | None = None,
    validate: Callable[[], Tensor | float] | None = None,
    judge: Callable[[], float] | None = None,
    every: int = 200,
    patience: int | None = None,
    patience_from: int = 0,
    ema_decay: float = 0.99,
    clip: float = 1.0,
    warm_up: float = 0.05,
) -> list[Row]:
    r"""Minimise `loss` over the parameters of `module`, which ends with averaged weights.

    Adam with gradient clipping; the learning rate rises linearly over the first `warm_up` of the steps and then falls
    to zero by a cosine. Weights are averaged exponentially; with `validate`, the average of least held-out loss wins,
    the start included, so a fit that does not help changes nothing. With `judge` it is the average that it finds best:
    what a loss is a means to, such as the spread of held-out works.

    Args:
        module: what is trained.
        loss: scalar loss of a batch; sees `module` by reference.
        batches: endless; all its randomness comes from `generator`, whose state is part of a checkpoint.
        steps: gradient steps.
        learning_rate: the highest.
        checkpoint: file written every `every` steps and at the end; if it exists, the fit goes on from it and ends
            with the same bits as an uninterrupted one.
        tallies: counts of evaluations; a checkpoint restores them, as it does the module's own `evaluations`.
        progress: called with steps done and in all.
        report: called with the `loss` of each step.
        validate: held-out loss, computed with the averaged weights.
        judge: figure of merit of the averaged weights, the less the better, that decides in the place of that loss.
        every: steps between rows of the result, validations and checkpoints.
        patience: stop after that many validations without a new best; None goes to the end.
        patience_from: validations up to this step do not count for patience, as while a curriculum still grows.
        ema_decay: of the average, lower at first: min(ema_decay, (1 + step)/(10 + step)).
        clip: largest norm of the gradient.

    Returns:
        Rows with "step", "loss" (mean since the row before; None at the start), "validation" (None without) and, of a
        fit with `judge`, "held_out_error", what it found.

    Raises:
        InputError: settings that make no sense, a loss that is not finite, or a checkpoint of another architecture,
            other settings or another seed.

    References:
        Kingma & Ba, Adam, 2014, arXiv:1412.6980; Loshchilov & Hutter, SGDR, 2016, arXiv:1608.03983, eq. 5.

    Example:
        >>> from itertools import repeat
        >>> line = nn.utils.skip_init(nn.Linear, 1, 1)
        >>> _ = nn.init.zeros_(line.weight), nn.init.zeros_(line.bias)
        >>> x = torch.linspace(-1, 1, 9).view(-1, 1)
        >>> rows = fit(line, lambda x: (line(x) - 2 * x).square().mean(), repeat(x), steps=400, learning_rate=0.05,
        ...            generator=torch.Generator(), every=100)
        >>> round(line.weight.item(), 2), rows[-1]["step"]
        (2.0, 400)
    """
    settings = {"steps": steps, "learning_rate": learning_rate, "every": every, "ema_decay": ema_decay, "clip": clip}
    settings |= {"warm_up": warm_up, "patience": patience, "seed": generator.initial_seed()}
    if patience_from:  # checkpoints of fits without it stay valid
        settings["patience_from"] = patience_from
    settings["judged"] = True if judge else None  # None is what earlier checkpoints say
    _check_settings(steps, learning_rate, every)
    run = _Run(module, torch.optim.Adam(module.parameters(), lr=learning_rate), generator, tallies)
    if checkpoint is not None and checkpoint.exists():
        run.load(checkpoint, settings)
    elif validate is not None or judge is not None or checkpoint is not None:
        run.note(None, validate, judge)
    while run.step < steps and not run.out_of_patience(patience):
        run.optimizer.param_groups[0]["lr"] = learning_rate * _schedule(run.step, steps, warm_up)
        run.take(loss, next(batches), clip, ema_decay)
        if progress:
            progress(run.step, steps)
        if report:
            report(loss=run.losses[-1])
        if run.step % every == 0 or run.step == steps:
            run.note(run.mean_loss(), validate, judge)
            run.stale = 0 if run.step <= patience_from else run.stale
            if checkpoint is not None:
                run.save(checkpoint, settings)
    run.put(run.best if run.best_loss is not None else run.ema)
    return run.rows


def pairs(
    x_a: Float[Tensor, "n d"],
    x_b: Float[Tensor, "m d"],
    score_a: Float[Tensor, "n d"] | None,
    score_b: Float[Tensor, "m d"] | None,
    batch_size: int,
    generator: torch.Generator,
    *,
    moving: Bool[Tensor, " d"] | None = None,
    coupling: Coupling | None = None,
) -> Iterator[PairBatch]:
    r"""Endless batches of pairs, with stratified times in (0, 1) and standard normal noise.

    Pairs are independent, or what `coupling` makes of the samples of a batch.

    A coordinate that does not move is the same at both ends of a pair: that of A with probability $1 - t$, of B with
    probability t. (Scores stay those of the whole samples; along moving coordinates they remain right on average.)

    Raises:
        InputError: no samples, scores of another shape than the samples, or scores along with a coupling: matching them
            needs independent ends.

    Example:
        >>> x = torch.arange(6.0).view(3, 2)
        >>> batch = next(pairs(x, -x, None, None, 4, torch.Generator().manual_seed(0)))
        >>> batch.x_a.shape, bool((batch.t.diff() > 0).all())
        (torch.Size([4, 2]), True)
    """
    for name, x, score in (("a", x_a, score_a), ("b", x_b, score_b)):
        if len(x) == 0 or (score is not None and score.shape != x.shape):
            shape = None if score is None else tuple(score.shape)
            raise InputError(f"score_{name} must have one row per sample: got {shape} for samples {tuple(x.shape)}")
    if coupling is not None and (score_a is not None or score_b is not None):
        raise InputError(
            "scores of the ends say nothing about coupled pairs, whose density is not the product of the ends': got "
            "both; pass scores of None and train on velocity and denoising, or leave out the coupling"
        )
    return _pairs(x_a, x_b, score_a, score_b, batch_size, generator, moving, coupling)


def save_model(module: nn.Module, path: Path) -> None:
    """Write parameters and buffers as safetensors; the file appears whole or not at all.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     save_model(nn.LayerNorm(2), Path(folder, "norm.safetensors"))
        ...     load_model(nn.LayerNorm(2), Path(folder, "norm.safetensors"))
    """
    _write(path, dict(module.state_dict()), {})


def load_model(module: nn.Module, path: Path) -> None:
    """Read what `save_model` wrote into a module of the same architecture.

    Raises:
        InputError: no such file, a damaged one, or one of another architecture; the file is named.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> norm, other = nn.LayerNorm(2), nn.LayerNorm(2)
        >>> with torch.no_grad(), TemporaryDirectory() as folder:
        ...     _ = norm.bias.fill_(0.5)
        ...     save_model(norm, Path(folder, "norm.safetensors"))
        ...     load_model(other, Path(folder, "norm.safetensors"))
        >>> other.bias.tolist()
        [0.5, 0.5]
    """
    _load_state(module, _read(path)[0], path)


@dataclass
class _Run:
    """Everything that a checkpoint must hold."""

    module: nn.Module
    optimizer: torch.optim.Adam
    generator: torch.Generator
    tallies: Sequence[Tally] = ()
    step: int = 0
    losses: list[float] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    best_loss: float | None = None
    stale: int = 0

    def __post_init__(self) -> None:
        self.ema = self._copy()
        self.best = self._copy()

    def take(self, loss: Callable[[Any], Tensor], batch: Any, clip: float, decay: float) -> None:
        """One gradient step."""
        self.optimizer.zero_grad()
        value = loss(batch)
        if not bool(torch.isfinite(value)):
            raise InputError(
                f"a loss must be finite: got {value.item()} at step {self.step + 1}; "
                "lower the learning rate, or look for samples whose energy or score is not finite"
            )
        value.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), clip)
        self.optimizer.step()
        self.step += 1
        self.losses.append(value.item())
        average = get_ema_multi_avg_fn(min(decay, (1 + self.step) / (10 + self.step)))
        average(self.ema, [p.detach() for p in self.module.parameters()], self.step)

    def mean_loss(self) -> float:
        mean = math.fsum(self.losses) / len(self.losses)
        self.losses.clear()
        return mean

    def note(
        self, loss: float | None, validate: Callable[[], Tensor | float] | None, judge: Callable[[], float] | None
    ) -> None:
        """Append a row; the averaged weights of least held-out loss, or those judged best, are kept."""
        row: Row = {"step": self.step, "loss": loss, "validation": None}
        now = self._copy()
        self.put(self.ema)
        with torch.no_grad():
            row |= {} if validate is None else {"validation": float(validate())}
            row |= {} if judge is None else {"held_out_error": float(judge())}
        self.put(now)
        self._keep_if_best(row["validation"] if judge is None else row["held_out_error"])
        self.rows.append(row)

    def _keep_if_best(self, value: float | None) -> None:
        if value is None:
            return
        self.stale += 1
        if self.best_loss is None or value < self.best_loss:
            self.best, self.best_loss, self.stale = [p.clone() for p in self.ema], value, 0

    def out_of_patience(self, patience: int | None) -> bool:
        return patience is not None and self.stale >= patience

    def put(self, values: list[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.module.parameters(), values, strict=True):
                parameter.copy_(value)

    def save(self, path: Path, settings: dict[str, Any]) -> None:
        tensors = {f"model.{k}": v for k, v in self.module.state_dict().items()}
        tensors |= {f"ema.{i}": v for i, v in enumerate(self.ema)}
        tensors |= {f"best.{i}": v for i, v in enumerate(self.best)}
        for i, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{k}": v for k, v in moments.items()}
        tensors["generator"] = self.generator.get_state()
        state = {"step": self.step, "rows": self.rows, "best_loss": self.best_loss, "stale": self.stale}
        state["evaluations"] = getattr(self.module, "evaluations", None)  # what was spent before an interruption counts
        state["tallies"] = [(tally.energy, tally.gradient) for tally in self.tallies]
        _write(path, tensors, {"settings": json.dumps(settings), "state": json.dumps(state)})

    def load(self, path: Path, settings: dict[str, Any]) -> None:
        tensors, metadata = _read(path)
        try:
            _check_checkpoint(path, metadata, settings)
            _load_state(self.module, _within(tensors, "model."), path)
            self._restore(tensors, json.loads(metadata["state"]))
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise InputError(f"{path} is no checkpoint of this fit ({error!r}); remove it to start afresh") from error

    def _restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        self.ema, self.best = (list(_ordered(_within(tensors, name))) for name in ("ema.", "best."))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _within(tensors, "adam.").items():
            index, key = name.split(".", 1)
            moments.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.generator.set_state(tensors["generator"])
        spent = state.pop("evaluations", None)
        if spent is not None:
            self.module.evaluations = spent
        for tally, counts in zip(self.tallies, state.pop("tallies"), strict=True):
            tally.energy, tally.gradient = counts
        for name, value in state.items():
            setattr(self, name, value)

    def _copy(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.module.parameters()]


def _pairs(
    x_a: Tensor,
    x_b: Tensor,
    score_a: Tensor | None,
    score_b: Tensor | None,
    size: int,
    generator: torch.Generator,
    moving: Tensor | None,
    coupling: Coupling | None,
) -> Iterator[PairBatch]:
    like = {"dtype": x_a.dtype, "device": generator.device, "generator": generator}
    strata = torch.arange(size, dtype=x_a.dtype, device=generator.device)
    while True:
        i, j = (torch.randint(len(x), (size,), generator=generator, device=generator.device) for x in (x_a, x_b))
        # The ends themselves, where the interpolant's velocity is infinite, are kept out.
        t = ((strata + torch.rand(size, **like)) / size).clamp(1e-5, 1 - 1e-5)
        z, coin = torch.randn(size, x_a.shape[1], **like), torch.rand(size, **like)
        t, z, coin = (drawn.to(x_a.device) for drawn in (t, z, coin))
        a, b = x_a[i], x_b[j]
        if coupling is not None:
            a, b = coupling(a, b)
        if moving is not None:
            shared = torch.where((coin < t).unsqueeze(-1), b, a)
            a, b = torch.where(moving, a, shared), torch.where(moving, b, shared)
        yield PairBatch(a, b, _rows(score_a, i), _rows(score_b, j), t, z)


def _rows(score: Tensor | None, index: Tensor) -> Tensor | None:
    return None if score is None else score[index]


def _schedule(step: int, steps: int, warm_up: float) -> float:
    rise = max(1.0, warm_up * steps)
    return min(1.0, (step + 1) / rise) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _check_settings(steps: int, learning_rate: float, every: int) -> None:
    if steps < 1 or every < 1 or not learning_rate > 0:
        raise InputError(
            f"steps and every must be 1 at least and learning_rate positive: got {steps}, {every} and {learning_rate}"
        )


def _check_checkpoint(path: Path, metadata: dict[str, str], settings: dict[str, Any]) -> None:
    if "settings" not in metadata or "state" not in metadata:
        raise InputError(f"{path} is no checkpoint of a fit; give another file name, or move it away")
    before = json.loads(metadata["settings"])
    differ = [f"{k}: {before.get(k)} then, {v} now" for k, v in settings.items() if before.get(k) != v]
    if differ:
        raise InputError(
            f"a fit resumes with the settings it began with: {path} differs in {'; '.join(differ)}; "
            "use these settings again, or move the file away to start afresh"
        )


def _load_state(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    own = module.state_dict()
    differ = sorted(k for k in own.keys() | tensors.keys() if _kind(own.get(k)) != _kind(tensors.get(k)))
    if differ:
        name = differ[0]
        raise InputError(
            f"{path} belongs to another architecture: {name} is {_kind(tensors.get(name))} there and "
            f"{_kind(own.get(name))} here; build the same architecture, or use another file"
        )
    module.load_state_dict(tensors)


def _kind(value: Tensor | None) -> str:
    return "absent" if value is None else f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"


def _within(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _ordered(tensors: dict[str, Tensor]) -> list[Tensor]:
    return [tensors[str(i)] for i in range(len(tensors))]


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    content = save({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"a model file must be whole safetensors: {path} could not be read ({error})") from error
