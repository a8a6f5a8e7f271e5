"""What a run leaves behind and is taken up from: checkpoints, its other files, and the model that they make."""
