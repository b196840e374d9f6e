"""A frozen transport as tensors, and back: what a run saves so that more walkers can be drawn from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace

import torch
from torch import Tensor, nn

from nessampler.closed_form.dictionary import Dictionary
from nessampler.closed_form.joined_dictionary import JoinedDictionary
from nessampler.closed_form.least_squares_drift import LeastSquaresDrift
from nessampler.errors import InputError
from nessampler.fields import Fields, PathScore
from nessampler.kernels import HMC, Compose, Flow, Inertial, Kernel, Langevin
from nessampler.methods.density.annealing import Annealing
from nessampler.methods.density.dictionaries import end_gradients
from nessampler.methods.density.problem import DensityProblem
from nessampler.methods.density.scaled_steps import ScaledSteps
from nessampler.methods.density.tuning import StepSizes
from nessampler.methods.density.walks import walk_from
from nessampler.networks.field import DriftFields, NetworkField

__all__ = ["drift_state", "moves_state", "network_for", "rebuilt"]


def moves_state(times: tuple[float, ...], step_sizes: StepSizes, leapfrog_steps: int) -> dict[str, Tensor]:
    """Times and Hamiltonian moves."""
    return {
        "times": torch.tensor(times, dtype=torch.float64),
        "step_times": torch.tensor(step_sizes.times, dtype=torch.float64),
        "step_sizes": torch.tensor(step_sizes.values, dtype=torch.float64),
        "leapfrog_steps": torch.tensor(leapfrog_steps),
    }


def drift_state(drift: LeastSquaresDrift, flow: Flow, systematic: float, pilots: int) -> dict[str, Tensor]:
    """A solved drift with its dictionary, made for so many pilots, and the rule that integrates it."""
    return {
        "pilot_times": drift.times,
        "coefficients": drift.coefficients,
        "rule": torch.tensor([flow.order, flow.substeps]),
        "pilots": torch.tensor(pilots),
        "systematic": torch.tensor(systematic, dtype=torch.float64),
        **{f"dictionary.{name}": value for name, value in _tensors(drift.dictionary).items()},
    }


def network_for(drift: LeastSquaresDrift, x: Tensor, generator: torch.Generator) -> torch.nn.Module:
    """The network that starts as a drift: everything of it trainable on a lattice, a residual elsewhere."""
    from nessampler.closed_form.lattice_dictionary import LatticeDictionary
    from nessampler.closed_form.pair_dictionary import PairDictionary
    from nessampler.networks.drift import DriftNetwork
    from nessampler.networks.equivariant import ClusterNetwork
    from nessampler.networks.lattice import LatticeNetwork

    if isinstance(drift.dictionary, LatticeDictionary):
        return LatticeNetwork.from_drift(drift).to(x.device)
    if isinstance(drift.dictionary, PairDictionary):
        network = ClusterNetwork(x.shape[1], reach=drift.dictionary.reach, base=drift, generator=generator)
        return network.to(x.device, x.dtype)
    scale = x.std(0).clamp(min=1e-12)
    network = DriftNetwork(center=x.mean(0), scale=scale, base=drift, generator=generator)
    return network.to(x.device, x.dtype)


def rebuilt(problem: DensityProblem, name: str, state: Mapping[str, Tensor], device: torch.device) -> Annealing:
    """The transport that a state was saved from.

    Args:
        problem: the same density, base and path.
        name: ais, lsq or nets.
        state: as `Annealing.state`.
        device: of walkers and networks.

    Raises:
        InputError: a state without a frozen transport.
    """
    if "times" not in state:
        raise InputError(f"only ais, lsq and nets leave a transport to draw from: this run was {name}")
    if "proposals" in state:
        times, walk = tuple(state["times"].tolist()), walk_from(state, problem.path)
        return Annealing(name, f"{name}, opened again", walk, problem.path, times, dtype=problem.dtype, state=state)
    sizes = StepSizes(tuple(state["step_times"].tolist()), tuple(state["step_sizes"].tolist()))
    relax = HMC(problem.path, sizes, int(state["leapfrog_steps"]), problem.mass)
    times = tuple(state["times"].tolist())
    plain = Annealing(name, f"{name}, opened again", relax, problem.path, times, dtype=problem.dtype, state=state)
    if "variance" in state:
        path = problem.path
        fields = DriftFields(path, _network(problem, state, device)) if name == "nets" else PathScore(path)
        return replace(plain, kernel=_langevin(fields, state, times, sizes))
    if "persistence" in state:
        rolling = Inertial(PathScore(problem.path), sizes, float(state["persistence"]), problem.mass)
        return replace(plain, kernel=rolling)
    if name == "ais":
        return plain
    order, substeps = state["rule"].tolist()
    field = _drift(problem, state, device)[0] if name == "lsq" else NetworkField(_network(problem, state, device))
    kernel = Compose(Flow(field, order, substeps), relax)
    return replace(plain, kernel=kernel, systematic=float(state["systematic"]))


def _langevin(fields: Fields, state: Mapping[str, Tensor], times: tuple[float, ...], sizes: StepSizes) -> Kernel:
    """The frozen steps of a network without a flow, or of none."""
    from nessampler.methods.density.ais import IntervalDiffusion

    variance = state["variance"]
    if "diffusion" in state:
        return Langevin(fields, IntervalDiffusion(times, sizes, float(state["diffusion"]), variance))
    steps = ScaledSteps(sizes, float(state["step_factor"]), variance)
    return Inertial(fields, steps, float(state["persistence"]))


def _network(problem: DensityProblem, state: Mapping[str, Tensor], device: torch.device) -> nn.Module:
    from nessampler.methods.density.zero_drifts import reopened_network

    if "coefficients" not in state:
        return reopened_network(problem.path, state, problem.dtype, device)
    drift, x, generator = _drift(problem, state, device)
    network = network_for(drift, x, generator)
    network.load_state_dict({k.removeprefix("nets."): v for k, v in state.items() if k.startswith("nets.")})
    return network


def _drift(
    problem: DensityProblem, state: Mapping[str, Tensor], device: torch.device
) -> tuple[LeastSquaresDrift, Tensor, torch.Generator]:
    """The closed form, and the walkers and the generator that its dictionary was remade with."""
    generator = torch.Generator().manual_seed(0)
    x = problem.path.start.sample(int(state["pilots"]), generator=generator).to(device, problem.dtype)  # pyright: ignore[reportAttributeAccessIssue]
    known = problem.dictionary(x, generator)
    if any(key.startswith("dictionary.parts.") for key in state):
        known = end_gradients(problem.path, lambda x, _: known)(x, generator)
    saved = {key.removeprefix("dictionary."): v for key, v in state.items() if key.startswith("dictionary.")}
    return LeastSquaresDrift(_with(known, saved), state["pilot_times"], state["coefficients"]), x, generator


def _tensors(dictionary: Dictionary) -> dict[str, Tensor]:
    if isinstance(dictionary, JoinedDictionary):
        named = [(f"parts.{k}.", _tensors(part)) for k, part in enumerate(dictionary.parts)]
        return {prefix + key: value for prefix, found in named for key, value in found.items()}
    if not is_dataclass(dictionary):
        return {}  # a user's own class: nothing is saved, and `rebuilt` says so
    found = {f.name: getattr(dictionary, f.name) for f in fields(dictionary) if f.init}  # pyright: ignore[reportArgumentType]
    numbers = {key: torch.tensor(v, dtype=torch.float64) for key, v in found.items() if isinstance(v, float)}
    return {**{key: value for key, value in found.items() if isinstance(value, Tensor)}, **numbers}


def _with(dictionary: Dictionary, saved: Mapping[str, Tensor]) -> Dictionary:
    expected = set(_tensors(dictionary))
    if set(saved) != expected or not expected:
        raise InputError(
            f"a saved drift belongs to one kind of dictionary: it has {sorted(saved)}, this problem's has "
            f"{sorted(expected)}; open it with the version that made it"
        )
    if isinstance(dictionary, JoinedDictionary):
        shares = [_share(saved, f"parts.{k}.") for k in range(len(dictionary.parts))]
        return JoinedDictionary(tuple(_with(p, s) for p, s in zip(dictionary.parts, shares, strict=True)))
    numbers = {key: float(v) for key, v in saved.items() if isinstance(getattr(dictionary, key), float)}
    return replace(dictionary, **{**saved, **numbers})  # pyright: ignore[reportArgumentType]


def _share(saved: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in saved.items() if key.startswith(prefix)}
