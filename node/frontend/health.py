"""Whether a frontend should be sent peers."""

from node.frontend.frontend import Frontend


def complaints(frontend: Frontend) -> list[str]:
    """Why not, for a load balancer's probe and for whoever reads it."""
    uplink, found = frontend.uplink, []
    if uplink.welcomed is None:
        away = f"backend away, {frontend.held} sessions held"
        found.append(f"the backend refuses: {uplink.rejected}; {away}" if uplink.rejected else away)
    if not frontend.gossip.current:
        found.append("the graph is not current")
    if frontend.draining is not None:
        found.append(f"draining, {len(frontend.connections)} sessions are left")
    if not found and not frontend.listening.is_set():
        found.append("the port is not open")
    return found
