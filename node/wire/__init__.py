"""Bytes and frozen values: the codec engine, the messages of BOLTs 1, 2, 4 and 7, features."""
