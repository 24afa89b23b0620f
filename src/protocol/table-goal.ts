/**
 * What an operator wants of the node table and the time limits (`tsdlm node ...`, `tsdlm limits set`), and how far it is.
 *
 * The problem: such a wish takes several log entries, waits between them, and survives a change of the leader. So it is a *goal*,
 * not an order: the command line says it again and again, each time the leader compares it with the view and takes the next step,
 * until nothing is left to do. Saying it twice, or at two nodes, does no harm.
 */
import type { NodeRef } from './admin.js';

export const ROLES = ['voter', 'witness', 'member'] as const;
export type Role = (typeof ROLES)[number];

/** Milliseconds; what is not given stays as it is, or follows from the others as it did before. */
export interface LimitsWish {
  heartbeatMs?: number;
  leaseMs?: number;
  suspectMs?: number;
  deadMs?: number;
  electionMs?: number;
}

export type TableGoal =
  /** `id` 0: the least that was never used. */
  | { what: 'add'; name: string; id: number; host: string; port: number; fence: string[][]; role: Role }
  /** For good. */
  | { what: 'remove'; name: string }
  /** '', 0 and []: as it is. */
  | { what: 'set'; name: string; host: string; port: number; fence: string[][] }
  | { what: 'vote'; name: string; on: boolean }
  /** All voters, and no others. */
  | { what: 'voters'; names: string[] }
  /** `journal`: the one that was lost, from `nodes`. `vote`: it gets a vote once it has caught up. */
  | { what: 'readmit'; name: string; journal: string; vote: boolean }
  | { what: 'limits'; limits: LimitsWish };

/** Answer to `table-step`. TSDLM_NOT_ALLOWED when the leader refuses; TSDLM_UNAVAILABLE when there is none now. */
export interface TableStepData {
  done: boolean;
  /** What is waited for. */
  why: string;
  leader: NodeRef;
  /** Fence methods of an added or changed node that these voters could not be asked about. */
  unasked: string[];
}
