"""Samplers of other packages on the same targets, each an optional import; evaluations are counted by the target."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from nessampler.bench.peers.blackjax_nuts import blackjax_nuts
from nessampler.bench.peers.blackjax_smc import blackjax_smc
from nessampler.bench.peers.dynesty_nested import dynesty_nested
from nessampler.bench.peers.pocomc_preconditioned import pocomc_preconditioned
from nessampler.bench.peers.whitened import Evidence, Whitened, measured
from nessampler.bench.row import Row
from nessampler.errors import InputError
from nessampler.runs.config import DensityConfig, DifferenceConfig
from nessampler.targets import Counted

__all__ = ["DIFFERENCE_PEERS", "PEERS", "MissingPeerError"]

Peer = Callable[[Whitened, Counted, int | None, int], Evidence]


class MissingPeerError(InputError):
    """A package that is not installed: nothing about a method, and so no row."""


def _row(name: str, peer: Peer, config: DensityConfig, folder: Path, budget: int | None) -> Row:
    try:
        return measured(name, config, folder, budget, peer)
    except ImportError as error:
        raise MissingPeerError(f"{name} is not installed ({error}): pip install 'nessampler[peers]'") from error


def _openmmtools(config: DifferenceConfig, folder: Path, budget: int | None) -> Row:
    try:
        from nessampler.bench.peers.openmmtools_exchange import openmmtools_exchange
    except ImportError as error:
        raise MissingPeerError(f"openmmtools is not installed ({error}): pip install 'nessampler[alchemy]'") from error
    return openmmtools_exchange(config, folder, budget)


PEERS: dict[str, Callable[[DensityConfig, Path, int | None], Row]] = {
    "blackjax": partial(_row, "blackjax", blackjax_smc),
    "nuts": partial(_row, "nuts", blackjax_nuts),
    "dynesty": partial(_row, "dynesty", dynesty_nested),
    "pocomc": partial(_row, "pocomc", pocomc_preconditioned),
}

DIFFERENCE_PEERS: dict[str, Callable[[DifferenceConfig, Path, int | None], Row]] = {"openmmtools": _openmmtools}
