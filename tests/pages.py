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
IMAGE = "<img src=x onerror=alert(1)>"
TRICKY = [
    # What closes or hides a place that a page may put text in.
    f"</script>{IMAGE}",
    f"<textarea></textarea>{IMAGE}</textarea>",
    f"<title></title>{IMAGE}</title>",
    f"</pre></code></td></small></details>{IMAGE}",
    f"--><!-- --!>{IMAGE}",
    f"]]>{IMAGE}",
    # Markup that changes its meaning when a sanitizer has read it once.
    f'<noscript><p title="</noscript>{IMAGE}">',
    f"<template>{IMAGE}</template><template shadowrootmode=open>{IMAGE}</template>",
    f"<math><mtext><table><mglyph><style><!--</style>{IMAGE}",
    f"<form><math><mtext></form><form><mglyph><style></math>{IMAGE}",
    f'<svg></p><style><a id="</style>{IMAGE}">',
    f'<math><annotation-xml encoding="text/html"><style>{IMAGE}</style></annotation-xml></math>',
    '<svg><a xlink:href="javascript:alert(1)"><text x=20 y=20>x</text></a><use href="data:image/svg+xml,x#y"></svg>',
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s><set onend=alert(1) attributeName=y dur=1s></svg>",
    f'<div id="a><b onmouseover=alert(1)>{IMAGE}</b></div>',
    # What takes names of the page's own scripts.
    '<a id=defaultView></a><a id=ran name=ran href="https://x.invalid">x</a>',
    "<form name=body><input name=attributes><input name=getElementById></form>",
    # Looks and addresses.
    "<style>*{background:url(https://x.invalid/a.png)}</style><p style='background:url(https://x.invalid/b.png)'>x</p>",
    "<link rel=stylesheet href=https://x.invalid/c.css><meta http-equiv=refresh content='0;url=javascript:alert(1)'>",
    "<img srcset='https://x.invalid/d.png 1x'><picture><source srcset=https://x.invalid/e.png></picture>",
    "<video src=x onerror=alert(1) poster=https://x.invalid/f.png autoplay></video><audio src=x onerror=alert(1)>",
    "<input autofocus onfocus=alert(1)><select autofocus onfocus=alert(1)><textarea autofocus onfocus=alert(1)>",
    "<body onload=alert(1)><object data='data:text/html,<script>alert(1)</script>'></object><embed src=javascript:alert(1)>",
    "<button popovertarget=x onclick=alert(1)>x</button><div id=x popover onbeforetoggle=alert(1)>y</div>",
    "<button data-commandlinker-command=\"filebrowser:create-new-directory\" data-commandlinker-args='{}'>x</button>",
    f"<custom-tag onpointerenter=alert(1) tabindex=0 contenteditable onblur=alert(1)>x</custom-tag><x:y onclick=alert(1)>{IMAGE}",
    # Links.
    "[x](data:text/html;charset=utf-8,%3Cscript%3Ealert(1)%3C/script%3E)",
    "[x](javascript\\:alert(1)) [x](\x01javascript:alert(1)) [x](<java\tscript:alert(1)>) [x](JAVASCRIPT&#x3a;alert(1))",
    '[x](https://x.invalid "a\\" onmouseover=alert(1) b") [x](https://x.invalid \'" onclick="alert(1)\')',
    "[x](file:///etc/passwd) [x](//x.invalid) [x](\\\\x.invalid\\a) [x](blob:https://x.invalid/1) <javascript:alert(1)>",
    "[a\nb]: javascript:alert(1)\n\n[x][a\nb]",
    "- [ ] [1]: javascript:alert(1)\n\n[x][1]",
    "[^1]\n\n[^1]: [x](javascript:alert(1))",
    # Formulas, which JupyterLab takes out first and puts back unescaped, also into addresses and titles.
    '[x](https://x.invalid "$" onmouseover=alert(1) x=$")',
    '[x](https://x.invalid/$"onmouseover="alert(1)"x$)',
    'see https://x.invalid/$"onmouseover="alert(1)"x$ now, www.x.invalid/$"onmouseover="alert(1)"x$',
    '<https://x.invalid/$"onmouseover="alert(1)"x$>',
    '[x](https://x.invalid "\\\\\\\\(" onmouseover=alert(1) x=\\\\\\\\)")',
    '[x](https://x.invalid "\\begin{a}" onmouseover=alert(1) x=\\end{a}")',
    '$\\href{javascript:alert(1)}{x}$ $$\\href{data:text/html,x}{y}$$ $\\mmlToken{mi}[href="javascript:alert(1)"]{x}$',
    '$\\class{a" onclick="alert(1)}{x}$ $\\style{background:url(https://x.invalid/g.png)}{z}$ $\\cssId{body}{y}$ $\\text{<img src=x onerror=alert(1)>}$',
    "$\\require{html}\\def\\a{\\a\\a}\\a$ $\\unicode{x3c}img src=x onerror=alert(1)>$ $&lt;img src=x onerror=alert(1)&gt;$",
    # What swallows the line that seems to open code.
    f'[1]: https://x.invalid "\n```\n"\n{IMAGE}',
    f"[1]: https://x.invalid\n(\n```\n)\n{IMAGE}",
    f"$$\n```\n$$\n{IMAGE}",
    f"$\n```\n$\n{IMAGE}",
    f"\\begin{{a}}\n```\n\\end{{a}}\n{IMAGE}",
    f"~~~ a`b\ncode\n~~~\n{IMAGE}",
    f"<details>\n\n```\n\n</details>\n\n```\n{IMAGE}\n```",
    # The language of code, which JupyterLab does not escape.
    '```js" onmouseover="alert(1)\ncode\n```',
    '- ~~~js" onmouseover="alert(1)" x="\n  code',
    '~~~$"onmouseover="alert(1)"x$\ncode\n~~~',
    f'~~~\n```js" onmouseover="alert(1)\n~~~\n```js" onmouseover="alert(1)\n{IMAGE}',
    f"```{IMAGE}\ncode\n```",
    # Diagrams, which JupyterLab draws.
    '```mermaid\nflowchart TD\nA@{ img: "https://x.invalid/h.png", label: "L", w: 60, h: 60 }\n```',
    '```mermaid\n%%{init: {"themeCSS": "*{background:url(https://x.invalid/i.png)}", "securityLevel": "loose"}}%%\ngraph TD\nA-->B\n```',
    f'- ```mermaid\n  graph TD\n  A["{IMAGE}"]\n  click A "javascript:alert(1)"\n  ```',
    # Signs that are none.
    "\x1b[31mred\x1b[0m \x1b[2J\x1b[H\x1b[1A \x1b]8;;javascript:alert(1)\x07link\x1b]8;;\x07 \x1b]52;c;YWxlcnQoMSk=\x07 \x9b31m a\rb\x08c",
    "\u202eevil\u202c \u2066\u2067x\u2069 \u200f\u061c if access == 'user\u202e \u2066// admin only\u2069 \u2066':",
    "```python\nif access != 'user\u202e \u2066# check\u2069 \u2066':\n    pass\n```",
    "a\u200bb\u200c\u200d\ufeff\u2060 \x00 \x01 \x7f \x85 \u2028\u2029 \U000e0041\U000e0042 \ufff9x\ufffa\ufffb",
    "<\x00img src=x onerror=alert(1)><\u200bimg src=x onerror=alert(1)>\uff1cimg src=x onerror=alert(1)\uff1e",
    "e" + "\u0301" * 2_000,
    "# "
    + "\u0644\u0648\u0635\u0651\u0628\u064f\u0644\u064f\u0644\u0635\u0651\u0628\u064f\u0631\u0631\u064b \u0963 \u0963h \u0963 \u5197",
]
"""More of them: what has broken sanitizers, what JupyterLab itself does with Markdown, and characters that steer."""

MEGABYTE = 1_000_000
HUGE = {
    "one word": "x" * MEGABYTE,
    "brackets": "[" * MEGABYTE,
    "emphasis": "a**b" * (MEGABYTE // 4),
    "quotations in each other": "> " * 2_000 + "x\n\n" + "- " * 2_000 + "x",
    "a table of 5,000 columns": "|a" * 5_000 + "|\n" + "|-" * 5_000 + "|\n" + "a\n" * 1_000,
    "a wide table in small rows": "|a" * 50 + "|\n" + "|-" * 50 + "|\n" + "a\n" * 20_000,
    "code without an end": "```html\n" + f"{IMAGE}\n" * (MEGABYTE // len(IMAGE)),
    "paragraphs": "x\n\n" * (MEGABYTE // 3),
    "tags": f"<b>{IMAGE}" * 20_000,
    "accents": ("a" + "\u0301" * 50) * 4_000,
}
"""Answers that would hold up a page: up to a megabyte, by what they are made of."""

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
        is_box = tag.name == "input" and tag.attrs.get("type") == "checkbox" and "disabled" in tag.attrs
        if (
            not (is_box or tag.name in INNOCENT)
            or handlers
            or address.startswith(("javascript:", "data:", "vbscript:"))
        ):
            found.append(str(tag))
    return found
