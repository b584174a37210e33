"""What is seen of networks at work, and what it says: statistics of layers, findings, who is sick."""
