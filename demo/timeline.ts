/** Prints what happens, each line with the time since the demo began. */

const start = process.hrtime.bigint();

export function elapsedMs(): number {
  return Number(process.hrtime.bigint() - start) / 1e6;
}

export function say(text: string): void {
  process.stdout.write(`${(elapsedMs() / 1000).toFixed(2).padStart(7)} s  ${text}\n`);
}

export interface Expectation {
  what: string;
  held: boolean;
  detail: string;
}
const expectations: Expectation[] = [];

/** Notes whether something that must hold did. */
export function expect(what: string, held: boolean, detail = ''): void {
  expectations.push({ what, held, detail });
}

/** Prints all expectations; true when every one held. */
export function verdict(): boolean {
  process.stdout.write('\n');
  for (const { what, held, detail } of expectations) {
    process.stdout.write(`  ${held ? 'ok    ' : 'FAILED'}  ${what}${detail ? `  (${detail})` : ''}\n`);
  }
  return expectations.every((e) => e.held);
}
