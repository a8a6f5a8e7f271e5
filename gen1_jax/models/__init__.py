"""Networks: they know nothing of meshes, files or samplers."""
