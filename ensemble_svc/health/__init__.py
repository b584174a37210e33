"""Babysitting: what a network does before it is trained, and what is wrong with it."""
