// The processes that serve models, and what they take.
import { useEffect, useRef } from "preact/hooks";
import type { DashboardProps } from "./frame";
import { Action, Ago, Badge, Plot, Table, bytes, visible } from "./ui";

interface Host {
  state: string;
  whose: string;
  pid: number | null;
  url: string;
  /** When its process began. */
  began: number | null;
  restarts: number;
  /** How many kernels use it, and whether this one is among them. */
  holders: number;
  held: boolean;
  reason: string;
  /** Bytes that it may take. */
  limit: number | null;
  /** How it ended the last time. */
  end: { text: string; at: number } | null;
  can: { start: boolean; stop: boolean; restart: boolean; log: boolean };
}

/** Bytes, cores, and how many threads. */
interface Taken {
  rss: number;
  cpu: number;
  threads: number | null;
  gpu: number | null;
}

const TONES: Record<string, string> = {
  running: "good", starting: "busy", loading: "busy", restarting: "warn", stopping: "busy", failed: "bad",
};

const HEADINGS = ["Host", "State", "Memory", "CPU", "Process", "About it", "Actions"];

export function Hosts({ state, channel }: DashboardProps) {
  const names: string[] = state.names ?? [];
  const rows = names.map((name) => {
    const host: Host = state[`host ${name}`];
    const taken: Taken | null = state[`taken ${name}`] ?? null;
    const log: string | undefined = state[`log ${name}`];
    return {
      key: name,
      cells: [
        <Who name={name} host={host} />,
        <State host={host} />,
        <Memory name={name} host={host} taken={taken} values={state[`memory ${name}`] ?? []} />,
        <Cpu name={name} taken={taken} values={state[`cpu ${name}`] ?? []} />,
        <Process host={host} taken={taken} />,
        <About host={host} />,
        <Actions name={name} host={host} isLogOpen={log !== undefined} channel={channel} />,
      ],
      below: log !== undefined ? <Log name={name} text={log} /> : undefined,
    };
  });
  return (
    <div class="llmj-rows llmj-hosts">
      <Table label="Hosts" headings={HEADINGS} rows={rows}
        empty="No model server runs here that llm_jupyter could watch. A [hosts.NAME] table in the settings adds one." />
      <p class="llmj-foot">
        <Action channel={channel} verb="look" label="Look again for servers that somebody else started">Look again</Action>
      </p>
    </div>
  );
}

function Who({ name, host }: { name: string; host: Host }) {
  return (
    <>
      <strong>{visible(name)}</strong>
      {host.whose ? <span class="llmj-line llmj-quiet">{host.whose}</span> : null}
    </>
  );
}

function State({ host }: { host: Host }) {
  return (
    <>
      <Badge tone={TONES[host.state] ?? "idle"}>{host.state}</Badge>
      {host.began !== null ? <span class="llmj-line llmj-quiet">up for <Ago since={host.began} /></span> : null}
    </>
  );
}

function Memory({ name, host, taken, values }: { name: string; host: Host; taken: Taken | null; values: number[] }) {
  const now = taken ? bytes(taken.rss) : "";
  const limit = host.limit ? ` of ${bytes(host.limit)}` : "";
  if (!taken && !values.length) return null;
  return (
    <>
      <span class="llmj-line llmj-quiet">{now ? `${now}${limit}` : ""}&nbsp;</span>
      <Plot values={values} limit={host.limit} label={`Memory of ${name} in the last ${values.length} s: now ${now || "none"}${limit}`} />
      {taken?.gpu ? <span class="llmj-line llmj-quiet">{bytes(taken.gpu)} on the GPU</span> : null}
    </>
  );
}

function Cpu({ name, taken, values }: { name: string; taken: Taken | null; values: number[] }) {
  const now = taken ? `${taken.cpu.toFixed(2)} cores` : "";
  if (!taken && !values.length) return null;
  return (
    <>
      <span class="llmj-line llmj-quiet">{now}&nbsp;</span>
      <Plot values={values} top={1} label={`CPU of ${name} in the last ${values.length} s: now ${now || "none"}`} />
    </>
  );
}

function Process({ host, taken }: { host: Host; taken: Taken | null }) {
  const facts = [
    host.pid !== null ? `pid ${host.pid}` : "",
    taken?.threads ? `${taken.threads} threads` : "",
    host.restarts ? count(host.restarts, "restart") : "",
    host.holders ? `used by ${users(host)}` : "",
  ];
  return <>{facts.filter(Boolean).map((fact) => <span key={fact} class="llmj-line">{fact}</span>)}</>;
}

function About({ host }: { host: Host }) {
  return (
    <>
      {host.whose && host.whose !== "ours" ? <span class="llmj-line llmj-quiet">watched, never stopped</span> : null}
      {host.reason ? <span class="llmj-line">{visible(host.reason)}</span> : null}
      {host.end ? (
        <span class="llmj-line llmj-quiet">last end: {visible(host.end.text)} (<Ago since={host.end.at} suffix=" ago" />)</span>
      ) : null}
    </>
  );
}

function Actions({ name, host, isLogOpen, channel }: {
  name: string; host: Host; isLogOpen: boolean; channel: DashboardProps["channel"];
}) {
  const { can } = host;
  const shared = host.holders > Number(host.held) ? `In use by ${users(host)}. ` : "";
  return (
    <span class="llmj-actions">
      <Action channel={channel} verb="start" values={{ name }} label={`Start ${name}`} disabled={!can.start}>Start</Action>
      <Action channel={channel} verb="stop" values={{ name }} label={`Stop ${name}`} disabled={!can.stop}
        confirm={`${shared}Stop ${name}?`}>Stop</Action>
      <Action channel={channel} verb="restart" values={{ name }} label={`Restart ${name}`} disabled={!can.restart}
        confirm={shared ? `${shared}Restart ${name}?` : undefined}>Restart</Action>
      <Action channel={channel} verb={isLogOpen ? "close_log" : "log"} values={{ name }} disabled={!can.log && !isLogOpen}
        label={`${isLogOpen ? "Close log" : "Log"} of ${name}`}>{isLogOpen ? "Close log" : "Log"}</Action>
    </span>
  );
}

/** What a host wrote last; it follows the end, unless one has scrolled away from it. */
function Log({ name, text }: { name: string; text: string }) {
  const box = useRef<HTMLPreElement>(null);
  const follows = useRef(true);
  useEffect(() => {
    if (box.current && follows.current) box.current.scrollTop = box.current.scrollHeight;
  }, [text]);
  const scrolled = ({ currentTarget: { scrollTop, scrollHeight, clientHeight } }: { currentTarget: HTMLPreElement }) => {
    follows.current = scrollTop + clientHeight > scrollHeight - 8;
  };
  return (
    <pre ref={box} class="llmj-plain llmj-log" tabIndex={0} role="region" aria-label={`Log of ${name}`} onScroll={scrolled}>
      {visible(text)}
    </pre>
  );
}

/** The kernels that use a host, in words. */
function users({ holders, held }: Host): string {
  if (held) return holders > 1 ? `this and ${count(holders - 1, "other kernel")}` : "this kernel";
  return holders > 1 ? `${holders} other kernels` : "another kernel";
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}
