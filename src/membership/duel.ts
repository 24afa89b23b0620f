/**
 * Fence duels: how long each of two nodes waits before it ends the other.
 *
 * The problem: the link between two nodes breaks, both fall silent for each other at the same moment, and both reach both fence
 * devices. If both shoot at once, both die. The idea (pcmk_delay_base, pcmk_delay_max): before a node is fenced by its peer alone,
 * its own delay is waited, a fixed part and a random one, so one of the two is faster and the other is off before its turn.
 *
 * Randomness alone would let the two draw almost the same. So the random part comes in four steps, and of the two voters the
 * lower number has the even ones, the higher the odd ones: with equal parts they never draw the same, and differ by a third of the
 * random part at least. What can not
 * be kept apart that way is refused when the configuration is read. A gap must cover how differently the two notice the silence, and
 * the device's time from the order to the machine's end; the latter only the operator knows, so he may take more than the least.
 */
import type { Millis } from '../protocol/ids.js';
import type { TimeLimits } from './time-limits.js';

/** Before this node is fenced by its peer alone: `baseMs` fixed, and up to `maxMs` more at random. */
export interface FenceDelay {
  baseMs: Millis;
  maxMs: Millis;
}

export const NO_DELAY: FenceDelay = { baseMs: 0, maxMs: 0 };
export const FENCE_DELAY_MAX_MS = 600_000;
/** Delays that may be drawn, those of both nodes together. */
const STEPS = 4;
/** What a device is given at least to end a machine. */
const DEVICE_MS = 1000;

/** The least time between the two shots. */
export function duelGapMs(limits: Pick<TimeLimits, 'heartbeatMs'>): Millis {
  return DEVICE_MS + 2 * limits.heartbeatMs;
}

/** All delays that may be drawn for a victim. `isHigher`: it has the higher number of the two. */
export function delaysOf(delay: FenceDelay, isHigher: boolean, gapMs: Millis): Millis[] {
  if (delay.maxMs === 0) return [delay.baseMs];
  const stepMs = Math.max(gapMs, delay.maxMs / (STEPS - 1));
  const delays: Millis[] = [];
  for (let step = isHigher ? 1 : 0; step < STEPS; step += 2) delays.push(Math.round(delay.baseMs + step * stepMs));
  return delays;
}

/** One of them. `random` is from [0, 1). */
export function drawDelay(delay: FenceDelay, isHigher: boolean, gapMs: Millis, random: number): Millis {
  const delays = delaysOf(delay, isHigher, gapMs);
  return delays[Math.floor(random * delays.length)] ?? delay.baseMs;
}

/** The least difference between what may be drawn for the two, lower number first. */
export function leastDifference(low: FenceDelay, high: FenceDelay, gapMs: Millis): Millis {
  let least = Number.POSITIVE_INFINITY;
  const others = delaysOf(high, true, gapMs);
  for (const a of delaysOf(low, false, gapMs)) for (const b of others) least = Math.min(least, Math.abs(a - b));
  return least;
}
