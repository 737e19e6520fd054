"""The simulator: loads a clustered Lightning node, breaks it and checks that nothing was lost."""
