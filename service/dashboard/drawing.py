"""A chart of a page as a file of its own: what the style sheet says of its classes stands on its elements."""

import re
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from service.dashboard.templating import ENVIRONMENT

_STYLE = Path(__file__).parent / "static" / "dashboard.css"
_COLOUR = re.compile(r"--([\w-]+):\s*(#\w+)")
_RULE = re.compile(r"(?<![\w-])((?:\.[\w-]+)+)\s*\{([^{}]*)\}")
_DRAWN = frozenset(
    ("fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-linecap", "vector-effect")
)
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""Characters that no XML holds, and a name may."""
WIDTH, MARGIN, HEAD = 760, 16, 44
"""Of a file, in pixels: of the chart in it, around that, and above it for its title and what it is about."""


def drawn_alone(macro: str, about: str, *given: Any) -> str:
    """The chart that a macro of `_charts.html` draws of what it is given, under its title and what it is about."""
    chart = getattr(ENVIRONMENT.get_template("_charts.html").module, macro)(*given)
    return _alone(ElementTree.fromstring(_NO_XML.sub("\ufffd", str(chart))), _NO_XML.sub("\ufffd", about))


def _alone(chart: ElementTree.Element, about: str) -> str:
    height = float(chart.attrib.pop("height"))
    whole_width, whole_height = WIDTH + 2 * MARGIN, height + HEAD + 2 * MARGIN
    whole = ElementTree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "width": f"{whole_width:g}",
            "height": f"{whole_height:g}",
            "viewBox": f"0 0 {whole_width:g} {whole_height:g}",
            "role": "img",
            "aria-labelledby": chart.attrib.pop("aria-labelledby"),
            "font-family": "system-ui, Roboto, Helvetica, Arial, sans-serif",
            "font-size": "12.5",
        },
    )
    words = [part for part in chart if part.tag in ("title", "desc")]
    for part in words:
        chart.remove(part)
        whole.append(part)
    colours, _ = _style()
    ElementTree.SubElement(
        whole, "rect", {"width": "100%", "height": "100%", "fill": colours["raised"], "class": "page"}
    )
    for text, y, more in (
        (words[0].text, MARGIN + 12, {"font-size": "15", "font-weight": "650"}),
        (about, MARGIN + 30, {"class": "value"}),
    ):
        line = ElementTree.SubElement(whole, "text", {"x": f"{MARGIN}", "y": f"{y}", **more})
        line.text = text
    del chart.attrib["role"]
    chart.attrib |= {
        **{"x": f"{MARGIN}", "y": f"{MARGIN + HEAD}", "width": f"{WIDTH}", "height": f"{height:g}"},
        "overflow": "visible",
    }
    whole.append(chart)
    for element in whole.iter():
        _painted(element)
    return ElementTree.tostring(whole, encoding="unicode") + "\n"


def _painted(element: ElementTree.Element) -> None:
    """Take the classes off an element and put on it what the style sheet says of them."""
    colours, rules = _style()
    classes = set(element.attrib.pop("class", "").split())
    if element.tag == "text":
        element.set("fill", colours["ink"])
    for wanted, drawn in rules:
        if wanted <= classes:
            element.attrib |= drawn


@cache
def _style() -> tuple[dict[str, str], list[tuple[frozenset[str], dict[str, str]]]]:
    """Colours by name, those of light pages; and what is drawn how by its classes, the more of them the later."""
    sheet = _STYLE.read_text(encoding="utf-8")
    colours: dict[str, str] = {}
    for name, colour in _COLOUR.findall(sheet):
        colours.setdefault(name, colour)
    rules: list[tuple[frozenset[str], dict[str, str]]] = []
    for selector, body in _RULE.findall(sheet):
        pairs = (line.split(":", 1) for line in body.split(";") if ":" in line)
        drawn = {
            name.strip(): re.sub(r"var\(--([\w-]+)\)", lambda found: colours[found[1]], value.strip())
            for name, value in pairs
            if name.strip() in _DRAWN
        }
        if drawn:
            rules.append((frozenset(selector[1:].split(".")), drawn))
    return colours, sorted(rules, key=lambda rule: len(rule[0]))
