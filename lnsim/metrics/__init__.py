"""What a run measures: counters, latencies that can be merged, time series, and what happened when."""
