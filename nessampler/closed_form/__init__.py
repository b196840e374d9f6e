"""What needs no training: affine maps, whitening by forces, and the fields of Gaussian interpolants."""

from nessampler.closed_form.affine import ConditionalAffine, fit_map, fit_standardizer
from nessampler.closed_form.gaussian_interpolant import GaussianFields, fit_gaussian_fields
from nessampler.closed_form.preconditioner import Linear, force_whitening

__all__ = [
    "ConditionalAffine",
    "GaussianFields",
    "Linear",
    "fit_gaussian_fields",
    "fit_map",
    "fit_standardizer",
    "force_whitening",
]
