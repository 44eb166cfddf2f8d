"""What two processes tell each other; each prints what it heard as one line of JSON."""

import json
import time

import jax
import numpy as np

from tsmjax import distributed
from tsmjax.errors import HostError

distributed.start({})
me = jax.process_index()
heard = {
    "table": len(distributed.table().rows),
    "gathered": distributed.gather({"process": me}, "numbers"),
    "again": distributed.gather(-me, "numbers"),
    "told": distributed.broadcast(f"from {me}", "news"),
}
# 1e-17 would be lost in float32; process 1 alone has the part 1, both have the part 0 below.
mine = {"big": np.array([1.0, 1e-17]) * (1 + me), "one": np.float64(me)}
heard["added"] = {k: v.tolist() for k, v in distributed.add(mine, (0, 1)).items()}
heard["once"] = {k: v.tolist() for k, v in distributed.add(mine, (0, 0)).items()}
if me == 0:
    try:
        distributed.barrier("the bridge", seconds=1)
    except HostError as error:
        heard["missing"] = str(error)
else:
    time.sleep(3)
print(json.dumps(heard), flush=True)
