"""The two ends of a difference in common coordinates, and their samples in three blocks that never mix."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions.transforms import Transform

from nessampler.errors import InputError
from nessampler.methods.arguments import check_fractions
from nessampler.targets import Counted, Target, TransformedTarget

__all__ = ["Block", "Ends", "generator_for", "joined", "split_by_time"]

SMALLEST_BLOCK = 10


@dataclass(frozen=True)
class Block:
    """Samples of A and B, `(chains, draws, *event)`; correlated in time unless drawn independently."""

    a: Float[Tensor, "chains_a draws_a *event"]
    b: Float[Tensor, "chains_b draws_b *event"]
    correlated: bool

    @property
    def flat_a(self) -> Tensor:
        """All samples of A, `(n, *event)`."""
        return self.a.flatten(0, 1)

    @property
    def flat_b(self) -> Tensor:
        """All samples of B, `(m, *event)`."""
        return self.b.flatten(0, 1)

    @property
    def late(self) -> tuple[Bool[Tensor, " n"] | None, Bool[Tensor, " m"] | None]:
        """The last quarter of every chain, among all samples of A and of B; None of independent samples.

        Fits hold it out where correlated samples would have near copies of one another on both sides of a random cut.
        """
        return (_late(self.a), _late(self.b)) if self.correlated else (None, None)

    def __len__(self) -> int:
        return len(self.flat_a) + len(self.flat_b)

    def thinned(self, n: int) -> Block:
        """About n samples of each end, evenly spaced in time: for pilots, never for estimates."""

        def few(x: Tensor) -> Tensor:
            stride = max(1, x.shape[0] * x.shape[1] // n)
            return x[:, ::stride]

        return Block(few(self.a), few(self.b), self.correlated)


@dataclass(frozen=True)
class Ends:
    """Two targets in common coordinates, which of these are circular, and the counters behind the targets."""

    a: Target
    b: Target
    circular: Bool[Tensor, " d"]
    counted: tuple[Counted, Counted]

    @classmethod
    def of(cls, a: Target, b: Target, coordinates: Transform | None, *, device: torch.device | str = "cpu") -> Ends:
        """Count both targets and see them through `coordinates`, whose `circular` marks the circular ones.

        The mask goes where the samples are, to `device`.
        """
        if a.event_shape != b.event_shape:
            raise InputError(
                f"both states must have one event shape: got {tuple(a.event_shape)} and {tuple(b.event_shape)}; "
                "the same atoms, or variables, in the same order"
            )
        counted = (Counted(a), Counted(b))
        if coordinates is None:
            return cls(*counted, torch.zeros(a.event_shape.numel(), dtype=torch.bool, device=device), counted)
        seen = [TransformedTarget(c, coordinates) for c in counted]
        size = seen[0].event_shape.numel()
        circular = getattr(coordinates, "circular", torch.zeros(size, dtype=torch.bool))
        return cls(seen[0], seen[1], circular.to(device), counted)


def split_by_time(
    samples_a: Tensor, samples_b: Tensor, fractions: Sequence[float], correlated: bool
) -> tuple[Block, Block, Block]:
    """Fit, select and evaluate blocks: consecutive stretches of every chain, cut once.

    Raises:
        InputError: fractions that are not positive or do not add up to one; a block with fewer than ten samples.
    """
    check_fractions(fractions)
    pieces = [_cut(x, fractions, name) for x, name in ((samples_a, "A"), (samples_b, "B"))]
    fit, select, evaluate = (Block(a, b, correlated) for a, b in zip(*pieces, strict=True))
    return fit, select, evaluate


def joined(blocks: Sequence[Block]) -> Block:
    """Consecutive stretches as one again."""
    a, b = (torch.cat([getattr(block, state) for block in blocks], 1) for state in "ab")
    return Block(a, b, blocks[0].correlated)


def generator_for(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for one purpose of a run: streams do not depend on which other stages ran."""
    state = np.random.SeedSequence([seed, zlib.crc32(purpose.encode())]).generate_state(1, np.uint64)[0]
    return torch.Generator(device=device).manual_seed(int(state >> np.uint64(1)))


def _late(x: Tensor) -> Tensor | None:
    chains, draws = x.shape[:2]
    if draws == 1:  # chains are independent of one another
        return None
    return (torch.arange(draws, device=x.device) >= draws - max(1, round(draws / 4))).repeat(chains)


def _cut(x: Tensor, fractions: Sequence[float], name: str) -> list[Tensor]:
    draws = x.shape[1]
    first, second = round(draws * fractions[0]), round(draws * (fractions[0] + fractions[1]))
    pieces = [x[:, :first], x[:, first:second], x[:, second:]]
    for piece, block in zip(pieces, ("fit", "select", "evaluate"), strict=True):
        if piece.shape[0] * piece.shape[1] < SMALLEST_BLOCK:
            raise InputError(
                f"every block needs at least {SMALLEST_BLOCK} samples: the {block} block of {name} has "
                f"{piece.shape[0] * piece.shape[1]} of {x.shape[0] * draws}; sample longer"
            )
    return pieces
