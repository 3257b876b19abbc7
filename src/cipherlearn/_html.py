"""HTML for notebooks: tables, panels, and the state of estimators."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["ShowsState", "html_table", "panel", "paragraphs"]

# Colours of the page, so that dark themes work.
_STYLE = """<style>
.cipherlearn-state {
  display: inline-block; margin: 0.3em 0 0.6em; padding: 0.5em 0.9em; color: inherit;
  border: 1px solid rgba(128, 128, 128, 0.6); border-radius: 0.4em; font-size: 0.9em;
}
.cipherlearn-state table {
  border-collapse: collapse; margin: 0.4em 0; color: inherit; font-size: inherit;
}
.cipherlearn-state th, .cipherlearn-state td {
  padding: 0.15em 0.8em 0.15em 0; text-align: right; background: transparent; color: inherit;
}
.cipherlearn-state th:first-child, .cipherlearn-state td:first-child { text-align: left; }
.cipherlearn-state p { margin: 0.2em 0; }
</style>"""


def html_table(columns: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """Make a table of escaped cells."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def paragraphs(lines: Iterable[str]) -> str:
    """Put each line in a paragraph, escaped."""
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def panel(title: str, content: str) -> str:
    """Frame some HTML below a title."""
    return f'{_STYLE}<div class="cipherlearn-state"><b>{escape(title)}</b>{content}</div>'


class ShowsState:
    """Mixin that shows an estimator's state below scikit-learn's diagram in notebooks.

    It overrides private names of scikit-learn. Tested with 1.6.1 to 1.9.
    """

    def _state_html(self) -> str:
        raise NotImplementedError

    def _repr_html_inner(self) -> str:
        return super()._repr_html_inner() + self._state_html()  # type: ignore[misc]

    def _repr_mimebundle_(self, **kwargs) -> dict[str, str]:
        bundle = super()._repr_mimebundle_(**kwargs)  # type: ignore[misc]
        if "text/html" in bundle:
            bundle["text/html"] = self._repr_html_inner()
        return bundle
