"""A path that counts what it is asked, by stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.kernels.flow import affine_part
from nessampler.paths import AnnealingPath, LinearPath, PathPoint
from nessampler.targets import Tally

__all__ = ["CountedDrift", "CountedField", "CountedPath"]


class CountedPath:
    """Evaluations of U_t: one of the target each, whatever the base and the schedule add.

    On a linear path the target carries no weight at t = 0 and is not asked there, unless for the time derivative.

    Example:
        >>> import torch
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import Gaussian
        >>> path = CountedPath(LinearPath(*[Gaussian(torch.zeros(1), torch.ones(1))] * 2))
        >>> with path.stage("pilot"):
        ...     point = path.evaluate(torch.zeros(3), torch.zeros(3, 1))
        ...     _ = path.evaluate(torch.ones(3), torch.zeros(3, 1), point)  # known already
        >>> path.tallies
        {'pilot': Tally(energy=0, gradient=3)}
    """

    def __init__(self, path: AnnealingPath) -> None:
        self.path, self.start, self.end = path, path.start, path.end
        self.tallies: dict[str, Tally] = {}
        self._stage = "sampling"

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count under `name` within the block."""
        before, self._stage = self._stage, name
        try:
            yield
        finally:
            self._stage = before

    @property
    def tally(self) -> Tally:
        """The count of the current stage."""
        return self.tallies.setdefault(self._stage, Tally())

    @property
    def current(self) -> str:
        """The stage that is being counted."""
        return self._stage

    def energy(self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """$U_t$, counted as an energy."""
        self.tally.energy += self._asked(t)
        return self.path.energy(t, x)

    def energy_and_score(
        self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n *event"]]:
        r"""$U_t$ and $-\nabla U_t$, counted as a gradient."""
        self.tally.gradient += self._asked(t)
        return self.path.energy_and_score(t, x)

    def evaluate(
        self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"], known: PathPoint | None = None
    ) -> PathPoint:
        """Everything at (t, x), counted as a gradient unless the path found what it needs in `known`."""
        if known is None or not known.parts:
            self.tally.gradient += len(x)
        return self.path.evaluate(t, x, known)

    def _asked(self, t: Tensor) -> int:
        return 0 if isinstance(self.path, LinearPath) and not bool(t.any()) else len(t)

    def __getattr__(self, name: str) -> object:
        if name.startswith("__") or name == "path":
            raise AttributeError(name)
        return getattr(self.path, name)  # what a special path offers beyond the protocol, such as a Laplacian


class CountedField:
    """A velocity field that counts the walkers it is asked for, under the stage of a path.

    Fields along the path's own gradient ask the path too: that counts besides, as a gradient.
    """

    def __init__(self, field: Callable[[float, Tensor], tuple[Tensor, Tensor]], path: CountedPath) -> None:
        self.field, self._path = field, path
        self.evaluations: dict[str, int] = {}

    def __call__(self, t: float, x: Float[Tensor, " n *event"]) -> tuple[Float[Tensor, " n *event"], Tensor]:
        """Velocity and divergence."""
        self.evaluations[self._path.current] = self.evaluations.get(self._path.current, 0) + len(x)
        return self.field(t, x)

    def affine(self, t: float) -> Float[Tensor, "*slope"] | None:
        """Of the field, which is not evaluated for it: see `affine_part`."""
        return affine_part(self.field, t)  # pyright: ignore[reportArgumentType]


class CountedDrift:
    """A velocity of (t, x), without a graph, that counts the walkers it is asked for, under the stage of a path.

    Where the network reads the score of the path it is handed one that is known: see `DriftFields`.
    """

    def __init__(self, network: nn.Module, path: CountedPath) -> None:
        self.network, self._path = network, path
        self.evaluations: dict[str, int] = {}

    @property
    def reads_score(self) -> bool:
        """Of the network."""
        return bool(getattr(self.network, "reads_score", False))

    @torch.no_grad()
    def __call__(self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"], **known: Tensor) -> Tensor:
        """The velocity; a `score` that is known spares an evaluation."""
        self.evaluations[self._path.current] = self.evaluations.get(self._path.current, 0) + len(x)
        return self.network(t, x, **known)
