"""One Python file per experiment; the command that runs it is in its docstring."""
