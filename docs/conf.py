"""Sphinx configuration. Build with ``make docs``."""

from cipherlearn import __version__

project = "cipherlearn"
author = "the cipherlearn developers"
copyright = author
release = version = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
default_role = "code"

autodoc_typehints = "none"  # the numpydoc sections give the types
autodoc_preserve_defaults = True
maximum_signature_line_length = 80
add_module_names = False
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False  # the templates choose the members

html_theme = "pydata_sphinx_theme"
html_title = "cipherlearn"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "installation": [], "quickstart": [], "examples": []}
