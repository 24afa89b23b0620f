/**
 * The problem: in the simulator a receiver gets the sender's own object; in production it gets a copy. A core that changes a
 * message after sending it, or one it received, would behave differently in the two.
 * The idea: in some seeds every message is frozen, so such a change throws.
 */
export function deepFreeze(value: unknown): void {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return;
  // Typed arrays with elements cannot be frozen.
  if (ArrayBuffer.isView(value)) return;
  Object.freeze(value);
  for (const key of Object.keys(value)) deepFreeze((value as Record<string, unknown>)[key]);
}
