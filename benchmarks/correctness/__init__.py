"""What is computed here against independent implementations: ``python -m benchmarks.correctness`` writes
``docs/correctness.md``."""
