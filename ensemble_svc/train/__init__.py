"""Training of one slot: a member alone, or a pack of them at once."""
