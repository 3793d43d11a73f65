"""Arrays that stay in a netCDF file until they are looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np


class OnDisk(np.lib.mixins.NDArrayOperatorsMixin):
    """The first draws of a variable of a netCDF file, (chains, draws, ...), in place of an array.

    An index reads the part it names; everything else that arrays do reads all of it and does it to that: `a.mean(0)`,
    `a - 1.0`, `np.asarray(a)`.

    Args:
        path: of the file.
        place: group and name of the variable.
        dtype: of the values.
        n_draws: how many of its draws are looked at.
    """

    def __init__(self, path: Path, place: str, dtype: str, n_draws: int) -> None:
        self.path, self.place, self.dtype = path, place, np.dtype(dtype)
        with h5py.File(path, "r") as file:
            n_chains, _, *rest = file[place].shape
        self.shape: tuple[int, ...] = (n_chains, n_draws, *rest)

    def __repr__(self) -> str:
        return f"draws {self.shape} of {self.dtype} in '{self.path}'"

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        whole = index if isinstance(index, tuple) else (index,)
        kinds = [_kind(i) for i in whole]
        if "" in kinds or kinds.count("list") > ("number" not in kinds) or kinds.count("...") > 1:
            return np.asarray(self)[index]
        at = kinds.index("...") if "..." in kinds else len(whole)
        missing = self.ndim - len(whole) + kinds.count("...")
        whole = (*whole[:at], *(slice(None),) * missing, *whole[at + 1 :])
        draws: Any = range(self.shape[1])
        if isinstance(whole[1], slice):
            draws = slice(*whole[1].indices(self.shape[1]))
        elif isinstance(whole[1], np.ndarray):
            draws = np.asarray(draws)[whole[1]]
        else:
            draws = draws[whole[1]]
        with h5py.File(self.path, "r") as file:
            found = file[self.place][whole[0], draws, *whole[2:]]
        return found.astype(self.dtype, copy=False)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        found = self[:, :]
        return np.asarray(found, dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **settings: Any) -> Any:
        read = [np.asarray(a) if isinstance(a, OnDisk) else a for a in inputs]
        return getattr(ufunc, method)(*read, **settings)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(np.ndarray, name):
            raise AttributeError(f"arrays have no '{name}'")
        return getattr(np.asarray(self), name)

    def variable(self, dims: tuple[str, ...]) -> Any:
        """The same as a variable of xarray, which is read when it is looked at."""
        import xarray
        from xarray.core import indexing

        class Lazy(xarray.backends.BackendArray):  # type: ignore[misc]
            shape, dtype = self.shape, self.dtype

            def __getitem__(_, key: Any) -> Any:
                return indexing.explicit_indexing_adapter(
                    key, self.shape, indexing.IndexingSupport.BASIC, self.__getitem__
                )

        return xarray.Variable(dims, indexing.LazilyIndexedArray(Lazy()))


def _kind(index: Any) -> str:
    """What an index is, if the file can be asked for it: a number, a slice, a growing list, an ellipsis."""
    if index is Ellipsis:
        return "..."
    if isinstance(index, slice):
        return "slice" if index.step is None or index.step > 0 else ""
    if isinstance(index, (int, np.integer)) and not isinstance(index, (bool, np.bool_)):
        return "number"
    is_list = isinstance(index, np.ndarray) and index.ndim == 1 and index.dtype.kind in "iu" and len(index) > 0
    return "list" if is_list and index[0] >= 0 and (np.diff(index) > 0).all() else ""
