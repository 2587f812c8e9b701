"""Training as a device does it: the way back through a network, losses, optimizers and epochs."""
