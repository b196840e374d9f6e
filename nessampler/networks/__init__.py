"""Networks that learn what closed forms leave over."""

from nessampler.networks.denoiser import DenoiserFields
from nessampler.networks.informed import InformedFields
from nessampler.networks.mlp import ResidualFields
from nessampler.networks.one_sided import OneSidedFields

__all__ = ["DenoiserFields", "InformedFields", "OneSidedFields", "ResidualFields"]
