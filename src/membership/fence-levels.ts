/**
 * What the fence levels of a node say about how it can end.
 *
 * Three kinds of method: `self` (its lease alone), `manual` (a person vouches), and all others, which are configured programs:
 * devices, agents and scripts, whose success means that the machine was verified off. A level names one built-in method, or
 * some of the others.
 */

/** Decided by the core, not carried out by a device. */
const BUILT_IN: readonly string[] = ['self', 'manual'];

type Levels = readonly (readonly string[])[];

/** A level whose success means that the machine is off. */
export function isDeviceLevel(level: readonly string[]): boolean {
  return level.length > 0 && level.every((method) => !BUILT_IN.includes(method));
}

/** The levels that end the machine by device. */
export function deviceLevels(levels: Levels): string[][] {
  return levels.filter(isDeviceLevel).map((level) => [...level]);
}

/**
 * Nobody frees this node's locks before its machine was seen off: no level is its lease alone, and at least one is a device. Then
 * the end of its lease is no reason for its owners to stop (rule 20). A further level `manual` changes nothing: a person may vouch
 * for a node at whatever level it stands, and vouches for the same. But a person alone is not enough: there the end of the
 * lease stays the second thing that must have happened.
 */
export function endsWithMachine(levels: Levels): boolean {
  return levels.every((level) => !level.includes('self')) && levels.some(isDeviceLevel);
}
