// How every provider is, and which model answers.
import type { DashboardProps } from "./frame";
import { Action, Ago, Badge, Plot, Table, seconds, visible } from "./ui";

interface Trouble {
  text: string;
  remedy: string;
  at: number;
  /** Whether it is over. */
  past: boolean;
}

interface Row {
  kind: string;
  where: "local" | "remote";
  state: string;
  since: number | null;
  /** Milliseconds. */
  latency: number | null;
  models: number | null;
  loaded: string[];
  /** What is said of the model of it that was chosen, and whether that answers now. */
  answers: { words: string; now: boolean } | null;
  note: string;
  trouble: Trouble | null;
  can: { connect: boolean; disconnect: boolean; use: boolean };
}

const TONES: Record<string, string> = {
  connected: "good", loading: "busy", connecting: "busy", degraded: "warn", failed: "bad",
};

const HEADINGS = ["Provider", "State", "Latency", "Models", "About it", "Actions"];

export function Status({ state, channel }: DashboardProps) {
  const names: string[] = state.names ?? [];
  const absent: string[] = state.absent ?? [];
  const rows = names.map((name) => {
    const row: Row = state[`row ${name}`];
    return {
      key: name,
      cells: [
        <Who name={name} row={row} />,
        <State row={row} />,
        <Latency name={name} row={row} values={state[`latency ${name}`] ?? []} />,
        <Models row={row} />,
        <About row={row} />,
        <Actions name={name} row={row} channel={channel} />,
      ],
    };
  });
  return (
    <div class="llmj-rows llmj-status">
      <p class="llmj-answers" role="status">
        {(state.answers as string[] ?? []).map((line, index) => <span key={index}>{visible(line)}</span>)}
      </p>
      <Table label="Providers" headings={HEADINGS} rows={rows} empty="There are no providers." />
      <p class="llmj-foot">
        <Action channel={channel} verb="look" label="Look again for providers and their models">Look again</Action>
        {absent.length ? <span class="llmj-quiet">Not running at their usual places: {visible(absent.join(", "))}.</span> : null}
      </p>
    </div>
  );
}

function Who({ name, row }: { name: string; row: Row }) {
  return (
    <>
      <strong>{visible(name)}</strong>
      <span class="llmj-line llmj-quiet">{visible(row.kind)}, {row.where}</span>
      {row.answers ? (
        <span class={`llmj-line ${row.answers.now ? "llmj-answering" : "llmj-warn"}`}>
          <span aria-hidden="true">{row.answers.now ? "➜" : "▲"}</span> {visible(row.answers.words)}
        </span>
      ) : null}
    </>
  );
}

function State({ row }: { row: Row }) {
  return (
    <>
      <Badge tone={TONES[row.state] ?? "idle"}>{row.state}</Badge>
      {row.since !== null ? <span class="llmj-line llmj-quiet">for <Ago since={row.since} /></span> : null}
    </>
  );
}

function Latency({ name, row, values }: { name: string; row: Row; values: (number | null)[] }) {
  if (row.latency === null && !values.length) return null;
  const last = row.latency === null ? "no answer" : seconds(row.latency / 1000);
  return (
    <>
      <span class="llmj-line llmj-quiet">{last}</span>
      {values.length ? <Plot values={values} label={`Latency of ${name}, the last ${values.length} looks: now ${last}`} /> : null}
    </>
  );
}

function Models({ row }: { row: Row }) {
  return (
    <>
      {row.models ?? ""}
      {row.loaded.length ? <span class="llmj-line llmj-quiet">in memory: {visible(row.loaded.join(", "))}</span> : null}
    </>
  );
}

function About({ row }: { row: Row }) {
  const { trouble } = row;
  return (
    <>
      {row.note ? <span class="llmj-line">{visible(row.note)}</span> : null}
      {trouble?.past ? (
        <span class="llmj-line llmj-quiet">earlier: {visible(trouble.text)} (<Ago since={trouble.at} suffix=" ago" />)</span>
      ) : null}
      {trouble && !trouble.past ? <span class="llmj-line">{visible(trouble.text)}</span> : null}
      {trouble && !trouble.past && trouble.remedy ? <span class="llmj-line llmj-quiet">{visible(trouble.remedy)}</span> : null}
    </>
  );
}

function Actions({ name, row, channel }: { name: string; row: Row; channel: DashboardProps["channel"] }) {
  const { can } = row;
  const isRemote = row.where === "remote";
  const use = isRemote ? "Use (remote)" : "Use";
  return (
    <span class="llmj-actions">
      <Action channel={channel} verb="connect" values={{ name }} label={`Connect ${name}`} disabled={!can.connect}>Connect</Action>
      <Action channel={channel} verb="disconnect" values={{ name }} label={`Disconnect ${name}`} disabled={!can.disconnect}>Disconnect</Action>
      <Action channel={channel} verb="use" values={{ name }} label={`${use} ${name}`} disabled={!can.use}
        confirm={isRemote ? `Prompts will leave this machine. Use ${name}?` : undefined}>{use}</Action>
    </span>
  );
}
