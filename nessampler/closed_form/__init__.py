"""What needs no training: maps, whitening by forces, fields of interpolants between Gaussians or mixtures of them."""

from nessampler.closed_form.affine import ConditionalAffine, fit_map, fit_standardizer
from nessampler.closed_form.component_pairs import pair_components
from nessampler.closed_form.fit_mixture_with_scores import fit_mixture_with_scores
from nessampler.closed_form.gaussian_interpolant import GaussianFields, fit_gaussian_fields
from nessampler.closed_form.mixture_interpolant import MixtureFields
from nessampler.closed_form.mixture_map import MixtureMap
from nessampler.closed_form.preconditioner import Linear, force_whitening
from nessampler.closed_form.time_change import equal_length_times, mean_stretching
from nessampler.closed_form.transfer import Transferred, TransferredFields

__all__ = [
    "ConditionalAffine",
    "GaussianFields",
    "Linear",
    "MixtureFields",
    "MixtureMap",
    "Transferred",
    "TransferredFields",
    "equal_length_times",
    "fit_gaussian_fields",
    "fit_map",
    "fit_mixture_with_scores",
    "fit_standardizer",
    "force_whitening",
    "mean_stretching",
    "pair_components",
]
