"""Where asyncio begins: streams, clock, randomness, configuration, logging, metrics."""
