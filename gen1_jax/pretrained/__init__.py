"""Model folders, and importers of public checkpoints."""
