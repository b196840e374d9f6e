"""Groups of arrays as the bytes of a netCDF file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["packed"]


def packed(groups: Mapping[str, Any]) -> bytes:
    """A netCDF-4 file with these groups, compressed, made in memory: HDF5 that meets a full disk ends the process.

    Args:
        groups: by name a dataset of xarray, or its variables.

    Example:
        >>> packed({"forward": {"work_map": (("chain", "draw"), [[1.0, 2.0]])}})[1:4]
        b'HDF'
    """
    import xarray  # takes a while to import

    datasets = {
        f"/{name}": group if isinstance(group, xarray.Dataset) else xarray.Dataset(group)
        for name, group in groups.items()
    }
    zipped = {path: {name: {"zlib": True} for name in dataset.data_vars} for path, dataset in datasets.items()}
    return bytes(xarray.DataTree.from_dict(datasets).to_netcdf(engine="h5netcdf", encoding=zipped))
