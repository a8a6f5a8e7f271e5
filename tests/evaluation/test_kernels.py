"""What each operation takes: its kind, and sums over runs."""

import pytest

from gen1_jax.evaluation import kernels


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("cudnn-conv-bw-filter.3", "sm90_xmma_wgrad_implicit_gemm"), "convolutions"),
        (("__cudnn$fmhaSoftmax fmha.2", "cudnn_generated_flash_fprop"), "attention"),
        (("fused", "nvjet_sm90_tst_128x160_64x5"), "products"),
        (("gemm_fusion_dot.12", "gemm_fusion_dot_12"), "products"),
        (("input_add_reduce_fusion.4", "x"), "reductions"),
        (("loop_convert_fusion", "x"), "elementwise"),  # and no convolution
        (("wrapped_transpose.2", "x"), "transposes"),
        (("x", "MemcpyD2D"), "copies"),
        (("loop_add_multiply_fusion", "loop_add_multiply_fusion"), "elementwise"),
    ],
)
def test_an_operation_is_of_the_kind_that_its_names_tell(names, kind):
    assert kernels.kind_of(*names) == kind


def test_operations_are_joined_with_what_the_program_says_of_them():
    text = (
        '  %fusion.3 = bf16[8,4]{1,0} fusion(%a), kind=kLoop, metadata={op_name="jit(f)/mul"}\n'
        '  %call.1 = f32[2]{0} custom-call(%a), custom_call_target="__cublas$gemm"\n'
        "  %while.7 = (s32[], f32[2]) while(%a), condition=%c, body=%b\n"
    )
    events = [
        ("fusion.3", "fusion_3", 2e6),
        ("fusion.3", "fusion_3", 4e6),
        ("call.1", "xyz", 9e6),
        ("while.7", "w", 1e9),
    ]
    first, second = kernels._operations(events, kernels._instructions(text), runs=2)
    assert (first.name, first.kind, first.milliseconds, first.kernels) == ("call.1", "products", 4.5, 0.5)
    assert (second.milliseconds, second.kernels, second.shape, second.source) == (
        3.0,
        1.0,
        "bf16[8,4]{1,0}",
        "jit(f)/mul",
    )
    head, one, *_ = kernels.render_kinds([first, second])
    assert one.split() == ["products", "4.50", "60.0%", "0"] and "share" in head
