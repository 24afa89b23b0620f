/**
 * The person who changes the node table and the time limits while everything else goes on: votes are given and taken, limits changed,
 * a spare machine is added, a disk is lost and its node readmitted, a machine goes for good and its node is removed.
 *
 * What cannot be undone is done with care: a disk is lost, or a machine, only while a majority of the voters has both, and one after
 * the other. The rest is asked for whenever it comes to mind; what the leader says to it decides.
 */
import { NodeCore } from '../../src/core/node-core.js';
import { limitValues } from '../../src/membership/limits-in-force.js';
import type { TableCommand, View } from '../../src/membership/types.js';
import type { Life, SimNode } from './node.js';
import { LIMITS, SHORT_LIMITS } from './options.js';
import { Prng } from './prng.js';
import type { World } from './world.js';

const LOOK_MS = 250;

export class TableOperator {
  readonly #world: World;
  readonly #random: Prng;
  /** Lost its disk, or is gone for good, and the table does not say so yet. */
  #open: SimNode | null = null;

  constructor(world: World) {
    this.#world = world;
    this.#random = new Prng(world.options.seed, 15);
  }

  begin(): void {
    const { tableEveryMs, calmMs } = this.#world.options;
    if (tableEveryMs === 0) return;
    this.#world.queue.after(calmMs, () => this.#next());
    this.#tend();
  }

  #next(): void {
    const world = this.#world;
    world.queue.after(this.#random.exp(world.options.tableEveryMs), () => {
      if (!world.isLoading) return;
      this.#act();
      this.#next();
    });
  }

  #act(): void {
    const leader = this.#leader();
    if (leader === null) return;
    // What stands in the log counts, committed or not: an operator who is quick sees that as well.
    const view = aheadOf(leader);
    const r = this.#random;
    const node = r.pick(this.#world.nodes);
    const shown = view.nodes.find((n) => n.id === node.id);
    const isCareful = this.#open === null && shown !== undefined && this.#isSpared(view, shown.voter);
    switch (r.pick(this.#world.options.tableKinds)) {
      case 'limits': {
        const now = view.limits?.active.leaseMs;
        const limits = limitValues(now === LIMITS.leaseMs ? SHORT_LIMITS : LIMITS);
        this.#ask(leader, { c: 'limits', table: view.table, limits });
        return;
      }
      case 'vote':
        if (shown === undefined || this.#open !== null || (shown.voter && !this.#mayTake(view))) return;
        this.#ask(leader, { c: 'voter', table: view.table, node: node.id, on: !shown.voter });
        return;
      case 'wipe':
        if (!isCareful || shown?.journal !== node.journalId) return;
        this.#open = node;
        this.#world.count('disk lost');
        node.wipe();
        this.#world.bootLater(node, 100 + r.exp(1000));
        return;
      case 'retire':
        if (!isCareful || this.#world.nodes.filter((n) => !n.isRetired).length < 4) return;
        this.#open = node;
        this.#world.count('gone for good');
        node.retire();
        return;
      case 'spare':
        for (const spare of this.#world.nodes) if (spare.isSpare && !spare.life && !spare.isRetired) spare.start();
        return;
    }
  }

  /** What was begun is carried through, also while the world heals. */
  #tend(): void {
    const world = this.#world;
    world.queue.after(LOOK_MS, () => {
      this.#tend();
      const leader = this.#leader();
      if (leader === null) return;
      const { view } = leader.core;
      const { table } = view;
      for (const { id, config, life, isSpare, isRetired } of world.nodes) {
        if (!isSpare || isRetired || life === null || view.nodes.some((n) => n.id === id)) continue;
        this.#ask(leader, { c: 'nodeAdd', table, spec: { ...config, voter: this.#random.chance(0.5) } });
        return;
      }
      const node = this.#open;
      if (node === null) return;
      const shown = view.nodes.find((n) => n.id === node.id);
      if (shown === undefined || (!node.isRetired && shown.journal === node.journalId && shown.state === 'in')) this.#open = null;
      else if (shown.voter) this.#ask(leader, { c: 'voter', table, node: node.id, on: false });
      else if (node.isRetired) this.#ask(leader, { c: 'nodeRemove', table, node: node.id });
      else if (shown.journal !== node.journalId)
        this.#ask(leader, { c: 'readmit', table, node: node.id, journal: '', vote: true });
    });
  }

  #ask(leader: Life, command: TableCommand): void {
    leader.node.call(leader, (core, now) => {
      const verdict = core.changeTable(now, command);
      if (verdict.what !== 'wait') this.#world.count(`table ${command.c} ${verdict.what}`);
      this.#world.trace.add(this.#world.queue.now, leader.node.id, 'table', JSON.stringify(command), verdict.what);
    });
  }

  /** A majority of the voters remains with disk and machine, and at least three vote: pairs have rules of their own. */
  #isSpared(view: View, isVoter: boolean): boolean {
    return !isVoter || this.#mayTake(view);
  }

  #mayTake(view: View): boolean {
    return view.nodes.filter((n) => n.voter).length >= 4;
  }

  #leader(): Life | null {
    const found = this.#world.nodes.find((n) => n.life?.core.leader === n.id && n.life.core.isMember && !n.isPaused);
    return found?.life ?? null;
  }
}

function aheadOf({ core }: Life): View {
  return core instanceof NodeCore ? core.membership.ahead : core.view;
}

/** True when these nodes hold a majority of some voter set that a log of the world calls the present one. */
export function hasSomeQuorum(world: World, ids: readonly number[]): boolean {
  for (const { life } of world.nodes) {
    const core = life?.core;
    if (!(core instanceof NodeCore)) continue;
    const voters = core.membership.ahead.nodes.filter((n) => n.voter);
    if (voters.length > 0 && voters.filter((n) => ids.includes(n.id)).length * 2 > voters.length) return true;
  }
  return false;
}
