"""From many members' predictions to one, and what their disagreement says. Pure functions of tensors."""
