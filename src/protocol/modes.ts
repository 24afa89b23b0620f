/**
 * Lock modes and their compatibility, as in ocfs2 (`dlm_lock_compatible` in fs/ocfs2/dlm/dlmcommon.h): NL goes with all,
 * PR with PR, EX with NL only.
 */
export const NL = 0;
export const PR = 1;
export const EX = 2;
/** NL = null lock (a reference that keeps the value block), PR = protected read (shared), EX = exclusive. */
export type Mode = 0 | 1 | 2;
export type ModeName = 'NL' | 'PR' | 'EX';

const NAMES: readonly ModeName[] = ['NL', 'PR', 'EX'];

export function modeName(mode: Mode): ModeName {
  return NAMES[mode] as ModeName;
}

/** The mode of a name in any case, or undefined. */
export function modeFromName(name: string): Mode | undefined {
  if (name === 'EX') return EX;
  if (name === 'PR') return PR;
  const index = NAMES.indexOf(name.toUpperCase() as ModeName);
  return index < 0 ? undefined : (index as Mode);
}

/** True when one owner may hold `a` while another holds `b`. */
export function isCompatible(a: Mode, b: Mode): boolean {
  return a + b <= PR + PR && (a !== EX || b === NL) && (b !== EX || a === NL);
}
