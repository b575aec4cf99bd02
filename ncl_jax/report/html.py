"""Parts of a page: the document, tables, figures, what is folded away. Texts are escaped here, or are `Html`."""

import importlib.resources
from collections.abc import Sequence
from html import escape

# Nothing of a page is loaded from elsewhere and nothing of it runs, whatever its texts hold.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
LONG, ENDING = 26, 9  # letters of a file's name that have room; of its end, which stays


class Html(str):
    """Text that is HTML already."""


def document(title: str, body: str) -> str:
    """The whole page around its content."""
    style = importlib.resources.files("ncl_jax.report").joinpath("style.css").read_text()
    html = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><link rel="icon" href="data:,"><title>{escape(title)}</title>\n<style>\n{style}</style>'
        f"</head>\n<body>\n{body}\n</body></html>\n"
    )
    return html.encode("utf-8", "replace").decode()  # names of files may hold bytes that are no text


def text(value: str) -> str:
    """A text as HTML."""
    return value if isinstance(value, Html) else escape(value)


def link(target: str, words: str) -> Html:
    """Words that lead to a place of the page; without a target the words alone."""
    return Html(f'<a href="#{escape(target)}">{text(words)}</a>' if target else text(words))


def file_name(name: str) -> Html:
    """A file's name: of a long one the middle is hidden, but shown on hover and copied."""
    if len(name) <= LONG:
        return Html(f"<code>{escape(name)}</code>")
    start, end = escape(name[:-ENDING]), escape(name[-ENDING:])
    return Html(f'<code class="long" title="{escape(name)}"><span>{start}</span>{end}</code>')


def paragraph(words: str, kind: str = "") -> Html:
    """A paragraph; nothing for an empty text."""
    return Html(f'<p class="{kind}">{text(words)}</p>' if kind else f"<p>{text(words)}</p>") if words else Html()


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], first: int = 0, kind: str = "") -> Html:
    """An HTML table; `first` is the row that counts, -1 for none."""
    head = "".join(f'<th scope="col">{text(cell)}</th>' for cell in heads)
    lines = [
        f"<tr{' class=first' if index == first else ''}>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>"
        for index, row in enumerate(rows)
    ]
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return Html(f'<div class="scroll {kind}">{body}</div>')


def figure(chart: str, caption: str = "", kind: str = "") -> Html:
    """A chart with what must be said of it; kind "single": not as wide as the page."""
    below = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    return Html(f'<figure class="{kind}">{chart}{below}</figure>' if chart else "")


def folded(summary: str, content: str, name: str = "", kind: str = "") -> Html:
    """Something that is opened on demand; `name` is what links lead to."""
    attributes = (f' id="{escape(name)}"' if name else "") + (f' class="{kind}"' if kind else "")
    return Html(f"<details{attributes}><summary>{text(summary)}</summary>{content}</details>")


def capital(words: str) -> str:
    """The words with a capital at the beginning, unless a path or a name of a file is there."""
    first = words.partition(" ")[0].rstrip(":,")
    return words if any(mark in first for mark in "/\\.") else f"{words[:1].upper()}{words[1:]}"
