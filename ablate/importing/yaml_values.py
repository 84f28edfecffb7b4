"""YAML of other programs → plain values, in the time that its text is worth: aliases of YAML multiply."""

from __future__ import annotations

from typing import Any

MOST_NODES = 100_000
MOST_DEPTH = 50


def load(text: str) -> Any:
    """Return the values of a YAML text; None of an empty one.

    Raises ValueError where it is no YAML, names objects of Python's, or stands for more values, or deeper ones, than settings have.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def fetch_flow_collection_start(self, kind: Any) -> None:
            # Before PyYAML spends a time that grows with the square of the depth.
            if self.flow_level > MOST_DEPTH:
                raise RecursionError
            super().fetch_flow_collection_start(kind)

    try:
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _count(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError, LookupError, TypeError, AttributeError, OverflowError) as error:
        # PyYAML lets most of them through where a tag and its value disagree (`!!bool maybe`).
        raise ValueError(str(error) or type(error).__name__) from None


def _count(root: Any) -> None:
    """Raise ValueError where there are too many nodes, with aliases unfolded, or too deep ones."""
    left = [(root, 0)]
    number = 0
    while left:
        node, depth = left.pop()
        number += 1
        if number > MOST_NODES or depth > MOST_DEPTH:
            raise ValueError("more values than settings have")
        if not isinstance(node.value, str):
            for inner in node.value:
                left += [(part, depth + 1) for part in (inner if isinstance(inner, tuple) else (inner,))]
