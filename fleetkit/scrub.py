"""Known secret values, and removing them from everything that leaves a process."""

from typing import Any, cast

MASK = "[secret]"


class Scrubber:
    """Holds the values that must not leave and masks them in text and JSON-like data."""

    def __init__(self) -> None:
        self._forms: set[str] = set()

    def add(self, value: str) -> None:
        """Mask `value` from now on."""
        self._forms.add(value)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to mask."""
        return not self._forms

    def text(self, text: str) -> str:
        """`text` with every known value masked."""
        for form in self._forms:
            text = text.replace(form, MASK)
        return text

    def data(self, value: Any) -> Any:
        """A JSON-like value with every known value masked in its strings."""
        if not self._forms:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            pairs = cast("dict[str, Any]", value).items()
            return {self.text(key): self.data(item) for key, item in pairs}
        if isinstance(value, list):
            return [self.data(item) for item in cast("list[Any]", value)]
        return value


scrubber = Scrubber()
