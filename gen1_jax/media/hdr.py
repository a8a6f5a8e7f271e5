"""Pictures brighter than white, as phones and cameras film them (PQ, HLG), brought to what an sRGB screen shows.

signal ──EOTF──► nits, BT.2020 ──matrix──► BT.709, 1 = white ──what is above white is rolled off──► sRGB
"""

from functools import lru_cache

import numpy as np
from av.video.reformatter import ColorTrc
from jaxtyping import Float32, UInt8, UInt16

TRANSFERS = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)
"""PQ and HLG: ITU-R BT.2100-2, tables 4 and 5."""

_WHITE = 203.0  # nits of diffuse white: ITU-R BT.2408, table 1
_PEAK = 1000.0  # nits of the screen that HLG is shown on, and that most PQ is made for
_KNEE = 0.7  # of white; what is darker keeps its brightness
_TO_709 = np.array(  # ITU-R BT.2087, from the primaries of BT.2020 to those of BT.709, linear light
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020
_STEPS = 4096  # of the table that ends in 8 bits


def to_sdr(signal: UInt16[np.ndarray, "h w 3"], transfer: int) -> UInt8[np.ndarray, "h w 3"]:
    """Full-range RGB of BT.2020 as sRGB; `transfer` is one of `TRANSFERS`."""
    linear = _light(transfer)[signal]
    if transfer == ColorTrc.ARIB_STD_B67:  # the light of the scene; a screen of 1000 nits shows it steeper
        linear *= _PEAK / _WHITE * np.maximum(linear @ _LUMINANCE, 1e-6)[..., None] ** 0.2
    linear = np.maximum(linear @ _TO_709.T, 0)
    brightest = linear.max(axis=-1, keepdims=True)
    linear *= np.divide(_rolled_off(brightest), brightest, out=np.ones_like(brightest), where=brightest > 0)
    # By the square root, so that dark steps are as fine as those of the eye.
    return _srgb()[np.rint(np.sqrt(np.minimum(linear, 1)) * _STEPS).astype(np.int32)]


def _rolled_off(light: Float32[np.ndarray, "*dims"]) -> Float32[np.ndarray, "*dims"]:
    """All of 0 to the peak into 0 to 1: straight up to the knee, then Reinhard's curve, whose slope begins as 1."""
    over = np.maximum(light - _KNEE, 0) / (1 - _KNEE)
    most = (_PEAK / _WHITE - _KNEE) / (1 - _KNEE)
    return np.minimum(light, _KNEE) + (1 - _KNEE) * np.minimum(over * (1 + over / most**2) / (1 + over), 1)


@lru_cache
def _light(transfer: int) -> Float32[np.ndarray, "65536"]:
    """Linear light of every signal: of the screen for PQ, 1 is white; of the scene for HLG, 0 to 1."""
    signal = np.arange(65536) / 65535
    if transfer == ColorTrc.SMPTE2084:
        power = signal ** (32 / 2523)
        light = (np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)) ** (16384 / 2610)
        return (light * 10_000 / _WHITE).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(np.float32)


@lru_cache
def _srgb() -> UInt8[np.ndarray, "4097"]:
    """The bytes of the squares of 0 to 1 in equal steps: IEC 61966-2-1."""
    light = (np.arange(_STEPS + 1) / _STEPS) ** 2
    return np.rint(255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)).astype(
        np.uint8
    )
