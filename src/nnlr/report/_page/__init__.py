"""The report page: one HTML file of a plan, or of the difference of two, and a notebook's view.

The files beside the modules are templates (``.html``), a style sheet and a script; jinja2 fills
the templates. Data flow: rows -> shared records and bars -> template -> one text in ASCII.
"""
