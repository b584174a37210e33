"""The run folder: atomic, hashed, versioned; its journal is the truth about a run."""
