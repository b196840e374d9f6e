"""mdtraj trajectories as samples, and walkers as a trajectory."""

from __future__ import annotations

from collections.abc import Sequence

import mdtraj
import numpy as np
import torch
from jaxtyping import Float
from openmm import app
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["samples_of", "trajectory_of"]


def samples_of(
    trajectories: mdtraj.Trajectory | Sequence[mdtraj.Trajectory],
) -> Float[Tensor, "*chains draws atoms 3"]:
    """Positions in nm, float64: `(draws, atoms, 3)` of one trajectory, `(chains, draws, atoms, 3)` of several.

    Raises:
        InputError: no frames, NaN, a periodic box, or trajectories of different lengths or molecules.

    >>> samples_of(mdtraj.Trajectory(np.zeros((5, 2, 3)), None)).shape
    torch.Size([5, 2, 3])
    """
    several = not isinstance(trajectories, mdtraj.Trajectory)
    chains = list(trajectories) if several else [trajectories]
    shapes = {np.asarray(chain.xyz).shape for chain in chains}
    if len(shapes) != 1 or not next(iter(shapes))[0]:
        raise InputError(
            f"trajectories are chains of one length and one molecule, with frames: got {sorted(shapes)}; cut them"
        )
    if any(chain.unitcell_lengths is not None for chain in chains):
        raise InputError(
            "samples live in R^3N, and a trajectory has a periodic box: make molecules whole and set "
            "trajectory.unitcell_vectors = None if the box plays no part in the energy"
        )
    x = torch.from_numpy(np.stack([np.asarray(chain.xyz, dtype=np.float64) for chain in chains]))
    bad = (~torch.isfinite(x)).nonzero()
    if len(bad):
        chain, draw, atom = bad[0].tolist()[:3]
        raise InputError(f"positions are finite: those of atom {atom} in frame {draw} of trajectory {chain} are not")
    return x if several else x[0]


def trajectory_of(
    x: Float[Tensor, "n atoms 3"], topology: mdtraj.Topology | app.Topology | None = None
) -> mdtraj.Trajectory:
    """Walkers in nm as frames of a trajectory, which holds them in float32.

    Raises:
        InputError: walkers of another shape than `(n, atoms, 3)`, or a topology of another number of atoms.

    >>> trajectory_of(torch.zeros(5, 2, 3)).n_frames
    5
    """
    own = mdtraj.Topology.from_openmm(topology) if isinstance(topology, app.Topology) else topology
    if x.ndim != 3 or x.shape[2] != 3 or (own is not None and own.n_atoms != x.shape[1]):
        atoms = "any number of" if own is None else own.n_atoms
        raise InputError(f"frames are (n, atoms, 3) with {atoms} atoms: got {tuple(x.shape)}")
    return mdtraj.Trajectory(x.detach().cpu().numpy().astype(np.float32), own)
