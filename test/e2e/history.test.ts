import t from 'tap';
import { checkHistory, History, type Hold } from '../fixtures/history.js';

function hold(fields: Partial<Hold>): Hold {
  const from = fields.from ?? 0;
  return {
    resource: 'r',
    node: 'n1',
    mode: 'EX',
    token: 1n,
    grantedAt: from,
    from,
    until: from + 10,
    ending: 'release',
    ...fields,
  };
}

const GOOD: { what: string; holds: Hold[] }[] = [
  { what: 'nothing at all', holds: [] },
  { what: 'one after the other', holds: [hold({}), hold({ node: 'n2', from: 11, token: 2n })] },
  { what: 'one begins when the other ends', holds: [hold({}), hold({ node: 'n2', from: 10, token: 2n })] },
  {
    what: 'readers together, then a writer',
    holds: [
      hold({ mode: 'PR', token: 0n, until: 30 }),
      hold({ mode: 'PR', token: 0n, node: 'n2', from: 5 }),
      hold({ node: 'n3', from: 30, token: 5n }),
    ],
  },
  { what: 'NL beside EX', holds: [hold({}), hold({ mode: 'NL', token: 0n, node: 'n2', from: 3 })] },
  { what: 'different names', holds: [hold({}), hold({ resource: 's', node: 'n2', from: 5 })] },
  {
    what: 'a grant that came after its deadline holds nothing',
    holds: [hold({ until: 20 }), hold({ node: 'n2', from: 15, until: 12, token: 2n })],
  },
];
for (const { what, holds } of GOOD) t.test(`can be true: ${what}`, async (t) => t.same(checkHistory(holds), []));

const BAD: { what: string; rule: 'S1' | 'S2'; holds: Hold[] }[] = [
  { what: 'two writers at the same time', rule: 'S1', holds: [hold({}), hold({ node: 'n2', from: 9.9, token: 2n })] },
  { what: 'two writers on one node', rule: 'S1', holds: [hold({}), hold({ from: 5, token: 2n })] },
  {
    what: 'one inside the other',
    rule: 'S1',
    holds: [hold({ until: 100 }), hold({ node: 'n2', from: 50, until: 51, token: 2n })],
  },
  {
    what: 'a writer beside the second of two readers',
    rule: 'S1',
    holds: [
      hold({ mode: 'PR', token: 0n, until: 5 }),
      hold({ mode: 'PR', token: 0n, node: 'n2', from: 1, until: 30 }),
      hold({ node: 'n3', from: 20, token: 3n }),
    ],
  },
  {
    what: 'a reader beside a writer, noted in the wrong order',
    rule: 'S1',
    holds: [hold({ from: 8, token: 2n }), hold({ node: 'n2', mode: 'PR', token: 0n })],
  },
  {
    what: 'a writer that never ended',
    rule: 'S1',
    holds: [hold({ until: Infinity }), hold({ node: 'n2', from: 1e6, token: 2n })],
  },
  { what: 'a token that falls', rule: 'S2', holds: [hold({ token: 9n }), hold({ node: 'n2', from: 20, token: 8n })] },
  { what: 'a token that comes twice', rule: 'S2', holds: [hold({ token: 9n }), hold({ node: 'n2', from: 20, token: 9n })] },
  {
    what: 'a token that falls after a grant in between',
    rule: 'S2',
    holds: [hold({ token: 9n }), hold({ from: 20, token: 10n }), hold({ from: 40, token: 9n })],
  },
];
for (const { what, rule, holds } of BAD) {
  t.test(`cannot be true: ${what}`, async (t) => {
    const found = checkHistory(holds);
    t.ok(found.length > 0, 'is found');
    t.ok(
      found.every((v) => v.rule === rule),
      `as ${rule}: ${found.map((v) => v.text).join('; ')}`,
    );
  });
}

t.test('rule 11: a stretch ends at its release or at its last deadline, whichever is first', async (t) => {
  const history = new History();
  const fields = { node: 'n1', mode: 'EX', token: 1n } as const;
  let deadline = Number.POSITIVE_INFINITY;
  const early = history.begin({ ...fields, resource: 'early' }, () => deadline);
  const late = history.begin({ ...fields, resource: 'late' }, () => deadline);
  history.begin({ ...fields, resource: 'never' }, () => deadline);
  early('release', 100);
  early('lost', 50);
  deadline = 200;
  late('lost', 300);
  const ends = new Map(history.holds().map((h) => [h.resource, [h.until, h.ending]]));
  t.same(ends.get('early'), [100, 'release']);
  t.same(ends.get('late'), [200, 'deadline']);
  t.same(ends.get('never'), [200, 'deadline']);
});
