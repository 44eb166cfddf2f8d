"""What of each family is exported: a module a family, found by its name.

A module has a function ``head(path, **options) -> Head``; its keyword arguments are the options of
the command. Where it takes `single`, for one row a call, and labels examples, the model is also
exported in 8 bits and for LiteRT. A family outside tsmjax brings a module ``FAMILY_head`` on the
Python path.
"""
