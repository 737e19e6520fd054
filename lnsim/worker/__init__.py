"""Simulated peers by the hundred in one process: nodes, light peers, and the handles by which a stage commands them."""
