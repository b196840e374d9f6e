"""Global parameters that stay as they are, written into the expressions of a force as numbers."""

from __future__ import annotations

from collections.abc import Collection
from copy import deepcopy
from typing import Any

import openmm

__all__ = ["with_constants"]


def with_constants(force: Any, names: Collection[str]) -> Any:
    """The force, or a copy that no longer reads these parameters but knows their default values.

    An exponent that is a number becomes products, and a factor of 1 or 0 goes: a soft core whose shape is fixed costs
    a fraction of one whose shape may move.

    Args:
        force: of OpenMM; one without an expression of its own is left alone.
        names: of global parameters.
    """
    if not hasattr(force, "getNumGlobalParameters") or isinstance(force, openmm.CustomCVForce):
        return force
    indices = range(force.getNumGlobalParameters())
    values = {force.getGlobalParameterName(k): force.getGlobalParameterDefaultValue(k) for k in indices}
    known = "".join(f"; {name}={value!r}" for name, value in values.items() if name in names)
    if not known or not (hasattr(force, "setEnergyFunction") or isinstance(force, openmm.CustomGBForce)):
        return force
    copy = deepcopy(force)
    if isinstance(copy, openmm.CustomGBForce):
        for k in range(copy.getNumEnergyTerms()):
            text, kind = copy.getEnergyTermParameters(k)
            copy.setEnergyTermParameters(k, text + known, kind)
    else:
        copy.setEnergyFunction(copy.getEnergyFunction() + known)
    if hasattr(copy, "getNumComputedValues"):
        for k in range(copy.getNumComputedValues()):
            name, text, *kind = copy.getComputedValueParameters(k)
            copy.setComputedValueParameters(k, name, text + known, *kind)
    return copy
