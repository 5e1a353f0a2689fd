import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import type { GrantCell, KeyCell, PolicyCell, RequestCell, SubjectCell } from '../src/kernel/cells.ts'
import type { FindingKind } from '../src/ledger/audit.ts'
import {
  accountOf,
  auditOf,
  auditSystemOf,
  CU,
  type Damageable,
  HOUR,
  history,
  type Kept,
  type Looks,
  rehash,
  rewrite,
  systemOf,
} from './histories.ts'

const POLICY = `
features:
  job: {}
  task: { rate_card: [{ when: { size: large }, per_unit: { units: 2 } }, { per_unit: { units: 1 } }] }
plans:
  plus:
    guards:
      - { name: in-flight, concurrency: 20, by: user }
      - { name: budget, budget: "500", per: month }
    waterfall:
      - { allowance: included, by: user, windows: [{ name: 7d, limit: "10", per: 7d }] }
      - credits: [purchased]
      - overage: { limit: "5", per: month }
    on_shortfall: { absorb: "2", per: month }
`

/**
 * A week in the life of an account. r1: 15 CU held, 12 used at 10 from the allowance and 2 from `bought`. r2: 26 CU used, 18
 * from `bought`, 5 of overage, 2 absorbed and 1 owed, which `more` repays. r3: 9 CU from `more`, 4 of them refunded. open: 6 CU
 * held. `gone` runs out unused.
 */
async function week(): Promise<Kept> {
  const on = await history(POLICY)
  await on.create('plus')
  await on.grant('bought', '20')
  await on.grant('gone', '3', { starts_at: on.clock.now + HOUR / 2, expires_at: on.clock.now + HOUR })
  await on.task('r1', '15')
  await on.used('r1', '12')
  await on.record('r2', '26')
  await on.grant('more', '50')
  await on.record('r3', '9')
  await on.refund('r3', 'f1', '4')
  await on.engine.overrideLimits('acme', { reason: 'a friend', overrides: [{ name: 'overage', limit: '9' }] })
  await on.reserve('open', '6', { subject: { user: 'u2' }, ttl_ms: 5 * HOUR })
  on.wait(2 * HOUR)
  await on.touch()
  return on.keep()
}

interface Named {
  readonly kind: FindingKind
  readonly says: RegExp
  readonly request?: string
  /** In CU. */
  readonly amount?: number
}
type Damage = (kept: Kept) => void
const is = (kind: string, request?: string) => (body: Record<string, unknown>) =>
  body.kind === kind && (request === undefined || body.request === request)
const add = (field: string, cu: number) => (body: Record<string, unknown>) => {
  body[field] = (body[field] as number) + cu * CU
}
const cell = <C>(kept: Kept, key: string): Damageable<C> => {
  const found = kept.cells.get(key)
  assert.ok(found !== undefined, key)
  return found as Damageable<C>
}
const grantIn = (kept: Kept, id: string) => {
  const grant = accountOf(kept).grants.find((one) => one.id === id)
  assert.ok(grant !== undefined, id)
  return grant
}
const drop = (kept: Kept, matches: (body: Record<string, unknown>) => boolean): void => {
  const at = kept.entries.findIndex(({ body }) => matches(JSON.parse(body)))
  assert.ok(at >= 0)
  kept.entries.splice(at, 1)
}
/** As one would who knows how: later entries are numbered anew, what points to them follows, and all is hashed again. */
function closeGap(kept: Kept): void {
  const numbers = new Map(kept.entries.map(({ seq }, at) => [seq, at + 1]))
  kept.entries = kept.entries.map((stored, at) => {
    const body = JSON.parse(stored.body) as Record<string, unknown>
    for (const field of ['seq', 'previous', 'usage', 'charge', 'corrects'])
      if (body[field] !== undefined) body[field] = numbers.get(body[field] as number) ?? body[field]
    return { ...stored, seq: at + 1, body: JSON.stringify(body) }
  })
  rehash(kept)
}

const DAMAGE: readonly (readonly [what: string, damage: Damage, ...named: Named[]])[] = [
  // --- the chain
  [
    'a changed amount',
    (kept) => rewrite(kept, is('charge', 'r1'), add('cost', -1)),
    { kind: 'chain', says: /the hash does not follow/, request: 'r1' },
    {
      kind: 'charge',
      says: /costs 12 CU by policy version 1, and the charge says 11 CU/,
      request: 'r1',
      amount: -1,
    },
  ],
  [
    'a changed amount in a chain that was hashed again',
    (kept) => {
      rewrite(kept, is('charge', 'r1'), add('cost', -1))
      rehash(kept)
    },
    { kind: 'charge', says: /costs 12 CU/, request: 'r1', amount: -1 },
    { kind: 'charge', says: /the cost is 11 CU and the sources cover 12 CU/, request: 'r1', amount: 1 },
  ],
  [
    'a line that was taken out',
    (kept) => drop(kept, is('balance', 'r2')),
    { kind: 'missing', says: /entry \d+ is missing/ },
    { kind: 'transfer', says: /no transfer moves/, request: 'r2' },
  ],
  [
    'a tail that was cut off',
    (kept) => kept.entries.splice(-3),
    { kind: 'missing', says: /entries \d+ to \d+ are missing/ },
  ],
  [
    'two lines that were swapped',
    (kept) => {
      const [one, other] = [kept.entries[6]!, kept.entries[7]!]
      kept.entries[6] = { ...other, seq: one.seq }
      kept.entries[7] = { ...one, seq: other.seq }
    },
    { kind: 'chain', says: /it stands as entry 7/ },
    { kind: 'chain', says: /it stands as entry 8/ },
  ],
  [
    'a line that stands twice',
    (kept) => kept.entries.splice(5, 0, kept.entries[4]!),
    { kind: 'chain', says: /twice, or in the wrong place/ },
  ],
  [
    'a line that is no JSON',
    (kept) => {
      kept.entries[4] = { ...kept.entries[4]!, body: '{"v":1,' }
    },
    { kind: 'format', says: /not the JSON object/ },
  ],
  [
    'a line without its actor',
    (kept) => {
      rewrite(kept, is('usage', 'r1'), (body) => delete body.actor)
      rehash(kept)
    },
    { kind: 'format', says: /no actor/ },
  ],
  [
    'a line written before the one before it',
    (kept) => {
      rewrite(kept, is('usage', 'touch-1768485600000'), (body) => {
        body.at = 5
      })
      rehash(kept)
    },
    { kind: 'format', says: /before the entry before it/ },
  ],
  [
    'a line of a format that nobody knows',
    (kept) => {
      rewrite(kept, is('usage', 'r1'), (body) => {
        body.v = 7
      })
      rehash(kept)
    },
    { kind: 'format', says: /format 7/ },
  ],
  [
    'a private part that was changed',
    (kept) => {
      const at = kept.entries.findIndex((stored) => stored.kind === 'usage')
      const stored = kept.entries[at]!
      kept.entries[at] = { ...stored, private: stored.private!.replace('"u1"', '"u9"') }
    },
    { kind: 'private', says: /not the one that was written/ },
  ],

  // --- charges
  [
    'a charge without its use',
    (kept) => {
      drop(kept, is('usage', 'r2'))
      closeGap(kept)
    },
    { kind: 'charge', says: /no use that waits for its charge/, request: 'r2', amount: 26 },
  ],
  [
    'a use without its charge',
    (kept) => {
      drop(kept, is('charge', 'r1'))
      closeGap(kept)
    },
    { kind: 'charge', says: /a use of task was never charged/, request: 'r1' },
    { kind: 'charge', says: /what stands charged is 12 CU in its cell, and 0 CU/, request: 'r1', amount: 12 },
  ],
  [
    'a price that is wrong in charge, cover, transfer, window and cells alike',
    (kept) => {
      rewrite(kept, is('charge', 'r1'), (body) => {
        body.cost = 11 * CU
        body.returned = 4 * CU
        body.cover = [
          ['allowance:included', 10 * CU],
          ['grant:bought', 1 * CU],
        ]
        body.windows = (body.windows as [string, string | null, number, number][]).map(
          ([key, by, start, amount]) =>
            key === 'budget' ? [key, by, start, 11 * CU] : [key, by, start, amount],
        )
      })
      rewrite(kept, is('balance', 'r1'), add('amount', -1))
      const account = accountOf(kept)
      account.books.charged -= CU
      grantIn(kept, 'more').remaining += CU
      const budget = account.counters.windows.budget!
      account.counters.windows.budget = { ...budget, used: budget.used - CU }
      rehash(kept)
    },
    {
      kind: 'charge',
      says: /the use of task costs 12 CU by policy version 1, and the charge says 11 CU/,
      request: 'r1',
      amount: -1,
    },
  ],
  [
    'a request that was charged twice',
    (kept) => {
      const at = kept.entries.findIndex(({ body }) => is('usage', 'r2')(JSON.parse(body)))
      const copies = kept.entries.slice(at, at + 2).map((stored) => {
        const body = JSON.parse(stored.body) as Record<string, number>
        const seq = stored.seq + 1_000
        if (stored.kind === 'charge')
          Object.assign(body, { usage: body.usage! + 1_000, previous: body.usage! + 1_000 })
        return { ...stored, seq, body: JSON.stringify({ ...body, seq }) }
      })
      kept.entries.splice(at + 2, 0, ...copies)
      closeGap(kept)
    },
    {
      kind: 'charge',
      says: /begins a second time within the horizon, after 26 CU had been charged/,
      request: 'r2',
      amount: 26,
    },
  ],
  [
    'a refund of more than was charged',
    (kept) => {
      rewrite(
        kept,
        (body) => body.refund === 'f1',
        (body) => {
          body.cost = -11 * CU
          body.cover = [['grant:more', -11 * CU]]
        },
      )
      rehash(kept)
    },
    { kind: 'charge', says: /gives 11 CU back, 2 CU more than stood charged/, request: 'r3', amount: -2 },
  ],

  // --- transfers
  [
    'a transfer that is more than its charge',
    (kept) => {
      rewrite(kept, is('balance', 'r1'), add('amount', 3))
      rehash(kept)
    },
    {
      kind: 'transfer',
      says: /5 CU move from grant:bought as charged, and its charge takes 2 CU/,
      request: 'r1',
      amount: 5,
    },
    {
      kind: 'balance',
      says: /charged stands at 33 CU in the cell, and its transfers add up to 36 CU/,
      amount: -3,
    },
  ],
  [
    'a transfer of nothing',
    (kept) => {
      rewrite(kept, is('balance', 'r1'), (body) => {
        body.amount = 0
      })
      rehash(kept)
    },
    { kind: 'transfer', says: /must move more than nothing/, request: 'r1' },
  ],
  [
    'a transfer out of a grant that nobody issued',
    (kept) => {
      rewrite(kept, is('balance', 'r1'), (body) => {
        body.from = 'grant:other'
      })
      rehash(kept)
    },
    { kind: 'transfer', says: /grant:other was never issued/, request: 'r1', amount: 2 },
  ],
  [
    'a transfer that goes no possible way',
    (kept) => {
      rewrite(kept, is('balance', 'r1'), (body) => {
        body.to = 'expired'
      })
      rehash(kept)
    },
    { kind: 'transfer', says: /which is no way to be “charge”/, request: 'r1', amount: 2 },
  ],
  [
    'a grant that was given more than it was issued over',
    (kept) => {
      rewrite(kept, (body) => body.reason === 'issued' && body.to === 'grant:more', add('amount', 1))
      grantIn(kept, 'more').remaining += CU
      accountOf(kept).books.issued -= CU
      rehash(kept)
    },
    { kind: 'grant', says: /grant:more was issued over 50 CU and has been given 51 CU/, amount: 1 },
  ],

  // --- live cells
  [
    'credits that were added by hand',
    (kept) => {
      grantIn(kept, 'more').remaining += 5 * CU
    },
    {
      kind: 'grant',
      says: /grant more has 49 CU left in the cell, and its transfers leave 44 CU/,
      amount: 5,
    },
    { kind: 'balance', says: /sum to 5 CU and not to zero/, amount: 5 },
  ],
  [
    'books and credits that were changed together',
    (kept) => {
      grantIn(kept, 'more').remaining += 5 * CU
      accountOf(kept).books.issued -= 5 * CU
    },
    { kind: 'balance', says: /issued stands at -78 CU in the cell/, amount: -5 },
  ],
  [
    'a grant that nobody issued',
    (kept) => {
      accountOf(kept).grants.push({ ...grantIn(kept, 'more'), id: 'gift' })
    },
    { kind: 'grant', says: /grant gift has .* left in the cell, and was never issued/ },
  ],
  [
    'a grant that lives longer than it was issued for',
    (kept) => {
      grantIn(kept, 'more').priority satisfies number
      Object.assign(grantIn(kept, 'more'), { priority: 1 })
    },
    { kind: 'grant', says: /the priority of grant more is 1 in its cell, and it was issued with 100/ },
  ],
  [
    'an allowance that was filled up again',
    (kept) => {
      const { windows } = cell<SubjectCell>(kept, 'subject:user=u1').counters
      windows['included/7d'] = { ...windows['included/7d']!, used: 0 }
    },
    {
      kind: 'window',
      says: /included\/7d of user u1 has used 0 CU, and its charges add up to 10 CU/,
      amount: -10,
    },
  ],
  [
    'an allowance whose window was taken away',
    (kept) => {
      delete cell<SubjectCell>(kept, 'subject:user=u2').counters.windows['included/7d']
    },
    { kind: 'window', says: /included\/7d of user u2 .* the cell has it no more/ },
  ],
  [
    'a budget that counts less',
    (kept) => {
      const { windows } = accountOf(kept).counters
      windows.budget = { ...windows.budget!, used: windows.budget!.used - CU }
    },
    { kind: 'window', says: /window budget has used .*, and its charges add up to 43 CU/, amount: -1 },
  ],
  [
    'something held that no request holds',
    (kept) => {
      grantIn(kept, 'more').held += 2 * CU
    },
    { kind: 'hold', says: /2 CU of grant more are held in the cell, and open requests hold 0 CU/, amount: 2 },
  ],
  [
    'an open request that was lost',
    (kept) => kept.cells.delete('request:open'),
    { kind: 'hold', says: /6 CU are held for the request by its entries/, request: 'open', amount: 6 },
    { kind: 'hold', says: /counts 1 open holds, and there are 0/ },
    { kind: 'hold', says: /in-flight of user u2 counts 1 open holds/ },
  ],
  [
    'a hold without a decision',
    (kept) => {
      const open = cell<RequestCell>(kept, 'request:open')
      kept.cells.set('request:forged', { ...open, id: 'forged', seqs: { ...open.seqs } })
      accountOf(kept).openHolds += 1
    },
    {
      kind: 'hold',
      says: /6 CU are held in its cell, and by its entries no decision granted it/,
      request: 'forged',
      amount: 6,
    },
  ],
  [
    'a hold that grew by hand',
    (kept) => {
      const { hold } = cell<RequestCell>(kept, 'request:open')
      hold!.parts = hold!.parts.map((part) => ({ ...part, amount: part.amount + CU }))
    },
    {
      kind: 'hold',
      says: /7 CU are held from allowance:included in its cell, and its decision took 6 CU/,
      request: 'open',
      amount: 1,
    },
  ],
  [
    'a head that is not the last entry',
    (kept) => {
      accountOf(kept).head = { ...accountOf(kept).head, hash: 'f'.repeat(64) }
    },
    { kind: 'chain', says: /another hash than the account's cell knows/ },
  ],
  [
    'a plan that nobody changed to',
    (kept) => {
      accountOf(kept).plan = 'enterprise'
    },
    { kind: 'account', says: /the account's plan is enterprise in its cell, and plus by its entries/ },
  ],
  [
    'an override that nobody set',
    (kept) => {
      accountOf(kept).overrides.overage = { limit: 900 * CU, untilAt: null, reason: 'a friend' }
    },
    {
      kind: 'account',
      says: /overage is overridden with 900 CU in the cell, and with 9 CU by its entries/,
      amount: 891,
    },
  ],
  [
    "a closed request's charge",
    (kept) => {
      cell<RequestCell>(kept, 'request:r2').charge!.cost = CU
    },
    {
      kind: 'charge',
      says: /what stands charged is 1 CU in its cell, and 26 CU by its entries/,
      request: 'r2',
      amount: -25,
    },
  ],
  [
    "a grant's own cell",
    (kept) => {
      const known = cell<GrantCell>(kept, 'grant:gone')
      kept.cells.set('grant:gone', { ...known, grant: { ...known.grant, amount: 9 * CU } })
    },
    {
      kind: 'grant',
      says: /the amount of grant gone is 9 CU in the cell of its id, and it was issued with 3 CU/,
      amount: 3,
    },
  ],
  [
    'a cell that lost its fields',
    (kept) => {
      kept.cells.set('subject:user=u1', { dimension: 'user', value: 'u1' } as unknown as SubjectCell)
    },
    { kind: 'format', says: /the cell of user u1 cannot be read/ },
  ],
]

describe('each damage is named', async () => {
  const sound = await week()
  test('and the account is sound before it', () => assert.deepEqual(auditOf(structuredClone(sound)), []))
  for (const [what, damage, ...named] of DAMAGE) {
    test(what, () => {
      const kept = structuredClone(sound)
      damage(kept)
      holds(kept, {}, named)
    })
  }

  test('a rewritten end, against a head that was kept elsewhere', () => {
    const kept = structuredClone(sound)
    const head = { ...accountOf(kept).head }
    rewrite(kept, is('usage', 'touch-1768485600000'), (body) => {
      body.endpoint = '/v1/other'
    })
    rehash(kept)
    assert.deepEqual(auditOf(structuredClone(kept)), [])
    holds(kept, { head }, [{ kind: 'head', says: /not the one that was kept elsewhere/ }])
  })

  test('an end that was cut off in the cells, too, against a head that was kept elsewhere', () => {
    const kept = structuredClone(sound)
    const head = { ...accountOf(kept).head }
    kept.entries.splice(-2)
    rehash(kept)
    holds(kept, { head }, [{ kind: 'head', says: /its end was cut off/ }])
  })

  test('no byte that is changed goes unnoticed, and none makes the audit fail', () => {
    fc.assert(
      fc.property(
        fc.nat(),
        fc.nat(),
        fc.boolean(),
        fc.integer({ min: 32, max: 126 }),
        (which, where, again, code) => {
          const kept = structuredClone(sound)
          const at = which % kept.entries.length
          const stored = kept.entries[at]!
          const place = where % stored.body.length
          const body = stored.body.slice(0, place) + String.fromCharCode(code) + stored.body.slice(place + 1)
          if (body === stored.body) return
          kept.entries[at] = { ...stored, body }
          // Hashed again, a change of what nobody can know (an actor, an endpoint) leaves no trace but in a head kept elsewhere.
          const head = { ...accountOf(kept).head }
          if (again) rehash(kept)
          assert.notEqual(auditOf(kept, { head }).length, 0)
        },
      ),
      { numRuns: 300 },
    )
  })

  test('no JSON in place of any field makes it fail', () => {
    fc.assert(
      fc.property(fc.nat(), fc.nat(), fc.jsonValue(), (which, where, value) => {
        const kept = structuredClone(sound)
        const at = which % kept.entries.length
        const stored = kept.entries[at]!
        const body = JSON.parse(stored.body) as Record<string, unknown>
        const fields = Object.keys(body)
        body[fields[where % fields.length] as string] = value
        kept.entries[at] = { ...stored, body: JSON.stringify(body) }
        rehash(kept)
        auditOf(kept)
      }),
      { numRuns: 300 },
    )
  })
})

describe('policies and keys', async () => {
  const on = await history(POLICY)
  await on.engine.publishPolicy(POLICY.replace('units: 2', 'units: 3'), undefined)
  await on.engine.createKey({ id: 'k1', role: 'read' })
  await on.engine.createKey({ id: 'k2', role: 'meter', account: 'acme', subject: { user: 'u1' } })
  await on.engine.revokeKey('k1')
  const sound = await on.keep('@system')
  const damage: readonly (readonly [what: string, damage: Damage, says?: RegExp])[] = [
    ['nothing', () => {}],
    [
      'a policy whose prices were changed where it lies',
      (kept) => {
        const known = cell<PolicyCell>(kept, 'policy:1')
        kept.cells.set('policy:1', { ...known, text: known.text.replace('units: 2', 'units: 1') })
      },
      /the text of policy version 1 is not the one that was published/,
    ],
    ['a policy that is gone', (kept) => kept.cells.delete('policy:1'), /policy version 1 is missing/],
    [
      'a key that may do more than it was made for',
      (kept) => kept.cells.set('key:k2', { ...cell<KeyCell>(kept, 'key:k2'), role: 'admin' }),
      /the role of key k2 is admin in its cell, and it was made with meter/,
    ],
    [
      'a key that stands for someone else',
      (kept) => kept.cells.set('key:k2', { ...cell<KeyCell>(kept, 'key:k2'), subject: { user: 'u2' } }),
      /the subject of key k2 is user=u2 in its cell, and it was made with user=u1/,
    ],
    [
      'a key that is valid again',
      (kept) => kept.cells.set('key:k1', { ...cell<KeyCell>(kept, 'key:k1'), revokedAt: null }),
      /key k1 is revoked by its entries and valid in its cell/,
    ],
    [
      'a key that nobody made',
      (kept) => kept.cells.set('key:k3', { ...cell<KeyCell>(kept, 'key:k2'), id: 'k3' }),
      /key k3 with role meter was made by no entry/,
    ],
    [
      'an older policy in force',
      (kept) => {
        systemOf(kept).activePolicy = 1
      },
      /policy version 1 is in force, and 2 was published last/,
    ],
  ]
  for (const [what, change, says] of damage) {
    test(`${what}${says === undefined ? ' disagrees' : ' is named'}`, () => {
      const kept = structuredClone(sound)
      change(kept)
      const messages = auditSystemOf(kept).map(({ message }) => message)
      if (says === undefined) assert.deepEqual(messages, [])
      else assert.match(messages.join('\n'), says)
    })
  }
})

function holds(kept: Kept, looks: Looks, named: readonly Named[]): void {
  const findings = auditOf(kept, looks)
  for (const { kind, says, request, amount } of named) {
    const found = findings.find(
      (finding) =>
        finding.kind === kind &&
        says.test(finding.message) &&
        (request === undefined || finding.request === request) &&
        (amount === undefined || finding.amount === amount * CU),
    )
    assert.ok(found !== undefined, `${kind} ${says} not in ${JSON.stringify(findings, null, 1)}`)
    assert.equal(found.account, 'acme')
  }
}
