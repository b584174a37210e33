"""The report's plots: each a function from a view of the run to a figure."""
