"""Functions over C libraries: keys, BOLT 3 derivation, shachain, Sphinx onions."""

import ctypes
import sys

import wallycore  # noqa: F401 - its binding registers what is kept below

# The binding's destructor reads memory that is gone when the interpreter ends, which turned a clean end into a
# segmentation fault (pytest's, for one). What is never released is never destroyed.
_BINDING = sys.modules["swig_runtime_data4"].type_pointer_capsule
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_BINDING))
