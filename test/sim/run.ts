/**
 * One seed, from options to verdict, and the text of a failure: seed, options, the last lines of the trace, and the one
 * command that replays it.
 */
import { NodeCore } from '../../src/core/node-core.js';
import type { CoreApi } from '../../src/core/types.js';
import { RES_OWNED } from '../../src/master/lockres.js';
import { codecOf, decodeBody, encodeBody } from '../../src/protocol/codec.js';
import type { PeerMessage } from '../../src/protocol/peer-messages.js';
import { describeOptions, drawOptions, type SimOptions } from './options.js';
import { type CoreFactory, World } from './world.js';

export interface RunSetup {
  seed: number;
  /** Changes what the seed drew. */
  override?: (options: SimOptions) => void;
  makeCore?: CoreFactory;
  print?: (line: string) => void;
  prepare?: (world: World) => void;
}

export interface RunResult {
  seed: number;
  ok: boolean;
  /** The broken promise, or null. */
  failure: string | null;
  hash: string;
  events: number;
  virtualMs: number;
  grants: number;
  counts: Map<string, number>;
  faults: Map<string, number>;
  /** For people: everything needed to understand and replay. Empty when all held. */
  report: string;
}

const TAIL_LINES = 60;

export const realCore: CoreFactory = (init, out) => new NodeCore(init, out);

/** Reads the engine's tables directly: a whole state dump at every look would take most of the run. */
function mastersOf(core: CoreApi): string[] {
  if (!(core instanceof NodeCore)) return [];
  const out: string[] = [];
  const s = core.engine.state;
  for (const domain of s.domains.values()) {
    if (domain.isRecovering) continue;
    for (const res of domain.resources.values()) {
      if (res.owner === s.self && res.state === RES_OWNED) out.push(`${domain.dom}@${domain.epoch}/${res.name}`);
    }
  }
  return out;
}

function throughCodec(msg: PeerMessage): PeerMessage {
  return decodeBody(codecOf(msg).type, encodeBody(msg)) as PeerMessage;
}

export function runSeed(setup: RunSetup): RunResult {
  const options = drawOptions(setup.seed);
  setup.override?.(options);
  const world = new World({
    options,
    makeCore: setup.makeCore ?? realCore,
    mastersOf,
    ...(setup.print ? { print: setup.print } : {}),
    ...(setup.prepare ? { prepare: setup.prepare } : {}),
  });
  if (options.codec) world.network.throughCodec = throughCodec;
  let ok = false;
  try {
    ok = world.run();
  } catch (e) {
    world.fail(`the harness threw ${e instanceof Error ? e.stack : String(e)}`);
  }
  return {
    seed: setup.seed,
    ok,
    failure: world.failure,
    hash: world.trace.hash,
    events: world.events,
    virtualMs: world.queue.now,
    grants: world.holdCheck.grants,
    counts: world.counts,
    faults: world.faultCounts,
    report: ok ? '' : report(world),
  };
}

function report(world: World): string {
  const { options } = world;
  return [
    `seed ${options.seed} at ${world.queue.now.toFixed(3)} ms: ${world.failure}`,
    `options ${describeOptions(options)}`,
    `the last ${TAIL_LINES} lines of the trace (time ms, node, what):`,
    ...world.trace.tail(TAIL_LINES).map((line) => `  ${line}`),
    `replay: npm run sim -- --from ${options.seed} --seeds 1 --trace`,
  ].join('\n');
}
