# SPDX-License-Identifier: Apache-2.0
"""Sample files: npz arrays by model input name, leading axis = samples (steps of one stream if stateful)."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgec.errors import UsageError

if TYPE_CHECKING:
    from edgec.model import TensorInfo


def load_samples(path: Path | str, infos: Sequence[TensorInfo]) -> dict[str, np.ndarray]:
    """Read an npz file of samples for the model inputs `infos` (state inputs not among them).

    Args:
        path: the npz file; pickled (object) arrays are refused.
        infos: name, ONNX shape and dtype of every input that must be given.

    Returns:
        For every input an array `[S, *onnx_shape]` in the input's dtype, S >= 1 the same for all; see
        `check_samples`.

    Raises:
        UsageError: the file cannot be read, or its arrays do not match the inputs.
    """
    return check_samples(read_npz(Path(path)), infos, source=str(path))


def check_samples(
    arrays: Mapping[str, np.ndarray], infos: Sequence[TensorInfo], *, source: str = "samples"
) -> dict[str, np.ndarray]:
    """Check names, shapes, types and values of sample arrays and bring them to `[S, *onnx_shape]`.

    The shape after the leading sample axis is the ONNX shape, with or without its leading batch dimension of
    1. Integers, bool and float16 become the input's dtype where that is exact; float64 is rounded to float32.

    Args:
        arrays: arrays keyed by input name.
        infos: the inputs that must be given, no more and no less.
        source: where the arrays came from, for messages.

    Raises:
        UsageError: wrong names, shapes, types, not finite, no sample, or different sample counts.
    """
    _check_names(arrays, infos, source)
    samples = {info.name: _as_samples(np.asarray(arrays[info.name]), info, source) for info in infos}
    counts = {name: len(a) for name, a in samples.items()}
    if len(set(counts.values())) > 1:
        raise UsageError(
            f"{source}: the inputs have different numbers of samples",
            need="the same leading axis in every array",
            have=", ".join(f"{name}: {n}" for name, n in counts.items()),
        )
    return samples


def sha256_of(samples: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of the arrays, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(samples):
        array = np.ascontiguousarray(samples[name])
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file by name; pickled (object) arrays are refused.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise UsageError(
                f"{path} is not an npz file",
                need="an npz archive with one array per model input",
                have="a single npy array",
                hint="numpy.savez(path, input_name=array)",
            )
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist") from error
    except (OSError, EOFError, ValueError, KeyError, SyntaxError, NotImplementedError, RuntimeError,
            zipfile.BadZipFile, zlib.error, MemoryError) as error:  # fmt: skip
        if "allow_pickle" in str(error) and zipfile.is_zipfile(path):
            raise UsageError(
                f"{path} holds pickled Python objects, which are never loaded",
                need="numeric arrays",
                hint="save arrays of one shape and a numeric dtype with numpy.savez",
            ) from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"{path} is not a readable npz file: {reason}",
            need="an npz archive with one array per model input",
            hint="numpy.savez(path, input_name=array)",
        ) from error


def _check_names(arrays: Mapping[str, np.ndarray], infos: Sequence[TensorInfo], source: str) -> None:
    wanted = [info.name for info in infos]
    missing = [name for name in wanted if name not in arrays]
    extra = [name for name in arrays if name not in wanted]
    if not missing and not extra:
        return
    faults = [f"missing {', '.join(missing)}"] if missing else []
    faults += [f"not inputs of the model: {', '.join(extra)}"] if extra else []
    raise UsageError(
        f"{source}: the array names do not match the model's inputs ({'; '.join(faults)})",
        need=", ".join(wanted) or "no array",
        have=", ".join(arrays) or "no array",
        hint="state inputs are not given: the model feeds them back itself" if extra else None,
    )


def _as_samples(array: np.ndarray, info: TensorInfo, source: str) -> np.ndarray:
    where = f"{source}: array {info.name}"
    shape = tuple(info.shape)
    accepted = [shape]
    if shape[:1] == (1,):
        accepted.insert(0, shape[1:])
    if array.ndim == 0 or array.shape[1:] not in accepted:
        raise UsageError(
            f"{where} has the wrong shape",
            need=" or ".join(_shape_text(("samples", *s)) for s in accepted),
            have=_shape_text(array.shape),
        )
    if len(array) == 0:
        raise UsageError(f"{where} has no sample", need="at least 1", have="0")
    return _convert(array, np.dtype(info.dtype), where).reshape(len(array), *shape)


def _convert(array: np.ndarray, dtype: np.dtype, where: str) -> np.ndarray:
    if array.dtype.kind not in "fiub":
        raise UsageError(f"{where} is not numeric", need=str(dtype), have=str(array.dtype))
    if array.dtype.kind == "f":
        _check_finite(array, where)
    with np.errstate(all="ignore"):
        result = array.astype(dtype)
    if result.dtype.kind == "f":
        _check_finite(result, f"{where}, as {dtype},")
    rounding_is_fine = array.dtype.kind == "f" and dtype.kind == "f"
    if not rounding_is_fine:
        with np.errstate(all="ignore"):
            # 2^63 as float and INT64_MAX as int compare unequal only in the source's own type.
            wrong = np.argwhere((result.astype(array.dtype) != array) | ((result < 0) != (array < 0)))
        if len(wrong):
            index = tuple(int(i) for i in wrong[0])
            raise UsageError(
                f"{where} cannot be converted to {dtype} exactly",
                need=f"values that {dtype} can hold",
                have=f"{array[index]} ({array.dtype}) at index {list(index)}",
            )
    return result


def _check_finite(array: np.ndarray, where: str) -> None:
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        index = tuple(int(i) for i in bad[0])
        raise UsageError(f"{where} is not finite", need="finite numbers", have=f"{array[index]} at index {list(index)}")


def _shape_text(shape: Sequence[int | str]) -> str:
    return "[" + ", ".join(str(d) for d in shape) + "]"
