"""Train, average, calibrate and honestly measure ensembles of neural networks."""

__version__ = "0.1.0"
