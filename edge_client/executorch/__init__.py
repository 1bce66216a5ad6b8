"""The C++ runtime inside the executorch wheel, behind a shim of our own: no torch, no Python module of executorch."""
