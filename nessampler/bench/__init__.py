"""Methods side by side at equal budgets of evaluations: what a learned sampler has to beat."""

from nessampler.bench.grid import Grid, run_grid
from nessampler.bench.row import Row
from nessampler.bench.suites import SUITES

__all__ = ["SUITES", "Grid", "Row", "run_grid"]
