"""Pure: who the members are, which of them train together, and what that costs."""
