"""Figures of a finished run, drawn with matplotlib's object-oriented interface (no pyplot, no display).

Each figure carries its alternative text as its artist label: `figure.get_label()`.
"""

from nessampler.plots.along_path import Curve, along_path
from nessampler.plots.convergence import ConvergenceCurve, convergence
from nessampler.plots.cost import attempt_cost, cost
from nessampler.plots.estimates import estimates, log_z_estimates
from nessampler.plots.log_weights import Weights, log_weight_histograms
from nessampler.plots.style import FORWARD, METHOD_COLOURS, REVERSE, RUNG_COLOURS, STYLE
from nessampler.plots.training import training_curves
from nessampler.plots.works import Works, work_histograms

__all__ = [
    "FORWARD",
    "METHOD_COLOURS",
    "REVERSE",
    "RUNG_COLOURS",
    "STYLE",
    "ConvergenceCurve",
    "Curve",
    "Weights",
    "Works",
    "along_path",
    "attempt_cost",
    "convergence",
    "cost",
    "estimates",
    "log_weight_histograms",
    "log_z_estimates",
    "training_curves",
    "work_histograms",
]
