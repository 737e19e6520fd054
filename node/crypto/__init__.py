"""Functions over C libraries: keys, BOLT 3 derivation, shachain, Sphinx onions."""
