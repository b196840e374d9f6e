"""What callers pass beside densities and samples, looked at before any work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, get_args

import torch
from torch.distributions.transforms import Transform

from nessampler.errors import InputError
from nessampler.targets import Tally

__all__ = [
    "check_choice",
    "check_coordinates",
    "check_fractions",
    "check_kind",
    "check_number",
    "check_seed",
    "check_whole",
    "file_of",
    "tally_of",
]


def check_whole(name: str, value: object, least: int, remedy: str = "") -> None:
    """A whole number, not less than `least`.

    Raises:
        InputError: naming it.

    >>> check_whole("steps", 0, 1)
    Traceback (most recent call last):
    nessampler.errors.InputError: steps must be a whole number of at least 1: got 0
    """
    if not _is(value, Integral) or value < least:  # pyright: ignore[reportOperatorIssue]
        raise InputError(f"{name} must be a whole number of at least {least}: got {value!r}{remedy and f'; {remedy}'}")


def check_number(name: str, value: object, remedy: str = "", *, zero: bool = False) -> None:
    """A finite number above zero, or not below it.

    Raises:
        InputError: naming it.

    >>> check_number("learning_rate", float("nan"))
    Traceback (most recent call last):
    nessampler.errors.InputError: learning_rate must be a finite number above 0: got nan
    """
    if not _is(value, Real) or not math.isfinite(value) or value < 0 or (value == 0 and not zero):  # pyright: ignore
        rule = f"{name} must be a finite number {'not below' if zero else 'above'} 0"
        raise InputError(f"{rule}: got {value!r}{remedy and f'; {remedy}'}")


def check_choice(name: str, value: object, choices: Any, remedy: str) -> None:
    """One of the values of a `Literal`.

    Raises:
        InputError: naming them all.

    >>> from typing import Literal
    >>> check_choice("trunks", 3, Literal[1, 2], "leave it out for 1")
    Traceback (most recent call last):
    nessampler.errors.InputError: trunks must be one of 1, 2: got 3; leave it out for 1
    """
    known = get_args(choices)
    if not any(type(value) is type(one) and value == one for one in known):
        raise InputError(f"{name} must be one of {', '.join(map(str, known))}: got {value!r}; {remedy}")


def check_fractions(blocks: Any) -> None:
    """Shares of the samples that fit, select and evaluate.

    Raises:
        InputError: anything but three positive numbers that add up to one.
    """
    numbers = list(blocks) if isinstance(blocks, Sequence) else []
    sound = len(numbers) == 3 and all(_is(n, Real) and n > 0 for n in numbers)
    if not sound or not abs(sum(numbers) - 1) <= 1e-9:
        raise InputError(
            f"blocks are three positive fractions that add up to 1 (fit, select, evaluate): got {blocks!r}"
        )


def check_seed(seed: object) -> None:
    """Streams of random numbers derive from it.

    Raises:
        InputError: no whole number, or one below zero.
    """
    check_whole("seed", seed, 0, "pass one, such as seed=0")


def check_kind(name: str, value: object, kind: type, remedy: str) -> None:
    """None, or an object of this kind.

    Raises:
        InputError: anything else.
    """
    if value is not None and not isinstance(value, kind):
        raise InputError(f"{name} must be of type {kind.__name__}: got {value!r}; {remedy}")


def check_coordinates(coordinates: object, event_shape: torch.Size) -> None:
    """None, or a transform of points of this shape.

    Raises:
        InputError: anything else.
    """
    check_kind(
        "coordinates", coordinates, Transform, "pass a torch.distributions.transforms.Transform, or leave it out"
    )
    if not isinstance(coordinates, Transform):
        return
    try:
        coordinates.forward_shape(event_shape)
    except ValueError as error:
        raise InputError(
            f"coordinates must take samples of event shape {tuple(event_shape)}: {type(coordinates).__name__} does not "
            f"({error}); pass a bijection of that shape"
        ) from error


def tally_of(spent: object) -> Tally:
    """Evaluations that samples cost: a number is that of gradients.

    Raises:
        InputError: neither a number nor a tally.
    """
    if isinstance(spent, Tally):
        return spent
    check_whole("endstate_evaluations of a state", spent, 0, "pass a count of gradients, or a Tally")
    return Tally(gradient=int(spent))  # pyright: ignore[reportArgumentType]


def file_of(checkpoint: object) -> Path | None:
    """The file of a path, given as such or by name.

    Raises:
        InputError: neither.
    """
    if checkpoint is None or isinstance(checkpoint, Path):
        return checkpoint
    check_kind("checkpoint", checkpoint, str, "pass the path of a file, or leave it out")
    return Path(str(checkpoint))


def _is(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
