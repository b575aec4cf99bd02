"""Pictures of a data set on a page: each is stored once, as a rule of the style sheet, however often it is shown."""

import base64
import io
from collections.abc import Mapping
from html import escape

from PIL import Image

from ncl_jax.data.images import thumbnails
from ncl_jax.data.types import Split
from ncl_jax.errors import DataError
from ncl_jax.report.html import Html

LONGEST = 112  # pixels of a picture's longer side
BLURRED = 64  # pixels: smaller pictures are enlarged as squares


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
        return Html(f'<i class="t {self._name(*key)}" role="img" aria-label="{escape(words)}"></i>')

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
        with Image.open(io.BytesIO(content)) as image:
            sharp = ";image-rendering:pixelated" if max(image.size) < BLURRED else ""
        data = base64.b64encode(content).decode()
        rule = f".{self._name(split, row)}{{background-image:url(data:image/jpeg;base64,{data}){sharp}}}\n"
        if len(rule) > self.room:
            return ""
        self.room -= len(rule)
        return rule
