// What all dashboards have around them: a title, a line that says what went wrong, and the one that is meant.
import { Component, type ComponentType } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Channel, State } from "./channel";
import { keepPlace } from "./focus";
import { Notice, Now, Past } from "./ui";
import { Chat } from "./chat";
import { Compare } from "./compare";
import { Events } from "./events";
import { Hosts } from "./hosts";
import { Models } from "./models";
import { Sessions } from "./sessions";
import { Status } from "./status";

export interface DashboardProps {
  state: State;
  channel: Channel;
}

const DASHBOARDS: Record<string, ComponentType<DashboardProps>> = {
  chat: Chat,
  compare: Compare,
  events: Events,
  hosts: Hosts,
  models: Models,
  sessions: Sessions,
  status: Status,
};

export function Frame({ channel }: { channel: Channel }) {
  const [, redraw] = useState(0);
  const frame = useRef<HTMLElement>(null);
  useEffect(() => channel.subscribe(() => redraw((count) => count + 1)), [channel]);
  useEffect(() => keepPlace(frame.current!), []);
  const { state, lost } = channel;
  const isPast = !!lost || !!state.over;
  const Dashboard = DASHBOARDS[state.kind];
  // A click beside its controls gives it the focus itself: keys are then no commands for the notebook's cells either.
  return (
    <section class={`llmj-frame${isPast ? " llmj-past" : ""}`} aria-label={state.title} ref={frame} tabIndex={-1}>
      <h3 class="llmj-title">{state.title}</h3>
      <Now.Provider value={channel.now}>
        <Past.Provider value={isPast}>
          <Guard>{Dashboard ? <Dashboard state={state} channel={channel} /> : null}</Guard>
        </Past.Provider>
      </Now.Provider>
      <Notice notice={lost ? { text: lost, error: true } : state.notice} />
    </section>
  );
}

/** A picture that cannot be drawn says so, and is drawn again with the next state. */
class Guard extends Component<{ children: any }, { error: string }> {
  state = { error: "" };

  static getDerivedStateFromError(error: Error) {
    return { error: String(error.message ?? error) };
  }

  componentDidCatch(error: Error) {
    console.error("llm_jupyter: a dashboard could not be drawn", error);
  }

  componentDidUpdate(previous: { children: any }) {
    if (this.state.error && previous.children !== this.props.children) this.setState({ error: "" });
  }

  render() {
    return this.state.error ? <p role="alert">This could not be drawn: {this.state.error}</p> : this.props.children;
  }
}
