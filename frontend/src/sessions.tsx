// The conversations that are kept: found, opened, continued; the turns of the open one, and how full its context is.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Channel } from "./channel";
import type { DashboardProps } from "./frame";
import { Markdown } from "./markdown";
import { Action, Ago, Badge, Button, Field, seconds, visible } from "./ui";

interface Conversation {
  id: string; name: string; title: string; turns: number; updated: number; model: string;
  current: boolean; elsewhere: boolean; private: boolean;
}
interface Cut { text: string; more: number }
interface Turn {
  id: string; number: number; question: Cut; answer: Cut; whole: boolean; who: string; tokens: (number | null)[];
  seconds: number | null; created: number; state: string; stale: boolean; remarks: string[];
  versions: { id: string; created: number; counts: boolean }[];
}
interface Hit { session: string; title: string; turn: string; slot: string; excerpt: string; earlier: boolean }

/** Milliseconds without a key after which words are looked for. */
const PAUSE = 300;

const STATES: Record<string, [tone: string, word: string]> = {
  complete: ["good", "complete"],
  cut: ["warn", "cut at its limit"],
  interrupted: ["warn", "interrupted"],
  failed: ["bad", "failed"],
  pending: ["busy", "being answered"],
  lost: ["bad", "never answered"],
};

const many = (count: number, what: string) => `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;

export function Sessions({ state, channel }: DashboardProps) {
  const [words, setWords] = useState("");
  const [target, setTarget] = useState("");
  const conversations: Conversation[] = state.conversations ?? [];
  const sought = words.trim();
  const found: Conversation[] | null = sought && state.named?.text === sought ? state.named.rows : null;
  const shown = found ?? conversations.filter((one) => one.title.toLowerCase().includes(sought.toLowerCase()));  // until it comes
  const isTouched = useRef(false);
  useEffect(() => {
    if (!isTouched.current) return;
    const timer = setTimeout(() => void channel.act("search", { text: sought }), PAUSE);
    return () => clearTimeout(timer);
  }, [words]);
  return (
    <div class="llmj-sessions">
      {state.trouble ? <p class="llmj-warn" role="status"><span aria-hidden="true">▲</span> {visible(state.trouble)}</p> : null}
      <div class="llmj-sessions-top">
        <Field label="Search conversations" placeholder="Search names and what was said" value={words}
          onInput={(text) => { isTouched.current = true; setWords(text); }} />
        <Action channel={channel} verb="new" label="New conversation">New</Action>
        <Action channel={channel} verb="refresh" label="Refresh conversations">Refresh</Action>
      </div>
      <div class="llmj-sessions-panes">
        <nav class="llmj-sessions-list" aria-label="Conversations">
          <ul>
            {shown.map((one) => <Listed key={one.id} one={one} open={one.id === state.opened?.id} channel={channel} />)}
          </ul>
          {found && !found.length ? <p class="llmj-quiet">No conversation is called so.</p> : null}
          {found && !state.named.is_all ? <p class="llmj-quiet">The last {found.length} that are called so are listed.</p> : null}
          {!sought && state.kept > conversations.length ? (
            <p class="llmj-quiet">The last {conversations.length} of {state.kept.toLocaleString("en")} are listed.</p>
          ) : null}
          {sought && state.hits ? <Hits hits={state.hits} channel={channel} go={setTarget} /> : null}
        </nav>
        {state.opened ? (
          <Opened key={state.opened.id} one={state.opened} state={state} channel={channel} target={target}
            reached={() => setTarget("")} />
        ) : null}
      </div>
    </div>
  );
}

function marks(one: Conversation): [tone: string, mark: string][] {
  const found: [string, string][] = [];
  if (one.current) found.push(["good", "this notebook"]);
  if (one.elsewhere) found.push(["busy", "in use by another kernel"]);
  if (one.private) found.push(["warn", "private, in memory only"]);
  return found;
}

function Marks({ one }: { one: Conversation }) {
  return <>{marks(one).map(([tone, mark]) => <Badge key={mark} tone={tone}>{mark}</Badge>)}</>;
}

function Listed({ one, open, channel }: { one: Conversation; open: boolean; channel: Channel }) {
  return (
    <li>
      <button type="button" aria-label={["Open " + visible(one.title), ...marks(one).map(([, mark]) => mark)].join(", ")} aria-current={open}
        onClick={() => channel.act("open", { session: one.id })}>
        <strong>{visible(one.title)}</strong> <Marks one={one} />
        <small>
          {one.turns ? many(one.turns, "turn") : "nothing answered yet"}, used <Ago since={one.updated} suffix=" ago" />
          {one.model ? `, ${visible(one.model)}` : ""}
        </small>
      </button>
    </li>
  );
}

function Hits({ hits, channel, go }: {
  hits: { text: string; rows: Hit[]; is_all: boolean }; channel: Channel; go: (target: string) => void;
}) {
  return (
    <section aria-label="Turns that were found">
      <h4>
        <span role="status">
          {hits.rows.length ? `${hits.is_all ? "" : "The best "}${many(hits.rows.length, "turn")}` : "No turn"} with “{visible(hits.text)}”
        </span>
      </h4>
      <ul>
        {hits.rows.map((hit) => (
          <li key={`${hit.session} ${hit.turn}`}>
            <button type="button" aria-label={`Open ${visible(hit.title)} at: ${visible(hit.excerpt)}`}
              onClick={() => { go(`${hit.session} ${hit.slot}`); channel.act("open", { session: hit.session, turn: hit.turn }); }}>
              {visible(hit.excerpt)}
              <small>{visible(hit.title)}{hit.earlier ? ", in an earlier version" : ""}</small>
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Opened({ one, state, channel, target, reached }: {
  one: Conversation & { earlier: number; later: number }; state: DashboardProps["state"]; channel: Channel;
  target: string; reached: () => void;
}) {
  const title = visible(one.title);
  const slots: string[] = state.slots ?? [];
  const count = one.earlier + slots.length + one.later;
  const session = one.id;
  return (
    <section class="llmj-sessions-open" aria-label={`Conversation ${title}`}>
      <h4>{title} <Marks one={one} /></h4>
      <div class="llmj-sessions-actions">
        <Action channel={channel} verb="use" values={{ session }} disabled={one.current}
          label={`Continue ${title} here${one.elsewhere ? ", as a copy" : ""}`}>
          {one.elsewhere ? "Continue a copy here" : "Continue here"}
        </Action>
        <Action channel={channel} verb="fork" values={{ session }} label={`Fork ${title}`} disabled={!slots.length}>Fork</Action>
        <Rename one={one} channel={channel} />
        <Action channel={channel} verb="export" values={{ session, suffix: ".md" }} label={`Export ${title} as Markdown`}>
          Export Markdown
        </Action>
        <Action channel={channel} verb="export" values={{ session, suffix: ".json" }} label={`Export ${title} as JSON`}>
          Export JSON
        </Action>
        <Action channel={channel} verb="delete" values={{ session }} label={`Delete ${title}`} disabled={one.elsewhere}
          confirm={`Delete ${title}${count ? ` with its ${many(count, "turn")}` : ""}?`}>
          Delete
        </Action>
      </div>
      <Meter meter={state.meter} title={title} />
      <Turns label={`Turns of ${title}`} last={slots[slots.length - 1]}>
        {one.earlier ? (
          <Action channel={channel} verb="earlier" label={`Show earlier turns of ${title}`}>
            Show earlier ({one.earlier.toLocaleString("en")})
          </Action>
        ) : null}
        <ol>
          {slots.map((slot) => state[`turn ${slot}`] ? (
            <OneTurn key={slot} slot={slot} turn={state[`turn ${slot}`]} channel={channel} isTarget={target === `${session} ${slot}`} reached={reached} />
          ) : null)}
        </ol>
        {slots.length ? null : <p class="llmj-quiet">Nothing was asked yet.</p>}
        {one.later ? (
          <Action channel={channel} verb="later" label={`Show later turns of ${title}`}>
            Show later ({one.later.toLocaleString("en")})
          </Action>
        ) : null}
      </Turns>
    </section>
  );
}

function Rename({ one, channel }: { one: Conversation; channel: Channel }) {
  const [name, setName] = useState<string | null>(null);
  const title = visible(one.title);
  const field = useRef<HTMLSpanElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const wasOpen = useRef(false);
  const isOpen = name !== null;
  useLayoutEffect(() => {
    const input = field.current?.querySelector("input");
    if (input) input.focus(), input.select();
    else if (wasOpen.current) button.current?.focus();
    wasOpen.current = isOpen;
  }, [isOpen]);
  useEffect(() => setName((typed) => (typed !== null && typed.trim() === one.name ? null : typed)), [one.name]);
  if (name === null)
    return (
      <Button ref={button} aria-label={`Rename ${title}`} title={`Rename ${title}`} off={one.elsewhere}
        onClick={() => setName(one.name)}>
        Rename
      </Button>
    );
  return (
    <span class="llmj-sessions-rename" ref={field} onKeyDown={(event) => event.key === "Escape" && setName(null)}>
      <Field label={`New name of ${title}`} button="Save" value={name} onInput={setName}
        onSubmit={() => (name.trim() === one.name ? setName(null) : channel.act("rename", { session: one.id, name }))} />
      <button type="button" onClick={() => setName(null)}>Cancel</button>
    </span>
  );
}

/** How much of the window the next question would take; what is kept for the answer is drawn lighter. */
function Meter({ meter, title }: { meter: DashboardProps["state"]; title: string }) {
  if (!meter) return null;
  if (meter.problem) return <p class="llmj-quiet">{visible(meter.problem)}</p>;
  const tokens = meter.tokens.toLocaleString("en");
  const left = meter.left_out === null ? "many of the oldest turns would be left out"
    : meter.left_out ? `${meter.left_out === 1 ? "the oldest turn" : `the ${meter.left_out.toLocaleString("en")} oldest turns`} would be left out` : "";
  const whom = meter.model ? ` of ${visible(meter.model)}` : "";
  const text = meter.window ? `about ${tokens} of ${meter.window.toLocaleString("en")} tokens${left ? `; ${left}` : ""}`
    : `about ${tokens} tokens; nobody tells how many fit`;
  if (!meter.window) return <p class="llmj-quiet">The next question sends {text}.</p>;
  const share = Math.min(100, (100 * meter.tokens) / meter.window);
  const kept = Math.min(100 - share, (100 * meter.reserve) / meter.window);
  return (
    <div class="llmj-sessions-meter">
      <div class={`llmj-sessions-bar${left ? " llmj-warn" : ""}`} role="meter" aria-label={`Context of ${title}`}
        aria-valuemin={0} aria-valuemax={meter.window} aria-valuenow={Math.min(meter.tokens, meter.window)} aria-valuetext={text}>
        <span style={{ width: `${share}%` }} /><span class="llmj-sessions-kept" style={{ width: `${kept}%` }} />
      </div>
      <small>
        {left ? <Badge tone="warn">full</Badge> : null} Context{whom}: {text}
        {meter.reserve ? `, ${meter.reserve.toLocaleString("en")} more are kept for the answer` : ""}
      </small>
    </div>
  );
}

/** The turns, the latest in sight at first, and again with each new one for whoever has not scrolled away. */
function Turns({ label, last, children }: { label: string; last?: string; children: any }) {
  const box = useRef<HTMLDivElement>(null);
  const isAtEnd = useRef(true);
  useLayoutEffect(() => {
    if (box.current && isAtEnd.current) box.current.scrollTop = box.current.scrollHeight;
  }, [last]);
  return (
    <div class="llmj-sessions-turns" role="region" aria-label={label} tabIndex={0} ref={box}
      onScroll={({ currentTarget: at }) => (isAtEnd.current = at.scrollHeight - at.scrollTop - at.clientHeight < 40)}>
      {children}
    </div>
  );
}

function OneTurn({ slot, turn, channel, isTarget, reached }: {
  slot: string; turn: Turn; channel: Channel; isTarget: boolean; reached: () => void;
}) {
  const item = useRef<HTMLLIElement>(null);
  const name = `turn ${turn.number}`;
  const [tone, word] = STATES[turn.state] ?? ["idle", turn.state];
  const counts = turn.versions.find((one) => one.id === turn.id)?.counts;
  useEffect(() => {
    if (!isTarget || !item.current) return;
    item.current.focus();
    item.current.scrollIntoView({ block: "nearest" });
    reached();
  }, [isTarget]);
  return (
    <li class="llmj-sessions-turn" aria-label={`Turn ${turn.number}`} tabIndex={-1} ref={item} value={turn.number}>
      <Folded cut={turn.question} of={`the question of ${name}`} slot={slot} turn={turn} channel={channel}>
        <div class="llmj-sessions-question">{visible(turn.question.text)}</div>
      </Folded>
      {turn.answer.text ? (
        <Folded cut={turn.answer} of={`the answer of ${name}`} slot={slot} turn={turn} channel={channel}>
          <Markdown text={turn.answer.text} />
        </Folded>
      ) : null}
      <p class="llmj-sessions-facts">
        <Badge tone={tone}>{word}</Badge>
        {turn.stale ? <Badge tone="warn">answered under an earlier version</Badge> : null}
        {counts ? null : <Badge tone="warn">does not count</Badge>}
        <span>{facts(turn).map((fact) => `${fact} · `)}<Ago since={turn.created} suffix=" ago" /></span>
        {turn.versions.length > 1 ? <Versions slot={slot} turn={turn} name={name} channel={channel} /> : null}
        {counts ? null : (
          <Action channel={channel} verb="restore" values={{ slot, turn: turn.id }} label={`Let this version of ${name} count`}>
            Let this one count
          </Action>
        )}
      </p>
    </li>
  );
}

function facts(turn: Turn): string[] {
  const [read, written] = turn.tokens;
  const found = turn.remarks.map(visible);
  if (turn.who) found.unshift(visible(turn.who));
  if (read !== null || written !== null)
    found.push(`${[read, written].map((count) => count?.toLocaleString("en") ?? "?").join(" + ")} tokens`);
  if (turn.seconds !== null) found.push(`in ${seconds(turn.seconds)}`);
  return found.length || turn.state === "pending" ? found : ["nobody answered"];
}

/** The minute of a moment (seconds since the epoch): unlike an age it stays true in a list that is drawn once. */
function moment(since: number): string {
  return new Date(since * 1000).toLocaleString("en", { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
}

function Versions({ slot, turn, name, channel }: { slot: string; turn: Turn; name: string; channel: Channel }) {
  return (
    <select aria-label={`Versions of ${name}`} value={turn.id}
      onChange={(event) => void channel.act("version", { slot, turn: event.currentTarget.value })}>
      {turn.versions.map((one, index) => (
        <option key={one.id} value={one.id}>
          Version {index + 1} of {turn.versions.length} · {moment(one.created)}{one.counts ? " · counts" : ""}
        </option>
      ))}
    </select>
  );
}

/** A text of which only the first lines are shown until somebody wants all. What the kernel left out is fetched then. */
function Folded({ cut, of, slot, turn, channel, children }: {
  cut: Cut; of: string; slot: string; turn: Turn; channel: Channel; children: any;
}) {
  const [isOpen, setOpen] = useState(false);
  const isLong = cut.more > 0 || cut.text.length > 700 || cut.text.split("\n").length > 9;
  if (!isLong) return children;
  const toggle = () => {
    if (!isOpen && cut.more && !turn.whole) channel.act("whole", { slot });
    setOpen(!isOpen);
  };
  return (
    <div>
      <div class={isOpen ? "" : "llmj-sessions-folded"}>{children}</div>
      {isOpen && cut.more && turn.whole ? (
        <p class="llmj-quiet">{cut.more.toLocaleString("en")} more characters are not shown; an export has them all.</p>
      ) : null}
      <button type="button" class="llmj-sessions-fold" aria-expanded={isOpen} aria-label={`Show ${isOpen ? "less" : "all"} of ${of}`}
        onClick={toggle}>
        {isOpen ? "Show less" : "Show all"}
      </button>
    </div>
  );
}
