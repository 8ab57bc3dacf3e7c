// The answers of a comparison side by side, as they come, with what was measured, a vote, and how they differ.
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Channel, State } from "./channel";
import { SpreadTable, speed, whole } from "./compare_spread";
import type { DashboardProps } from "./frame";
import { Markdown } from "./markdown";
import { Ago, Badge, Button, Field, seconds, useChosen, visible } from "./ui";

interface View {
  number: number;
  running: boolean;
  prompt: number;
  repeats: number;
  progress: string;
  hidden: boolean;
  judged: boolean;
}

interface Column {
  name: string;
  model: string;
  state: "waiting" | "queued" | "asking" | "streaming" | "done" | "failed" | "stopped";
  ahead: number;
  since: number | null;
  finish: string;
  error: string;
  notes: string[];
  run: number;
  runs: string[];
  better: boolean;
}

interface Figures {
  first_token: number | null;
  rate: number | null;
  tokens: number | null;
  total?: number | null;
  queued?: number | null;
  /** The server did not count: pieces stand in place of tokens. */
  about?: boolean;
  more: number;
}

const OVER = ["done", "failed", "stopped"];

export function Answers({ state, channel }: DashboardProps) {
  const view: View = state.view;
  const order: number[] = state.order ?? [];
  return (
    <section class="llmj-compare-answers" aria-label="Answers">
      <Which state={state} view={view} channel={channel} />
      <div class="llmj-compare-columns">
        {order.map((number) => (
          <Answer key={`${view.number} ${number}`} number={number} column={state[`column:${number}`]}
            figures={state[`figures:${number}`]} text={state[`text:${number}`] ?? ""}
            thinking={state[`thinking:${number}`] ?? ""} channel={channel} />
        ))}
      </div>
      <Tools state={state} view={view} order={order} channel={channel} />
      <Difference state={state} />
      <SpreadTable state={state} order={order} />
    </section>
  );
}

/** Which comparison and which prompt is shown, and how far it is. */
function Which({ state, view, channel }: { state: State; view: View; channel: Channel }) {
  const history: { number: number; prompt: string; contenders: number }[] = state.history ?? [];
  const prompts: string[] = state.prompts ?? [];
  return (
    <>
      <div class="llmj-compare-bar">
        {history.length > 1 ? (
          <Chooser label="Comparison" value={view.number} onChange={(number) => void channel.act("open", { number })}>
            {history.map((one) => (
              <option key={one.number} value={one.number}>{one.number}: {visible(one.prompt)} ({one.contenders})</option>
            ))}
          </Chooser>
        ) : null}
        {prompts.length > 1 ? (
          <Chooser label="Prompt to look at" value={view.prompt} onChange={(number) => void channel.act("prompt", { number })}>
            {prompts.map((prompt, at) => <option key={at} value={at}>Prompt {at + 1}: {visible(prompt)}</option>)}
          </Chooser>
        ) : null}
        <span class="llmj-quiet llmj-compare-end" role="status">{view.progress}</span>
      </div>
      <div class="llmj-compare-prompt" tabIndex={0} role="group" aria-label="What was asked">{visible(state.prompt ?? "")}</div>
    </>
  );
}

function Answer({ number, column, figures, text, thinking, channel }: {
  number: number; column?: Column; figures?: Figures; text: string; thinking: string; channel: Channel;
}) {
  const box = useSticking(text);
  if (!column || !figures) return null;
  const name = visible(column.name);
  const isOver = OVER.includes(column.state);
  return (
    <article class={`llmj-compare-column${column.better ? " llmj-compare-better" : ""}`} aria-label={name}>
      <header>
        <h4>{name}</h4>
        {column.model ? <div class="llmj-quiet">{visible(column.model)}</div> : null}
        <div class="llmj-compare-bar">
          <Standing column={column} />
          {column.runs.length ? (
            <Chooser class="llmj-compare-end" label={`Run of ${name}`} value={column.run}
              onChange={(run) => void channel.act("run", { column: number, run })}>
              {column.runs.map((state, run) => <option key={run} value={run}>run {run + 1}: {state}</option>)}
            </Chooser>
          ) : null}
        </div>
      </header>
      {column.error ? <pre class="llmj-plain llmj-bad">{visible(column.error)}</pre> : null}
      {thinking ? (
        <details class="llmj-thinking">
          <summary>{!isOver && !text ? "Thinking…" : "Thought"}</summary>
          <div class="llmj-said">{visible(thinking)}</div>
        </details>
      ) : null}
      <div class="llmj-compare-text" ref={box.ref} onScroll={box.onScroll} tabIndex={0} role="group" aria-label={`Answer of ${name}`}>
        {text ? <Markdown text={text} /> : isOver && !column.error ? <p class="llmj-quiet">The answer is empty.</p> : null}
        {figures.more ? <p class="llmj-quiet">{figures.more.toLocaleString("en")} more characters are not shown; the result has them.</p> : null}
      </div>
      <Measured column={column} figures={figures} />
      {column.notes.map((note) => <div key={note} class="llmj-quiet">{visible(note)}</div>)}
      <Button class="llmj-compare-vote" aria-pressed={column.better} aria-label={`Better: ${name}`} off={!isOver || !text}
        onClick={() => void channel.act("vote", { column: column.better ? null : number })}>
        <span aria-hidden="true">{column.better ? "★" : "☆"}</span> Better
      </Button>
    </article>
  );
}

/** Keeps a box at its end while its text grows, unless somebody has scrolled away from there. */
function useSticking(text: string) {
  const ref = useRef<HTMLDivElement>(null);
  const sticks = useRef(true);
  useLayoutEffect(() => {
    if (sticks.current && ref.current) ref.current.scrollTop = ref.current.scrollHeight;
  }, [text]);
  const onScroll = ({ currentTarget: at }: { currentTarget: HTMLElement }) =>
    void (sticks.current = at.scrollHeight - at.scrollTop - at.clientHeight < 24);
  return { ref, onScroll };
}

/** How an answer stands, in a word; of one that is waited for also since when. */
function Standing({ column: { state, ahead, since, finish } }: { column: Column }) {
  if (state === "waiting") return <Badge tone="idle">waiting</Badge>;
  if (state === "queued") return <span><Badge tone="idle">queued{ahead ? ` behind ${ahead}` : ""}</Badge>{since ? <> · <Ago since={since} /></> : null}</span>;
  if (state === "asking") return <span><Badge tone="busy">asking</Badge>{since ? <> · <Ago since={since} /></> : null}</span>;
  if (state === "streaming") return <Badge tone="busy">streaming</Badge>;
  if (state === "failed") return <Badge tone="bad">failed</Badge>;
  if (state === "stopped") return <Badge tone="warn">stopped</Badge>;
  if (finish === "length") return <Badge tone="warn">done, cut at its limit</Badge>;
  if (finish === "content_filter") return <Badge tone="warn">done, cut by a filter</Badge>;
  return <Badge tone="good">done</Badge>;
}

function Measured({ column, figures }: { column: Column; figures: Figures }) {
  const isComing = column.state === "asking" || column.state === "streaming";
  const total = isComing && column.since ? <Ago since={column.since} /> : time(figures.total);
  const counted = (text: string) => (figures.about && text ? `~${text}` : text);
  const rows = [
    ["1st token", time(figures.first_token)], ["Tokens/s", counted(speed(figures.rate))], ["Tokens", counted(whole(figures.tokens))],
    ["Total", total], ["Queued", time(figures.queued)],
  ];
  return <dl class="llmj-compare-measured">{rows.map(([term, value]) => <div key={term as string}><dt>{term}</dt><dd>{value || "–"}</dd></div>)}</dl>;
}

const time = (value?: number | null) => (value === null || value === undefined ? "" : seconds(value));

/** What can be done with the answers together. */
function Tools({ state, view, order, channel }: { state: State; view: View; order: number[]; channel: Channel }) {
  const [variable, setVariable] = useState("");
  const hasVote = order.some((number) => state[`column:${number}`]?.better);
  const over = order.filter((number) => OVER.includes(state[`column:${number}`]?.state));
  return (
    <div class="llmj-compare-bar">
      <Button aria-pressed={view.judged && !hasVote} aria-label="Tie: nobody is better" off={!over.length}
        onClick={() => void channel.act("vote", {})}>Tie</Button>
      <Differing state={state} order={order} over={over} channel={channel} />
      {state.keeps ? (
        <div class="llmj-compare-end">
          <Field label="Name of the variable" placeholder="Variable name" button="Keep as variable" value={variable} onInput={setVariable}
            onSubmit={() => void channel.act("keep", { name: variable.trim() })} />
        </div>
      ) : null}
    </div>
  );
}

/** Whether differences are shown, and of which two. */
function Differing({ state, order, over, channel }: { state: State; order: number[]; over: number[]; channel: Channel }) {
  const [chosen, setChosen] = useState<number[] | null>(null);
  if (order.length < 2) return null;
  const isOn = !!state.difference;
  const wanted = chosen?.every((number) => over.includes(number)) ? chosen : over;
  const [one, other] = isOn ? state.difference.columns : wanted;
  const turn = (from: number, to: number) => {
    const pair = from === to ? [other, one] : [from, to];
    setChosen(pair);
    if (isOn) channel.act("differences", { one: pair[0], other: pair[1] });
  };
  return (
    <span class="llmj-compare-bar">
      <Button aria-pressed={isOn} off={over.length < 2}
        onClick={() => void channel.act("differences", isOn ? {} : { one, other })}>Show differences</Button>
      {order.length > 2 && over.length > 1 ? (
        <>
          <Side label="Differences from" value={one} numbers={over} state={state} onChange={(from) => turn(from, other)} />
          <Side label="Differences to" value={other} numbers={over} state={state} onChange={(to) => turn(one, to)} />
        </>
      ) : null}
    </span>
  );
}

function Side({ label, value, numbers, state, onChange }: {
  label: string; value: number; numbers: number[]; state: State; onChange: (to: number) => void;
}) {
  return (
    <Chooser label={label} value={value} onChange={onChange}>
      {numbers.map((number) => <option key={number} value={number}>{visible(state[`column:${number}`]?.name ?? "")}</option>)}
    </Chooser>
  );
}

/** One of several things by its number. */
function Chooser({ label, value, onChange, children, ...rest }: {
  label: string; value: number; onChange: (to: number) => void; children: ComponentChildren; class?: string;
}) {
  const [shown, show] = useChosen(value);
  return (
    <select {...rest} aria-label={label} value={shown} onChange={(event) => {
      show(Number(event.currentTarget.value));
      onChange(Number(event.currentTarget.value));
    }}>
      {children}
    </select>
  );
}

interface Found {
  columns: [number, number];
  same: boolean;
  pieces: [string, string][];
  cut: boolean;
}

function Difference({ state }: { state: State }) {
  const found: Found | undefined = state.difference;
  if (!found) return null;
  const [one, other] = found.columns.map((number) => visible(state[`column:${number}`]?.name ?? ""));
  const texts = found.columns.map((number): string => state[`text:${number}`] ?? "");
  const notes = found.columns.map((number, at) => lacking(state[`column:${number}`], texts[at]));
  return (
    <section class="llmj-compare-difference" aria-label="Differences">
      {[...new Set(notes)].map((note) => (note ? <p key={note}>{note}</p> : null))}
      {texts.every((text) => text.trim()) ? (
        <>
          <p class="llmj-quiet"><del>only {one}</del> <ins>only {other}</ins>{found.same ? " Both answered the same." : ""}</p>
          <div class="llmj-compare-text llmj-said" tabIndex={0} role="group" aria-label={`${one} against ${other}`}>
            {found.pieces.map(([kind, text], index) =>
              kind === "-" ? <del key={index}>{visible(text)}</del> : kind === "+" ? <ins key={index}>{visible(text)}</ins> : visible(text))}
            {found.cut ? <em> … cut here.</em> : null}
          </div>
        </>
      ) : null}
    </section>
  );
}

/** What is wrong with an answer that is compared; nothing where it is whole. */
function lacking(column: Column | undefined, text: string): string {
  if (!column) return "";
  const said = column.state === "failed" ? "failed." : column.state === "stopped" ? "was stopped." : text.trim() ? "" : "answered nothing.";
  return said && `${visible(column.name)} ${said}`;
}
