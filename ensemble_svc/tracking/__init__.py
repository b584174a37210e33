"""Finished runs in experiment trackers: MLflow and Weights & Biases, each loaded where a job asks for it."""
