"""Raw files to Arrow data sets: ``python -m tsmjax.prepare KIND --src PATH --dst DIR``.

A kind is a module of this package with a docstring (its help text), ``add_arguments(parser)`` and
``prepare(source, options) -> (rows, report)``.
"""
