"""The base of every configuration block: frozen, strict, finite."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Block(BaseModel):
    """A block of configuration fields.

    Strict, because YAML's `true` must not pass for a number; finite, because NaN compares with nothing; closed, because
    a misspelt key that is ignored is an experiment that did not happen. Every field carries a description: the reference
    is generated from them.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True
    )
