// What can be done with code that a model wrote: copy it, or put it into a new cell. It is shown before, and never run.
import type { AnyModel } from "@anywidget/types";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Channel } from "./channel";

interface SharedCell {
  toJSON(): { outputs?: { data?: Record<string, unknown> }[] };
}

/** What ipywidgets' manager in JupyterLab and Notebook 7 knows of the notebook, as Jupyter's shared model documents it. */
interface SharedNotebook {
  cells: readonly SharedCell[];
  insertCell(index: number, cell: { cell_type: "code"; source: string; metadata: object }): unknown;
}

const VIEW = "application/vnd.jupyter.widget-view+json";

/** The notebook around a widget; nothing where the front end does not give it, or it must not be changed. */
function notebookOf(model: AnyModel<any>): SharedNotebook | null {
  const notebook = (model.widget_manager as any)?.context?.model;
  const shared = notebook?.sharedModel;
  return !notebook?.readOnly && shared?.cells && typeof shared.insertCell === "function" ? shared : null;
}

/** Put code into a new cell below the one that shows this view. Says where it went; nothing where that cannot be done. */
export function insertBelow(model: AnyModel<any>, view: string, code: string): string {
  try {
    const notebook = notebookOf(model);
    if (!notebook) return "";
    const at = notebook.cells.findIndex((cell) =>
      cell.toJSON().outputs?.some((output) => (output.data?.[VIEW] as any)?.model_id === view));
    notebook.insertCell(at < 0 ? notebook.cells.length : at + 1, { cell_type: "code", source: code, metadata: {} });
    return at < 0 ? "In a new cell at the end" : "In a new cell below";
  } catch (error) {
    console.warn("llm_jupyter: no cell could be inserted", error);
    return "";
  }
}

/** Put text on the clipboard. Whether that was possible. */
export async function copied(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copiedByHand(text); // a page that is not served securely has no clipboard of its own
  }
}

function copiedByHand(text: string): boolean {
  const before = document.activeElement as HTMLElement | null;
  const area = document.createElement("textarea");
  area.value = text;
  area.style.cssText = "position:fixed;opacity:0";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  before?.focus();
  return done;
}

/** Milliseconds for which a button says what it did. */
const SAID_FOR = 6000;

/** A word beside a button that goes by itself. */
function useSaid(): [string, (text: string) => void] {
  const [said, say] = useState("");
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  return [said, (text) => {
    clearTimeout(timer.current);
    say(text);
    timer.current = window.setTimeout(() => say(""), SAID_FOR);
  }];
}

const NOT_COPIED = "This page may not use the clipboard: select the text and copy it.";

/** A button that copies a text; `label` names it aloud. */
export function Copy({ text, label }: { text: string; label: string }) {
  const [said, say] = useSaid();
  const copy = async () => say((await copied(text)) ? "Copied" : NOT_COPIED);
  return (
    <>
      <button type="button" aria-label={label} title={label} onClick={copy}>Copy</button>
      <span role="status" class="llmj-quiet">{said}</span>
    </>
  );
}

/** What stands above a piece of code. */
export function CodeActions({ channel, code }: { channel: Channel; code: string }) {
  const [said, say] = useSaid();
  const name = code.trim().split("\n", 1)[0].slice(0, 40);
  const insert = async () => {
    const place = insertBelow(channel.model, channel.state.view, code);
    if (place) say(`${place}; it has not run.`);
    else say((await copied(code)) ? "Copied: click below this cell, press B for a new one, and paste." : NOT_COPIED);
  };
  return (
    <>
      <Copy text={code} label={`Copy code: ${name}`} />
      <button type="button" aria-label={`New cell with code: ${name}`} title="Put this code into a new cell; it is not run"
        onClick={insert}>New cell</button>
      <span role="status" class="llmj-quiet">{said}</span>
    </>
  );
}
