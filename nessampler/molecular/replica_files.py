"""Trajectories and restart files of replicas: whole or not there, and refused by name when they are something else."""

from __future__ import annotations

import struct
import tokenize
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import mdtraj
import numpy as np
from jaxtyping import Float
from mdtraj.formats import NetCDFTrajectoryFile

from nessampler._files import write_atomically
from nessampler.errors import InputError
from nessampler.molecular.systems import Molecule

__all__ = ["read_restart", "read_trajectory", "save_restart", "save_topology", "save_trajectory"]

DAMAGE = (  # what reading any bytes as arrays in a zip file can raise
    *(ValueError, KeyError, OSError, EOFError, BadZipFile, NotImplementedError, RuntimeError, TypeError, SyntaxError),
    *(MemoryError, OverflowError, struct.error, tokenize.TokenError),
)
ANGSTROM = np.float32(10.0)  # AMBER's unit, in nm


def save_trajectory(path: Path, positions: Float[np.ndarray, "frames atoms 3"]) -> None:
    """Frames in nm as an AMBER netCDF file, which mdtraj opens."""

    def write(temporary: Path) -> None:
        with NetCDFTrajectoryFile(str(temporary), "w") as file:
            file.write(positions * ANGSTROM)

    write_atomically(path, write)


def read_trajectory(path: Path, frames: int, atoms: int) -> Float[np.ndarray, "frames atoms 3"]:
    """Frames in nm, float32.

    Raises:
        InputError: no trajectory, one of another length or molecule, or one that is cut off.
    """
    try:
        with NetCDFTrajectoryFile(str(path)) as file:
            angstrom = np.asarray(file.read()[0])
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise InputError(f"{path} is not a trajectory ({error}); remove it to sample this replica again") from error
    if angstrom.shape != (frames, atoms, 3):
        raise InputError(
            f"{path} must hold {frames} frames of {atoms} atoms: got {angstrom.shape[:2]}; "
            "remove it to sample this replica again"
        )
    if not np.isfinite(angstrom).all():
        raise InputError(f"{path} must hold finite positions; remove it to sample this replica again")
    if not angstrom[-1, -1].any():  # netCDF fills what is missing with zeros, without a word
        raise InputError(f"{path} is cut off; remove it to sample this replica again")
    return angstrom / ANGSTROM


def save_restart(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Named arrays in one file."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]

    write_atomically(path, write)


def read_restart(path: Path, names: tuple[str, ...]) -> list[np.ndarray]:
    """The arrays of these names.

    Raises:
        InputError: not a restart file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return [file[name] for name in names]
    except DAMAGE as error:
        raise InputError(f"{path} is not a restart file of this run ({error}); remove it") from error


def save_topology(path: Path, molecule: Molecule) -> None:
    """The structure as PDB, which opens the trajectories."""
    topology = mdtraj.Topology.from_openmm(molecule.topology)
    frame = mdtraj.Trajectory(molecule.positions[None].astype(np.float32), topology)
    write_atomically(path, lambda temporary: frame.save_pdb(str(temporary)))
