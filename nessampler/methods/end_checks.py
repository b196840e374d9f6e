"""Are the samples of each end samples of its density? Asked of the fit block, before anything is built on it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from scipy.stats import norm, rankdata
from torch import Tensor

from nessampler.errors import InputError
from nessampler.estimators import Flag
from nessampler.methods.ends import Block, Ends, generator_for
from nessampler.stein import SteinCheck, stein_check
from nessampler.targets import Target, energy_and_score
from nessampler.targets.callable import check_energies

__all__ = ["check_end_states", "check_energies_of_ends", "cut_off"]

MOST_SAMPLES = 1000  # of each end
FIRST = 8  # of each end, whose energies are looked at before anything else is asked of a density
PROBES = 200
LEVEL = 0.001
EDGE = 0.015  # share of displaced samples without density above which a density counts as cut off


def check_end_states(ends: Ends, fit: Block, *, seed: int = 0) -> tuple[Flag, ...]:
    """Flags of ends whose samples contradict Stein's identity; a gradient per sample, at most 1,000 of each end.

    A density that is cut off where it is not small, or whose gradient is not to be had, is not checked.

    Raises:
        InputError: samples outside of the support of their state; samples of A that are samples of B and the other way
            round; samples that have nothing to do with their state.
    """
    few, targets = fit.thinned(MOST_SAMPLES), {"A": ends.a, "B": ends.b}
    samples = {"A": few.a[:MOST_SAMPLES], "B": few.b[:MOST_SAMPLES]}
    ordered = () if fit.correlated else tuple(_in_order(name, x[0]) for name, x in (("A", fit.a), ("B", fit.b)))
    doubts = tuple(flag for flag in ordered if flag is not None)
    found = {
        name: _check(targets[name], samples[name], name, ends, few.correlated or bool(doubts), seed) for name in samples
    }
    wrong = {name: check for name, check in found.items() if check is not None and not check.fits}
    if len(wrong) == 2 and _exchanged(targets, samples, ends, few.correlated, seed):
        raise InputError(
            "samples of A must come from state A and samples of B from state B: those of A satisfy Stein's identity of "
            "B's density and those of B that of A's; exchange samples_a and samples_b, or the two states"
        )
    for name, check in wrong.items():
        if check.grossly_wrong:
            raise InputError(f"samples must come from their own state: {check.describe(name)}")
    return (*doubts, *(flag for name, check in wrong.items() for flag in check.flags(name)))


def _in_order(name: str, x: Float[Tensor, " n *event"]) -> Flag | None:
    """A flag where samples said to be independent resemble their neighbours in the order in which they were given.

    Ranks of each coordinate, lag one: of independent samples the correlation is normal with variance 1/n. Samples that
    were shuffled cannot be told from independent ones. Equal values share their mean rank, and a coordinate that is
    constant tells nothing: ranks in the order given would resemble each other.
    """
    ranks = torch.from_numpy(rankdata(x[:MOST_SAMPLES].flatten(1).double().cpu().numpy(), axis=0))
    ranks = ranks[:, ranks.std(0) > 0]
    if not ranks.shape[1]:
        return None
    ranks = (ranks - ranks.mean(0)) / ranks.std(0)
    lag_one = (ranks[1:] * ranks[:-1]).mean(0)
    largest = float(lag_one.max())
    if largest * len(ranks) ** 0.5 <= float(norm.isf(LEVEL / (2 * len(lag_one)))):
        return None
    message = (
        f"samples of {name} are said to be independent, but neighbours resemble each other (correlation {largest:.2f} "
        "along a coordinate): errors are too small; give them as (chains, draws, *event) in the order of time"
    )
    return Flag("correlated_samples", message)


def check_energies_of_ends(ends: Ends, fit: Block) -> None:
    """Energies of the first samples of each end in its own state, and in the other.

    Raises:
        InputError: naming the state, where its density fails, or gives another shape than one number per sample, NaN
            or −inf.
    """
    for state, target in (("A", ends.a), ("B", ends.b)):
        for name, x in (("A", fit.flat_a[:FIRST]), ("B", fit.flat_b[:FIRST])):
            try:
                check_energies(target, x)
            except InputError as error:
                raise InputError(f"state {state} at samples of {name}: {error}") from error


def _check(target: Target, x: Tensor, name: str, ends: Ends, correlated: bool, seed: int) -> SteinCheck | None:
    """None where the identity does not apply."""
    flat = x.flatten(0, 1)
    scored = _scored(target, flat)
    if scored is None:
        return None
    energy, score = scored
    outside = torch.isinf(energy) & (energy > 0)
    if bool(outside.any()):
        raise InputError(
            f"samples must lie in the support of their own state: {int(outside.sum())} of {len(flat)} samples of "
            f"{name} have energy +inf there; check that samples, density and coordinates belong together"
        )
    if not bool(torch.isfinite(energy).all() & torch.isfinite(score).all()) or cut_off(target, flat, seed):
        return None
    # Single draws of many chains are independent.
    shape, correlated = ((*x.shape[:2], -1), correlated) if x.shape[1] > 1 else ((1, len(flat), -1), False)
    pieces = [value.detach().double().reshape(shape).cpu().numpy() for value in (x, score)]
    return stein_check(*pieces, circular=ends.circular.cpu().numpy(), correlated=correlated)


def _scored(target: Target, x: Tensor) -> tuple[Tensor, Tensor] | None:
    try:
        return energy_and_score(target, x)
    except (RuntimeError, InputError):  # of autograd, or of a density that knows of no gradient: energies may do
        return None


def cut_off(target: Target, x: Tensor, seed: int) -> bool:
    """Whether a step of a standard deviation along every coordinate often leaves the support."""
    generator = generator_for(seed, "edges of the supports", x.device)
    some = x[torch.randperm(len(x), generator=generator, device=x.device)[:PROBES]]
    signs = 2.0 * torch.randint(2, some.shape, generator=generator, device=x.device) - 1
    with torch.no_grad():
        energy = target.energy(some + signs.to(x) * x.std(0))
    return float((energy == torch.inf).double().mean()) > EDGE


def _exchanged(targets: dict[str, Target], samples: dict[str, Tensor], ends: Ends, correlated: bool, seed: int) -> bool:
    try:
        crossed = [_check(targets[name], samples[other], other, ends, correlated, seed) for name, other in ("AB", "BA")]
    except InputError:  # not even in the support
        return False
    return all(check is not None and check.fits for check in crossed)
