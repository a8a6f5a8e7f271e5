"""What parity tests share: torch modules with random weights, and the one measure of agreement."""

import numpy as np


def randomise(torch_module, seed: int = 0):
    """Random weights everywhere, norms and biases included, so that none can be missed. Returns the module."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in torch_module.named_parameters():
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.normal_(0, fan_in**-0.5, generator=generator)
            else:
                centre = 1.0 if name.endswith("weight") else 0.0
                parameter.normal_(centre, 0.1, generator=generator)
    return torch_module.eval()


def relative_error(ours, theirs) -> float:
    """max|a - b| / max|b|; infinite if anything is not finite."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    return float(error) if np.isfinite(error) else float("inf")
