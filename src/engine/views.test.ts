import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ALL_CREDITS, DAY, HOUR, MINUTE, type Scene, scene } from '../../test/scene.ts'
import type { PlanDocument } from '../policy/schema.ts'
import type { Limit } from '../wire.ts'

const USER = { user: 'u1', team: 't1' }
const PLAN: PlanDocument = {
  guards: [
    { name: 'often', rate: { meter: 'requests', limit: 6, per: '1m', burst: 4 }, by: 'user' },
    { name: 'much', rate: { meter: 'cost', limit: 50, per: '1h', algorithm: 'sliding' } },
    { name: 'at-once', concurrency: 3, by: 'team' },
    { name: 'budget', budget: 60, per: 'day', by: 'user' },
  ],
  waterfall: [
    {
      allowance: 'i',
      by: 'user',
      windows: [
        { name: '5h', limit: 12, per: '5h' },
        { name: '7d', limit: 40, per: '7d' },
      ],
    },
    ALL_CREDITS,
    { overage: { limit: 30, per: 'month' } },
  ],
  grants: [{ kind: 'plan', amount: 5, every: 'day', rollover: 2 }],
}

/** What an account shows, as lines like those of a decision. */
async function shown(on: Scene): Promise<Limit[]> {
  const { limits, allowances, overage, credits } = await on.view(USER)
  const windows = allowances.flatMap(({ name, windows: all, ...by }) =>
    all.map((one): Limit => ({ kind: 'allowance', unit: 'cu', ...by, ...one, name: `${name}/${one.name}` })),
  )
  assert.ok(overage !== null)
  return [
    ...limits,
    ...windows,
    overage,
    {
      kind: 'credits',
      name: 'available',
      unit: 'cu',
      limit: '',
      used: '',
      held: credits.held,
      remaining: credits.available,
    },
  ]
}

describe('a number that is shown is the number that decisions use', () => {
  const steps: readonly (readonly [what: string, step: (on: Scene) => Promise<unknown>])[] = [
    ['at the beginning', async () => {}],
    ['after a hold', (on) => on.reserve('r', { cost: 9, subject: USER })],
    ['after another, split', (on) => on.reserve('s', { cost: 14, subject: USER })],
    ['after a settle', (on) => on.settle('r', 4)],
    ['as a rate drains', async (on) => on.after(7_001)],
    ['after a record beyond the limits', (on) => on.record('t', { cost: 70, subject: USER })],
    ['as a hold ends, and nobody has written it', async (on) => on.after(10 * MINUTE)],
    ['as windows end', async (on) => on.after(5 * HOUR)],
    ['after a refund', (on) => on.refund('t', 'x', { amount: 30 })],
    ['under an exception', (on) => on.override('budget', 500, { subject: { user: 'u1' } })],
    ['days later', async (on) => on.after(3 * DAY)],
  ]
  test(steps.map(([what]) => what).join('; '), async () => {
    const on = await scene(PLAN)
    for (const [what, step] of steps) {
      await step(on)
      const { limits } = await on.reserve('look', { cost: 0, subject: USER, dry_run: true })
      // A decision counts the request that it admits, so the rate over requests is one further.
      const decided = limits.filter(({ name }) => name !== 'often' && name !== 'at-once')
      const view = await shown(on)
      const seen = (line: Limit) =>
        view.find(({ kind, name }) => kind === line.kind && (kind === 'credits' || name === line.name))
      for (const line of decided) {
        const one = seen(line)
        if (line.kind === 'credits')
          assert.deepEqual([one?.held, one?.remaining], [line.held, line.remaining], what)
        else assert.deepEqual(one, line, `${what}: ${line.name}`)
      }
      await on.agree()
    }
  })
})

describe('lists', () => {
  async function pages<T>(
    ask: (cursor?: string) => Promise<{ items: readonly T[]; next: string | null }>,
  ): Promise<T[]> {
    const all: T[] = []
    for (let cursor: string | undefined; ; ) {
      const { items, next } = await ask(cursor)
      assert.ok(items.length <= 3)
      all.push(...items)
      if (next === null) return all
      cursor = next
    }
  }
  const page = (cursor?: string) => ({ limit: 3, ...(cursor === undefined ? {} : { cursor }) })
  test('are read page by page, whole and without repeats', async () => {
    const on = await scene({ ...PLAN, guards: [], grants: [] })
    for (let n = 0; n < 7; n++) {
      await on.beside(`b${n}`)
      await on.grant(`g${n}`, 5)
      await on.reserve(`r${n}`, { cost: 1, subject: { user: `u${n}` }, ttl_ms: (9 - n) * MINUTE })
    }
    const { engine } = on
    const seven = [0, 1, 2, 3, 4, 5, 6]
    assert.deepEqual(
      (await pages((cursor) => engine.accounts(page(cursor)))).map(({ id }) => id),
      ['a', ...seven.map((n) => `b${n}`)],
    )
    assert.deepEqual(
      (await pages((cursor) => engine.grants('a', page(cursor)))).map(({ id }) => id),
      seven.map((n) => `g${n}`),
    )
    assert.deepEqual(
      (await pages((cursor) => engine.holds('a', page(cursor)))).map((hold) => hold.request_id),
      seven.map((n) => `r${6 - n}`),
      'the one that ends first is first',
    )
    assert.deepEqual(
      (await pages((cursor) => engine.subjects('a', page(cursor)))).map(({ value }) => value),
      seven.map((n) => `u${n}`),
    )
    const entries = await pages((cursor) => engine.entries('a', page(cursor)))
    assert.deepEqual(
      entries.map(({ seq }) => seq),
      entries.map((_, at) => at + 1),
    )
    const newest = await pages((cursor) => engine.entries('a', { ...page(cursor), newestFirst: true }))
    assert.deepEqual(newest, entries.toReversed())
    const decisions = await pages((cursor) => engine.entries('a', { ...page(cursor), kinds: ['decision'] }))
    assert.deepEqual(
      decisions,
      entries.filter(({ kind }) => kind === 'decision'),
    )
    const journal = await pages((cursor) => engine.journal(page(cursor)))
    assert.deepEqual(
      journal.filter(({ account }) => account === 'a'),
      entries,
    )
    assert.deepEqual(new Set(journal.map(({ id }) => id)).size, journal.length)
  })
})
