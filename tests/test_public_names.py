"""What `import nessampler` offers, and when it is fetched."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import nessampler as ns


def test_every_public_name_is_there():
    assert set(ns.__all__) <= set(dir(ns))
    for name in ns.__all__:
        assert not isinstance(getattr(ns, name), type(ns)), name


def test_a_function_is_not_hidden_by_the_module_it_lives_in():
    importlib.import_module("nessampler.simulate")
    assert callable(ns.simulate)
    assert not isinstance(ns.simulate, type(sys))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = ns.nothing


def test_estimators_and_the_command_line_need_no_torch():
    code = "import sys, nessampler.cli, nessampler as ns; ns.bar([1.0, 2.0], [0.0, 1.0]); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
