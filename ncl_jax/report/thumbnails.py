"""Pictures of a data set on a page: each is stored once, as a rule of the style sheet, however often it is shown."""

from collections.abc import Mapping
from html import escape

from ncl_jax.data.images import thumbnails
from ncl_jax.data.types import Split
from ncl_jax.errors import DataError
from ncl_jax.report.album import element, style_rule
from ncl_jax.report.html import Html

LONGEST = 112  # pixels of a picture's longer side


class Thumbnails:
    """The pictures of a page, as far as it has room for them.

    Args:
      splits: of the data, by name.
      room: bytes that they may take.
    """

    def __init__(self, splits: Mapping[str, Split], room: int):
        self._splits, self.room = splits, room
        self._rules: dict[tuple[str, int], str] = {}

    def show(self, split: str, row: int, words: str) -> Html:
        """A picture that `words` describe; the words alone where it cannot be read, or there is no room."""
        key = split, int(row)
        if key not in self._rules:
            self._rules[key] = self._rule(*key)
        if not self._rules[key]:
            return Html(f'<i class="t soft">{escape(words)}</i>')
        return element(self._name(*key), words)

    def style(self) -> Html:
        """The rules of the pictures that were shown."""
        return Html(f"<style>{''.join(self._rules.values())}</style>")

    def _name(self, split, row):
        return f"i{list(self._splits).index(split)}-{row:x}"

    def _rule(self, split, row):
        try:
            content = thumbnails.jpeg(self._splits[split].images, row, LONGEST)
        except DataError:
            return ""
        rule = style_rule(self._name(split, row), content)
        if len(rule) > self.room:
            return ""
        self.room -= len(rule)
        return rule
