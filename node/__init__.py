"""The Lightning node: a pure core, and the frontend and backend shells above it."""
