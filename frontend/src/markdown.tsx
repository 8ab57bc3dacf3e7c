// A model's Markdown in the page. Everything in it is untrusted: it is parsed, purified, and can neither run nor fetch.
import DOMPurify from "dompurify";
import { Marked } from "marked";
import { render, type ComponentChild } from "preact";
import { useLayoutEffect, useMemo, useRef } from "preact/hooks";
import { visible } from "./ui";

/** Characters beyond which a block is shown as plain text: laying it out as Markdown would hold up the page. */
const PLAIN_BEYOND = 20_000;

/** Characters that a block has at least: each costs some time, however little stands in it. */
const BLOCK = 500;

/** Lines of an answer, and cells of its tables, that are laid out; short rows are filled up with empty cells. */
const MOST_LINES = 5_000, MOST_CELLS = 20_000;

/** Characters of an answer that are laid out at all; the rest is there for copying. */
export const SHOWN = 200_000;

/** Levels of headings that stand above an answer's: the page's, the notebook's, a dashboard's, and that of a part of it. */
const ABOVE = 4;

const marked = new Marked({ gfm: true, breaks: false, async: false });

const purifier = DOMPurify(window);
purifier.addHook("afterSanitizeAttributes", (node) => {
  const [, level] = /^H([1-6])$/.exec(node.nodeName) ?? [];
  if (level) node.setAttribute("aria-level", `${Math.min(6, Number(level) + ABOVE)}`);
  if (node.nodeName !== "A") return;
  const address = node.getAttribute("href") ?? "";
  if (!/^(https?:|mailto:)/i.test(address)) node.removeAttribute("href");
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

/** HTML in which nothing is live. Pictures are left out: their addresses would be fetched from the network. */
export function purified(markdown: string): string {
  return purifier.sanitize(marked.parse(visible(markdown)) as string, {
    ALLOWED_TAGS: ["a", "b", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "li",
      "ol", "p", "pre", "s", "strong", "sub", "sup", "table", "tbody", "td", "th", "thead", "tr", "ul"],
    ALLOWED_ATTR: ["href", "align", "start"],
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
  });
}

/** The same, or nothing for what cannot be laid out, such as quotations in each other without end. */
function attempted(markdown: string): string | null {
  try {
    return purified(markdown);
  } catch {
    return null;
  }
}

/** How many lines a text has, and how many cells tables may have that stand in it. */
function extent(text: string): { lines: number; cells: number } {
  let lines = 0, cells = 0, widest = 0;
  for (const line of text.split("\n")) {
    const isEmpty = !line.trim();
    widest = isEmpty ? 0 : Math.max(widest, line.split("|").length - 1);
    lines += isEmpty ? 0 : 1;
    cells += widest;
  }
  return { lines, cells };
}

/** Where a growing text can be cut so that what stands before does not change any more: after a blank line outside fences. */
export function blocks(text: string): string[] {
  const found: string[] = [];
  let fence = "";
  let block = "";
  for (const line of text.split("\n")) {
    const mark = /^ {0,3}(`{3,}|~{3,})/.exec(line)?.[1];
    if (mark && !fence) fence = mark;
    else if (mark && fence && mark[0] === fence[0] && mark.length >= fence.length) fence = "";
    block += line + "\n";
    if (!fence && !line.trim() && block.length >= BLOCK) {
      found.push(block);
      block = "";
    }
  }
  if (block) found.push(block);
  return found;
}

/** What stands above a piece of code, to do something with it. */
type AboveCode = (code: string) => ComponentChild;

function Block({ text, plain, above }: { text: string; plain: boolean; above?: AboveCode }) {
  const html = useMemo(() => (plain ? null : attempted(text)), [text, plain]);
  const place = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    if (!above || !place.current) return;
    const bars = [...place.current.querySelectorAll("pre")].map((code) => {
      const bar = document.createElement("div");
      bar.className = "llmj-above-code";
      code.before(bar);
      render(above((code.textContent ?? "").replace(/\n$/, "")), bar);
      return bar;
    });
    return () => {
      for (const bar of bars) {
        render(null, bar);
        bar.remove();
      }
    };
  }, [html, above]);
  if (html === null) return <pre class="llmj-plain">{visible(text)}</pre>;
  return <div ref={place} dangerouslySetInnerHTML={{ __html: html }} />;
}

/**
 * An answer, block by block, so that only the last one is laid out again while it grows, and nothing where only something
 * else has changed. `above` has to stay the same.
 */
export function Markdown({ text, above }: { text: string; above?: AboveCode }) {
  return useMemo(() => <Blocks text={text} above={above} />, [text, above]);
}

function Blocks({ text, above }: { text: string; above?: AboveCode }) {
  let lines = 0, cells = 0;
  return (
    <div class="llmj-markdown">
      {blocks(text.slice(0, SHOWN).replace(/\r\n?/g, "\n")).map((block, index) => {
        const more = extent(block);
        lines += more.lines;
        cells += more.cells;
        const plain = block.length > PLAIN_BEYOND || lines > MOST_LINES || cells > MOST_CELLS;
        return <Block key={index} text={block} plain={plain} above={above} />;
      })}
      {text.length > SHOWN ? (
        <p class="llmj-quiet">{(text.length - SHOWN).toLocaleString("en")} more characters are not shown; copying takes them all.</p>
      ) : null}
    </div>
  );
}
