"""A stateless frontend: listener, connections, gossip, uplink."""
