"""Check that every internal link, anchor and image of a built site resolves.

Run it as ``python docs/check_links.py docs/_build/html``. Links to other sites are not followed.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

REFERENCES = {"a": "href", "area": "href", "img": "src", "link": "href", "script": "src"}


class Page(HTMLParser):
    """The anchors of a page, and the addresses that it refers to."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.addresses = {"", "top"}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Note what one tag defines and refers to."""
        attrs = dict(attrs)
        self.anchors.update(attrs[name] for name in ("id", "name") if attrs.get(name))
        if tag in REFERENCES and attrs.get(REFERENCES[tag]) is not None:
            self.addresses.append(attrs[REFERENCES[tag]])
        if attrs.get("srcset"):
            self.addresses += [part.split()[0] for part in attrs["srcset"].split(",")]


def broken_links(root):
    """Find what does not resolve, as pairs of a page and an address."""
    root = Path(root).resolve()
    # The theme's folder holds templates.
    paths = [path for path in root.rglob("*.html") if path.parent != root / "_static"]
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in paths}
    if not pages:
        raise FileNotFoundError(f"A built site has HTML pages. Got {root}. Run make docs first.")
    for path, page in sorted(pages.items()):
        for address in dict.fromkeys(page.addresses):
            url = urlsplit(address)
            if url.scheme or url.netloc:
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            if target.is_dir():
                target /= "index.html"
            found = target.is_relative_to(root) and target.is_file()
            if found and target in pages:
                found = unquote(url.fragment) in pages[target].anchors
            if not found:
                yield path.relative_to(root).as_posix(), address


if __name__ == "__main__":
    broken = list(broken_links(*sys.argv[1:]))
    for page, address in broken:
        print(f"{page}: {address} does not resolve", file=sys.stderr)
    sys.exit(1 if broken else None)
