"""ONNX: a traced JAX program as a graph, checked against JAX, with what its users must know."""

from tsmjax.export.onnx.comparison import TOLERANCE, Report, compare, table
from tsmjax.export.onnx.file import OPSETS, save

__all__ = ["OPSETS", "TOLERANCE", "Report", "compare", "save", "table"]
