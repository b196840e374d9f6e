"""How often Stein's identity accuses healthy samples: by their number, dimension and weights.

    python docs/benchmarks/stein_level.py

Normal samples with a spectrum of widths; and those of a wider normal, weighted. Shares of sets below three levels.
"""

from __future__ import annotations

import numpy as np

from nessampler.stein import stein_check

LEVELS = (1e-2, 1e-3, 1e-4)
SETS = ((60, 256, 60), (100, 256, 150), (200, 256, 150), (100, 2, 2000), (1000, 64, 200))  # n, d, repetitions
WEIGHTED = ((1000, 16, 1.15, 300), (1000, 2, 1.5, 300), (400, 64, 1.03, 300))  # n, d, width, repetitions


def share(p: np.ndarray) -> str:
    """Of sets below every level."""
    return " | ".join(f"{float((p < level).mean()):.4f}" for level in LEVELS)


def main() -> None:
    """Print the table."""
    print(f"| samples | dimensions | ESS | sets | {' | '.join(f'p < {level:g}' for level in LEVELS)} |\n{'|---' * 7}|")
    for n, d, sets in SETS:
        rng, width = np.random.default_rng(0), 1 / np.sqrt(np.arange(1, d + 1))
        x = (rng.normal(size=(1, n, d)) for _ in range(sets))
        p = np.array([stein_check(y * width, -y / width, correlated=False).p for y in x])
        print(f"| {n} | {d} | 1 | {sets} | {share(p)} |", flush=True)
    for n, d, width, sets in WEIGHTED:
        rng, found, ess = np.random.default_rng(0), [], []
        for _ in range(sets):
            x = width * rng.normal(size=(1, n, d))
            log_weight = 0.5 * (x**2).sum(-1) * (1 / width**2 - 1)
            w = np.exp(log_weight - log_weight.max())
            ess.append(w.sum() ** 2 / (w**2).sum() / n)
            found.append(stein_check(x, -x, correlated=False, weight=w).p)
        print(f"| {n} | {d} | {np.mean(ess):.2f} | {sets} | {share(np.array(found))} |", flush=True)


if __name__ == "__main__":
    main()
