"""Raw files to Arrow data sets: ``python -m tsmjax.prepare KIND --src PATH --dst DIR``.

A kind is a module of this package, or one of one's own on the Python path, with a docstring (its
help text), ``add_arguments(parser)`` and ``prepare(path, options) -> (rows, report)``. Where
sources need not be local paths it also has ``locate(source, options) -> path``. `benchmark` and
`synthetic` are commands of their own, with a `run`; ``--report`` is one that looks at finished data
sets (`quality`).
"""
