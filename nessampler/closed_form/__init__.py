"""What needs no training: maps, whitening by forces, and the fields of interpolants between fitted densities."""

from nessampler.closed_form.affine import ConditionalAffine, fit_map
from nessampler.closed_form.gaussian_interpolant import GaussianFields, fit_gaussian_fields
from nessampler.closed_form.periodic_density import PeriodicDensity, fit_periodic_density
from nessampler.closed_form.preconditioner import Linear, force_whitening
from nessampler.closed_form.rosenblatt import CircularRosenblatt, fit_rosenblatt, slaved
from nessampler.closed_form.score_affine import fit_map_by_scores
from nessampler.closed_form.torus_interpolant import TorusFields
from nessampler.closed_form.wrapped_mixture import WrappedMixture, fit_wrapped_mixture

__all__ = [
    "CircularRosenblatt",
    "ConditionalAffine",
    "GaussianFields",
    "Linear",
    "PeriodicDensity",
    "TorusFields",
    "WrappedMixture",
    "fit_gaussian_fields",
    "fit_map",
    "fit_map_by_scores",
    "fit_periodic_density",
    "fit_rosenblatt",
    "fit_wrapped_mixture",
    "force_whitening",
    "slaved",
]
