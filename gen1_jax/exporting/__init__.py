"""Models for other programs: formats to export to, each compared with the JAX model before it takes its name."""
