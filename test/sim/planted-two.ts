/** Planted bugs of clusters of two, and of nodes that only a device ends (rules 13, 20); see planted.ts. */
import { Engine } from '../../src/master/engine.js';
import { busy, only, type Plant, replace } from './planted.js';

export const TWO_NODE_PLANTS: Plant[] = [
  {
    name: 'a suspended node goes on serving (rule 20)',
    expect: /^S4: /,
    seedsMax: 40,
    tune: (o) => {
      busy(o);
      only(o, ['split', 'isolate'], 1200);
      o.nodes = o.voters = 2;
      o.fence = [['script']];
      o.fenceFail = 1;
      o.thinkMs = 100;
    },
    patch: () => replace(Engine.prototype, 'suspend', () => () => {}),
  },
];
