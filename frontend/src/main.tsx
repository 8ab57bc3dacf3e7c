// What anywidget loads: one script for all dashboards; the state says which one it is.
import type { AnyModel } from "@anywidget/types";
import { render as draw } from "preact";
import { Channel, type DashboardModel } from "./channel";
import { Frame } from "./frame";
import { keepKeys } from "./keys";

const channels = new WeakMap<object, Channel>();

function initialize({ model }: { model: AnyModel<DashboardModel> }): () => void {
  const channel = new Channel(model);
  channels.set(model, channel);
  return () => channel.close();
}

function render({ model, el }: { model: AnyModel<DashboardModel>; el: HTMLElement }): () => void {
  const channel = channels.get(model) ?? new Channel(model);
  channels.set(model, channel);
  el.classList.add("llmj");
  keepKeys(el);
  // JupyterLab forbids line breaks by Shift+Enter, by a listener at the very field that is typed in.
  el.addEventListener("beforeinput", (event) => event.stopPropagation(), true);
  draw(<Frame channel={channel} />, el);
  channel.seen(1);
  return () => {
    channel.seen(-1);
    draw(null, el);
  };
}

export default { initialize, render };
