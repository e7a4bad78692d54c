"""A transform says what it is when its class is made."""

import pytest
from torch import Tensor

from facelab.data.transforms.base import Stage, Transform
from facelab.data.transforms.draws import Draws
from facelab.errors import ConfigError


@pytest.mark.parametrize("missing", ["stage", "changes_quality", "moves_keypoints"])
def test_a_transform_must_declare_what_it_changes(missing: str) -> None:
    declared = {"stage": Stage.LIGHT, "changes_quality": False, "moves_keypoints": False}
    declared.pop(missing)
    with pytest.raises(ConfigError, match=f"the transform Silent must declare '{missing}'"):
        type("Silent", (Transform,), declared)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [({"stage": "light"}, "a Stage"), ({"stage": 3}, "a Stage"), ({"changes_quality": "no"}, "a bool")],
)
def test_a_declaration_of_another_kind_is_refused(wrong: dict[str, object], kind: str) -> None:
    declared = {"stage": Stage.LIGHT, "changes_quality": False, "moves_keypoints": False}
    ((name, value),) = wrong.items()
    with pytest.raises(ConfigError, match=f"the transform Odd declares '{name}' as {value!r}, which is not {kind}"):
        type("Odd", (Transform,), declared | wrong)


def test_one_that_moves_keypoints_must_say_where_to() -> None:
    with pytest.raises(ConfigError, match="the transform Turn moves keypoints, so it must override the method keypo"):

        class Turn(Transform):
            stage, changes_quality, moves_keypoints = Stage.GEOMETRY, False, True

            def image(self, image: Tensor, draw: Draws) -> Tensor:
                return image
