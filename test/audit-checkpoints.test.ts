/** Checkpoints: what an audit from one of them finds, what only one from the start can, and when none is written. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { AuditOptions, Disagreement } from '../src/engine.ts'
import type { RequestCell } from '../src/kernel/cells.ts'
import { type ChangeEntry, readEntry, type StoredEntry } from '../src/ledger/entries.ts'
import {
  accountOf,
  auditOf,
  CU,
  checkpointOf,
  DAY,
  HOUR,
  history,
  type Kept,
  rehash,
  rewrite,
  sha256,
} from './histories.ts'

const POLICY = `
features:
  job: {}
  task: { rate_card: [{ per_unit: { units: 1 } }] }
plans:
  plus:
    guards:
      - { name: in-flight, concurrency: 20, by: user }
      - { name: budget, budget: "500", per: month }
    waterfall:
      - { allowance: included, by: user, windows: [{ name: 7d, limit: "10", per: 7d }] }
      - credits: [plan, purchased]
      - overage: { limit: "5", per: month }
    on_shortfall: { absorb: "2", per: month }
    grants: [{ kind: plan, amount: "3", every: month, rollover: "2" }]
`
type Played = Awaited<ReturnType<typeof history>>

/**
 * Before the checkpoint: r1 used 12 CU, r2 fell into debt, two holds are open, and an override stands. After it a hold is
 * settled, r1 refunded, the debt repaid, a plan grant rolled over; one hold stays open.
 */
async function halves(): Promise<Played> {
  const on = await history(POLICY)
  await on.create('plus')
  await on.grant('bought', '20')
  await on.task('r1', '15')
  await on.used('r1', '12')
  await on.record('r2', '40')
  await on.grant('first', '30')
  await on.engine.overrideLimits('acme', { reason: 'a friend', overrides: [{ name: 'overage', limit: '9' }] })
  await on.reserve('h1', '6', { subject: { user: 'u2' }, ttl_ms: 20 * HOUR })
  await on.reserve('h2', '4', { subject: { user: 'u1' }, ttl_ms: 20 * HOUR })
  await on.record('r3', '60')
  await on.checkpoint()
  on.wait(HOUR)
  await on.settle('h1', '8')
  await on.refund('r1', 'f1', '5')
  await on.grant('repays', '90')
  await on.record('r4', '2', { subject: { user: 'u1' } })
  return on
}

const report = async (on: Played, options: AuditOptions = {}) => {
  const found: Disagreement[] = []
  const onDisagreement = (one: Disagreement): void => void found.push(one)
  return { ...(await on.engine.audit({ accounts: ['acme'], ...options, onDisagreement })), found }
}
const resumed = (on: Played) => report(on, { fromCheckpoints: true })
const kinds = (found: readonly { readonly kind: string }[]): string[] => [
  ...new Set(found.map(({ kind }) => kind)),
]
const checkpointsIn = (entries: readonly StoredEntry[]): StoredEntry[] =>
  entries.filter((stored) => {
    const entry = readEntry(stored)
    return entry.kind === 'change' && entry.what === 'checkpoint'
  })
/** Changes lines as they are read, as damage on a disk would. */
const damage = (on: Played, change: (stored: StoredEntry) => StoredEntry): void => {
  const { entries, snapshot } = on.store
  on.store.entries = async (...query) => (await entries(...query)).map(change)
  on.store.snapshot = (account, read) =>
    snapshot(account, (moment) =>
      read({ ...moment, entries: async (query) => (await moment.entries(query)).map(change) }),
    )
}

describe('an audit from a checkpoint', () => {
  test('reads nothing before it but its entry, and finds nothing in sound books', async () => {
    const on = await halves()
    const { head } = checkpointOf(await on.keep())!
    const { entries } = on.store
    const read = new Set<number>()
    on.store.entries = async (...query) => {
      const page = await entries(...query)
      for (const { seq } of page) read.add(seq)
      return page
    }
    const { found, checkpoints, entries: count, heads } = await resumed(on)
    assert.deepEqual(found, [])
    assert.deepEqual(checkpoints, { resumed: 1, written: 0 })
    assert.ok(Math.min(...read) > head.seq)
    assert.equal(count, heads.acme!.seq - head.seq)
  })

  test('goes over months, with the debt repaid and grants that recur and roll over', async () => {
    const on = await halves()
    for (let month = 0; month < 3; month++) {
      on.wait(31 * DAY)
      await on.record(`m${month}`, '9')
      const { found, checkpoints } = await resumed(on)
      assert.deepEqual([found, checkpoints.resumed], [[], 1])
      if (month === 1) assert.equal((await on.checkpoint(true)).checkpoints.written, 1)
    }
    assert.deepEqual((await report(on)).found, [])
  })

  test('needs no entry from before it', async () => {
    const kept = await (await halves()).keep()
    const { head } = checkpointOf(kept)!
    kept.entries = kept.entries.filter(({ seq }) => seq > head.seq)
    assert.deepEqual(auditOf(kept, { resume: true }), [])
  })

  const is = (kind: string, request: string) => (body: Record<string, unknown>) =>
    body.kind === kind && body.request === request
  const cheaper = (body: Record<string, unknown>) => {
    body.cost = (body.cost as number) - CU
  }
  const damaged: readonly (readonly [what: string, damage: (kept: Kept) => unknown, resumed: boolean])[] = [
    ['a charge after it', (kept) => rewrite(kept, is('charge', 'h1'), cheaper), true],
    ['a charge before it', (kept) => rewrite(kept, is('charge', 'r1'), cheaper), false],
    ['a line gone after it', (kept) => kept.entries.splice(-2, 1), true],
    ['a line gone before it', (kept) => kept.entries.splice(3, 1), false],
    ['an end that was cut off', (kept) => kept.entries.splice(-2), true],
    ['its own entry', (kept) => kept.entries.splice(accountOf(kept).checkpoint! - 1, 1), true],
    [
      'a closed request from before it, in its cell',
      (kept) => {
        ;(kept.cells.get('request:r3') as RequestCell).charge!.cost -= CU
      },
      true,
    ],
    [
      'an open hold from before it, in its cell',
      (kept) => {
        ;(kept.cells.get('request:h2') as RequestCell).hold!.granted += CU
      },
      true,
    ],
    [
      'a window that was used before it',
      (kept) => {
        const [key, window] = Object.entries(accountOf(kept).counters.windows)[0]!
        accountOf(kept).counters.windows[key] = { ...window, used: window.used - 1 }
      },
      true,
    ],
    ['the books', (kept) => (accountOf(kept).books.charged -= 1), true],
    ['the override', (kept) => (accountOf(kept).overrides = {}), true],
    ['the checkpoint that the cell names', (kept) => (accountOf(kept).checkpoint = 3), true],
  ]
  for (const [what, change, found] of damaged) {
    test(`${what}: ${found ? 'found' : 'not found'}, and found from the start`, async () => {
      const kept = await (await halves()).keep()
      const checkpoint = checkpointOf(kept)
      change(kept)
      assert.notDeepEqual(auditOf(structuredClone(kept)), [])
      assert.equal(auditOf(kept, { resume: checkpoint! }).length > 0, found)
    })
  }
})

describe('a checkpoint that is damaged', () => {
  test('a changed private part is named, and the audit begins at the start', async () => {
    const on = await halves()
    damage(on, (stored) =>
      stored.private?.includes('recorded_at') === true
        ? { ...stored, private: stored.private.replace('"u1"', '"u9"') }
        : stored,
    )
    const { found, checkpoints, entries, heads } = await resumed(on)
    assert.deepEqual(checkpoints.resumed, 0)
    assert.equal(entries, heads.acme!.seq)
    assert.deepEqual(kinds(found), ['private'])
    assert.equal(found[0]!.seq, checkpointsIn(await on.store.entries('acme', { limit: 1_000 }))[0]!.seq)
  })

  /** As one would who knows how: the body has the new hash, and the chain is hashed again. */
  const rewriteState = (kept: Kept, change: (state: Record<string, unknown>) => void): void => {
    const at = kept.entries.findIndex(({ seq }) => seq === accountOf(kept).checkpoint)
    const part = JSON.parse(kept.entries[at]!.private!) as { state: Record<string, unknown> }
    change(part.state)
    const text = JSON.stringify(part)
    kept.entries[at] = { ...kept.entries[at]!, private: text }
    const is = (body: Record<string, unknown>): boolean => body.seq === kept.entries[at]!.seq
    rewrite(kept, is, (body) => {
      body.private = sha256(text)
    })
    rehash(kept)
  }

  test('a state that the entries do not give is named from the start', async () => {
    const kept = await (await halves()).keep()
    rewriteState(kept, (state) => {
      state.books = (state.books as [string, number][]).map(([name, sum]) => [
        name,
        name === 'issued' ? sum - CU : name === 'overage' ? sum + CU : sum,
      ])
    })
    assert.deepEqual(kinds(auditOf(structuredClone(kept))), ['checkpoint'])
    assert.deepEqual(kinds(auditOf(kept, { resume: true })), ['balance'])
  })

  test('a state that cannot be read is named, and is not used', async () => {
    for (const change of [
      (state: Record<string, unknown>) => delete state.requests,
      (state: Record<string, unknown>) => (state.grants = [['bought']]),
      (state: Record<string, unknown>) => (state.books = [['gold', 1]]),
    ]) {
      const kept = await (await halves()).keep()
      rewriteState(kept, change)
      assert.equal(checkpointOf(kept), undefined)
      assert.deepEqual(kinds(auditOf(kept)), ['private'])
    }
  })

  test('one that names another hash, or an entry that comes after it', async () => {
    const entry = (kept: Kept) => (body: Record<string, unknown>) => body.seq === accountOf(kept).checkpoint
    const sound = await (await halves()).keep()
    const other = structuredClone(sound)
    rewrite(other, entry(other), (body) => {
      ;(body.detail as Record<string, unknown>).hash = 'f'.repeat(64)
    })
    rehash(other)
    assert.deepEqual(kinds(auditOf(structuredClone(other))), ['checkpoint'])
    assert.ok(kinds(auditOf(other, { resume: true })).includes('chain'))
    const later = structuredClone(sound)
    rewrite(later, entry(later), (body) => {
      ;(body.detail as Record<string, unknown>).as_of = 1_000
    })
    rehash(later)
    assert.equal(checkpointOf(later), undefined)
    assert.deepEqual(kinds(auditOf(later)), ['checkpoint'])
  })
})

describe('heads that were kept elsewhere', () => {
  test('one at the checkpoint is compared with it, one after it on the way, one before it from the start', async () => {
    const on = await halves()
    const kept = await on.keep()
    const at = checkpointOf(kept)!.head.seq
    for (const [seq, from] of [
      [at, 1],
      [at + 2, 1],
      [at - 1, 0],
    ] as const) {
      const { hash } = kept.entries[seq - 1]!
      const sound = await report(on, { fromCheckpoints: true, heads: { acme: { seq, hash } } })
      assert.deepEqual([sound.found, sound.checkpoints.resumed], [[], from])
      const other = { acme: { seq, hash: 'f'.repeat(64) } }
      const { found, checkpoints } = await report(on, { fromCheckpoints: true, heads: other })
      assert.deepEqual([kinds(found), checkpoints.resumed], [['head'], from])
    }
  })
})

describe('a person who is erased', () => {
  test('leaves the checkpoint, and the next audit begins at the start', async () => {
    const on = await halves()
    await on.settle('h2', '1')
    assert.match(JSON.stringify(await on.keep().then(({ entries }) => entries)), /u1/)
    await on.engine.erase('acme', 'user', 'u1')
    const kept = await on.keep()
    assert.doesNotMatch(JSON.stringify(kept.entries), /"u1"|=u1/)
    assert.equal(accountOf(kept).checkpoint, undefined)
    const { found, checkpoints } = await resumed(on)
    assert.deepEqual([found, checkpoints.resumed], [[], 0])
    await on.checkpoint()
    assert.doesNotMatch(JSON.stringify((await on.keep()).entries), /"u1"|=u1/)
    await on.refund('r1', 'f2', '1')
    assert.deepEqual([(await resumed(on)).found, (await resumed(on)).checkpoints.resumed], [[], 1])
  })

  test('while an audit runs is in no checkpoint that it writes', async () => {
    const on = await halves()
    await on.settle('h2', '1')
    const { snapshot } = on.store
    on.store.snapshot = async (account, read) => {
      on.store.snapshot = snapshot
      await on.engine.erase('acme', 'user', 'u1')
      return snapshot(account, read)
    }
    const { found, checkpoints } = await report(on, { writeCheckpoints: true })
    assert.deepEqual([found, checkpoints.written], [[], 0])
    assert.doesNotMatch(JSON.stringify((await on.keep()).entries), /"u1"|=u1/)
  })
})

describe('a checkpoint is written', () => {
  test('as of what was audited, while the account moves on', async () => {
    const on = await halves()
    const { snapshot } = on.store
    on.store.snapshot = (account, read) => {
      on.store.snapshot = snapshot
      return snapshot(account, async (moment) => {
        await on.settle('h2', '3')
        await on.reserve('h3', '1')
        return read(moment)
      })
    }
    await on.checkpoint()
    const kept = await on.keep()
    const { head, seq } = checkpointOf(kept)!
    assert.ok(head.seq + 1 < seq)
    assert.equal(kept.entries[head.seq - 1]!.hash, head.hash)
    await on.settle('h3', '1')
    assert.deepEqual([(await resumed(on)).found, (await resumed(on)).checkpoints.resumed], [[], 1])
    assert.deepEqual((await report(on)).found, [])
  })

  test('once, where nothing has happened since, and the one before it gives up its state', async () => {
    const on = await halves()
    assert.equal((await on.checkpoint()).checkpoints.written, 1)
    assert.equal((await on.checkpoint()).checkpoints.written, 0)
    assert.equal((await on.checkpoint(true)).checkpoints.written, 0)
    await on.touch()
    assert.equal((await on.checkpoint(true)).checkpoints.written, 1)
    const all = checkpointsIn((await on.keep()).entries)
    assert.deepEqual(
      all.map((stored) => stored.private !== null),
      [false, false, true],
    )
    const { detail, previous } = readEntry(all[2]!) as ChangeEntry
    assert.deepEqual(Object.keys(detail), ['as_of', 'hash', 'grants', 'requests'])
    assert.equal(previous, all[1]!.seq)
  })

  test('not where something disagrees', async () => {
    const on = await halves()
    damage(on, (stored) => ({ ...stored, body: stored.body.replace('"cost":12000000', '"cost":11000000') }))
    const { found, checkpoints } = await report(on, { writeCheckpoints: true })
    assert.ok(found.length > 0)
    assert.equal(checkpoints.written, 0)
  })

  test('without the requests whose ids have been forgotten, and with old ones that may still be refunded', async () => {
    const on = await halves()
    on.wait(40 * DAY)
    await on.touch()
    await on.checkpoint()
    const before = checkpointOf(await on.keep())!.state.requests.map(([id]) => id)
    assert.ok(before.includes('r1'))
    await on.refund('r1', 'f3', '1')
    assert.deepEqual((await resumed(on)).found, [])
    await on.engine.tidyUp()
    await on.record('r9', '1')
    await on.checkpoint(true)
    const after = checkpointOf(await on.keep())!.state.requests.map(([id]) => id)
    assert.ok(!after.includes('r1') && after.includes('r9'), String(after))
    await on.record('r1', '1')
    assert.deepEqual((await resumed(on)).found, [])
    assert.deepEqual((await report(on)).found, [])
  })
})
