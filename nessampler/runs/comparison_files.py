"""A comparison as a file, whose ending says what kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nessampler._files import write_atomically
from nessampler.errors import InputError
from nessampler.plots.table import as_csv, rows
from nessampler.runs.comparison import Comparison

__all__ = ["write_comparison"]


def write_comparison(found: Comparison, file: Path) -> Path:
    """Write a page (.html), a table (.csv, .md), everything (.json) or the figure (.png, .svg); the path is returned.

    Raises:
        InputError: another ending, or a place that cannot be written.
    """
    kind = file.suffix.lower()
    if kind not in _CONTENTS:
        raise InputError(f"a comparison is written as one of {', '.join(_CONTENTS)}: got {file}")
    content = _CONTENTS[kind](found)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return write_atomically(file, lambda temporary: temporary.write_bytes(content))
    except OSError as error:
        raise InputError(f"{file} cannot be written ({error.strerror}); choose another --out") from error


def _page(found: Comparison) -> bytes:
    from nessampler.runs.comparison_page import compose
    from nessampler.runs.page import rendered

    return rendered(compose(found)).encode("utf-8")


def _figure(kind: str) -> Callable[[Comparison], bytes]:
    def draw(found: Comparison) -> bytes:
        from nessampler.runs.comparison_page import figure_panel
        from nessampler.runs.page import drawn

        return drawn(figure_panel(found).figure, kind)

    return draw


def _csv(found: Comparison) -> bytes:
    """One row per run, nested numbers as columns of their own."""
    flat = [_flat(run) for run in found.runs]
    names = list(dict.fromkeys(key for run in flat for key in run))
    return as_csv(rows(names, [[run.get(name) for name in names] for run in flat])).encode("utf-8")


def _flat(run: Mapping[str, Any]) -> dict[str, Any]:
    estimate = run["estimate"]
    low, high = estimate["ci95"] or (None, None)
    plain = {key: value for key, value in run.items() if not isinstance(value, Mapping | list)}
    numbers = {"value": estimate["value"], "std_error": estimate["std_error"], "low": low, "high": high}
    ess = {f"ess_{way}": value for way, value in run["ess"].items()}
    counts = {f"evaluations_{state}": n for state, n in run["evaluations"].items()}
    return plain | numbers | ess | counts | {"flags": " ".join(run["flags"])}


def _json(found: Comparison) -> bytes:
    return (json.dumps(found.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")


def _markdown(found: Comparison) -> bytes:
    from nessampler.runs.comparison_words import as_markdown

    return as_markdown(found).encode("utf-8")


_CONTENTS: dict[str, Callable[[Comparison], bytes]] = {
    ".html": _page,
    ".csv": _csv,
    ".md": _markdown,
    ".json": _json,
    ".png": _figure("png"),
    ".svg": _figure("svg"),
}
