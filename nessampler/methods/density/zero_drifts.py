"""Networks that start from zero drift, by the shape of a walker and by what they learn from; and back from a file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.closed_form.dictionary import Dictionary
from nessampler.closed_form.lattice_dictionary import LatticeDictionary
from nessampler.closed_form.pair_dictionary import PairDictionary
from nessampler.errors import InputError
from nessampler.methods.density.counted import CountedPath
from nessampler.methods.density.dictionaries import NoFieldsError
from nessampler.methods.density.problem import DensityProblem
from nessampler.networks.drift import DriftNetwork, PotentialNetwork, path_score
from nessampler.networks.equivariant import ClusterNetwork
from nessampler.networks.lattice import LatticeNetwork
from nessampler.networks.lattice_potential import LatticePotential
from nessampler.paths import AnnealingPath

__all__ = ["CountedScore", "Untrained", "reopened_network", "saved_network", "score_is_smooth", "zero_drift"]

KNOTS = 9  # in time, of lattice networks
FAST, SLOW = 2e-2, 5e-3  # learning rates: of a drift's network, and of cosines, whose heights all add up


class Untrained(NamedTuple):
    """A network before its training, and the learning rate that suits it."""

    network: nn.Module
    learning_rate: float


class CountedScore:
    r"""$-\nabla U_t$ of a path, to be differentiated once more where it serves a divergence, each pass a gradient.

    Args:
        path: whose energy is written in torch.
        passes: backward passes that a divergence takes, one for each coordinate or probe.

    Example:
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import Gaussian
        >>> path = CountedPath(LinearPath(*[Gaussian(torch.zeros(2), torch.ones(2))] * 2))
        >>> score = CountedScore(path, passes=2)
        >>> _ = score(torch.ones(5), torch.ones(5, 2)), score(torch.ones(5), torch.ones(5, 2).requires_grad_())
        >>> path.tally.gradient  # 5, and then 5 with two passes more
        20
    """

    def __init__(self, path: CountedPath, passes: int) -> None:
        self.path, self.passes, self._score = path, passes, path_score(path.path)

    def __call__(self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]) -> Float[Tensor, " n *event"]:
        """The score."""
        self.path.tally.gradient += len(x) * (1 + (self.passes if x.requires_grad else 0))
        return self._score(t, x)


def zero_drift(
    problem: DensityProblem,
    path: CountedPath,
    x: Float[Tensor, " n *event"],
    *,
    potential: bool,
    passes: int,
    generator: torch.Generator,
) -> Untrained:
    """A network for walkers like x: of the lattice's symmetries, of the cluster's, or a perceptron that reads the path.

    Args:
        problem: whose dictionary says what kind of walkers these are; where none is known, the perceptron serves.
        path: its score goes into the perceptron where torch can differentiate it twice.
        x: from both ends of the path.
        potential: a potential and its gradient, for action matching; else a velocity.
        passes: of a divergence through the score, see `CountedScore`.
        generator: of the initial weights.
    """
    known = _dictionary(problem, x, generator)
    if isinstance(known, LatticeDictionary):
        if potential:
            return Untrained(LatticePotential(known, KNOTS).to(x.device), SLOW)
        times = torch.linspace(0, 1, KNOTS, dtype=torch.float64)
        network = LatticeNetwork(known.shape, known.inner, known.outer, known.weights, times, phases=known.phases)
        return Untrained(network.to(x.device), FAST)
    center, scale = x.mean(0), x.std(0).clamp(min=1e-12)
    if potential:
        network = PotentialNetwork(center=center, scale=scale, energy=path.energy, generator=generator)
    elif isinstance(known, PairDictionary):
        network = ClusterNetwork(x.shape[1], reach=known.reach, generator=generator)
    else:
        score = CountedScore(path, passes) if score_is_smooth(path, x, generator=generator) else None
        network = DriftNetwork(center=center, scale=scale, score=score, generator=generator)
    return Untrained(network.to(x.device, x.dtype), FAST)


def score_is_smooth(path: AnnealingPath, x: Float[Tensor, " n *event"], *, generator: torch.Generator) -> bool:
    r"""Whether autograd gives the path's score and its slope: not of numpy, nor of what is differentiable once only.

    Half-way along the path, at eight walkers, the score is held against the path's own, and a directional derivative
    against a central difference of it.

    Example:
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import Gaussian
        >>> class Half(Gaussian):
        ...     def energy(self, x):
        ...         return super().energy(x.detach())
        >>> g, a = torch.Generator().manual_seed(0), Gaussian(torch.zeros(2), torch.ones(2))
        >>> [score_is_smooth(LinearPath(a, b), torch.ones(8, 2), generator=g) for b in (a, Half(a.mean, a.scale))]
        [True, False]
    """
    x = x[:: max(1, len(x) // 8)][:8].to(torch.float64)
    t = torch.full((len(x),), 0.5, dtype=x.dtype, device=x.device)
    way = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=generator.device).to(x.device)
    h = 1e-5 * float(x.abs().max().clamp(min=1.0))
    try:
        with torch.enable_grad():
            position = x.clone().requires_grad_()
            score = path_score(path)(t, position)
            (slope,) = torch.autograd.grad((score * way).sum(), position)
        own, ahead, behind = (path.evaluate(t, x + step * way).score for step in (0.0, h, -h))
    except (RuntimeError, InputError):  # energies that torch cannot follow, once or twice
        return False
    return _alike(score.detach(), own, 1e-4) and _alike((slope * way).flatten(1).sum(1), _along(ahead, behind, way, h))


def saved_network(network: nn.Module) -> dict[str, Tensor]:
    """What `reopened_network` makes it again from."""
    state = {f"nets.{name}": value for name, value in network.state_dict().items()}
    if isinstance(network, PotentialNetwork):
        state["potential"] = torch.tensor(1)
    if isinstance(network, ClusterNetwork):
        state["reach"] = torch.tensor(network.spacing * (len(network.centers) - 1), dtype=torch.float64)
    return state


def reopened_network(
    path: AnnealingPath, state: Mapping[str, Tensor], dtype: torch.dtype, device: torch.device
) -> nn.Module:
    """A network that started from zero, as it was when it was saved."""
    found = {key.removeprefix("nets."): value for key, value in state.items() if key.startswith("nets.")}
    network = _blank(path, found, state).to(device)
    if isinstance(network, DriftNetwork | PotentialNetwork | ClusterNetwork):
        network = network.to(dtype)
    network.load_state_dict(found)
    return network


def _blank(path: AnnealingPath, found: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> nn.Module:
    generator, shape = torch.Generator().manual_seed(0), tuple(path.start.event_shape)
    if "heights" in found:
        blank = torch.zeros_like(found["weights"])
        known = LatticeDictionary(shape, (1.0,) * len(blank), (1.0,), blank, found.get("phases"))
        return LatticePotential(known, len(found["heights"]))
    if "change" in found:
        inner, outer = ((1.0,) * len(found[f"log_{name}"]) for name in ("inner", "outer"))
        return LatticeNetwork(shape, inner, outer, found["weights"], found["times"], phases=found.get("phases"))
    if "centers" in found:
        return ClusterNetwork(shape[0], reach=float(state["reach"]), generator=generator)
    about = {"center": found["center"], "scale": found["scale"], "generator": generator}
    reads = any(key.startswith("gain.") for key in found)
    if "potential" in state:
        return PotentialNetwork(**about, energy=path.energy if reads else None)
    return DriftNetwork(**about, score=path_score(path) if reads else None)


def _dictionary(problem: DensityProblem, x: Tensor, generator: torch.Generator) -> Dictionary | None:
    try:
        return problem.dictionary(x, generator)
    except NoFieldsError:
        return None


def _along(ahead: Tensor, behind: Tensor, way: Tensor, h: float) -> Tensor:
    return ((ahead - behind) * way).flatten(1).sum(1) / (2 * h)


def _alike(one: Tensor, other: Tensor, tolerance: float = 1e-3) -> bool:
    size = float(other.abs().max())
    return math.isfinite(size) and float((one - other).abs().max()) <= tolerance * max(size, 1e-8)
