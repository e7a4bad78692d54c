"""Models for programs without facelab: ONNX, OpenVINO and TorchScript, checked against what they come from."""
