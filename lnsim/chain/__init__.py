"""The embedded chain: a regtest node whose consensus is Bitcoin Core's own engine."""
