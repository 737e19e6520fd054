"""Relaying, sending and receiving payments; invoices."""
