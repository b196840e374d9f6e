"""Sphinx configuration. The build needs no network, and neither do the pages."""

import os
import sys
from importlib.metadata import version as installed
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "nessampler"
author = "The nessampler developers"
version = release = installed("nessampler")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "markdown_docstrings",
    "mathml",
    "rooms",
]
exclude_patterns = ["_build", "_ext"]

html_theme = "furo"
html_title = f"nessampler {release}"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["nessampler.css"]
html_copy_source = False
html_show_copyright = False

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

# Pages with code cells run at every build, so that what they show is true; they leave nothing behind.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 900
nb_merge_streams = True
nb_render_markdown_format = "gfm"
# They call `nessampler` as a user would, also where the environment that builds them is not activated.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # a shape such as "n *event" is no reStructuredText
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True
