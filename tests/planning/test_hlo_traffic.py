"""Sizes by hand: f32[256] is 1 KiB, S(1) is on chip."""

import pytest

from gen1_jax.planning.hlo_traffic import read_hbm_bytes

_TEXT = """HloModule m, num_partitions=1

%body (p: (s32[], f32[256])) -> (s32[], f32[256]) {
  %p = (s32[], f32[256]{0}) parameter(0)
  %i = s32[]{:S(2)} get-tuple-element(%p), index=0
  %x = f32[256]{0:T(256)} get-tuple-element(%p), index=1
  %start = ((f32[256]{0:T(256)}), f32[128]{0:T(256)S(1)}, s32[]{:S(2)}) slice-start(%x), slice={[0:128]}
  %half = f32[128]{0:T(256)S(1)} slice-done(%start)
  %inside = f32[128]{0:T(256)S(1)} fusion(%half), kind=kLoop, calls=%f
  %y = f32[256]{0:T(256)} fusion(%x, %inside), kind=kLoop, calls=%f
  ROOT %t = (s32[], f32[256]{0}) tuple(%i, %y)
}

%cond (p: (s32[], f32[256])) -> pred[] {
  %p = (s32[], f32[256]{0}) parameter(0)
  ROOT %c = pred[] custom-call(%p)
}

ENTRY %main (a: f32[256]) -> f32[256] {
  %a = f32[256]{0:T(256)} parameter(0)
  %copy-start = (f32[256]{0:T(256)S(1)}, f32[256]{0:T(256)}, u32[]{:S(2)}) copy-start(%a)
  %b = f32[256]{0:T(256)S(1)} copy-done(%copy-start)
  %u = f32[64]{0:T(256)} dynamic-slice(%a, %b)
  %z = (s32[], f32[256]{0}) tuple(%a, %a)
  %w = (s32[], f32[256]{0}) while(%z), condition=%cond, body=%bodyTRIPS
  ROOT %r = f32[256]{0:T(256)} get-tuple-element(%w), index=1
}
"""

# a copy to the chip reads 1024; a slice of a quarter reads and writes 256; of each pass of the loop half of x is
# fetched (512), and the second fusion reads and writes 1024
_OUTSIDE, _PASS = 1024 + 512, 512 + 2048


@pytest.mark.parametrize(
    ("stated", "unknown", "passes"),
    [(', backend_config={"known_trip_count":{"n":"7"}}', 3, 7), ("", 3, 3), ("", 1, 1)],
)
def test_only_hbm_counts_and_loops_count_as_often_as_they_run(stated, unknown, passes):
    assert read_hbm_bytes(_TEXT.replace("TRIPS", stated), unknown) == _OUTSIDE + passes * _PASS


def test_other_text_is_refused():
    with pytest.raises(ValueError, match="HLO"):
        read_hbm_bytes("nothing of the kind")
