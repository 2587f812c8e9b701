"""Source models to Core ML: each frontend reads a file or object into a `Graph`."""
