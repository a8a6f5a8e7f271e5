import jax
import numpy as np
import pytest

from gen1_jax.synthetic import CAMERAS, LAYOUTS, MAX_OBJECTS, SHAPE_NAMES, sample_structure
from gen1_jax.synthetic.shapes import SHAPES
from gen1_jax.synthetic.structure import MAX_PARTS


@pytest.fixture(scope="module")
def many():
    return [sample_structure(seed) for seed in range(300)]


def test_every_shape_camera_layout_and_count_appears(many):
    assert {name for s in many for name in s.names} == set(SHAPE_NAMES)
    assert {int(s.camera_kind) for s in many} == set(range(len(CAMERAS)))
    assert {int(s.layout) for s in many} == set(range(len(LAYOUTS)))
    assert {len(s.names) for s in many} == set(range(1, MAX_OBJECTS + 1))
    assert len(SHAPE_NAMES) >= 16


def test_structures_depend_on_the_seed_alone(many):
    again = sample_structure(7)
    for one, other in zip(_leaves(many[7]), _leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)
    assert any(np.any(a != b) for a, b in zip(_leaves(many[7]), _leaves(many[8]), strict=True))


def _leaves(structure):
    return jax.tree.leaves(structure)


def test_all_structures_have_the_same_shapes_and_types(many):
    kinds = {tuple((leaf.shape, str(leaf.dtype)) for leaf in _leaves(s)) for s in many}
    assert len(kinds) == 1


def test_the_largest_scene_fits(many):
    counts = sorted(len(shape.build()) for shape in SHAPES.values())
    largest_set = max(int(np.sum(s.parts.slot[: int(s.parts.count)] == MAX_OBJECTS)) for s in many)
    assert sum(counts[-MAX_OBJECTS:]) + largest_set <= MAX_PARTS


def test_objects_never_meet(many):
    times = np.linspace(0.0, 6.0, 61)
    for structure in many:
        motion = structure.motion
        tracks = []
        for slot in range(len(structure.names)):
            radius, rate, phase = motion.path[slot]
            angle = phase + rate * times
            tracks.append(motion.anchor[slot][[0, 2]] + radius * np.stack([np.cos(angle), np.sin(angle)], -1))
        for a in range(len(tracks)):
            for b in range(a):
                assert np.min(np.linalg.norm(tracks[a] - tracks[b], axis=-1)) > 0.3


def test_names_can_be_chosen_and_wrong_ones_are_refused():
    structure = sample_structure(0, layout="street", camera="pan", shapes=("car", "car"))
    assert structure.names == ("car", "car") and int(structure.layout) == LAYOUTS.index("street")
    assert int(structure.camera_kind) == CAMERAS.index("pan")
    for wrong in ({"layout": "attic"}, {"camera": "drone"}, {"shapes": ("blob",)}):
        with pytest.raises(ValueError, match="unknown name"):
            sample_structure(0, **wrong)
    with pytest.raises(ValueError, match="6 shapes"):
        sample_structure(0, shapes=("car",) * 6)
