// The parts that dashboards are made of.
import { createContext, Fragment, type ButtonHTMLAttributes, type ComponentChildren } from "preact";
import { useContext, useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Channel, Json } from "./channel";

/** A line of text from elsewhere, made visible whole: control and direction marks shown as what they are. */
export function visible(text: string): string {
  return text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/g, (c) =>
    c < " " ? String.fromCharCode(0x2400 + c.charCodeAt(0)) : "\ufffd",
  ).replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (c) => `⟨${c.charCodeAt(0).toString(16).toUpperCase()}⟩`);
}

export function bytes(count: number | null | undefined): string {
  if (count === null || count === undefined) return "";
  if (count < 1e6) return `${Math.round(count / 1e3)} kB`;
  return count < 1e9 ? `${Math.round(count / 1e6).toLocaleString("en")} MB` : `${(count / 1e9).toFixed(1)} GB`;
}

export function seconds(count: number): string {
  if (count < 1) return `${Math.round(count * 1000)} ms`;
  if (count < 10) return `${count.toFixed(1)} s`;
  if (count < 90) return `${Math.round(count)} s`;
  if (count < 5400) return `${Math.round(count / 60)} min`;
  if (count < 129600) return `${(count / 3600).toFixed(count < 36000 ? 1 : 0)} h`;
  return `${Math.round(count / 86400)} d`;
}

/** Whether what is shown is of the past, where no time passes. */
export const Past = createContext(false);

/** Tells the moment that it is by the kernel's clock, in seconds since the epoch. */
export const Now = createContext(() => Date.now() / 1000);

/** Counts from a moment (seconds since the epoch, by the kernel's clock) up to now, in the page. */
export function Ago({ since, suffix = "" }: { since: number; suffix?: string }) {
  const isPast = useContext(Past);
  const now = useContext(Now);
  const until = useRef(now());
  if (!isPast) until.current = now();
  const [, tick] = useState(0);
  useEffect(() => {
    if (isPast) return;
    const timer = setInterval(() => tick((count) => count + 1), 1000);
    return () => clearInterval(timer);
  }, [isPast]);
  const whole = Math.max(0, Math.round(until.current - since));
  return <time>{whole < 90 ? `${whole} s` : seconds(whole)}{suffix}</time>;
}

const ICONS: Record<string, string> = {
  good: "●", busy: "◐", warn: "▲", bad: "✕", idle: "○",
};

/** A state by word, icon and colour: none of the three is needed to understand it. */
export function Badge({ tone, children }: { tone: keyof typeof ICONS | string; children: ComponentChildren }) {
  return <span class={`llmj-badge llmj-${tone}`}><span aria-hidden="true">{ICONS[tone] ?? "○"}</span> {children}</span>;
}

/**
 * A button; one that is `off` cannot be pressed, nor submits its form. It keeps the focus all the time, which a button that
 * is `disabled` would lose.
 */
export function Button({ off, type = "button", onClick, ...rest }: ButtonHTMLAttributes & { off?: boolean; class?: string }) {
  return (
    <button {...rest} type={type} aria-disabled={!!off}
      onClick={(event) => (off ? event.preventDefault() : onClick?.call(event.currentTarget, event))} />
  );
}

interface ActionProps {
  channel: Channel;
  verb: string;
  values?: Record<string, Json>;
  /** What it is called aloud, where its text alone does not say on what it acts. */
  label?: string;
  /** A question that is asked before. */
  confirm?: string;
  disabled?: boolean;
  children: ComponentChildren;
}

/** A button that asks the kernel to do something, and cannot be pressed again until that is done or the kernel is lost. */
export function Action({ channel, verb, values = {}, label, confirm, disabled, children }: ActionProps) {
  const [isWaiting, setWaiting] = useState(false);
  const [asking, setAsking] = useState(false);
  const alive = useRef(true);
  const button = useRef<HTMLButtonElement>(null);
  const no = useRef<HTMLButtonElement>(null);
  const wasAsking = useRef(false);
  const isBusy = isWaiting && !channel.lost;
  useEffect(() => () => void (alive.current = false), []);
  useLayoutEffect(() => {
    if (asking) no.current?.focus();
    else if (wasAsking.current) button.current?.focus();
    wasAsking.current = asking;
  }, [asking]);
  const run = () => {
    setAsking(false);
    setWaiting(true);
    channel.act(verb, values).then(() => alive.current && setWaiting(false));
  };
  if (asking)
    return (
      <span class="llmj-confirm" role="alertdialog" aria-label={confirm}
        onKeyDown={(event) => { if (event.key === "Escape") { event.stopPropagation(); setAsking(false); } }}>
        {confirm}{" "}
        <button type="button" class="llmj-danger" onClick={run}>Yes</button>
        <button type="button" ref={no} onClick={() => setAsking(false)}>No</button>
      </span>
    );
  return (
    <Button ref={button} aria-label={label} title={label} off={disabled || isBusy} aria-busy={isBusy}
      onClick={() => (confirm ? setAsking(true) : run())}>
      {children}
    </Button>
  );
}

export function Notice({ notice }: { notice?: { text: string; error: boolean } | null }) {
  return (
    <p class={`llmj-notice${notice?.error ? " llmj-bad" : ""}`} role="status" aria-live="polite">
      {notice?.text ? visible(notice.text) : ""}
    </p>
  );
}

interface TableProps {
  label: string;
  headings: string[];
  /** One cell list for each row, with a key that names the row. */
  rows: { key: string; cells: ComponentChildren[]; selected?: boolean; below?: ComponentChildren }[];
  /** Said where there is no row. */
  empty?: string;
}

/** A table; in a narrow cell each row becomes a small card with its headings beside its values. */
export function Table({ label, headings, rows, empty }: TableProps) {
  if (!rows.length) return <p class="llmj-quiet">{empty ?? "Nothing yet."}</p>;
  return (
    <table class="llmj-table" aria-label={label}>
      <thead><tr>{headings.map((heading) => <th scope="col" key={heading}>{heading}</th>)}</tr></thead>
      <tbody>
        {rows.map((row) => <Fragment key={row.key}>
          <tr aria-selected={row.selected} class={row.selected ? "llmj-selected" : ""}>
            {row.cells.map((cell, index) => <td key={index} data-heading={headings[index]}>{cell}</td>)}
          </tr>
          {row.below ? <tr class="llmj-below"><td colSpan={headings.length}>{row.below}</td></tr> : null}
        </Fragment>)}
      </tbody>
    </table>
  );
}

interface PlotProps {
  values: (number | null)[];
  /** What it shows, in words, with the last value. */
  label: string;
  /** The top of the scale; the highest value where none is given. */
  top?: number;
  /** A line across, for a limit. */
  limit?: number | null;
}

/** A small line of the last values. */
export function Plot({ values, label, top, limit }: PlotProps) {
  const width = 120, height = 24;
  const known = values.filter((value): value is number => value !== null);
  const high = Math.max(top ?? 0, ...known, limit ?? 0) || 1;
  const step = width / Math.max(1, values.length - 1);
  const y = (value: number) => height - 1 - (value / high) * (height - 2);
  const line = values.map((value, index) => (value === null ? null : `${(index * step).toFixed(1)},${y(value).toFixed(1)}`))
    .filter(Boolean).join(" ");
  return (
    <svg class="llmj-plot" viewBox={`0 0 ${width} ${height}`} role="img" aria-label={label} preserveAspectRatio="none">
      <title>{label}</title>
      {limit ? <line x1="0" x2={width} y1={y(limit)} y2={y(limit)} class="llmj-limit" /> : null}
      {known.length === 1 ? <circle cx="2" cy={y(known[0])} r="1.5" /> : <polyline points={line} />}
    </svg>
  );
}

/** A field whose text is acted on with Enter or with the button beside it. */
export function Field({ label, placeholder, button, value, onInput, onSubmit }: {
  label: string; placeholder?: string; button?: string; value: string;
  onInput: (text: string) => void; onSubmit?: () => void;
}) {
  return (
    <form class="llmj-field" onSubmit={(event) => { event.preventDefault(); onSubmit?.(); }}>
      <input type="text" aria-label={label} placeholder={placeholder ?? label} value={value}
        onInput={(event) => onInput(event.currentTarget.value)} />
      {button ? <Button type="submit" off={!value.trim()}>{button}</Button> : null}
    </form>
  );
}

/**
 * What a person has chosen, until the kernel says another: a control that shows the kernel's value alone would jump back
 * whenever something else is drawn before the kernel has answered.
 */
export function useChosen<T>(told: T): [T, (to: T) => void] {
  const [chosen, choose] = useState<{ to: T } | null>(null);
  useEffect(() => choose(null), [told]);
  return [chosen ? chosen.to : told, (to) => choose({ to })];
}
