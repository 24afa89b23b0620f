/** How a command that waits or holds hears of the signals that end a program. */

export interface Interruption {
  signal: AbortSignal;
  /** The signal that came, or null. */
  by: NodeJS.Signals | null;
  /** Signals act as usual again. */
  stop: () => void;
}

/** Fires its signal on the first of the signals that end a program. */
export function interruption(): Interruption {
  const abort = new AbortController();
  const state: Interruption = {
    signal: abort.signal,
    by: null,
    stop: () => {
      for (const [signal, handler] of handlers) process.off(signal, handler);
    },
  };
  const handlers = (['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const).map((signal) => {
    const handler = (): void => {
      state.by ??= signal;
      abort.abort();
    };
    process.on(signal, handler);
    return [signal, handler] as const;
  });
  return state;
}

/** Waits for something that is good to have, but not for ever, and not for its success. */
export async function within(promise: Promise<unknown>, limitMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, limitMs);
  });
  await Promise.race([promise.catch(() => {}), limit]);
  clearTimeout(timer);
}
