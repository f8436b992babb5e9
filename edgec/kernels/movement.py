# SPDX-License-Identifier: Apache-2.0
"""Copies on cores that load words from any address: runs by words, planes transposed in blocks."""

from __future__ import annotations

import numpy as np

from edgec.kernels.registry import Call, HandKernel, Packed, hand_kernel

_AXES = 5
"""Axes that edgec_strided_copy_s8_dsp walks: three outer ones, rows, columns."""
_RUN = "movement/copy_run.c"


def merged_axes(shape: list[int], strides: list[int]) -> list[tuple[int, int]]:
    """(size, stride) of the fewest axes that walk a strided copy in the same order; strides in any unit.

    Axes of size 1 go, and two become one where the outer stride is what the inner axis covers.
    """
    axes: list[tuple[int, int]] = []
    for size, stride in zip(shape, strides, strict=True):
        if size == 1:
            continue
        if axes and axes[-1][1] == size * stride:
            axes[-1] = (axes[-1][0] * size, stride)
        else:
            axes.append((size, stride))
    return axes


class _Movement(HandKernel):
    needs = frozenset({"dsp"})

    def accepts(self, call: Call) -> str | None:
        """Any call."""
        return None

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """Nothing."""
        return ()

    def overlap_block_rows(self, call: Call) -> int | None:
        """Element by element."""
        return 0

    def scratch_bytes(self, call: Call) -> int:
        """None."""
        return 0


@hand_kernel
class StridedCopyS8Dsp(_Movement):
    """strided_copy_s8 along at most five axes."""

    name = "strided_copy_s8_dsp"
    op = "strided_copy_s8"
    function = "edgec_strided_copy_s8_dsp"
    sources = ("movement/strided_copy_s8_dsp.c", _RUN)

    def accepts(self, call: Call) -> str | None:
        """See the summary."""
        axes = len(_byte_axes(call))
        return f"{axes} axes, at most {_AXES}" if axes > _AXES else None

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """The axes."""
        axes = _byte_axes(call)
        axes = [(1, 0)] * (_AXES - len(axes)) + axes
        offset = int(call.attrs["offset"]) * np.dtype(call.types["x"].dtype).itemsize
        words = np.array([offset, *(v for axis in axes for v in axis)], np.int32)
        return (Packed("geometry", words, "offset, then size and distance of five axes"),)

    def overlap_block_rows(self, call: Call) -> int | None:
        """Element by element where the last axis is a run; else by blocks of no promised order."""
        axes = _byte_axes(call)
        return 0 if not axes or axes[-1][1] == 1 else None

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        return ("x", "geometry", "y")


@hand_kernel
class ConcatS8Dsp(_Movement):
    """concat_s8 of any rows."""

    name = "concat_s8_dsp"
    op = "concat_s8"
    function = "edgec_concat_s8_dsp"
    sources = ("movement/concat_s8_dsp.c", _RUN)

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        a, b = call.types["a"], call.types["b"]
        return ("a", "b", "y", a.shape[0], a.bytes // a.shape[0], b.bytes // b.shape[0])


@hand_kernel
class TakeS8Dsp(_Movement):
    """take_s8 of any shape."""

    name = "take_s8_dsp"
    op = "take_s8"
    function = "edgec_take_s8_dsp"
    sources = ("movement/take_s8_dsp.c", _RUN)

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """The indices as they are."""
        return (Packed("entries", call.constants["index"], "indices, -1: the fill value"),)

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        count, fill = call.types["index"].shape[0], int(call.constants["params"][0])
        return ("x", "entries", "y", *call.types["x"].shape, count, fill)


@hand_kernel
class EmbeddingS8Dsp(_Movement):
    """embedding_s8 of any table."""

    name = "embedding_s8_dsp"
    op = "embedding_s8"
    function = "edgec_embedding_s8_dsp"
    sources = ("movement/embedding_s8_dsp.c", _RUN)

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """The table, filled up to whole words."""
        table = call.constants["table"].ravel()
        words = np.pad(table, (0, -table.size % 4)).view(np.uint32)
        return (Packed("entries", words, "[entries][width] bytes"),)

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        return ("index", "entries", "y", call.types["index"].shape[0], *call.types["table"].shape)


def _byte_axes(call: Call) -> list[tuple[int, int]]:
    """The axes of a strided copy in bytes; elements of more than one byte are an axis of their own until merged."""
    size = np.dtype(call.types["x"].dtype).itemsize
    shape = [*(int(n) for n in call.attrs["shape"]), size]
    return merged_axes(shape, [*(size * int(s) for s in call.attrs["strides"]), 1])
