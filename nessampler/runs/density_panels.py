"""Figures of what was sampled: marginals in the plane, or the magnetisation and correlations of a lattice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from nessampler.methods.density.problem import DensityProblem
from nessampler.methods.density.result import Sampled
from nessampler.methods.ends import generator_for
from nessampler.plots.style import FORWARD, GREY, INK, REVERSE, STYLE, WIDTH
from nessampler.runs.page import Panel, captioned
from nessampler.targets.phi4 import Phi4
from nessampler.weights import LogWeights

__all__ = ["observables"]

DOTS = 2000
BINS = 60


def observables(problem: DensityProblem, result: Sampled) -> list[Panel]:
    """Panels of the sampled density; none where every weight vanishes."""
    if not bool(torch.isfinite(result.log_weight).any()):
        return []
    if isinstance(problem.target, Phi4):
        return _lattice(problem.target, result)
    return [_marginals(problem, result)]


@rc_context(STYLE)
def _marginals(problem: DensityProblem, result: Sampled) -> Panel:
    """Weighted draws of the first two coordinates; exact ones beside them where there are any."""
    x, weight = result.x.flatten(1).cpu(), LogWeights(result.log_weight).normalized.cpu().numpy()
    exact = None
    if problem.target_samples is not None and problem.origin == "exact":
        exact = problem.target_samples(len(x), generator_for(0, "figure")).flatten(1).cpu().numpy()
    shown = min(2, x.shape[1])
    rows = 1 + (shown == 2)
    figure = Figure(figsize=(WIDTH, 2.4 + 3.6 * (shown == 2)), layout="constrained")
    grid = figure.add_gridspec(rows, shown, height_ratios=[3.6, 2.0][2 - rows :])
    if shown == 2:
        _scatter(figure.add_subplot(grid[0, :]), result, exact)
    for k in range(shown):
        axes = figure.add_subplot(grid[rows - 1, k])
        _marginal(axes, x[:, k].numpy(), weight, None if exact is None else exact[:, k])
        axes.set_xlabel(f"x{k + 1}")
    handles, labels = figure.axes[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, handlelength=1.4)
    figure.set_label(
        f"Draws of the first {shown} of {x.shape[1]} coordinates"
        f"{' beside exact ones' if exact is not None else ''}: scatter and weighted histograms."
    )
    caption = "Weighted walkers (blue) as draws in the plane and as histograms. " + (
        "Grey: exact draws of the target; a mode that only they have was lost." if exact is not None else ""
    )
    return captioned("Samples", figure, caption.strip())


def _scatter(axes: Axes, result: Sampled, exact: np.ndarray | None) -> None:
    draws = result.draws(DOTS, generator=generator_for(0, "figure", result.x.device)).flatten(1)[:, :2].cpu().numpy()
    if exact is not None:
        axes.scatter(*exact[:DOTS, :2].T, s=9, color="#B5B5B5", linewidths=0)
    axes.scatter(*draws.T, s=5, color=FORWARD, alpha=0.5, linewidths=0)
    everything = draws if exact is None else np.concatenate([draws, exact[:, :2]])
    low, high = np.quantile(everything, [0.002, 0.998], axis=0)  # heavy tails must not flatten the picture
    margin = 0.08 * (high - low) + 1e-9
    axes.set_xlim(low[0] - margin[0], high[0] + margin[0])
    axes.set_ylim(low[1] - margin[1], high[1] + margin[1])
    axes.set_xlabel("x1")
    axes.set_ylabel("x2")


def _marginal(axes: Axes, values: np.ndarray, weight: np.ndarray, exact: np.ndarray | None) -> None:
    everything = values if exact is None else np.concatenate([values, exact])
    low, high = np.quantile(everything, [0.002, 0.998])
    bins = [float(edge) for edge in np.linspace(low, high, _bins(weight) + 1)]
    if exact is not None:
        axes.hist(exact, bins, density=True, color="#CFCFCF", label="exact")
    axes.hist(
        values, bins, weights=weight, density=True, histtype="step", color=FORWARD, linewidth=1.6, label="walkers"
    )
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


@rc_context(STYLE)
def _lattice(target: Phi4, result: Sampled) -> list[Panel]:
    magnetisation = target.magnetisation(result.x).cpu().numpy()
    weight = LogWeights(result.log_weight).normalized.cpu().numpy()
    mean, error = _expected(result, lambda x: torch.stack([m := target.magnetisation(x), m.abs(), m**2], -1))
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    axes = figure.subplots()
    reach = 1.05 * float(np.abs(magnetisation).max())
    bins = [float(edge) for edge in np.linspace(-reach, reach, _bins(weight) + 1)]
    axes.hist(magnetisation, bins, weights=weight, density=True, color=FORWARD, alpha=0.25)
    axes.hist(magnetisation, bins, weights=weight, density=True, color=FORWARD, histtype="step", lw=1.6)
    axes.axvline(float(mean[0]), color=INK, linewidth=1.2)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("magnetisation per site, M")
    said = f"⟨M⟩ = {mean[0]:.4f} ± {error[0]:.4f}, ⟨|M|⟩ = {mean[1]:.4f} ± {error[1]:.4f}"
    figure.set_label(f"Weighted histogram of the magnetisation: {said}.")
    caption = (
        f"{said}. The action is even, so both signs must weigh the same: ⟨M⟩ is 0 within its error, or walkers of one "
        "sign were lost."
    )
    return [captioned("Magnetisation", figure, caption), _correlations(target, result)]


@rc_context(STYLE)
def _correlations(target: Phi4, result: Sampled) -> Panel:
    mean, error = _expected(result, target.two_point)
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    axes = figure.subplots()
    distance = np.arange(len(mean))
    axes.errorbar(distance, mean, 1.96 * error, color=REVERSE, ecolor=GREY, marker="o", markersize=4, capsize=2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("distance r / sites")
    axes.set_ylabel("G(r) = ⟨φ(0) φ(r)⟩")
    axes.set_ylim(bottom=min(0.0, float((mean - 2 * error).min())))
    axes.grid()
    figure.set_label(
        f"Two-point function: {mean[0]:.3f} ± {error[0]:.3f} at distance 0, "
        f"{mean[-1]:.3f} ± {error[-1]:.3f} at {distance[-1]}."
    )
    return captioned("Two-point function", figure, "Along the axes of the lattice, with 95 % intervals.")


def _bins(weight: np.ndarray) -> int:
    """As many bins as the effective number of walkers can fill."""
    return int(min(BINS, max(10, 2.5 * (1 / np.square(weight).sum()) ** 0.4)))


def _expected(result: Sampled, function: Callable[[Tensor], Tensor]) -> tuple[np.ndarray, np.ndarray]:
    mean, error = result.expect(lambda x: _in_chunks(function, x))
    return mean.cpu().numpy(), error.cpu().numpy()


def _in_chunks(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Fourier transforms of all walkers at once would need several times their memory."""
    return torch.cat([function(part) for part in x.split(512)])
