"""Values of eight bits that stand for others."""
