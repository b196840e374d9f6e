"""One API page per room of the package: a new file is documented by being there."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from pathlib import Path
from typing import Any

PACKAGE = "nessampler"


def setup(app: Any) -> dict[str, bool]:
    """Write the pages before Sphinx looks for sources; they are not tracked."""
    _write(Path(app.srcdir) / "api" / "generated")
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.md"):
        old.unlink()
    for name in _public(PACKAGE):
        package = hasattr(import_module(name), "__path__")
        parts = [_directive(name, members=not package)]
        parts += [f"## {inner}\n\n{_directive(inner, members=True)}" for inner in _public(name)] if package else []
        (folder / f"{name}.md").write_text("\n".join([f"# {name}\n", *parts]), encoding="utf-8")


def _public(package: str) -> list[str]:
    found = [m.name for m in pkgutil.iter_modules(import_module(package).__path__, f"{package}.")]
    return [name for name in found if not name.rpartition(".")[2].startswith("_")]


def _directive(module: str, members: bool) -> str:
    options = "   :members:\n" + _elsewhere(module) if members else ""
    return f"```{{eval-rst}}\n.. automodule:: {module}\n{options}```\n"


def _elsewhere(module: str) -> str:
    """Names that are only re-exported are documented where they are defined."""
    found = import_module(module)
    things = {name: getattr(found, name) for name in getattr(found, "__all__", ())}
    names = [n for n, thing in things.items() if callable(thing) and getattr(thing, "__module__", module) != module]
    return f"   :exclude-members: {', '.join(names)}\n" if names else ""
