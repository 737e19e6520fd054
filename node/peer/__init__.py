"""BOLT 8 transport and BOLT 1 session, sans-IO: bytes in, messages out."""
