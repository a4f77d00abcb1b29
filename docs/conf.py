"""Sphinx settings of the documentation: `sphinx-build -W -n -b html docs docs/_build/html`."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import gradstarve  # noqa: E402

project = "gradstarve"
author = "The gradstarve developers"
copyright = "The gradstarve developers, Apache-2.0"
release = version = gradstarve.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "site_parts.docstrings",
    "site_parts.signatures",
    "site_parts.links",
    "site_parts.mathml",
    "site_parts.coverage",
    "site_parts.pages",
    "site_parts.access",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
nitpicky = True
nitpick_ignore = [("py:class", "numpy.dtype")]  # no inventory of NumPy is fetched
smartquotes = False  # docstrings mean the quotes and primes that they have
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
add_module_names = False
python_use_unqualified_type_names = True
autodoc_member_order = "bysource"
# What equinox, tuples, dictionaries and exceptions bring along is documented where they come from.
autodoc_default_options = {"inherited-members": "Module, tuple, dict, BaseException"}

html_theme = "furo"
html_title = "gradstarve"
html_static_path = ["_static"]
html_css_files = ["gradstarve.css"]
html_math_renderer = "mathml"
html_show_sphinx = False
html_copy_source = False
html_show_search_summary = False  # it would fetch pages, which browsers refuse to do from disk
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0060a0", "color-brand-content": "#0060a0"},
    "dark_css_variables": {"color-brand-primary": "#7cc4f5", "color-brand-content": "#7cc4f5"},
    "top_of_page_buttons": [],
}
pygments_style = "default"
pygments_dark_style = "github-dark"
