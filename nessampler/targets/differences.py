"""The gradient of a numpy log-density that comes without one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from nessampler.targets.counting import Tally

__all__ = ["billed", "central_differences", "energies_per_gradient", "told_differences"]

Array = np.ndarray
STEP = float(np.cbrt(np.finfo(np.float64).eps))  # balances truncation and rounding of a central difference


def central_differences(log_density: Callable[[Array], Array]) -> Callable[[Array], Array]:
    r"""$\partial_i \log\rho(x) \approx (\log\rho(x + h_i e_i) - \log\rho(x - h_i e_i)) / 2 h_i$.

    Two calls a coordinate; the step is $h_i = \epsilon^{1/3} \max(1, |x_i|)$. A gradient steers walkers and never
    weighs them: trajectories are accepted, and paths weighted, by energies, so an approximate one costs effective
    samples and no correctness. Along a coordinate in which a step leaves the support it is zero.

    Args:
        log_density: `(n, *event) -> (n,)`, float64.

    Example:
        >>> gradient = central_differences(lambda x: -0.5 * (x**2).sum(-1))
        >>> gradient(np.array([[1.0, -2.0]])).round(6)
        array([[-1.,  2.]])
    """
    return _Differences(log_density)


@dataclass(frozen=True)
class _Differences:
    log_density: Callable[[Array], Array]

    def __call__(self, x: Float[Array, " n *event"]) -> Float[Array, " n *event"]:
        flat = x.reshape(len(x), -1)
        found = np.empty_like(flat)
        for i in range(flat.shape[1]):
            step = STEP * np.maximum(1.0, np.abs(flat[:, i]))
            sides = []
            for sign in (1.0, -1.0):
                moved = flat.copy()
                moved[:, i] += sign * step
                sides.append(np.asarray(self.log_density(moved.reshape(x.shape)), dtype=np.float64))
            with np.errstate(invalid="ignore"):
                slope = (sides[0] - sides[1]) / (2 * step)
            found[:, i] = np.where(np.isinf(sides[0]) | np.isinf(sides[1]), 0.0, slope)
        return found.reshape(x.shape)


def energies_per_gradient(target: object) -> int:
    """Energies that a gradient of a target asks for besides its own: two a coordinate by differences, otherwise none.

    A density that is seen through others, as by `Constrained`, is looked for behind them.

    Example:
        >>> from nessampler.targets.numpy_density import NumpyDensity
        >>> bowl = lambda x: -0.5 * (x**2).sum(-1)
        >>> energies_per_gradient(NumpyDensity(bowl, 3, central_differences(bowl)))
        6
        >>> energies_per_gradient(NumpyDensity(bowl, 3, lambda x: -x))
        0
    """
    for name in ("view", "target"):
        if hasattr(target, name):
            return energies_per_gradient(getattr(target, name))
    by_differences = isinstance(getattr(target, "gradient", None), _Differences)
    return 2 * target.event_shape.numel() if by_differences else 0  # pyright: ignore[reportAttributeAccessIssue]


def billed(target: object, spent: Tally) -> Tally:
    """With the energies that gradients were made of, where nobody gave any.

    Example:
        >>> from nessampler.targets.numpy_density import NumpyDensity
        >>> bowl = lambda x: -0.5 * (x**2).sum(-1)
        >>> billed(NumpyDensity(bowl, 3, central_differences(bowl)), Tally(energy=1, gradient=10))
        Tally(energy=61, gradient=10)
    """
    return Tally(spent.energy + energies_per_gradient(target) * spent.gradient, spent.gradient)


def told_differences(*energies: int) -> str:
    """What a result says where a density, or one of two, has a gradient of so many energies; empty where none has.

    Example:
        >>> told_differences(0, 6)
        'No gradient was given: differences of energies took its place, 6 energies for each gradient.'
    """
    if not any(energies):
        return ""
    each = " and ".join(str(n) for n in dict.fromkeys(n for n in energies if n))
    return f"No gradient was given: differences of energies took its place, {each} energies for each gradient."
