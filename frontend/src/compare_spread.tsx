// The figures of a comparison over all its prompts and runs.
import type { State } from "./channel";
import { Table, seconds, visible } from "./ui";

type Range = [median: number, least: number, most: number];

/** Of one contender. `count` are its whole answers; `error` says why where there are none. */
interface Spread {
  count: number;
  failures: number;
  interrupted: number;
  distinct: number;
  first_token: Range | null;
  tokens_per_second: Range | null;
  tokens: Range | null;
  error: string;
}

export const speed = (value?: number | null) => (value ? value.toFixed(1) : "");
export const whole = (value?: number | null) => (value === null || value === undefined ? "" : Math.round(value).toLocaleString("en"));

const COLUMNS: [heading: string, written: (row: Spread) => string][] = [
  ["Answers", (row) => `${row.count}`],
  ["Failed", (row) => `${row.failures || ""}`],
  ["Stopped", (row) => `${row.interrupted || ""}`],
  ["First token", (row) => range(row.first_token, seconds)],
  ["Tokens/s", (row) => range(row.tokens_per_second, speed)],
  ["Tokens", (row) => range(row.tokens, whole)],
  ["Distinct", (row) => `${row.distinct || ""}`],
  ["Error", (row) => visible(row.error)],
];

/** Columns that are there only where something stands in them. */
const RARE = ["Stopped", "Error"];

export function SpreadTable({ state, order }: { state: State; order: number[] }) {
  const spread: Spread[] = state.spread ?? [];
  if (!spread.length) return null;
  const columns = COLUMNS.filter(([heading, written]) => !RARE.includes(heading) || spread.some(written));
  const rows = order.filter((number) => spread[number]).map((number) => ({
    key: `${number}`,
    cells: [visible(state[`column:${number}`]?.name ?? ""), ...columns.map(([, written]) => written(spread[number]))],
  }));
  return (
    <div class="llmj-compare-spread">
      <p class="llmj-quiet">Over all answers: the median, and from the least to the most.</p>
      <Table label="Median of all answers, and from the least to the most" rows={rows}
        headings={["Contender", ...columns.map(([heading]) => heading)]} />
    </div>
  );
}

/** The median, and from the least to the most. */
function range(values: Range | null, written: (value: number) => string): string {
  if (!values) return "–";
  const [middle, least, most] = values.map(written);
  return least === most ? middle : `${middle} (${least}–${most})`;
}
