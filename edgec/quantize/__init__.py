# SPDX-License-Identifier: Apache-2.0
"""Calibrated quantization: canonical float ONNX plus sample inputs -> int8 QDQ ONNX.

`dataset` reads samples, `calibrate` observes ranges, `groups` says which values share one scale, `scheme`
turns ranges into integers, `quantize` writes the QDQ graph.
"""
