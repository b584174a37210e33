"""What the report draws besides the metrics: curves, matrices and single rows, small enough to keep with the run."""
