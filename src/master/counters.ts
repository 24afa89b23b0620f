/**
 * What this node has done as a master since its start: plain numbers, one addition each on the way of a request. Read by `tsdlm stats`.
 */
export class Counters {
  /** New requests and upward conversions of NL. */
  requests = 0;
  grants = 0;
  /** Requests and conversions that had to wait. */
  conflicts = 0;
  /** Ended without a grant. */
  refusals = 0;
  /** Blocking notices to holders (BASTs). */
  basts = 0;
  releases = 0;
}

/** Locks in force by mode, and waiters by queue, at resources that this node masters. */
export interface MasteredCounts {
  resources: number;
  nl: number;
  pr: number;
  ex: number;
  converting: number;
  blocked: number;
}
