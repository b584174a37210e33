"""A whole ensemble as one network, and the files it is written to."""
