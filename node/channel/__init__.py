"""BOLT 2 channels as a pure function: step(channel, event) -> (channel, effects)."""
