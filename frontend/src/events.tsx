// What happens, as it happens: a log that follows its end, with a filter that the kernel applies.
import { Component } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { DashboardProps } from "./frame";
import { Action, Badge, Field, visible } from "./ui";

interface Row { n: number; at: number; kind: string; tone: string; about: string; text: string }

/** Milliseconds without a key after which the typed text filters. */
const PAUSE = 200;

/** Pixels from its end within which a log still counts as being at it. */
const NEAR = 8;

const many = (count: number) => count.toLocaleString("en");

export function Events({ state, channel }: DashboardProps) {
  const [groups, setGroups] = useState<string[]>(state.groups ?? []);
  const [frequent, setFrequent] = useState<boolean>(state.frequent ?? false);
  const [text, setText] = useState<string>(state.text ?? "");
  // Another view of the same dashboard may filter too. What is typed here is nobody else's.
  useEffect(() => setGroups(state.groups ?? []), [state.groups]);
  useEffect(() => setFrequent(state.frequent ?? false), [state.frequent]);
  const filter = (changes: { groups?: string[]; frequent?: boolean }) => {
    const wanted = { groups, frequent, text, ...changes };
    setGroups(wanted.groups);
    setFrequent(wanted.frequent);
    void channel.act("filter", wanted);
  };
  const isTyped = useRef(false);
  useEffect(() => {
    if (!isTyped.current) return;
    const timer = setTimeout(() => filter({}), PAUSE);
    return () => clearTimeout(timer);
  }, [text]);
  const toggled = (group: string) => (groups.includes(group) ? groups.filter((one) => one !== group) : [...groups, group]);
  const isFiltered = groups.length > 0 || Boolean(state.text);
  return (
    <div class="llmj-events">
      <div class="llmj-events-top">
        <div role="group" aria-label="Kinds of events">
          <Toggle on={!groups.length} onClick={() => filter({ groups: [] })} label="All events">all</Toggle>
          {(state.all_groups ?? []).map((group: string) => (
            <Toggle key={group} on={groups.includes(group)} onClick={() => filter({ groups: toggled(group) })}
              label={`Only ${group} events`}>{group}</Toggle>
          ))}
        </div>
        <Toggle on={frequent} onClick={() => filter({ frequent: !frequent })} label="Show measurements and progress too">
          measurements</Toggle>
        <Field label="Filter events by text" placeholder="Filter by text" value={text}
          onInput={(typed) => { isTyped.current = true; setText(typed); }} onSubmit={() => filter({})} />
        <span class="llmj-events-buttons">
          <Action channel={channel} verb={state.paused ? "resume" : "pause"}
            label={state.paused ? "Resume events" : "Pause events"}>{state.paused ? "Resume" : "Pause"}</Action>
          <Action channel={channel} verb="clear" label="Clear events">Clear</Action>
        </span>
      </div>
      <Log rows={state.rows ?? []} empty={isFiltered ? "Nothing that happened matches." : "Nothing yet."} />
      <p class="llmj-events-foot llmj-quiet">
        {state.paused ? <Badge tone="warn">paused{state.waiting ? `, ${many(state.waiting)} new` : ""}</Badge> : null}
        {state.skipped ? `${many(state.skipped)} more passed too fast to show; %llm events -n 1000 lists the last ones.` : ""}
      </p>
    </div>
  );
}

function Toggle({ on, label, onClick, children }: { on: boolean; label: string; onClick: () => void; children: string }) {
  return <button type="button" class="llmj-toggle" aria-pressed={on} aria-label={label} title={label} onClick={onClick}>{children}</button>;
}

/** The rows in a box of its own, which stays at its end until somebody scrolls up. */
function Log({ rows, empty }: { rows: Row[]; empty: string }) {
  const box = useRef<HTMLDivElement>(null);
  const [follows, setFollows] = useState(true);
  const seen = useRef(0);
  const last = rows.length ? rows[rows.length - 1].n : 0;
  if (follows) seen.current = last;
  const below = rows.reduce((count, row) => count + Number(row.n > seen.current), 0);
  const toEnd = () => { if (box.current) box.current.scrollTop = box.current.scrollHeight; };
  useLayoutEffect(() => { if (follows) toEnd(); }, [rows, follows]);
  const look = () => {
    const { scrollHeight, scrollTop, clientHeight } = box.current!;
    setFollows(scrollHeight - scrollTop - clientHeight <= NEAR);
  };
  return (
    <div class="llmj-events-frame">
      <div class="llmj-events-log" role="region" aria-label="Log of events" tabIndex={0} ref={box} onScroll={look}>
        {rows.length ? (
          <table aria-label="Events">
            <thead><tr><th scope="col">time</th><th scope="col">event</th><th scope="col">about</th><th scope="col">what</th></tr></thead>
            <tbody>{rows.map((row) => <Line key={row.n} row={row} />)}</tbody>
          </table>
        ) : <p class="llmj-quiet">{empty}</p>}
      </div>
      {below ? (
        <button type="button" class="llmj-events-below" aria-label={`${below} new events below, go to the end`}
          onClick={() => { setFollows(true); toEnd(); box.current?.focus(); }}>{many(below)} new below ↓</button>
      ) : null}
    </div>
  );
}

/** One event; drawn once, as it never changes. */
class Line extends Component<{ row: Row }> {
  shouldComponentUpdate(next: { row: Row }) {
    return next.row !== this.props.row;
  }

  render({ row }: { row: Row }) {
    return (
      <tr>
        <td class="llmj-events-time">{clock(row.at)}</td>
        <td><Badge tone={row.tone}>{visible(row.kind)}</Badge></td>
        <td>{visible(row.about)}</td>
        <td>{visible(row.text)}</td>
      </tr>
    );
  }
}

function clock(at: number): string {
  const moment = new Date(at * 1000);
  const two = (count: number) => String(count).padStart(2, "0");
  return `${two(moment.getHours())}:${two(moment.getMinutes())}:${two(moment.getSeconds())}.${String(moment.getMilliseconds()).padStart(3, "0")}`;
}
