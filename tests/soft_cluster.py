"""Atoms in a trap that repel one another softly: a cluster without the singularities of Lennard-Jones."""

from __future__ import annotations

import torch
from torch import Tensor

from nessampler.targets.callable import LogDensity

__all__ = ["soft_cluster"]


def soft_cluster(atoms: int, strength: float = 2.0) -> LogDensity:
    r"""$U = |x|^2 / 2 + s \sum_{i<j} e^{-r_{ij}^2}$."""
    first, second = torch.triu_indices(atoms, atoms, offset=1)

    def log_density(x: Tensor) -> Tensor:
        squared = (x[:, first] - x[:, second]).square().sum(-1)
        return -0.5 * x.square().sum((1, 2)) - strength * torch.exp(-squared).sum(1)

    return LogDensity(log_density, torch.Size([atoms, 3]))
