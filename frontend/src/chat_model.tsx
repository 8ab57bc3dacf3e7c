// Which model answers. One that runs elsewhere is taken only after a second question.
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Channel, State } from "./channel";
import { Button, visible } from "./ui";

interface Model {
  name: string;
  local: boolean | null;
}

/** The value of the entry that has remote providers asked for their models. */
const ASK = "?remote";

export function ModelChooser({ state, channel }: { state: State; channel: Channel }) {
  const [wanted, setWanted] = useState<string | null>(null);
  const [isActing, setActing] = useState(false);
  const no = useRef<HTMLButtonElement>(null);
  useLayoutEffect(() => { if (wanted) no.current?.focus(); }, [wanted]);
  const isBusy = isActing && !channel.lost;
  const current: Model | null = state.model;
  const models: Model[] = state.models ?? [];
  const act = (verb: string, values: Record<string, any>) => {
    setWanted(null);
    setActing(true);
    channel.act(verb, values).then(() => setActing(false));
  };
  const choose = (name: string) => {
    const model = models.find((one) => one.name === name);
    if (name === ASK || model?.local === false) setWanted(name);
    else if (name && name !== current?.name) act("use", { model: name });
  };
  const remote: string[] = state.remote ?? [];
  const question = wanted === ASK ? `Ask ${remote.join(", ")} over the network?` : `Prompts then leave this machine. Use ${wanted}?`;
  return (
    <span class="llmj-chat-model">
      <span class="llmj-chat-models">
        <label>
          Model{" "}
          <select value={current?.name ?? ""} aria-busy={isBusy} onChange={(event) => {
            choose(event.currentTarget.value);
            event.currentTarget.value = current?.name ?? ""; // the kernel says which one answers
          }}>
            {current ? null : <option value="">chosen at the first question</option>}
            {current && !models.some((model) => model.name === current.name) ? <Entry model={current} /> : null}
            {models.map((model) => <Entry key={model.name} model={model} />)}
            {remote.length ? <option value={ASK}>Ask {visible(remote.join(", "))} (remote) for models…</option> : null}
          </select>
        </label>
        <Button aria-label="Look for models again" title="Look for models again" off={isBusy} onClick={() => act("models", {})}>⟳</Button>
      </span>
      {wanted ? (
        <span class="llmj-confirm" role="alertdialog" aria-label={question}
          onKeyDown={(event) => { if (event.key === "Escape") { event.stopPropagation(); setWanted(null); } }}>
          {visible(question)}{" "}
          <button type="button" class="llmj-danger"
            onClick={() => (wanted === ASK ? act("models", { remote: true }) : act("use", { model: wanted }))}>Yes</button>
          <button type="button" ref={no} onClick={() => setWanted(null)}>No</button>
        </span>
      ) : null}
    </span>
  );
}

function Entry({ model }: { model: Model }) {
  return <option value={model.name}>{visible(model.name)}{model.local === false ? " (remote)" : ""}</option>;
}
