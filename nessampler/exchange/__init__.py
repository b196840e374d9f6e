"""Works and energies from elsewhere: what other programs wrote, read and judged without torch.

`read_works` and `read_both_directions` read files, `estimate_works` judges arrays; `nessampler.exchange.alchemlyb` and
`nessampler.exchange.pymbar_arrays` go to and from the layouts of these packages.
"""

from nessampler.exchange.estimate import WorksEstimate, estimate_given, estimate_works
from nessampler.exchange.given import GivenWorks
from nessampler.exchange.reading import FORMATS, in_chains, read_both_directions, read_works

__all__ = [
    "FORMATS",
    "GivenWorks",
    "WorksEstimate",
    "estimate_given",
    "estimate_works",
    "in_chains",
    "read_both_directions",
    "read_works",
]
