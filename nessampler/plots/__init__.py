"""Figures of a finished run, drawn with matplotlib's object-oriented interface (no pyplot, no display).

Each figure carries its alternative text as its artist label, `figure.get_label()`, and has a function beside it that
gives the numbers it was drawn from as a table.
"""

from nessampler.plots.along_path import Curve, along_path, along_path_table
from nessampler.plots.carried import Carried, carried_ramachandran, carried_samples, carried_table
from nessampler.plots.comparison import comparison, comparison_table
from nessampler.plots.convergence import ConvergenceCurve, convergence, convergence_curve, convergence_table
from nessampler.plots.cost import attempt_cost, attempt_cost_table, cost, cost_table
from nessampler.plots.end_states import Series, end_states, end_states_table, ramachandran
from nessampler.plots.estimates import estimates, estimates_table, log_z_estimates
from nessampler.plots.lattice import Lattice, magnetisation, magnetisation_table, two_point, two_point_table
from nessampler.plots.lattice_ends import magnetisations, magnetisations_table, two_points, two_points_table
from nessampler.plots.log_weights import Weights, log_weight_histograms, log_weights_table
from nessampler.plots.overview import density_overview, difference_overview
from nessampler.plots.quality import quality, quality_table
from nessampler.plots.samples import Samples, marginals, marginals_table
from nessampler.plots.style import FORWARD, METHOD_COLOURS, REVERSE, RUNG_COLOURS, STYLE
from nessampler.plots.table import Table, as_csv
from nessampler.plots.training import training_curves, training_table
from nessampler.plots.works import Works, work_histograms, works_table
from nessampler.plots.works_along import WorksAlong, works_along_path, works_along_table

__all__ = [
    "FORWARD",
    "METHOD_COLOURS",
    "REVERSE",
    "RUNG_COLOURS",
    "STYLE",
    "Carried",
    "ConvergenceCurve",
    "Curve",
    "Lattice",
    "Samples",
    "Series",
    "Table",
    "Weights",
    "Works",
    "WorksAlong",
    "along_path",
    "along_path_table",
    "as_csv",
    "attempt_cost",
    "attempt_cost_table",
    "carried_ramachandran",
    "carried_samples",
    "carried_table",
    "comparison",
    "comparison_table",
    "convergence",
    "convergence_curve",
    "convergence_table",
    "cost",
    "cost_table",
    "density_overview",
    "difference_overview",
    "end_states",
    "end_states_table",
    "estimates",
    "estimates_table",
    "log_weight_histograms",
    "log_weights_table",
    "log_z_estimates",
    "magnetisation",
    "magnetisation_table",
    "magnetisations",
    "magnetisations_table",
    "marginals",
    "marginals_table",
    "quality",
    "quality_table",
    "ramachandran",
    "training_curves",
    "training_table",
    "two_point",
    "two_point_table",
    "two_points",
    "two_points_table",
    "work_histograms",
    "works_along_path",
    "works_along_table",
    "works_table",
]
