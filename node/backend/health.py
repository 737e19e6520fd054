"""Whether a backend can do its work."""

from node.backend.backend import Backend


def complaints(node: Backend) -> list[str]:
    """Why not, for a supervisor's probe and for whoever reads it."""
    if not node.running:
        return [node.waits_for or "not started, or its journal has ended"]
    if node.store.lease_left_s == 0:
        return ["the lease ran out: the database is away, or another backend leads"]
    failure = node.chain.failure
    return [f"the chain can't be followed: {failure}"] if failure else []
