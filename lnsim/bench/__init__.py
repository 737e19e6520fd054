"""Benchmarks: each measured against its limit in the same run, so that a slow or busy machine does not blur the verdict."""
