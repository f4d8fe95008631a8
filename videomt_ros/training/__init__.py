"""Training: clips, matching, losses, schedule and the loop."""
