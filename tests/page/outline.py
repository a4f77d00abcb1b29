"""What a test wants to know of an HTML page, by the parser of the standard library."""

from html.parser import HTMLParser

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
# An end tag may be left out after these, and the explorer's fragment is free to do so.
OPTIONAL = {"li", "dt", "dd", "p", "option", "td", "th", "tr"}


class Outline(HTMLParser):
    """`tags`: (name, attributes) of every element in order; `text`: what of each element by id is text, tags apart."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.open, self.errors, self.pieces = [], [], [], {}
        self.feed(page)
        self.close()
        self.errors += [f"<{name}> is never closed" for name, _ in self.open]

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if len(found) < len(attrs):
            self.errors.append(f"<{tag}> has an attribute twice")
        self.tags.append((tag, found))
        if tag not in VOID:
            self.open.append((tag, found.get("id")))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        while self.open and self.open[-1][0] != tag and self.open[-1][0] in OPTIONAL:
            self.open.pop()
        if not self.open or self.open[-1][0] != tag:
            self.errors.append(f"</{tag}> closes {self.open[-1:] or 'nothing'} in line {self.getpos()[0]}")
        else:
            self.open.pop()

    def handle_data(self, data):
        for _, name in self.open:
            if name:
                self.pieces.setdefault(name, []).append(data)

    def text(self, name):
        return " ".join(" ".join(self.pieces[name]).split())

    def all(self, tag, **wanted):
        return [found for name, found in self.tags if name == tag and wanted.items() <= found.items()]
