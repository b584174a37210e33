"""Train, average, calibrate and honestly measure ensembles of neural networks."""

import os

__version__ = "0.1.0"

# Before torch loads its thread pool: idle threads sleep instead of spinning. On a machine that does
# anything else besides, two spinning threads made a pack of small networks four times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
