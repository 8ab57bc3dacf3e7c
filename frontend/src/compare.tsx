// One prompt to several models: whom to ask and what, and below it the answers side by side.
import { useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Channel, Json, State } from "./channel";
import { Answers } from "./compare_answers";
import type { DashboardProps } from "./frame";
import { Action, Button, useChosen, visible } from "./ui";

/** What was typed of a contender; what is left empty is left to the model's settings. */
interface Contender {
  id: string;
  model: string;
  temperature: string;
  tokens: string;
  seed: string;
  system: string;
}

type Question = Record<string, Json>;

const MOST_CONTENDERS = 8;
const MOST_REPEATS = 10;

let made = 0;

function contender(model = "", temperature = ""): Contender {
  return { id: `${++made}`, model, temperature, tokens: "", seed: "", system: "" };
}

export function Compare({ state, channel }: DashboardProps) {
  return (
    <div class="llmj-compare">
      <Asking state={state} channel={channel} />
      {state.view ? <Answers state={state} channel={channel} /> : (
        <p class="llmj-quiet">Nothing was compared yet. What %%compare and compare(…) ask in this notebook shows here too.</p>
      )}
    </div>
  );
}

function Asking({ state, channel }: { state: State; channel: Channel }) {
  const [prompt, setPrompt] = useState("");
  const [contenders, setContenders] = useContenders(state.suggested);
  const [repeats, setRepeats] = useState("1");
  const [isBlind, setBlind] = useChosen(!!state.blind);
  const [isSending, setSending] = useState(false);
  /** What was sent last and not taken, since it would leave this machine. */
  const [held, setHeld] = useState<Question | null>(null);
  const isReady = !!prompt.trim() && contenders.length > 0 && contenders.every((one) => one.model.trim()) && !(isSending && !channel.lost);
  const send = (question: Question) => {
    setHeld(question.confirmed ? null : question);
    setSending(true);
    channel.act("ask", question).then(() => setSending(false));
  };
  const ask = () => {
    if (isReady && !state.view?.running)
      send({ prompt, contenders: contenders.map(sent), repeats: Number(repeats), confirmed: false, asked: `${Math.random()}` });
  };
  const change = (at: number, to: Partial<Contender>) =>
    setContenders(contenders.map((one, index) => (index === at ? { ...one, ...to } : one)));
  return (
    <form class="llmj-compare-asking" onSubmit={(event) => { event.preventDefault(); ask(); }}
      onKeyDown={(event) => {
        if (event.key !== "Enter") return;
        const asks = event.ctrlKey || event.metaKey;
        if (!asks && (event.target as Element).tagName !== "INPUT") return;
        event.preventDefault(); // in a small field Enter alone does not ask
        if (!asks) return;
        event.stopPropagation();
        ask();
      }}>
      <textarea rows={Math.min(12, Math.max(3, prompt.split("\n").length))} aria-label="Prompt" value={prompt}
        placeholder="What all of them are asked. Ctrl+Enter asks." onInput={(event) => setPrompt(event.currentTarget.value)} />
      <Contenders contenders={contenders} state={state} onChange={change}
        onRemove={(at) => setContenders(contenders.filter((_, index) => index !== at))} />
      <div class="llmj-compare-bar">
        <Button off={contenders.length >= MOST_CONTENDERS}
          onClick={() => setContenders([...contenders, contender(contenders.at(-1)?.model ?? "")])}>Add contender</Button>
        <label>Runs{" "}
          <input type="number" class="llmj-compare-figure" aria-label="Runs of each contender" min="1" max={MOST_REPEATS}
            required value={repeats} onInput={(event) => setRepeats(event.currentTarget.value)} />
        </label>
        <label title="Columns are called A, B, C until you vote">
          <input type="checkbox" role="switch" checked={isBlind} onChange={(event) => {
            setBlind(event.currentTarget.checked);
            void channel.act("blind", { on: event.currentTarget.checked });
          }} /> Blind
        </label>
        <span class="llmj-compare-bar llmj-compare-end">
          <Button type="submit" class="llmj-primary" off={!isReady || state.view?.running}>Ask</Button>
          <Action channel={channel} verb="stop" label="Stop comparison" disabled={!state.view?.running}>Stop</Action>
        </span>
      </div>
      {held && held.asked === state.leaves?.asked ? (
        <Leaving models={state.leaves.models} onYes={() => send({ ...held, confirmed: true })} onNo={() => setHeld(null)} />
      ) : null}
      <Remote remote={state.remote ?? []} channel={channel} />
    </form>
  );
}

/** Whom to ask: what was typed, or, as long as nothing was, what the kernel suggests. */
function useContenders(suggested?: { model: string; temperature?: number }[]): [Contender[], (all: Contender[]) => void] {
  const [typed, setTyped] = useState<Contender[] | null>(null);
  const proposed = useRef<{ from: string; contenders: Contender[] }>({ from: "", contenders: [] });
  const from = suggested ? JSON.stringify(suggested) : "";
  if (suggested && proposed.current.from !== from) {
    const all = suggested.length ? suggested : [{ model: "" }, { model: "" }];
    proposed.current = { from, contenders: all.map((one) => contender(one.model, one.temperature?.toString())) };
  }
  return [typed ?? proposed.current.contenders, setTyped];
}

/** A contender as the kernel takes it. */
function sent(one: Contender): Json {
  const number = (text: string) => (text.trim() ? Number(text) : null);
  return {
    model: one.model.trim(), temperature: number(one.temperature), max_tokens: number(one.tokens), seed: number(one.seed),
    system: one.system.trim() || null,
  };
}

function Contenders({ contenders, state, onChange, onRemove }: {
  contenders: Contender[]; state: State; onChange: (at: number, to: Partial<Contender>) => void; onRemove: (at: number) => void;
}) {
  const list = useId();
  const models: { name: string; local: boolean }[] = state.models ?? [];
  const remote = new Set(models.filter((model) => !model.local).map((model) => model.name));
  return (
    <>
      <datalist id={list}>
        {models.map((model) => <option key={model.name} value={model.name}>{model.local ? "" : "(remote)"}</option>)}
      </datalist>
      <ol class="llmj-compare-contenders">
        {contenders.map((one, at) => (
          <li key={one.id} role="group" aria-label={`Contender ${at + 1}`}>
            <label class="llmj-compare-model">
              <span>Model{remote.has(one.model.trim()) ? " (remote)" : ""}</span>
              <input type="text" list={list} aria-label={`Model of contender ${at + 1}`} placeholder="provider/model" required
                autocomplete="off" spellcheck={false} value={one.model} onFocus={(event) => event.currentTarget.select()}
                onInput={(event) => onChange(at, { model: event.currentTarget.value })} />
            </label>
            <Figure caption="Temperature" of={at} value={one.temperature} step="any"
              onInput={(temperature) => onChange(at, { temperature })} />
            <More one={one} at={at} onChange={(to) => onChange(at, to)} />
            <Button class="llmj-compare-remove" aria-label={`Remove contender ${at + 1}`}
              title={`Remove contender ${at + 1}`} off={contenders.length < 2} onClick={() => onRemove(at)}>✕</Button>
          </li>
        ))}
      </ol>
    </>
  );
}

function More({ one, at, onChange }: { one: Contender; at: number; onChange: (to: Partial<Contender>) => void }) {
  const set = [one.tokens && `max ${one.tokens} tokens`, one.seed && `seed ${one.seed}`, one.system.trim() && "system"].filter(Boolean);
  return (
    <details class="llmj-compare-more">
      <summary aria-label={`More settings of contender ${at + 1}`}>More{set.length ? `: ${set.join(", ")}` : ""}</summary>
      <div class="llmj-compare-bar">
        <Figure caption="Max tokens" of={at} value={one.tokens} min="1" onInput={(tokens) => onChange({ tokens })} />
        <Figure caption="Seed" of={at} value={one.seed} onInput={(seed) => onChange({ seed })} />
        <label class="llmj-compare-system">
          <span>System</span>
          <textarea rows={2} aria-label={`System prompt of contender ${at + 1}`} value={one.system}
            onInput={(event) => onChange({ system: event.currentTarget.value })} />
        </label>
      </div>
    </details>
  );
}

function Figure({ caption, of, value, onInput, min = "0", step = "1" }: {
  caption: string; of: number; value: string; onInput: (text: string) => void; min?: string; step?: string;
}) {
  return (
    <label class="llmj-compare-setting">
      <span>{caption}</span>
      <input type="number" class="llmj-compare-figure" aria-label={`${caption} of contender ${of + 1}`} min={min} step={step}
        placeholder="default" value={value} onInput={(event) => onInput(event.currentTarget.value)} />
    </label>
  );
}

/** Asked before a prompt leaves this machine. */
function Leaving({ models, onYes, onNo }: { models: string[]; onYes: () => void; onNo: () => void }) {
  const no = useRef<HTMLButtonElement>(null);
  useLayoutEffect(() => no.current?.focus(), []);
  const question = `This prompt will leave this machine: ${models.join(", ")} ${models.length > 1 ? "are" : "is"} remote. Ask?`;
  return (
    <p class="llmj-confirm" role="alertdialog" aria-label={question}
      onKeyDown={(event) => { if (event.key === "Escape") { event.stopPropagation(); onNo(); } }}>
      {visible(question)}{" "}
      <button type="button" class="llmj-danger" onClick={onYes}>Yes</button>
      <button type="button" ref={no} onClick={onNo}>No</button>
    </p>
  );
}

function Remote({ remote, channel }: { remote: string[]; channel: Channel }) {
  if (!remote.length) return null;
  const names = visible(remote.join(", "));
  return (
    <p class="llmj-quiet">
      Not asked for their models, since remote: {names}.{" "}
      <Action channel={channel} verb="models" values={{ remote: true }} label={`List models of ${names}`}
        confirm={`Ask ${names} over the network?`}>List them</Action>
    </p>
  );
}
