// The notebook's conversation: its turns as they stream, and a field to ask the next question.
import { useCallback, useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Channel, State } from "./channel";
import { ModelChooser } from "./chat_model";
import { CodeActions, Copy } from "./code";
import type { DashboardProps } from "./frame";
import { Markdown } from "./markdown";
import { Action, Ago, Badge, Button, seconds, visible } from "./ui";

interface Turn {
  id: string;
  slot: string;
  state: "pending" | "complete" | "interrupted" | "failed";
  cell: boolean;
  version: number;
  stale: boolean;
  filled: string[];
  images: number;
  editable: boolean;
  model?: string;
  local?: boolean;
  finish?: string;
  tokens?: number | null;
  rate?: number | null;
  cached?: boolean;
  more?: number;
  error?: string;
  thought?: number | null;
  notes?: string[];
}

/** An answer under way: what it waits for since when, or how long it has been thinking. */
interface Live {
  waits: string;
  since: number;
  thinks_since: number | null;
  thought: number | null;
  who: string;
}

export function Chat({ state, channel }: DashboardProps) {
  const turns: Turn[] = state.turns ?? [];
  return (
    <div class="llmj-chat">
      <div class="llmj-chat-head">
        <Which session={state.session} />
        <ModelChooser state={state} channel={channel} />
      </div>
      <Log turns={turns} state={state} channel={channel} />
      <Aloud turns={turns} state={state} />
      <Composer state={state} channel={channel} />
    </div>
  );
}

function Which({ session }: { session?: { name: string | null; id: string; private: boolean; kept: boolean } }) {
  if (!session) return null;
  return (
    <span class="llmj-quiet llmj-chat-which" title={`Conversation ${session.id}: the same as this notebook's %%chat cells`}>
      {session.name ? visible(session.name) : "This notebook's conversation"}
      {session.private ? " · private, in memory only" : session.kept ? "" : " · kept in memory only"}
    </span>
  );
}

/**
 * The turns. It stays at its end while an answer grows, unless somebody has scrolled away from there. Whoever asks is taken to
 * the end; whoever goes to other turns reads on where those before ended: earlier ones from their end, later ones from their
 * beginning.
 */
function Log({ turns, state, channel }: { turns: Turn[]; state: State; channel: Channel }) {
  const log = useRef<HTMLDivElement>(null);
  const sticks = useRef(true);
  const above = useCallback((code: string) => <CodeActions channel={channel} code={code} />, [channel]);
  const { earlier = 0, later = 0 } = state.window ?? {};
  const { count = 0, to = "end" } = state.moved ?? {};
  const before = useRef(count);
  useLayoutEffect(() => {
    if (count !== before.current) sticks.current = to === "end";
    if (sticks.current) log.current!.scrollTop = log.current!.scrollHeight;
    else if (count !== before.current) log.current!.scrollTop = 0;
    before.current = count;
  });
  return (
    <div class="llmj-chat-log" role="log" aria-live="off" aria-label="Conversation" tabIndex={0} ref={log}
      onScroll={({ currentTarget: at }) => void (sticks.current = at.scrollHeight - at.scrollTop - at.clientHeight < 24)}>
      {earlier ? <p><Action channel={channel} verb="earlier">Show earlier</Action> <span class="llmj-quiet">{earlier} more before</span></p> : null}
      {turns.length ? null : <p class="llmj-quiet">Nothing was asked yet. What is asked here and in %%chat cells stands in one conversation.</p>}
      <ol>
        {turns.map((turn) => (
          <li key={turn.slot} class="llmj-turn">
            <Question turn={turn} text={state[`question:${turn.id}`] ?? ""} isBusy={!!state.answering} channel={channel} />
            <Answer turn={turn} question={state[`question:${turn.id}`] ?? ""} live={state[`live:${turn.id}`]}
              text={state[`text:${turn.id}`] ?? ""} thinking={state[`thinking:${turn.id}`] ?? ""} above={above} />
          </li>
        ))}
      </ol>
      {later ? (
        <p>
          <Action channel={channel} verb="later">Show later</Action> <Action channel={channel} verb="latest">Show latest</Action>{" "}
          <span class="llmj-quiet">{later} more after</span>
        </p>
      ) : null}
    </div>
  );
}

/** A question, which can be changed and asked again in its place. */
function Question({ turn, text, isBusy, channel }: { turn: Turn; text: string; isBusy: boolean; channel: Channel }) {
  const [draft, setDraft] = useState<string | null>(null);
  const edit = useRef<HTMLButtonElement>(null);
  const area = useRef<HTMLTextAreaElement>(null);
  const wasEditing = useRef(false);
  const isEditing = draft !== null;
  useLayoutEffect(() => {
    if (isEditing) area.current?.focus();
    else if (wasEditing.current) edit.current?.focus();
    wasEditing.current = isEditing;
  }, [isEditing]);
  const name = named(text);
  const end = () => setDraft(null);
  const again = () => void channel.act("again", { turn: turn.id, prompt: draft ?? text }).then(end);
  if (isEditing)
    return (
      <form class="llmj-question" onSubmit={(event) => { event.preventDefault(); if (draft.trim() && !isBusy) again(); }}
        onKeyDown={(event) => { if (event.key === "Escape") { event.stopPropagation(); end(); } }}>
        <textarea ref={area} rows={rowsFor(draft)} aria-label={`Edit question: ${name}`} value={draft}
          onInput={(event) => setDraft(event.currentTarget.value)} onKeyDown={submitsOnEnter} />
        {turn.cell ? <p class="llmj-quiet">The cell keeps the question as it was.</p> : null}
        <Button type="submit" off={!draft.trim() || isBusy}>Ask again</Button>
        <button type="button" onClick={end}>Cancel</button>
      </form>
    );
  return (
    <div class="llmj-question">
      <div class="llmj-said"><span class="llmj-aloud">You asked: </span>{visible(text)}</div>
      <div class="llmj-turn-foot">
        {turn.filled.length ? <span>with {visible(turn.filled.join(", "))}</span> : null}
        {turn.images ? <span>with {turn.images} picture{turn.images > 1 ? "s" : ""}</span> : null}
        {turn.cell ? <span>from a cell</span> : null}
        {turn.version > 1 ? <span>version {turn.version}</span> : null}
        {turn.editable ? (
          <button type="button" ref={edit} aria-label={`Edit question: ${name}`} onClick={() => setDraft(text)}>Edit</button>
        ) : null}
        <Action channel={channel} verb="again" values={{ turn: turn.id }} label={`Ask again: ${name}`} disabled={isBusy}>Ask again</Action>
      </div>
    </div>
  );
}

function Answer({ turn, question, live, text, thinking, above }: {
  turn: Turn; question: string; live?: Live; text: string; thinking: string; above: (code: string) => any;
}) {
  return (
    <div class="llmj-answer">
      {thinking ? <Thinking text={thinking} live={live} thought={live ? live.thought : turn.thought} /> : null}
      {text ? <Markdown text={text} above={above} /> : null}
      {!live && turn.more ? (
        <p class="llmj-quiet">{turn.more.toLocaleString("en")} more characters are not shown here: %llm history {turn.id}</p>
      ) : null}
      {live ? <Under live={live} /> : <Foot turn={turn} question={question} text={text} />}
      {turn.error && !live ? <pre class="llmj-plain llmj-bad">{visible(turn.error)}</pre> : null}
    </div>
  );
}

function Thinking({ text, live, thought }: { text: string; live?: Live; thought?: number | null }) {
  const thinks = live?.thinks_since;
  return (
    <details class="llmj-thinking">
      <summary>{thinks ? <>Thinking… <Ago since={thinks} /></> : `Thought${thought ? ` for ${seconds(thought)}` : ""}`}</summary>
      <div class="llmj-said">{visible(text)}</div>
    </details>
  );
}

/** What is going on with an answer under way. */
function Under({ live }: { live: Live }) {
  return (
    <div class="llmj-turn-foot">
      <Badge tone="busy">{live.waits ? visible(live.waits) : live.thinks_since ? "thinking" : "answering"}</Badge>
      {live.waits ? <Ago since={live.since} /> : <span>{visible(live.who)}</span>}
    </div>
  );
}

function Foot({ turn, question, text }: { turn: Turn; question: string; text: string }) {
  const facts = [
    turn.tokens ? `${turn.tokens.toLocaleString("en")} tokens` : "",
    turn.rate ? `${turn.rate.toLocaleString("en", { maximumFractionDigits: turn.rate < 10 ? 1 : 0 })} tokens/s` : "",
    turn.cached ? "replayed" : "",
  ].filter(Boolean);
  return (
    <div class="llmj-turn-foot">
      <HowItEnded turn={turn} text={text} />
      {turn.stale ? <Badge tone="warn">answered under an earlier version</Badge> : null}
      {turn.model ? <span>{visible(turn.model)} · {turn.local ? "local" : "remote"}</span> : null}
      {facts.map((fact) => <span key={fact}>{fact}</span>)}
      {text ? <Copy text={text} label={`Copy answer: ${named(question)}`} /> : null}
      {turn.notes?.map((note) => <span key={note}>{visible(note)}</span>)}
    </div>
  );
}

function HowItEnded({ turn, text }: { turn: Turn; text: string }) {
  if (turn.state === "failed") return <Badge tone="bad">{text ? "the answer broke off" : "no answer"}</Badge>;
  if (turn.state === "interrupted") return <Badge tone="warn">{text ? "interrupted" : "stopped before the first token"}</Badge>;
  if (turn.state === "pending") return <Badge tone="busy">asked</Badge>;
  if (turn.finish === "length") return <Badge tone="warn">cut at its limit</Badge>;
  if (turn.finish === "content_filter") return <Badge tone="warn">ended by the server's filter</Badge>;
  return text ? null : <Badge tone="idle">the answer is empty</Badge>;
}

/** What somebody who listens is told: what is waited for, and each answer once it is there. Tokens are not read out. */
function Aloud({ turns, state }: { turns: Turn[]; state: State }) {
  const [words, setWords] = useState("");
  const live = turns.find((turn) => state[`live:${turn.id}`]);
  const before = useRef<string | undefined>(undefined);
  const waits: string = live ? state[`live:${live.id}`].waits : "";
  useEffect(() => { if (waits) setWords(waits); }, [waits]);
  useEffect(() => {
    if (before.current && before.current !== live?.id) {
      const text: string = state[`text:${before.current}`] ?? "";
      setWords(text ? `Answer: ${text.slice(0, 1000)}` : "There is no answer.");
    }
    before.current = live?.id;
  }, [live?.id]);
  return <div class="llmj-aloud" role="status" aria-live="polite">{visible(words)}</div>;
}

/** The field for the next question. What was typed stays until the kernel has taken it. */
function Composer({ state, channel }: { state: State; channel: Channel }) {
  const [text, setText] = useState("");
  /** Instructions that were typed, until they are sent or others hold. */
  const [system, setSystem] = useState<string | null>(null);
  useEffect(() => setSystem(null), [state.session?.id, state.system]);
  const [isSending, setSending] = useState(false);
  const isWaiting = isSending && !channel.lost;
  const isAnswering = !!state.answering;
  const send = () => {
    if (!text.trim() || isAnswering || isWaiting) return;
    setSending(true);
    channel.act("ask", { prompt: text, system: system === state.system ? null : system }).then(() => {
      setSending(false);
      setSystem((now) => (now === system ? null : now));
      setText((now) => (now === text ? "" : now));
    });
  };
  const stop = (event: KeyboardEvent) => {
    if (event.key !== "Escape" || !isAnswering) return;
    event.preventDefault();
    event.stopPropagation();
    channel.act("stop");
  };
  return (
    <form class="llmj-composer" onSubmit={(event) => { event.preventDefault(); send(); }} onKeyDown={stop}>
      <textarea rows={rowsFor(text)} aria-label="Question" placeholder="Ask. Enter sends, Shift+Enter begins a new line."
        value={text} onInput={(event) => setText(event.currentTarget.value)} onKeyDown={submitsOnEnter} />
      <div class="llmj-composer-foot">
        <Button type="submit" class="llmj-primary" off={!text.trim() || isAnswering || isWaiting}>Send</Button>
        <Action channel={channel} verb="stop" disabled={!isAnswering} label="Stop the answer (Escape)">Stop</Action>
        {isWaiting ? <span class="llmj-quiet">Waiting for the kernel…</span> : null}
      </div>
      <details>
        <summary>Instructions (system prompt){state.system || system ? "" : ": none"}</summary>
        <textarea rows={rowsFor(system ?? state.system ?? "")} aria-label="Instructions" value={system ?? state.system ?? ""}
          onInput={(event) => setSystem(event.currentTarget.value)} />
        <p class="llmj-quiet">They hold from the next question on.</p>
      </details>
    </form>
  );
}

/** Enter sends; not while a word is being composed, as for Chinese or Japanese, and not with Shift. */
function submitsOnEnter(event: KeyboardEvent): void {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  (event.currentTarget as HTMLTextAreaElement).form?.requestSubmit();
}

/** A text's beginning, to tell its button from others. */
function named(text: string): string {
  return visible(text.trim().split("\n", 1)[0].slice(0, 40));
}

function rowsFor(text: string): number {
  return Math.min(12, Math.max(2, text.split("\n").length));
}
