# SPDX-License-Identifier: GPL-2.0
"""The configuration of Sphinx; 'make docs' runs it."""

project = "VFIO in Rust"
author = "The VFIO in Rust authors"
copyright = author
# This page is included by another one.
exclude_patterns = ["last-run.rst"]
highlight_language = "none"
html_theme = "alabaster"
html_theme_options = {"page_width": "70em"}
html_show_sourcelink = False
man_pages = [("vfio-rust.7", "vfio-rust", "userspace access to devices, by kernel modules in Rust", author, 7)]
