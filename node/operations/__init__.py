"""What an operator does besides running processes: look, drain, check a host, make bundles."""
