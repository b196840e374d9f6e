"""Every public function and class shows how it is used; pytest runs the examples as doctests."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import nessampler

ROOT = Path(nessampler.__file__).parent
Offer = FunctionType | type


def public_modules() -> list[str]:
    """The package, those within it, and the modules at its top."""
    files = [path.relative_to(ROOT.parent).with_suffix("") for path in (*ROOT.rglob("__init__.py"), *ROOT.glob("*.py"))]
    names = {".".join(part for part in path.parts if part != "__init__") for path in files}
    return sorted(name for name in names if "._" not in name)


def exported(module: ModuleType) -> Iterator[Offer]:
    """Functions and classes that a module of ours offers, exceptions aside."""
    for name in getattr(module, "__all__", ()):
        offered = getattr(module, name)
        ours = getattr(offered, "__module__", "").startswith("nessampler")
        raised = inspect.isclass(offered) and issubclass(offered, Exception)
        if ours and not raised and isinstance(offered, Offer):
            yield offered


def has_example(offered: Offer) -> bool:
    """In its own docstring, or in that of a method of its own."""
    methods = vars(offered).items() if inspect.isclass(offered) else ()
    kinds = (FunctionType, classmethod, staticmethod, property)
    own = [value for name, value in methods if name[0] != "_" and isinstance(value, kinds)]
    return any(">>>" in (value.__doc__ or "") for value in (offered, *own))


def without_example(offers: Iterable[Offer]) -> list[str]:
    return sorted(f"{offered.__module__}.{offered.__qualname__}" for offered in offers if not has_example(offered))


@pytest.mark.parametrize("name", public_modules())
def test_every_public_function_and_class_has_an_example(name: str) -> None:
    if name.startswith("nessampler.molecular"):
        pytest.importorskip("openmm")
    lacking = without_example(exported(importlib.import_module(name)))
    assert not lacking, f"add an example (>>>) to the docstring of {', '.join(lacking)}"


def test_public_names_are_looked_at() -> None:
    assert {"nessampler", "nessampler.weights", "nessampler.runs.config"} <= set(public_modules())
    assert set(exported(nessampler)) >= {nessampler.Kernel, nessampler.bar}
    assert nessampler.InputError not in exported(nessampler)


def test_a_missing_example_is_noticed() -> None:
    def silent() -> None:
        """No example."""

    class Spoken:
        def method(self) -> None:
            """
            >>> 1 + 1
            2
            """

    class Inheriting(Spoken):
        shown = Spoken()

    def shown() -> None:
        """
        >>> 1 + 1
        2
        """

    lacking = without_example([silent, shown, Spoken, Inheriting])
    assert [name.rpartition(".")[2] for name in lacking] == ["Inheriting", "silent"]
