// Whose a key is that is pressed in a dashboard: the dashboard's, never the notebook's cells'; the page's, with Ctrl or Cmd.

const OWN = "data-lm-suppress-shortcuts";

/**
 * JupyterLab looks for a command from the element that has the focus upwards, until one has the attribute; its commands for
 * cells name that very element (`:focus`), so it is the one that needs it. Ctrl+S and the like then find nothing either:
 * they are told to what the notebook stands in, where only the commands of the whole page are found.
 */
export function keepKeys(el: HTMLElement): void {
  el.addEventListener("focusin", ({ target }) => (target as Element).setAttribute(OWN, "true"));
  el.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || !(event.ctrlKey || event.metaKey) || event.getModifierState("AltGraph")) return;
    const outside = el.closest(".jp-Notebook")?.parentElement;
    if (outside && !outside.dispatchEvent(new KeyboardEvent("keydown", event))) event.preventDefault();
  });
}
