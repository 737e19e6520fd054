"""Whether a frontend should be sent peers."""

from node.frontend.frontend import Frontend


def complaints(frontend: Frontend) -> list[str]:
    """Why not, for a load balancer's probe and for whoever reads it."""
    uplink, found = frontend.uplink, []
    if uplink.welcomed is None:
        found.append(
            f"the backend refuses: {uplink.rejected}" if uplink.rejected else "no link to the backend"
        )
    if not frontend.gossip.current:
        found.append("the graph is not current")
    if frontend.draining is not None:
        found.append(f"draining, {len(frontend.connections)} sessions are left")
    if not found and not frontend.listening.is_set():
        found.append("the port is not open")
    return found
