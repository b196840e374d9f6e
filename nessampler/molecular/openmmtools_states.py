"""Thermodynamic states of openmmtools as densities."""

from __future__ import annotations

from typing import Any

from openmm import unit

from nessampler.errors import InputError
from nessampler.molecular.force_field import TorchForceFieldTarget
from nessampler.molecular.target import OpenMMTarget, openmm_target

__all__ = ["state_target"]


def state_target(state: Any, **options: Any) -> OpenMMTarget | TorchForceFieldTarget:
    """The target, in kT, of an openmmtools `ThermodynamicState`, or of a compound one at the λ it stands at.

    Args:
        state: with a temperature and without a pressure.
        options: those of `openmm_target`.

    Raises:
        InputError: no thermodynamic state, one at constant pressure, or a system that is no density on R^3N.

    >>> from openmmtools import states, testsystems
    >>> well = testsystems.HarmonicOscillator()
    >>> state_target(states.ThermodynamicState(well.system, 300 * unit.kelvin)).event_shape
    torch.Size([1, 3])
    """
    if not all(hasattr(state, name) for name in ("get_system", "temperature", "pressure")):
        raise InputError(f"an openmmtools state has a system, a temperature and a pressure: got {type(state).__name__}")
    if state.pressure is not None:
        raise InputError(
            f"a density on R^3N has no volume: the state is at {state.pressure}; set state.pressure = None"
        )
    system = state.get_system(remove_thermostat=True)
    return openmm_target(system, state.temperature.value_in_unit(unit.kelvin), **options)
