"""Work arrays in, free-energy differences out: Jarzynski, Bennett's acceptance ratio, second-law bounds.

Conventions: works in kT, `work = -log weight`; `ΔF = F_B - F_A`; forward works are those of A → B, reverse works those
of the process B → A. A 1-D array `(n,)` holds independent works. A 2-D array `(chains, draws)` holds time-ordered,
correlated works, one row a replica, and its errors come from blocks of draws. A work of +inf has weight zero and stays;
NaN and −inf are errors.
"""

from nessampler.estimators.acceptance_ratio import bar, overlap
from nessampler.estimators.bound_curve import BoundCurve, bound_curve
from nessampler.estimators.combination import Combination, combine
from nessampler.estimators.exponential_average import jarzynski, pareto_k
from nessampler.estimators.free_energy import Flag, FreeEnergy
from nessampler.estimators.integration import GaussRule, thermodynamic_integration
from nessampler.estimators.multistate import mbar
from nessampler.estimators.neighbours import neighbours
from nessampler.estimators.second_law import Bounds, bounds
from nessampler.estimators.works import Work, WorkSource, r_hat, statistical_inefficiency

__all__ = [
    "BoundCurve",
    "Bounds",
    "Combination",
    "Flag",
    "FreeEnergy",
    "GaussRule",
    "Work",
    "WorkSource",
    "bar",
    "bound_curve",
    "bounds",
    "combine",
    "jarzynski",
    "mbar",
    "neighbours",
    "overlap",
    "pareto_k",
    "r_hat",
    "statistical_inefficiency",
    "thermodynamic_integration",
]
