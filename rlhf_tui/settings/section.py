"""What every group of settings is: frozen, and strict about names."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A group of settings. Frozen: a run's settings do not change under it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
