"""An onion service in front of the simulated node's frontends, in a Tor network of its own."""
