"""What needs no training: maps, whitening by forces, fields of interpolants between fitted densities."""

from nessampler.closed_form.affine import ConditionalAffine, fit_map, fit_standardizer
from nessampler.closed_form.component_pairs import pair_components
from nessampler.closed_form.fit_mixture_with_scores import fit_mixture_with_scores
from nessampler.closed_form.gaussian_interpolant import GaussianFields, fit_gaussian_fields
from nessampler.closed_form.mixture_interpolant import MixtureFields
from nessampler.closed_form.mixture_map import MixtureMap
from nessampler.closed_form.periodic_density import PeriodicDensity, fit_periodic_density
from nessampler.closed_form.preconditioner import Linear, force_whitening
from nessampler.closed_form.rosenblatt import CircularRosenblatt, fit_rosenblatt, slaved
from nessampler.closed_form.score_affine import fit_map_by_scores
from nessampler.closed_form.time_change import equal_length_times, mean_stretching
from nessampler.closed_form.torus_interpolant import TorusFields
from nessampler.closed_form.transfer import Transferred, TransferredFields
from nessampler.closed_form.wrapped_mixture import WrappedMixture, fit_wrapped_mixture

__all__ = [
    "CircularRosenblatt",
    "ConditionalAffine",
    "GaussianFields",
    "Linear",
    "MixtureFields",
    "MixtureMap",
    "PeriodicDensity",
    "TorusFields",
    "Transferred",
    "TransferredFields",
    "WrappedMixture",
    "equal_length_times",
    "fit_gaussian_fields",
    "fit_map",
    "fit_map_by_scores",
    "fit_mixture_with_scores",
    "fit_periodic_density",
    "fit_rosenblatt",
    "fit_standardizer",
    "fit_wrapped_mixture",
    "force_whitening",
    "mean_stretching",
    "pair_components",
    "slaved",
]
