"""Onion services in front of a node's frontends, through a Tor daemon's control connection."""
