/** What the helper that ends the machine is told, and how it is recognized: the one word between guard.ts and guard-process.ts. */

/** Its one argument, as JSON. */
export interface GuardOrder {
  socket: string;
  method: 'sysrq' | 'script';
  trigger: string;
  command: string[];
  timeoutMs: number;
}

/** First line that it sends: what it would do. */
export function greetingOf({ method, trigger, command, timeoutMs }: GuardOrder): string {
  return `ready ${JSON.stringify([method, trigger, command, timeoutMs])}`;
}
