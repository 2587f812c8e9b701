"""Functions of each value, and of values in pairs."""
