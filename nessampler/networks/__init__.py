"""Networks that learn what closed forms leave over."""

from nessampler.networks.mlp import ResidualFields

__all__ = ["ResidualFields"]
