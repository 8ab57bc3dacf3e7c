// Whoever works with the keyboard keeps their place, also where the control that they have just used goes away.

/**
 * When the control that has the focus is removed, what it stood in gets the focus: the next Tab goes on from there, and not
 * from the beginning of the page. Returns how to stop.
 */
export function keepPlace(frame: HTMLElement): () => void {
  /** What has the focus, and all that it stands in, from the inside out; nothing once the person went elsewhere. */
  let path: HTMLElement[] = [];
  const entered = ({ target }: FocusEvent) => {
    path = [];
    for (let at = target as HTMLElement | null; at && frame.contains(at); at = at.parentElement) path.push(at);
  };
  const left = ({ target }: FocusEvent) =>
    queueMicrotask(() => {
      if (target === path[0] && path[0].isConnected) path = [];
    });
  const observer = new MutationObserver(() => {
    if (!path.length || path[0].isConnected || document.activeElement !== document.body) return;
    const near = path.find((one) => one.isConnected);
    if (near && !near.hasAttribute("tabindex")) near.tabIndex = -1;
    near?.focus({ preventScroll: true });
  });
  frame.addEventListener("focusin", entered);
  frame.addEventListener("focusout", left);
  observer.observe(frame, { childList: true, subtree: true });
  return () => {
    frame.removeEventListener("focusin", entered);
    frame.removeEventListener("focusout", left);
    observer.disconnect();
  };
}
