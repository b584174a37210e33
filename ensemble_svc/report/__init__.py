"""One page that says what a run found: HTML with plots, from plain values, needing no network."""
