# SPDX-License-Identifier: Apache-2.0
"""Calibrated quantization: canonical float ONNX plus sample inputs -> int8 (in places int16) QDQ ONNX.

`dataset` reads samples, `calibrate` observes values, `ranges` says what of them int8 shall cover, `groups` (with
`functions`) which values share one scale, `scheme` turns ranges into integers, `layers` sees weights as rows,
`plan` holds all of it and `writer` writes the QDQ graph. `equalize`, `bias_correction` and `widen` improve a plan;
`shadow`, `fidelity` and `report` judge one. `quantize` is the way through, `options` what a user chooses.
"""
