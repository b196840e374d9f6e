"""What users hand to `sample` and `free_energy` becomes targets, samples and coordinates."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions.transforms import Transform

from nessampler.errors import InputError
from nessampler.estimators import Flag
from nessampler.methods.ends import generator_for
from nessampler.targets import Target
from nessampler.targets.anything import target_of

__all__ = ["TwoStates", "density_of", "one_state", "two_states"]


class TwoStates(NamedTuple):
    """Both ends of a difference, ready for the ladder, and what is doubtful about their samples."""

    a: Target
    b: Target
    samples_a: Tensor
    samples_b: Tensor
    coordinates: Transform | None
    flags: tuple[Flag, ...] = ()


def density_of(
    density: object,
    *,
    dim: int | tuple[int, ...] | torch.Size | None = None,
    batched: bool = True,
    gradient: Callable[[np.ndarray], np.ndarray] | None = None,
    temperature: Any = None,
) -> Target:
    """What `target_of` takes, and OpenMM's systems and simulations at a temperature.

    Raises:
        InputError: as of `target_of`; a molecule that is free to drift; a temperature for what is no molecule.
    """
    room = _molecular_room()
    if room is not None and room.is_openmm(density):
        target = room.state_of(density, temperature)
        if room.drifts(target):
            raise InputError(
                "a density that is sampled must have a finite Z: got a molecule that is free to drift; hold it by an "
                "external force, or ask for a difference with nessampler.free_energy"
            )
        return target
    if temperature is not None:
        raise InputError(
            f"a temperature belongs to an OpenMM system: got one for {type(density).__name__}, whose energy is in kT "
            "already; leave it out"
        )
    return target_of(density, event_shape=dim, batched=batched, gradient=gradient)


def two_states(
    a: object,
    b: object,
    samples_a: Any,
    samples_b: Any,
    *,
    dim: int | tuple[int, ...] | None,
    temperature: Any,
    topology: Any,
    coordinates: Transform | None,
    fit: float,
    seed: int,
) -> TwoStates:
    """Targets and samples of both ends; molecules that drift are seen in internal coordinates.

    Args:
        a, b: anything that `density_of` takes.
        samples_a, samples_b: tensors, arrays, mdtraj trajectories or quantities.
        dim: of one sample; by default that of the other state, or the last dimension of the samples.
        temperature, topology: of molecules.
        coordinates: those of the caller, which go before any others.
        fit: the share of every chain that may be looked at.
        seed: of the rotors, which are turned at random.

    Raises:
        InputError: as of `density_of`; a molecule that is free to drift, of unknown bonds; states that are mirror
            images, where bonds are known.
    """
    room = _molecular_room()
    molecular = room is not None and (room.is_openmm(a) or room.is_openmm(b))
    if not molecular:
        if temperature is not None or topology is not None:
            raise InputError(
                "temperature and topology belong to OpenMM systems: got them with "
                f"{type(a).__name__} and {type(b).__name__}; leave them out"
            )
        x_a, x_b = _of_one_dtype(_tensor(samples_a, "A"), _tensor(samples_b, "B"))
        known = next((s.event_shape for s in (a, b) if isinstance(s, Target)), None)
        shapes = [dim or known or x.shape[-1:] or torch.Size([1]) for x in (x_a, x_b)]
        states = [s if isinstance(s, Target) else _state(s, d) for s, d in zip((a, b), shapes, strict=True)]
        return TwoStates(states[0], states[1], x_a, x_b, coordinates)
    assert room is not None
    states = [room.state_of(s, temperature) if room.is_openmm(s) else target_of(s, event_shape=dim) for s in (a, b)]
    x = _of_one_dtype(*(_tensor(room.positions_of(s), name) for s, name in ((samples_a, "A"), (samples_b, "B"))))
    known = room.topology_of(topology, a, b, samples_a, samples_b)
    graph = room.bonds_of(known, a, b)
    # Neither the energy nor Stein's identity can tell mirror images apart.
    flags = () if graph is None else room.hands_of(graph, x)
    if coordinates is not None or not any(room.drifts(s) for s in states if hasattr(s, "temperature")):
        return TwoStates(states[0], states[1], x[0], x[1], coordinates, flags)
    if known is None:
        raise InputError(
            "a molecule that is free to drift is seen in internal coordinates, which need its bonds: got systems and "
            "positions alone; pass topology=pdb.topology, mdtraj trajectories, an openmm Simulation, or coordinates"
        )
    for positions, state, name in zip(x, states, "AB", strict=True):
        if positions.ndim not in (3, 4) or positions.shape[-2:] != state.event_shape:
            raise InputError(
                f"samples of {name} must be positions (n, {state.event_shape[0]}, 3) or (chains, draws, "
                f"{state.event_shape[0]}, 3) in nm: got {tuple(positions.shape)}"
            )
    found = room.coordinates_of(known, [p if p.ndim == 4 else p[None] for p in x], fit)
    x = [room.spun(p, known, generator=generator_for(seed, f"rotors of {s}")) for p, s in zip(x, "ab", strict=True)]
    return TwoStates(states[0], states[1], x[0], x[1], found, flags)


def one_state(state: object, samples: Any, name: str) -> tuple[Target, Tensor]:
    """What `two_states` makes of either end where it is no molecule.

    Raises:
        InputError: as of `target_of`; samples that are no real numbers.
    """
    x = _tensor(samples, name)
    return state if isinstance(state, Target) else _state(state, x.shape[-1:] or torch.Size([1])), x


def _state(state: object, dim: int | tuple[int, ...] | torch.Size) -> Target:
    from torch.distributions import Distribution

    # A distribution knows its shape; Stan's and PyMC's models do.
    return target_of(state, event_shape=dim if callable(state) and not isinstance(state, Distribution) else None)


def _molecular_room() -> Any:
    """The room that knows OpenMM, or None where nobody has imported OpenMM: then nothing can be one of its objects."""
    return import_module("nessampler.molecular.from_openmm") if "openmm" in sys.modules else None


def _tensor(samples: Any, name: str) -> Tensor:
    """Numbers in floating point, without the history of what made them."""
    if not isinstance(samples, Tensor):
        samples = _array(samples, name)
    if samples.is_complex():
        raise InputError(
            f"samples are real numbers: those of {name} are {samples.dtype}; pass real and imaginary parts as "
            "coordinates"
        )
    samples = samples.detach()
    return samples.to(
        torch.promote_types(samples.dtype, torch.float32) if samples.is_floating_point() else torch.float64
    )


def _array(samples: Any, name: str) -> Tensor:
    try:
        array = np.asarray(samples)
        return torch.as_tensor(array if np.iscomplexobj(array) else array.astype(np.float64, copy=False))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"samples are numbers of shape (n, *event) or (chains, draws, *event): those of {name} are "
            f"{type(samples).__name__} ({error}); pass a tensor or an array"
        ) from error


def _of_one_dtype(a: Tensor, b: Tensor) -> list[Tensor]:
    wider = torch.promote_types(a.dtype, b.dtype)
    return [a.to(wider), b.to(wider)]
