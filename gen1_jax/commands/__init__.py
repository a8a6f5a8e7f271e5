"""The commands of `gen1`: arguments to calls. Heavy imports happen inside the functions that run."""
