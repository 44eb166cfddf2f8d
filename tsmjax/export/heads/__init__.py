"""What of each family is exported: a module a family, found by its name.

A module has a function ``head(path, **options) -> Head``; its keyword arguments are the options of
the command. A family outside tsmjax brings a module ``FAMILY_head`` on the Python path.
"""
