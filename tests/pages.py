"""Texts with which a model could attack a page, and what is live in a page that shows them."""

from __future__ import annotations

import nbconvert.filters.markdown_mistune as notebook_markdown
from bs4 import BeautifulSoup, Tag

HOSTILE = [
    "<script>alert(1)</script>",
    "text <ScRiPt src=//x></sCrIpT> text",
    "<img src=x onerror=alert(1)>",
    "![beacon](https://x.invalid/pixel.png)",
    "![beacon][1]\n\n[1]: https://x.invalid/pixel.png",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<svg/onload=alert(1)>",
    "<style>@import 'https://x.invalid'</style>",
    "<details open ontoggle=alert(1)>",
    "</details><img src=x onerror=alert(1)>",
    "<!-- <img src=x onerror=alert(1)> -->",
    "<?php x ?><img src=x onerror=alert(1)>",
    "<![CDATA[<img src=x onerror=alert(1)>]]>",
    "<a href='javascript:alert(1)'>x</a>",
    "<base href=//x.invalid>",
    "<form action=//x.invalid><input onfocus=alert(1) autofocus></form>",
    "> <img src=x onerror=alert(1)>",
    "- <img src=x onerror=alert(1)>\n\n  <iframe src=x>",
    "    code\n<img src=x onerror=alert(1)>",
    "| a | b |\n|---|---|\n| <img src=x onerror=alert(1)> | ![y](//z) |",
    "`` ` <img src=x onerror=alert(1)> ``` ``\n<img src=x onerror=alert(1)>",
    "```\ncode\n```\n<img src=x onerror=alert(1)>",
    "```\ncode\n````\n<img src=x onerror=alert(1)>",
    "~~~\n```\n~~~\n<img src=x onerror=alert(1)>",
    "``` a`b\n<img src=x onerror=alert(1)>\n```",
    "- ```\n  code\n<img src=x onerror=alert(1)>\n",
    "> ```\n> code\n\n<img src=x onerror=alert(1)>",
    "1. ~~~\n<iframe src=x></iframe>",
    "  ```\n<img src=x onerror=alert(1)>\n  ```\n<img src=x onerror=alert(1)>",
    "a\r```\r\n<img src=x onerror=alert(1)>",
    "\\<img src=x onerror=alert(1)>",
    "\\\\<img src=x onerror=alert(1)>",
    "<https://x.invalid/<img/src=x/onerror=alert(1)>>",
    "<https://x.invalid><img src=x onerror=alert(1)>",
    "[x](<javascript:alert(1)>)",
    "[x](javascript:alert(1))",
    "[x]( JaVaScRiPt:alert(1))",
    "[x](\njavascript:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](javascript&colon;alert(1))",
    "[x](vbscript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[x][1]\n\n[1]: javascript:alert(1)",
    "[x][1]\n\n[1]:\njavascript:alert(1)",
    "[1]\n\n[1]:javascript:alert(1)",
    "> [x](javascript:alert(1))\n\n  ```\n",
    "$<img src=x onerror=alert(1)>$",
    "$$\n<img src=x onerror=alert(1)>\n$$",
    "\\begin{a}<img src=x onerror=alert(1)>\\end{a}",
    "[![x](//y)](//z)",
    "!\\[x](//y) !\n[x](//y)",
    "```\n```\n```\n<img src=x onerror=alert(1)>\n```\n<img src=x onerror=alert(1)>",
    "```\u2028<img src=x onerror=alert(1)>\n```\n<img src=x onerror=alert(1)>",
    "```\x0c\n<img src=x onerror=alert(1)>",
    "x\n===\n```\n<img src=x onerror=alert(1)>\n ```\n<img src=x onerror=alert(1)>",
    "```\n\t```\n<img src=x onerror=alert(1)>\n```\n<iframe>",
    "```\u00a0\ncode\n```\u00a0\n<img src=x onerror=alert(1)>",
]
INNOCENT = {"p", "pre", "code", "span", "div", "em", "strong", "ul", "ol", "li", "blockquote", "h1", "h2", "h3", "h4",
            "h5", "h6", "hr", "br", "a", "table", "thead", "tbody", "tr", "th", "td", "del", "s"}  # fmt: skip


def html(text: str) -> str:
    """What nbconvert makes of a notebook's Markdown, with nothing sanitised after it."""
    return notebook_markdown.markdown2html_mistune(text)


def rendered(text: str) -> BeautifulSoup:
    """The same, as a page."""
    return BeautifulSoup(html(text), "html.parser")


def live(page: BeautifulSoup) -> list[str]:
    """What in a page could run or fetch something."""
    found = []
    for tag in page.find_all(True):
        assert isinstance(tag, Tag)
        handlers = [name for name in tag.attrs if name.lower().startswith("on")]
        address = str(tag.attrs.get("href", "")).strip().lower()
        if tag.name not in INNOCENT or handlers or address.startswith(("javascript:", "data:", "vbscript:")):
            found.append(str(tag))
    return found
