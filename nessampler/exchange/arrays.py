"""numpy's `.npy` and `.npz`, never with pickled objects."""

from __future__ import annotations

import io
import zipfile

import numpy as np

from nessampler.errors import InputError
from nessampler.exchange.columns import Direction, choose, named_unit
from nessampler.exchange.series import Series
from nessampler.exchange.sources import Source

__all__ = ["as_series", "names", "read"]

Arrays = dict[str, np.ndarray]


def read(source: Source, column: str | None, direction: Direction) -> Series:
    """The works in an array `(n,)` or `(chains, draws)`, one of several in a `.npz`.

    Raises:
        InputError: a file that is cut off, holds Python objects, or no such array; an array that is not numbers.
    """
    loaded = _load(source)
    if isinstance(loaded, np.ndarray):
        if column is not None:
            raise InputError(f"{source.name} is a single array: it has no column {column!r}; leave the column out")
        return as_series(loaded, source.name, "")
    known = list(loaded)
    name = known[choose(known, column, source.name, direction)]
    return as_series(loaded[name], f"{source.name}, array {name}", f"array {name}")


def names(source: Source) -> list[str]:
    """Names of the arrays in a `.npz`; none for a `.npy`."""
    loaded = _load(source)
    return [] if isinstance(loaded, np.ndarray) else list(loaded)


def as_series(values: np.ndarray, source: str, how: str, unit: str | None = None) -> Series:
    """An array of numbers as a series.

    Raises:
        InputError: not real numbers, or of other dimensions.
    """
    if values.dtype.kind not in "iuf":
        raise InputError(f"works are real numbers: {source} holds {values.dtype}")
    if values.ndim not in (1, 2):
        raise InputError(f"works are (n,) or (chains, draws): {source} has shape {values.shape}; reshape it")
    return Series(values.astype(np.float64), unit or named_unit(how), None, how)


def _load(source: Source) -> np.ndarray | Arrays:
    try:
        loaded = np.load(io.BytesIO(source.content), allow_pickle=False)
        return loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, MemoryError, KeyError, SyntaxError, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error) and source.content.startswith((b"\x93NUMPY", b"PK")):
            raise InputError(
                f"{source.name} holds Python objects, which are not read: save an array of floats"
            ) from error
        reason = "it begins otherwise" if "allow_pickle" in str(error) else " ".join(str(error).split())[:100]
        raise InputError(f"{source.name} is not a whole .npy or .npz file ({reason}); write it again") from error
