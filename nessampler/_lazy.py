"""Names that a package re-exports without importing their modules before they are asked for."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["LazyPackage", "export"]


class LazyPackage(ModuleType):
    """A package whose public names are fetched from their homes.

    Importing a submodule binds it as an attribute of its package. Where a public name is also that of a submodule, as
    `nessampler.simulate` is, the name stays that of what the submodule defines.
    """

    _home: Mapping[str, str]

    def __getattr__(self, name: str) -> Any:
        if name not in self._home:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(import_module(self._home[name]), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        bound = isinstance(value, ModuleType) and name in self._home
        super().__setattr__(name, getattr(value, name) if bound else value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._home})


def export(package: str, homes: Mapping[str, Sequence[str]]) -> None:
    """Make the package `package` fetch its public names, given by the module where they live.

    >>> import nessampler
    >>> "bar" in dir(nessampler), nessampler.bar.__module__
    (True, 'nessampler.estimators.acceptance_ratio')
    """
    module = sys.modules[package]
    module.__dict__["_home"] = {name: home for home, names in homes.items() for name in names}
    module.__class__ = LazyPackage
