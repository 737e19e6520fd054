"""Light simulated peers: BOLT 8, BOLT 1 and gossip, no channels, thousands in one process."""
