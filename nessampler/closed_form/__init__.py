"""What needs no training: affine maps, whitening by forces, and the fields of Gaussian interpolants."""

from nessampler.closed_form.affine import ConditionalAffine, fit_map, fit_standardizer
from nessampler.closed_form.gaussian_interpolant import GaussianFields, fit_gaussian_fields
from nessampler.closed_form.preconditioner import Linear, force_whitening
from nessampler.closed_form.time_change import equal_length_times, mean_stretching
from nessampler.closed_form.transfer import Transferred, TransferredFields

__all__ = [
    "ConditionalAffine",
    "GaussianFields",
    "Linear",
    "Transferred",
    "TransferredFields",
    "equal_length_times",
    "fit_gaussian_fields",
    "fit_map",
    "fit_standardizer",
    "force_whitening",
    "mean_stretching",
]
