"""C kernels that walk kept weights only, and their thin binding. numpy and ctypes; no compiler needed to run."""
