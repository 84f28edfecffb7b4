"""`import`: images and labels that a function of the user's returns."""

from __future__ import annotations

import contextlib
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate import targets
from ablate.data import parts
from ablate.data.cache import Content, Progress, Source
from ablate.errors import DataError
from ablate.text import cut

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST_SIDE = 4096

SHAPE_HINT = "uint8 images are N×H×W, N×H×W×C or N×C×H×W, with C 1 or 3"


def source(target: str, args: Mapping[str, Any]) -> Source:
    """Return the source of what a function of the user's returns. It may read anything, so it is called each time.

    target: `package.module:function`. args: its arguments.
    """

    def read(_scratch: Path, _progress: Progress) -> Content:
        function = targets.load(target, "data.target")
        arguments = targets.arguments(function, target, args, {}, "data.args")
        with _seeded():
            returned = targets.call(function, target, arguments, "data.target")
        return content(returned, target)

    return Source(("import", target, json.dumps(args, sort_keys=True)), read, is_stable=False)


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Seed the global generators for the time being: what the function draws from them is the same in every command."""
    torch = sys.modules.get("torch")
    before = random.getstate(), np.random.get_state(), torch and torch.get_rng_state()  # noqa: NPY002
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    if torch is not None:
        torch.default_generator.manual_seed(0)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        if torch is not None:
            torch.set_rng_state(before[2])


def content(returned: Any, target: str) -> Content:
    """Check what a function returned, and put its parts together. Raises DataError.

    returned: a dict of `train`, and where there are such `validation` and `test`, each a pair of images and labels; and `classes`,
    the names of the classes in order, where they have some.
    """
    if not isinstance(returned, Mapping) or "train" not in returned:
        raise DataError(
            f"{target} returned {_described(returned)}",
            place="data.target",
            hint="a dict belongs there: {'train': (images, labels), 'test': (images, labels)}; `validation` and `classes` may be"
            " there too",
        )
    images: dict[str, NDArray[np.uint8]] = {}
    labels: dict[str, Sequence[int]] = {}
    for name, pair in returned.items():
        if name == "classes" or pair is None:
            continue
        part = parts.part_of(str(name))
        if part is None:
            raise DataError(
                f"{target} returned {cut(str(name))!r}",
                place="data.target",
                hint="its parts are called train, validation and test, and the names of the classes `classes`",
            )
        if not isinstance(pair, tuple | list) or len(pair) != 2 or part in images:
            raise DataError(f"`{name}` should be a pair of images and labels", place="data.target")
        images[part] = _images(pair[0], name)
        labels[part] = _labels(pair[1], len(images[part]), name)
    shapes = {name: each.shape[1:] for name, each in images.items()}
    if len(set(shapes.values())) > 1:
        described = ", ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in shapes.items())
        raise DataError(
            f"the parts have images of different shapes (channels, height, width): {described}",
            place="data.target",
        )
    names = returned.get("classes")
    if names is not None and not (
        isinstance(names, Sequence) and not isinstance(names, str) and all(isinstance(n, str) for n in names)
    ):
        raise DataError("`classes` should be a list of names", place="data.target")
    numbers, classes = parts.indices(labels, names, "data.target")
    arranged = parts.arrange(numbers, classes, "data.target")
    present = [part for part in parts.PARTS if part in images]
    every = np.concatenate([images[part] for part in present])[arranged.order]
    truth = np.concatenate([numbers[part] for part in present])[arranged.order]
    cut_at = len(every) - arranged.test
    return Content(
        *(every[:cut_at], truth[:cut_at], every[cut_at:], truth[cut_at:], classes),
        validation=arranged.validation,
        notes=(*arranged.notes, *parts.lacking_classes(numbers, classes)),
    )


def _images(value: Any, name: str) -> NDArray[np.uint8]:
    """Return images as (N, C, H, W). Raises DataError."""
    array = _array(value)
    if array is None or array.dtype != np.uint8:
        hint = SHAPE_HINT
        if array is not None and array.dtype.kind == "f":
            hint += "; floats in [0, 1] are `(255 * images).round().astype('uint8')`"
        raise DataError(
            f"the images of `{name}` are {_described(value)}, not uint8", place="data.target", hint=hint
        )
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3) and array.shape[1] not in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    elif array.ndim == 4 and array.shape[3] in (1, 3) and array.shape[1] in (1, 3):
        raise DataError(
            f"the images of `{name}` are {_described(value)}: it cannot be told which side are the channels",
            place="data.target",
            hint="return grey images as N×H×W, and let images be more than 3 pixels wide and high",
        )
    if array.ndim != 4 or array.shape[1] not in (1, 3) or 0 in array.shape:
        raise DataError(
            f"the images of `{name}` are {_described(value)}", place="data.target", hint=SHAPE_HINT
        )
    if max(array.shape[2:]) > LARGEST_SIDE:
        raise DataError(
            f"the images of `{name}` are {_described(value)}; at most {LARGEST_SIDE:,} pixels wide and high",
            place="data.target",
        )
    return array


def _labels(value: Any, count: int, name: str) -> Sequence[int]:
    array = _array(value)
    if array is not None and array.dtype.hasobject and {type(each) for each in array.flat} in ({str}, {int}):
        array = _array(array.tolist())  # a column of pandas
    if array is None or array.shape != (count,) or array.dtype.kind not in "iuU":
        raise DataError(
            f"the labels of `{name}` are {_described(value)}",
            place="data.target",
            hint=f"for its {count:,} images a list of {count:,} whole numbers or texts belongs there",
        )
    return array.tolist()  # type: ignore[no-any-return]


def _array(value: Any) -> NDArray[Any] | None:
    """Return an array, a tensor or a list as an array; None where it is none."""
    try:
        return np.asarray(value)
    except Exception:  # noqa: BLE001 — tensors on a device, ragged lists, anything
        return None


def _described(value: Any) -> str:
    """Return what a value is: its type, shape and kind of numbers."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        return f"{'×'.join(map(str, shape)) or 'a single number'} of {dtype}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(repr, list(value)[:5]))}"
    return type(value).__name__
