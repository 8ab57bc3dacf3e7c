// The state of one dashboard in the page: it follows the kernel's messages, and asks for the whole where it missed one.
import type { AnyModel } from "@anywidget/types";

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type State = Record<string, any>;

type Change = ["set", Json] | ["drop"] | ["append", string] | ["extend", Json[], number];
/** `now` is when the kernel sent it, in seconds since the epoch by its own clock. */
type Message = { now: number } & (
  | { n: number; changes: Record<string, Change> }
  | { n: number; state: State }
  | { last: number }
  | { taken: string }
  | { done: string }
);

/** Milliseconds after which the whole state is asked for again, where none came. */
const PATIENCE = 1000;

/** Milliseconds within which the kernel, where it was asked for something, is to say anything at all. */
const SILENCE = 5000;

const GONE = "The kernel of this dashboard is gone. Run %load_ext llm_jupyter, then this cell again.";
/** It may also be busy: what it was asked for is then done later. */
const SILENT = "The kernel does not answer. If it was restarted, run %load_ext llm_jupyter, then this cell again.";

/** In place of a ticket, what any word of the kernel answers: whether it is there at all. */
const ANYTHING = "";

/** Milliseconds after which the kernel is told again that the page shows a dashboard; it forgets one that says no more. */
const SIGN_OF_LIFE = 30_000;

export interface DashboardModel {
  state: State;
}

export class Channel {
  state: State;
  /** Why the state may be one of the past, in words; empty while there is no reason to think so. */
  lost = "";
  /** Seconds by which the page's clock is ahead of the kernel's; `hear` finds it out. */
  private ahead = 0;
  private number: number | null = null;
  private asked = 0;
  /** Which page this is: other tabs may show the same dashboard, and hear all that the kernel says. */
  private readonly page = Math.random().toString(36).slice(2);
  private tickets = 0;
  private waiting = new Map<string, () => void>();
  /** What was asked for of which the kernel has not said that it was taken. */
  private untaken = new Set<string>();
  private silence: ReturnType<typeof setTimeout> | undefined;
  private listeners = new Set<() => void>();
  private views = 0;
  private signs: ReturnType<typeof setInterval> | undefined;
  private frame = 0;

  constructor(readonly model: AnyModel<DashboardModel>) {
    this.state = { ...model.get("state") };
    model.on("msg:custom", this.hear);
    model.on("comm_live_update", this.end); // of ipywidgets, where the kernel was restarted or has died
    this.hello();
  }

  /** Stop listening to the kernel. */
  close(): void {
    this.model.off("msg:custom", this.hear);
    this.model.off("comm_live_update", this.end);
    this.untaken.clear();
    this.awaitWord();
    this.listeners.clear();
  }

  /** Ask the kernel to do something; resolves when it has been done, well or not; where the kernel is `lost`, perhaps never. */
  act(verb: string, values: Record<string, Json> = {}): Promise<void> {
    const ticket = `${this.page} ${++this.tickets}`;
    return new Promise((resolve) => {
      this.waiting.set(ticket, resolve);
      this.expect(ticket);
      this.send({ ...values, do: verb, ticket });
    });
  }

  /** The moment that it is for the kernel, in seconds since the epoch: the page's clock may be hours away from its. */
  now = (): number => Date.now() / 1000 - this.ahead;

  /** Be told, once a frame at most, that the state is another. Returns how to stop. */
  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Tell the kernel how many places in the page show this dashboard: what nobody sees need not be kept up to date. */
  seen(by: 1 | -1): void {
    this.views += by;
    this.tellViews();
    clearInterval(this.signs);
    const listen = this.views ? addEventListener : removeEventListener;
    if (this.views) this.signs = setInterval(this.tellViews, SIGN_OF_LIFE);
    listen("pageshow", this.tellViews);
    listen("focus", this.tellViews); // timers stand still while a computer sleeps
    listen("pagehide", this.leave);
  }

  private tellViews = (): void => this.send({ do: "seen", views: this.views, page: this.page });

  private leave = (): void => this.send({ do: "seen", views: 0, page: this.page });

  private hello(): void {
    this.number = null;
    this.asked = Date.now();
    this.expect(ANYTHING);
    this.send({ do: "hello" });
  }

  private send(content: Record<string, Json>): void {
    try {
      this.model.send(content);
    } catch {
      this.end();
    }
  }

  private expect(ticket: string): void {
    this.untaken.add(ticket);
    if (!this.silence && !this.lost) this.awaitWord();
  }

  /** Wait anew for any word of the kernel, if it was asked for something and has not said that it took it. */
  private awaitWord(): void {
    clearTimeout(this.silence);
    this.silence = this.untaken.size ? setTimeout(() => this.lose(SILENT), SILENCE) : undefined;
  }

  /** There is no kernel any more: the dashboard stays as it was last. */
  private end = (): void => this.lose(GONE);

  private lose(why: string): void {
    this.untaken.clear();
    this.awaitWord();
    this.lost = why;
    this.announce();
  }

  /** The kernel is there: it has said something, and perhaps that it took what was asked for with a ticket. */
  private found(ticket: string): void {
    this.untaken.delete(ticket);
    this.untaken.delete(ANYTHING);
    this.awaitWord();
    if (!this.lost) return;
    this.lost = "";
    this.announce();
  }

  private hear = (message: Message): void => {
    this.ahead = Date.now() / 1000 - message.now;
    this.found("taken" in message ? message.taken : "done" in message ? message.done : ANYTHING);
    if ("taken" in message) return;
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
