"""The look that all figures share, and the small things that they are made of."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from nessampler import _words as words

__all__ = [
    "FORWARD",
    "GREY",
    "INK",
    "METHOD_COLOURS",
    "REVERSE",
    "RUNG_COLOURS",
    "STAGE_COLOURS",
    "STYLE",
    "WIDTH",
    "label",
    "number",
    "say",
]

INK = "#222222"
GREY = "#767676"
FORWARD = "#0072B2"  # blue and vermilion of Okabe and Ito: apart for every common colour vision
REVERSE = "#D55E00"
RUNG_COLOURS = {
    "plain": "#6B6B6B",
    "map": "#009E73",
    "fields": "#8C510A",
    "switching": "#7B3294",
    "feat": "#C98A00",
    "tfep": "#0072B2",
    "annealed": "#A0A0A0",
}
METHOD_COLOURS = {"ais": "#6B6B6B", "smc": "#009E73", "pt": "#0072B2", "lsq": "#7B3294", "nets": "#C98A00"}
STAGE_COLOURS = {
    "endstates": "#BFC7CF",
    "base": "#BFC7CF",
    "chains": "#E3C9A8",
    "pilot": "#A8D0B9",
    "training": "#5C9BD1",
    "sampling": "#123B66",
    "reverse": "#D9A58B",
    "checks": "#C9B8D8",
}
WIDTH = 6.0  # inches: 11 points are legible on paper, on a screen and, at six tenths of the size, on a phone
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#555555",
    "axes.facecolor": "white",
    "axes.labelcolor": INK,
    "axes.labelsize": 12,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # ships with matplotlib, so figures are the same everywhere
    "font.size": 11,
    "grid.color": "#E3E3E3",
    "legend.fontsize": 11,
    "legend.frameon": False,
    "savefig.dpi": 160,
    "svg.fonttype": "path",
    "svg.hashsalt": "nessampler",
    "text.color": INK,
    "xtick.color": INK,
    "xtick.labelsize": 11,
    "ytick.color": INK,
    "ytick.labelsize": 11,
}


def label(text: str, width: int = 40) -> str:
    """Short, and never read as mathematics."""
    return words.shorten(text, width).replace("$", r"\$")


def number(value: object) -> float:
    """A number of a table, NaN for anything else."""
    return float(value) if isinstance(value, int | float | np.number) and not isinstance(value, bool) else math.nan


def say(axes: Axes, text: str) -> None:
    """Words where there is nothing to draw."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#555555")
    axes.set_xticks([])
    axes.set_yticks([])
