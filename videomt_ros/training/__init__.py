"""Training: data, matching, losses, optimiser, checkpoints and the training loop."""
