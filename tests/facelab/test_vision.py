"""torchvision and timm can be imported, and only when they are needed."""

import subprocess
import sys

from facelab.vision import load_timm, load_torchvision


def test_transforms_and_models_work() -> None:
    torchvision = load_torchvision()
    assert torchvision is sys.modules["torchvision"]
    assert hasattr(torchvision, "transforms")
    assert load_timm().is_model("resnet18")


def test_backbones_do_not_import_timm_before_one_is_built() -> None:
    code = (
        "import sys; from facelab.backbone.base import BACKBONES; BACKBONES.names(); "
        "assert not {'timm', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
