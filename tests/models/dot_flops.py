"""The floating-point operations of a product in a lowered program."""

import re

import numpy as np


def dot_flops(line):
    """2 · outputs · contracted entries of a StableHLO dot_general."""
    left, _, out = (
        [int(d) for d in shape.split("x")[:-1]] for shape in re.findall(r"tensor<([^>]+)>", line)
    )
    contracted = re.search(r"contracting_dims = \[([\d, ]+)\]", line)[1]
    inner = np.prod([left[int(d)] for d in contracted.split(",")])
    return 2 * int(np.prod(out)) * int(inner)
