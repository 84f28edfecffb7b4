"""The base of every configuration block: frozen, strict, finite."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Block(BaseModel):
    """A block of configuration fields.

    Strict, because YAML's `true` is no number; finite, because no comparison with NaN is true; without unknown keys, because
    a misspelt key that is ignored makes another experiment than the one that was meant. Every field has a description: the
    documentation of the fields is generated from them.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True
    )
