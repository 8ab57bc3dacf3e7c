// The state of one dashboard in the page: it follows the kernel's messages, and asks for the whole where it missed one.
import type { AnyModel } from "@anywidget/types";

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type State = Record<string, any>;

type Change = ["set", Json] | ["drop"] | ["append", string] | ["extend", Json[], number];
type Message =
  | { n: number; changes: Record<string, Change> }
  | { n: number; state: State }
  | { last: number }
  | { done: string };

/** Milliseconds after which the whole state is asked for again, where none came. */
const PATIENCE = 1000;

export interface DashboardModel {
  state: State;
}

export class Channel {
  state: State;
  private number: number | null = null;
  private asked = 0;
  /** Which page this is: other tabs may show the same dashboard, and hear all that the kernel says. */
  private readonly page = Math.random().toString(36).slice(2);
  private tickets = 0;
  private waiting = new Map<string, () => void>();
  private listeners = new Set<() => void>();
  private views = 0;
  private frame = 0;

  constructor(readonly model: AnyModel<DashboardModel>) {
    this.state = { ...model.get("state") };
    model.on("msg:custom", this.hear);
    this.hello();
  }

  /** Stop listening to the kernel. */
  close(): void {
    this.model.off("msg:custom", this.hear);
    this.listeners.clear();
  }

  /** Ask the kernel to do something; resolves when it has been done, well or not. */
  act(verb: string, values: Record<string, Json> = {}): Promise<void> {
    const ticket = `${this.page} ${++this.tickets}`;
    return new Promise((resolve) => {
      this.waiting.set(ticket, resolve);
      this.send({ ...values, do: verb, ticket });
    });
  }

  /** Be told, once a frame at most, that the state is another. Returns how to stop. */
  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Tell the kernel how many places in the page show this dashboard: what nobody sees need not be kept up to date. */
  seen(by: 1 | -1): void {
    this.views += by;
    this.send({ do: "seen", views: this.views, page: this.page });
  }

  private hello(): void {
    this.number = null;
    this.asked = Date.now();
    this.send({ do: "hello" });
  }

  private send(content: Record<string, Json>): void {
    try {
      this.model.send(content);
    } catch {
      // There is no kernel any more: the dashboard stays as it was last.
    }
  }

  private hear = (message: Message): void => {
    if ("done" in message) {
      this.waiting.get(message.done)?.();
      this.waiting.delete(message.done);
      return;
    }
    if ("state" in message) {
      this.state = message.state;
      this.number = message.n;
    } else if ("changes" in message && this.number !== null && message.n === this.number + 1) {
      this.state = apply(this.state, message.changes);
      this.number = message.n;
    } else {
      const last = "last" in message ? message.last : message.n;
      const lags = this.number === null ? Date.now() - this.asked > PATIENCE : last > this.number;
      if (lags) this.hello();
      return;
    }
    // What the page keeps is the last state too, should the notebook be saved with its widgets.
    this.model.set("state", this.state);
    this.announce();
  };

  private announce(): void {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      for (const listener of this.listeners) listener();
    });
  }
}

function apply(state: State, changes: Record<string, Change>): State {
  const next = { ...state };
  for (const [key, change] of Object.entries(changes)) {
    if (change[0] === "set") next[key] = change[1];
    else if (change[0] === "drop") delete next[key];
    else if (change[0] === "append") next[key] = ((next[key] as string) ?? "") + change[1];
    else next[key] = [...((next[key] as Json[]) ?? []), ...change[1]].slice(-change[2]);
  }
  return next;
}
