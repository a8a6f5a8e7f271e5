import jax
import jax.numpy as jnp
import pytest

from gen1_jax.models.flops import count_flops
from gen1_jax.models.module import Bound, abstract_parameters
from gen1_jax.models.vae import AutoencoderKL, VAEConfig


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def test_matrix_products_and_convolutions_by_hand():
    assert count_flops(lambda a, b: a @ b, shape(3, 5), shape(5, 7)) == 2 * 3 * 5 * 7
    assert count_flops(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), shape(4, 3, 5), shape(4, 5, 7)) == 8 * 3 * 5 * 7

    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    assert count_flops(convolve, shape(2, 8, 8, 3), shape(3, 3, 3, 16)) == 2 * (2 * 4 * 4 * 16) * (9 * 3)


def test_loops_and_conditions():
    product = lambda x: x @ x
    one = 2 * 4**3

    def scanned(x):
        return jax.lax.scan(lambda carry, _: (product(carry), None), x, None, length=5)[0]

    assert count_flops(scanned, shape(4, 4)) == 5 * one
    either = lambda x: jax.lax.cond(x.sum() > 0, lambda x: product(product(x)), product, x)
    assert count_flops(jax.jit(either), shape(4, 4)) == 2 * one


def test_gradients_count_twice_more():
    loss = lambda w, x: jnp.square(x @ w).sum()
    forward = count_flops(loss, shape(16, 16), shape(64, 16))
    assert count_flops(jax.grad(loss, argnums=(0, 1)), shape(16, 16), shape(64, 16)) == 3 * forward


def test_attention_counts_as_its_two_products():
    x = shape(2, 10, 4, 8)
    flops = count_flops(lambda q, k, v: jax.nn.dot_product_attention(q, k, v), x, x, x)
    assert flops == 2 * (2 * 2 * 4 * 10 * 10 * 8)


def test_agrees_with_xla_on_a_network_without_custom_calls():
    module = AutoencoderKL(VAEConfig(block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8))
    bound = Bound(module, abstract_parameters(module))
    encode = lambda params, x: bound.apply(params, x, method="encode").mean
    arguments = (bound.params, shape(1, 32, 32, 3))
    theirs = jax.jit(encode).lower(*arguments).cost_analysis()["flops"]  # elementwise operations included
    assert count_flops(encode, *arguments) == pytest.approx(theirs, rel=0.1)
