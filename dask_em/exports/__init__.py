"""Fitted models in the languages of other programs: ONNX, SQL and JSON."""
