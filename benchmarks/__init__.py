"""Ours beside what people use: the same members, data and steps, timed in fresh processes on one machine."""
