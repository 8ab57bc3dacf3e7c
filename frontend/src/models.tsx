// Every model of every provider: a table to search and sort, and what is being fetched.
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Channel } from "./channel";
import type { DashboardProps } from "./frame";
import { Action, Ago, Badge, Field, bytes, seconds, visible } from "./ui";

interface Model {
  key: string;
  name: string;
  provider: string;
  local: boolean;
  size: number | null;
  fits: boolean | null;
  loaded: boolean | null;
  window: string;
  tokens: number | null;
  quantization: string;
  abilities: string[];
  is_managed: boolean;
  chats: boolean;
  answers: string;
  busy: string;
  since: number | null;
}

interface Pull {
  number: number;
  name: string;
  state: "running" | "elsewhere" | "quiet" | "stopped" | "failed";
  status: string;
  error: string;
  completed: number;
  total: number | null;
  speed: number | null;
  left: number | null;
}

interface Sorting {
  column: number;
  descending: boolean;
}

interface Column {
  heading: string;
  /** What rows are sorted by; nothing goes last. */
  by: (model: Model) => string | number | null;
}

const COLUMNS: Column[] = [
  { heading: "Model", by: (model) => model.name.toLowerCase() },
  { heading: "Provider", by: (model) => model.provider },
  { heading: "Size", by: (model) => model.size },
  { heading: "In memory", by: (model) => (model.loaded === null ? null : model.loaded ? 0 : 1) },
  { heading: "Context", by: (model) => model.tokens },
  { heading: "Quantization", by: (model) => model.quantization || null },
  { heading: "Can also", by: (model) => model.abilities.join(" ") || null },
];

export function Models({ state, channel }: DashboardProps) {
  const [search, setSearch] = useState("");
  const [sorting, setSorting] = useState<Sorting | null>(null);
  const models: Model[] = state.models ?? [];
  const found = sorted(models.filter((model) => matches(model, search)), sorting);
  return (
    <div class="llmj-models">
      <Answering answering={state.answering} />
      <Fetching pulls={state.pulls ?? []} channel={channel} />
      <div class="llmj-models-bar">
        <input type="search" aria-label="Search models" placeholder="Search: name, provider, quantization, ability"
          value={search} onInput={(event) => setSearch(event.currentTarget.value)} />
        <span class="llmj-quiet llmj-figure" role="status">
          {found.length === models.length ? `${models.length}` : `${found.length} of ${models.length}`}
          {models.length === 1 ? " model" : " models"}
        </span>
        <SortBy sorting={sorting} onSort={setSorting} />
        <Action channel={channel} verb="refresh" label="Ask the local providers again">Refresh</Action>
      </div>
      {found.length ? (
        <Catalogue models={found} channel={channel} sorting={sorting} onSort={setSorting} />
      ) : (
        <p class="llmj-quiet">{models.length ? "No model matches." : "No model is here yet. Fetch one above."}</p>
      )}
      {(state.down ?? []).map((one: { provider: string; text: string; step: string }) => (
        <p key={one.provider} class="llmj-models-down">
          <Badge tone="bad">{visible(one.text)}.</Badge> {visible(one.step)}
        </p>
      ))}
      <Remote remote={state.remote} channel={channel} />
    </div>
  );
}

/** All words that were typed must be somewhere in what a row tells. */
function matches(model: Model, search: string): boolean {
  const told = [model.provider, model.name, model.local ? "local" : "remote", model.quantization, model.answers,
    model.loaded ? "loaded" : "", ...model.abilities].join(" ").toLowerCase();
  return search.toLowerCase().split(/\s+/).every((word) => told.includes(word));
}

function sorted(models: Model[], sorting: Sorting | null): Model[] {
  if (!sorting) return models;
  const { by } = COLUMNS[sorting.column];
  const sign = sorting.descending ? -1 : 1;
  return [...models].sort((one, other) => {
    const a = by(one), b = by(other);
    if (a === null || b === null) return (a === null ? 1 : 0) - (b === null ? 1 : 0);
    return sign * (a < b ? -1 : a > b ? 1 : 0);
  });
}

function Answering({ answering }: { answering?: { name: string; local: boolean; word: string } | null }) {
  if (!answering) return null;
  return (
    <p class="llmj-models-answering">
      <strong>{visible(answering.name)}</strong> {answering.word} · <Where local={answering.local} />
    </p>
  );
}

function Where({ local }: { local: boolean }) {
  return local ? <span class="llmj-quiet">local</span> : <Badge tone="warn">remote</Badge>;
}

function Remote({ remote, channel }: { remote?: { names: string[]; asked: boolean }; channel: Channel }) {
  if (!remote?.names.length) return null;
  return (
    <p class="llmj-quiet">
      {remote.asked ? "Remote" : "Not asked, since remote"}: {remote.names.map(visible).join(", ")}.{" "}
      <Action channel={channel} verb="refresh" values={{ remote: true }}>
        {remote.asked ? "Ask remote providers again" : "Ask remote providers too"}
      </Action>
    </p>
  );
}

// -- the table

interface Sortable {
  sorting: Sorting | null;
  onSort: (sorting: Sorting | null) => void;
}

function Catalogue({ models, channel, sorting, onSort }: { models: Model[]; channel: Channel } & Sortable) {
  return (
    <div class="llmj-models-list" role="region" aria-label="List of models" tabIndex={0}>
      <table class="llmj-table" aria-label="Models">
        <thead>
          <tr>
            {COLUMNS.map(({ heading }, column) => (
              <Heading key={heading} heading={heading} column={column} sorting={sorting} onSort={onSort} />
            ))}
            <th scope="col">Actions</th>
          </tr>
        </thead>
        <tbody>{models.map((model) => <Row key={model.key} model={model} channel={channel} />)}</tbody>
      </table>
    </div>
  );
}

/** A heading that sorts: upwards, downwards, not at all. */
function Heading({ heading, column, sorting, onSort }: { heading: string; column: number } & Sortable) {
  const mine = sorting?.column === column ? sorting : null;
  const next = !mine ? { column, descending: false } : mine.descending ? null : { column, descending: true };
  return (
    <th scope="col" aria-sort={!mine ? "none" : mine.descending ? "descending" : "ascending"}>
      <button type="button" class="llmj-models-sort" onClick={() => onSort(next)}>
        {heading}<span aria-hidden="true">{!mine ? "" : mine.descending ? " ▼" : " ▲"}</span>
      </button>
    </th>
  );
}

/** The same choice where rows are cards and have no headings. */
function SortBy({ sorting, onSort }: Sortable) {
  return (
    <select class="llmj-models-sortby" aria-label="Sort models by" value={sorting ? String(sorting.column) : ""}
      onChange={({ currentTarget: { value } }) => onSort(value ? { column: Number(value), descending: false } : null)}>
      <option value="">As they come</option>
      {COLUMNS.map(({ heading }, column) => <option key={heading} value={String(column)}>{heading}</option>)}
    </select>
  );
}

function Row({ model, channel }: { model: Model; channel: Channel }) {
  const cells: ComponentChildren[] = [
    <>
      <strong>{visible(model.name)}</strong>{" "}
      {model.answers ? (
        <span class="llmj-models-second">
          <Badge tone={model.answers === "answers now" ? "good" : "idle"}>{model.answers}</Badge>
        </span>
      ) : null}
    </>,
    <>{visible(model.provider)} <span class="llmj-models-second"><Where local={model.local} /></span></>,
    model.size === null ? null : (
      <>
        <span class="llmj-figure">{bytes(model.size)}</span>{" "}
        <span class="llmj-models-second">
          {model.fits ? <Badge tone="good">fits</Badge> : <Badge tone="bad">too large</Badge>}
        </span>
      </>
    ),
    <Memory model={model} />,
    model.window ? <span class="llmj-figure">{model.window}</span> : null,
    visible(model.quantization),
    model.abilities.map((ability) => <span key={ability} class="llmj-models-tag">{visible(ability)}</span>),
  ];
  return (
    <tr class={model.answers ? "llmj-selected" : ""}>
      {cells.map((cell, column) => <td key={column} data-heading={column ? COLUMNS[column].heading : ""}>{cell}</td>)}
      <td><Buttons model={model} channel={channel} /></td>
    </tr>
  );
}

function Memory({ model }: { model: Model }) {
  if (model.busy)
    return <Badge tone="busy">{model.busy} <span class="llmj-figure">{model.since ? <Ago since={model.since} /> : null}</span></Badge>;
  if (model.loaded === null) return null;
  return model.loaded ? <Badge tone="good">loaded</Badge> : <Badge tone="idle">not loaded</Badge>;
}

function Buttons({ model, channel }: { model: Model; channel: Channel }) {
  const name = visible(`${model.provider}/${model.name}`), values = { model: model.key };
  const busy = Boolean(model.busy), verb = model.loaded ? "unload" : "load";
  return (
    <span class="llmj-models-buttons">
      <Action channel={channel} verb="use" values={values}
        disabled={busy || !model.chats || model.answers === "answers now"}
        label={model.local ? `Use ${name}` : `Use ${name}: prompts leave this machine`}>
        Use
      </Action>
      {model.is_managed ? (
        <>
          <Action channel={channel} verb={verb} values={values} label={`${model.loaded ? "Unload" : "Load"} ${name}`}
            disabled={busy}>
            {model.loaded ? "Unload" : "Load"}
          </Action>
          <Action channel={channel} verb="delete" values={values} label={`Delete ${name}`} disabled={busy}
            confirm={`Delete ${name}${model.size ? ` (${bytes(model.size)})` : ""} from disk?`}>
            Delete
          </Action>
        </>
      ) : null}
    </span>
  );
}

// -- fetching

function Fetching({ pulls, channel }: { pulls: Pull[]; channel: Channel }) {
  const [wanted, setWanted] = useState("");
  const [isSent, setSent] = useState(false);
  // What was typed stays until its download has begun: a name that nobody knows can be corrected.
  const newest = Math.max(0, ...pulls.filter((pull) => pull.state === "running").map((pull) => pull.number));
  useEffect(() => {
    if (isSent) setWanted("");
    setSent(false);
  }, [newest]);
  const fetch = () => {
    if (!wanted.trim()) return;
    setSent(true);
    channel.act("pull", { model: wanted.trim() });
  };
  return (
    <>
      <Field label="Fetch a model" button="Fetch" value={wanted} onInput={setWanted} onSubmit={fetch}
        placeholder="Fetch a model: smollm2-135m, llama3.2, https://HOST/NAME.gguf#sha256=DIGITS" />
      {pulls.length ? (
        <ul class="llmj-models-pulls" aria-label="Downloads">
          {pulls.map((pull) => <Download key={pull.number} pull={pull} channel={channel} />)}
        </ul>
      ) : null}
    </>
  );
}

const STATES: Record<Pull["state"], [tone: string, word: string]> = {
  running: ["busy", "fetching"],
  elsewhere: ["busy", "fetched by a cell"],
  quiet: ["idle", "no news: perhaps it was stopped"],
  stopped: ["idle", "stopped"],
  failed: ["bad", "failed"],
};

function Download({ pull, channel }: { pull: Pull; channel: Channel }) {
  const [tone, word] = STATES[pull.state];
  const name = visible(pull.name), values = { pull: pull.number };
  const goesOn = pull.state === "running" || pull.state === "elsewhere";
  return (
    <li>
      <div class="llmj-models-pull">
        <strong>{name}</strong>
        <Badge tone={tone}>{word}</Badge>
        <span class="llmj-models-buttons">
          {pull.state === "running" ? (
            <Action channel={channel} verb="cancel" values={values} label={`Cancel ${name}`}>Cancel</Action>
          ) : null}
          {goesOn ? null : (
            <>
              <Action channel={channel} verb="resume" values={values} label={`Resume ${name}`}>Resume</Action>
              <Action channel={channel} verb="dismiss" values={values} label={`Dismiss ${name}`}>Dismiss</Action>
            </>
          )}
        </span>
      </div>
      {goesOn || pull.completed ? (
        <>
          <Progress pull={pull} name={name} />
          <div class="llmj-quiet llmj-figure">{figures(pull, goesOn)}</div>
        </>
      ) : null}
      {pull.error ? <div class="llmj-bad llmj-models-error">{visible(pull.error)}</div> : null}
    </li>
  );
}

function Progress({ pull, name }: { pull: Pull; name: string }) {
  const share = pull.total ? Math.min(1, pull.completed / pull.total) : null;
  return (
    <div class="llmj-models-progress" role="progressbar" aria-label={name} aria-valuemin={0} aria-valuemax={100}
      aria-valuenow={share === null ? undefined : Math.round(share * 100)} aria-valuetext={amount(pull)}>
      <div style={{ width: `${(share ?? 0) * 100}%` }} />
    </div>
  );
}

function amount({ completed, total, status }: Pull): string {
  if (!completed && !total) return visible(status);
  return total ? `${bytes(completed)} of ${bytes(total)}` : bytes(completed);
}

function figures(pull: Pull, goesOn: boolean): string {
  const { completed, total, speed, left } = pull;
  const parts = [amount(pull)];
  if (goesOn && total && completed >= total) parts.push("finishing");
  if (speed) parts.push(`${(speed / 1e6).toFixed(1)} MB/s`);
  if (left !== null) parts.push(`${seconds(Math.max(1, Math.round(left)))} left`);
  return parts.join(" · ");
}
