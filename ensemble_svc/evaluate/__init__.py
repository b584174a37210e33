"""How good predictions are, and how sure that is. Pure functions of tensors."""
