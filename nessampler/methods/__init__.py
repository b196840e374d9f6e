"""Named recipes, each a short composition of kernels, paths and closed forms; and the ladder that chooses."""

from typing import TYPE_CHECKING

from nessampler._lazy import export

if TYPE_CHECKING:
    from nessampler.methods.difference import Difference, RungResult, free_energy
    from nessampler.methods.effort import Effort
    from nessampler.methods.one_sided import Absolute, absolute_free_energy

__all__ = ["Absolute", "Difference", "Effort", "RungResult", "absolute_free_energy", "free_energy"]

# The verdict on works from elsewhere needs no torch.
export(
    __name__,
    {
        "nessampler.methods.difference": ["Difference", "RungResult", "free_energy"],
        "nessampler.methods.effort": ["Effort"],
        "nessampler.methods.one_sided": ["Absolute", "absolute_free_energy"],
    },
)
