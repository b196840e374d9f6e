"""U_t between two targets on [0, 1]."""

from nessampler.paths.couplings import coupling_path
from nessampler.paths.differentiable import DifferentiablePath
from nessampler.paths.endpoint import EndpointPath
from nessampler.paths.learned import MonotonePath
from nessampler.paths.mixture import MixturePath
from nessampler.paths.protocol import AnnealingPath, Path, PathPoint
from nessampler.paths.scheduled import LinearPath, ScheduledPath
from nessampler.paths.soft_core import SoftCorePath

__all__ = [
    "AnnealingPath",
    "DifferentiablePath",
    "EndpointPath",
    "LinearPath",
    "MixturePath",
    "MonotonePath",
    "Path",
    "PathPoint",
    "ScheduledPath",
    "SoftCorePath",
    "coupling_path",
]
