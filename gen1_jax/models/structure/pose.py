"""Poses as structure: skeletons of figures and animals, drawn on black.

Hue tells left (red) from right (blue) and from the middle (green), so that a mirrored picture is that of a mirrored
figure once red and blue are swapped; the share of green tells which limb it is. That is how it differs from "openpose",
the maps of ControlNets, in whose colours only people are drawn.

Worlds have joints exactly (`synthetic.skeletons`). Nothing here estimates them of footage: they are given, as pictures
in these colours (`--structure-from pose=FILE`), say by `draw_bones` of joints of a pose network.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32
from PIL import Image, ImageDraw

from gen1_jax.models.structure.kind import Degraded, Maps
from gen1_jax.models.structure.pictures import PictureKind

LIMBS = ("head", "spine", "tail", "arm", "forearm", "thigh", "shin")
"""What a bone can be; a wing is an arm and a forearm, forelegs and hind legs are thighs and shins."""

SIDES = ("left", "middle", "right")
_FINER = 4  # what lines are drawn at, and averaged from


class Bone(NamedTuple):
    """A line between two joints.

    Attributes:
        start, end: numbers of its joints.
        limb: one of `LIMBS`.
        side: one of `SIDES`, as the figure has it.
    """

    start: int
    end: int
    limb: str
    side: str = "middle"

    @property
    def colour(self) -> tuple[float, float, float]:
        """RGB in [0, 1]; swapping red and blue swaps left and right."""
        red, blue = {"left": (1.0, 0.1), "middle": (0.6, 0.6), "right": (0.1, 1.0)}[self.side]
        return red, LIMBS.index(self.limb) / (len(LIMBS) - 1), blue


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pose(PictureKind):
    """Skeletons. See `StructureKind`."""

    name: str = "pose"
    looks: str = "skeletons on black: red left, blue right, as the figure has them"
    channels: int = 3
    degrades: Degraded = "nothing"

    def transformed(self, maps: Maps, scale: tuple[float, float] = (1.0, 1.0), mirrored: bool = False) -> Maps:
        """Left becomes right where pictures are mirrored: red and blue change places."""
        return maps[..., ::-1] if mirrored else maps


def draw_bones(
    joints: Float[np.ndarray, "t n 3"], bones: Sequence[Bone], size: tuple[int, int]
) -> Float32[np.ndarray, "t H W 3"]:
    """Pictures of skeletons, in [0, 1].

    Args:
        joints: x and y in pixels, and whether each is seen (above 0.5); bones of which an end is not are left out.
        bones: of all figures.
        size: (height, width).
    """
    height, width = size
    thickness = max(1.0, min(size) / 56)
    frames = np.zeros((len(joints), height, width, 3), np.float32)
    for frame, seen in zip(frames, np.asarray(joints, np.float64), strict=True):
        image = Image.new("RGB", (width * _FINER, height * _FINER))
        draw = ImageDraw.Draw(image)
        for bone in bones:
            ends = seen[[bone.start, bone.end]]
            if (ends[:, 2] > 0.5).all():
                points = (ends[:, :2] + 0.5) * _FINER - 0.5
                colour = tuple(round(255 * value) for value in bone.colour)
                draw.line([tuple(point) for point in points], colour, round(thickness * _FINER))
                for x, y in points:
                    r = 0.7 * thickness * _FINER
                    draw.ellipse((x - r, y - r, x + r, y + r), colour)
        frame[:] = np.asarray(image.resize((width, height), Image.Resampling.BOX), np.float32) / 255
    return frames
