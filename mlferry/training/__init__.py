"""Training as a device does it: the backward pass, losses, optimizers and epochs."""
