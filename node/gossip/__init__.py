"""The public graph: validation, queries, rebroadcast, route finding."""
