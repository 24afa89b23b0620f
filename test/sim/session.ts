/**
 * One simulated client: it asks for a few locks at a time, keeps each for a while, gives way (mostly) when somebody waits, and
 * may vanish at any point. All choices come from its node's generator.
 */
import { EX, type Mode, NL, PR } from '../../src/protocol/modes.js';
import type { Life, SimNode } from './node.js';
import type { Owned } from './owners.js';

const LOCKS_PER_SESSION = 3;

export class Session {
  readonly #node: SimNode;
  #life: Life;
  #isDead = false;
  /** Decided when its daemon ends: it will look for the next one. */
  livesOn: boolean | null = null;

  constructor(node: SimNode, life: Life) {
    this.#node = node;
    this.#life = life;
  }

  /** Its daemon is another one now. */
  resume(life: Life): void {
    this.#life = life;
    this.livesOn = null;
    this.begin();
  }

  begin(): void {
    const { world, random } = this.#node;
    const life = this.#life;
    world.queue.after(random.exp(world.options.thinkMs), () => {
      if (this.#isDead || this.#node.life !== life || !world.isLoading) return;
      this.#node.input(life, () => {
        if (!this.#isDead && world.isLoading && !life.isFrozen) this.#act();
        this.begin();
      });
    });
  }

  #act(): void {
    const { world, random, owners } = this.#node;
    if (random.chance(world.options.dieShare)) {
      this.#isDead = true;
      world.count('session death');
      owners.sessionDied(this);
      owners.openSession(this.#life);
      return;
    }
    const mine: Owned[] = [];
    for (const o of owners.all) if (o.session === this) mine.push(o);
    if (mine.length === 0 || (mine.length < LOCKS_PER_SESSION && random.chance(0.5))) {
      this.#ask();
      return;
    }
    const o = random.pick(mine);
    if (o.phase === 'waiting' || o.phase === 'converting') {
      if (random.chance(0.1)) owners.cancel(o);
      return;
    }
    if (o.phase !== 'held' || !o.hold) return;
    if (o.hold.mode === EX && o.usesLvb && random.chance(0.5)) owners.write(o);
    else if (random.chance(world.options.convertShare)) this.#convert(o);
  }

  #ask(): void {
    const { world, random, owners } = this.#node;
    const { options } = world;
    const isNodeOwned = random.chance(options.nodeOwnedShare);
    const { domain, name } = world.drawName(random);
    // One owner asks for a name once at a time; a second request would wait for itself.
    for (const o of owners.all) {
      if (o.session === this && o.name === name && o.domain === domain) return;
      if (isNodeOwned && o.nodeOwned && o.name === name && o.domain === domain) return;
    }
    const mode = random.weighted({ ex: 50, pr: 38, nl: 12 });
    owners.lock(this.#life, {
      session: isNodeOwned ? null : this,
      domain,
      name,
      mode: mode === 'ex' ? EX : mode === 'pr' ? PR : NL,
      isTry: random.chance(options.tryShare),
      nodeOwned: isNodeOwned,
      usesLvb: !isNodeOwned && random.chance(options.lvbShare),
      door: isNodeOwned && options.fileShare > 0 && random.chance(options.fileShare) ? 'mount' : '',
      deadline: this.#deadline(),
      ...(isNodeOwned ? { onOutcome: () => this.#nodeOwnedGranted(domain, name) } : {}),
    });
  }

  /** Somebody on the node drops its lock some time later. */
  #nodeOwnedGranted(domain: string, name: string): void {
    const { world, random, owners } = this.#node;
    world.queue.after(50 + random.exp(world.options.nodeOwnedMs), () => {
      for (const o of [...owners.all]) {
        if (o.nodeOwned && o.name === name && o.domain === domain) this.#node.input(o.life, () => owners.release(o));
      }
    });
  }

  #deadline(): number {
    const { world, random, clock } = this.#node;
    return random.chance(world.options.deadlineShare) ? clock + 5 + random.exp(400) : 0;
  }

  #convert(o: Owned): void {
    const { world, random, owners } = this.#node;
    const now = o.hold?.mode ?? NL;
    const mode = random.pick(([NL, PR, EX] as Mode[]).filter((m) => m !== now));
    owners.convert(o, mode, random.chance(world.options.tryShare), this.#deadline());
  }

  granted(o: Owned): void {
    const { world, random } = this.#node;
    const isLong = random.chance(0.02);
    const keep = isLong ? world.options.limits.leaseMs * random.between(0.5, 1.5) : random.exp(world.options.thinkMs);
    const { hold } = o;
    const mode = hold?.mode;
    world.queue.after(world.isLoading ? keep : Math.min(keep, 100), () =>
      this.#node.input(this.#life, () => {
        // A later grant of the same lock has its own end.
        if (o.hold === hold && o.hold?.mode === mode && o.phase === 'held') this.#node.owners.release(o);
      }),
    );
  }

  bast(o: Owned, _mode: Mode): void {
    const { world, random, owners } = this.#node;
    if (!random.chance(world.options.giveWayShare)) return;
    world.queue.after(random.exp(20), () =>
      this.#node.input(this.#life, () => {
        if (o.phase !== 'held') return;
        if (o.hold?.mode === EX && random.chance(0.2)) owners.convert(o, random.chance(0.5) ? PR : NL, false, 0);
        else owners.release(o);
      }),
    );
  }
}
