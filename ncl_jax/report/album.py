"""The pictures of a page: each is stored once, as a rule of the style sheet, however often it is shown."""

import base64
import io
from html import escape

from PIL import Image

from ncl_jax.evaluation.predictions import Pictures
from ncl_jax.report.html import Html

BLURRED = 64  # pixels: smaller pictures are enlarged as squares


def style_rule(name: str, content: bytes) -> str:
    """The rule of a style sheet that holds a picture, a JPEG, under a class's name."""
    with Image.open(io.BytesIO(content)) as image:
        sharp = ";image-rendering:pixelated" if max(image.size) < BLURRED else ""
    data = base64.b64encode(content).decode()
    return f".{name}{{background-image:url(data:image/jpeg;base64,{data}){sharp}}}\n"


def element(name: str, words: str) -> Html:
    """A place where the picture of a rule is shown; `words` describe it."""
    return Html(f'<i class="t {name}" role="img" aria-label="{escape(words)}"></i>')


class Album:
    """A run's pictures, as far as a page has room for them.

    Args:
      pictures: of the run; None for a page without.
      prefix: keeps the names of a page's runs apart.
      room: bytes that may be added to the page.
    """

    def __init__(self, pictures: Pictures | None, prefix: str, room: int):
        self._pictures, self._prefix, self.room = pictures, prefix, room
        self._rules: dict[int, str] = {}
        tested, trained = ([], []) if pictures is None else (pictures.tested.tolist(), pictures.trained.tolist())
        self._places = {(False, row): place for place, row in enumerate(tested)}
        self._places |= {(True, row): len(tested) + place for place, row in enumerate(trained)}

    def has(self, is_training: bool, row: int) -> bool:
        """Whether there is a picture of an image."""
        return bool(self._content(is_training, row))

    def show(self, is_training: bool, row: int, words: str) -> str:
        """A picture that `words` describe; empty where there is none, or no room."""
        content = self._content(is_training, row)
        if not content:
            return ""
        place = self._places[is_training, row]
        if place not in self._rules:
            rule = style_rule(self._name(place), content)
            if len(rule) > self.room:
                return ""
            self._rules[place] = rule
            self.room -= len(rule)
        return element(self._name(place), words)

    def missing(self) -> tuple[list[int], list[int]]:
        """Rows of the test and of the training images whose files could not be read."""
        found: tuple[list[int], list[int]] = [], []
        for (is_training, row), place in self._places.items():
            if self._pictures is not None and not self._pictures.jpeg(place):
                found[is_training].append(row)
        return found

    def style(self) -> str:
        """The rules of the pictures that were shown."""
        return f"<style>{''.join(self._rules.values())}</style>" if self._rules else ""

    def _content(self, is_training, row):
        place = self._places.get((is_training, row))
        return b"" if place is None or self._pictures is None else self._pictures.jpeg(place)

    def _name(self, place):
        return f"{self._prefix}-{place:x}"
