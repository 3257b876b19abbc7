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
    "myst_parser",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
# The gallery's pages include what these would say again.
exclude_patterns = ["_build", "gallery/*.ipynb", "gallery/*.py"]
default_role = "code"
# A sphinx-gallery configuration holds what cannot be pickled.
suppress_warnings = ["config.cache"]

autodoc_typehints = "none"  # the numpydoc sections give the types
# Not autodoc_preserve_defaults: a signature made of two constructors has no source of its own.
maximum_signature_line_length = 80
add_module_names = False
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False  # the templates choose the members

sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "backreferences_dir": "gallery/backreferences",
    "doc_module": ("cipherlearn",),
    "reference_url": {"cipherlearn": None},
    "image_srcset": ["2x"],
    "remove_config_comments": True,
    # Tables, not what a line that draws happens to return.
    "capture_repr": ("_repr_html_",),
    "show_signature": False,
    "write_computation_times": False,
    "min_reported_time": 1,
    "download_all_examples": False,
}

# Prompts are no part of what a reader wants to run.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "pydata_sphinx_theme"
html_title = "cipherlearn"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "header_links_before_dropdown": 6,
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {
    "index": [],
    "installation": [],
    "quickstart": [],
    "changelog": [],
    "comparison": [],
    "examples": [],
    "faq": [],
    "migration": [],
    "gallery/index": [],
}
