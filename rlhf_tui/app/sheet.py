"""A stylesheet that is parsed when it has changed.

Textual parses the whole of it at every refresh: four times until the first screen is drawn, and once more for each
screen that is opened for the first time, although nothing but the new screen's rules is new.
"""

from __future__ import annotations

from textual.css.stylesheet import Stylesheet


class Sheet(Stylesheet):
    """Textual's stylesheet, which keeps what it has parsed as long as the variables are the same."""

    def __init__(self, *, variables: dict[str, str] | None = None) -> None:
        """`variables` are the colours of the theme, by name."""
        super().__init__(variables=variables)
        self._parsed_with = dict(variables or {})

    def set_variables(self, variables: dict[str, str]) -> None:
        """Forget what was parsed, if these are others."""
        if variables != self._parsed_with:
            self._parsed_with = dict(variables)
            super().set_variables(variables)

    def reparse(self) -> None:
        """Parse what has not been parsed with these variables."""
        self.parse()
