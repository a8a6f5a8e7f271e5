"""The pre-norm transformer layer of CLIP's towers, of the depth network's backbone and of the prior."""

from functools import partial

import jax
from flax import nnx
from jaxtyping import Array, Bool, Float

from gen1_jax.models.attention import Attention
from gen1_jax.models.layers import ONES, Linear, parameter
from gen1_jax.models.norms import LayerNorm

ACTIVATIONS = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
}
"""By transformers' names: the exact (erf) gelu, and OpenAI CLIP's approximation of it."""


class TransformerLayer(nnx.Module):
    """x + self-attention(norm x), then x + MLP(norm x).

    Args:
        features: width of the tokens.
        heads: number of attention heads.
        hidden_features: width inside the MLP.
        epsilon: of both layer norms.
        qkv_bias: biases on the query, key and value projections.
        activation: of the MLP, one of `ACTIVATIONS`.
        layer_scale: whether what each half adds is scaled by a learnt factor a feature (DINOv2;
            https://arxiv.org/abs/2103.17239).
    """

    def __init__(
        self,
        features: int,
        heads: int,
        hidden_features: int,
        *,
        epsilon: float = 1e-5,
        qkv_bias: bool = True,
        activation: str = "gelu",
        layer_scale: bool = False,
    ):
        self.activation = activation
        self.norm1 = LayerNorm(features, epsilon=epsilon)
        self.attention = Attention(features, heads, bias=qkv_bias)
        self.norm2 = LayerNorm(features, epsilon=epsilon)
        self.fc1 = Linear(features, hidden_features)
        self.fc2 = Linear(hidden_features, features)
        self.layer_scale1 = parameter((features,), ONES) if layer_scale else None
        self.layer_scale2 = parameter((features,), ONES) if layer_scale else None

    def __call__(
        self,
        x: Float[Array, "b s c"],
        *,
        mask: Bool[Array, "#b #heads #s s"] | None = None,
        is_causal: bool = False,
    ) -> Float[Array, "b s c"]:
        x = x + _scaled(self.attention(self.norm1(x), mask=mask, is_causal=is_causal), self.layer_scale1)
        return x + _scaled(self.fc2(ACTIVATIONS[self.activation](self.fc1(self.norm2(x)))), self.layer_scale2)


def _scaled(x: Float[Array, "b s c"], scale: nnx.Param | None) -> Float[Array, "b s c"]:
    return x if scale is None else x * scale[...].astype(x.dtype)
