import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ALL_CREDITS, DAY, HOUR, MINUTE, type Scene, SECOND, START, scene } from '../../test/scene.ts'
import { SluiceError } from '../errors.ts'
import type { AccountCell } from '../kernel/cells.ts'
import { boundsAt } from '../kernel/windows.ts'
import {
  type ChargeEntry,
  type Entry,
  readEntry,
  readPrivate,
  type StoredEntry,
  type UsageEntry,
} from '../ledger/entries.ts'
import type { PlanDocument, PolicyDocument } from '../policy/schema.ts'
import type { Store, UsageKept, UsageTotal } from '../store.ts'
import type { Millis } from '../units.ts'
import type { UsageQuery, UsageRow } from '../wire.ts'
import { auditStore } from './audit.ts'
import type { Disagreement } from './contract.ts'
import { createCore } from './core.ts'
import { erase } from './erase.ts'
import { foldUsage } from './usage/fold.ts'
import { LONGEST_MS, readGroup, SPANS_MS } from './usage/sums.ts'
import { usageRows } from './usage.ts'

const PLAN: PlanDocument = {
  waterfall: [
    { allowance: 'included', windows: [{ name: 'day', limit: '20', per: 'day' }] },
    ALL_CREDITS,
    { overage: { limit: '1000000', per: 'month' } },
  ],
  hold: { ttl: '10m', on_expiry: 'charge' },
}
const QUARTER = HOUR / 4

/** What all entries say, read from the first to the last, with sums of its own: BigInt, one row at a time. */
async function naive(store: Store, zone: string, query: UsageQuery): Promise<UsageRow[]> {
  const stored = await store.entries('a', { limit: 1_000_000 })
  const entries = new Map(stored.map((one): [number, Entry] => [one.seq, readEntry(one)]))
  const rows = new Map<string, { row: UsageRow; sums: Map<string, bigint> }>()
  for (const charge of entries.values()) {
    if (charge.kind !== 'charge') continue
    const usage = entries.get(charge.usage) as UsageEntry
    if (usage.at < query.from || usage.at >= query.to) continue
    const start_at = bucketStart(query, usage.at, zone)
    const group = groupIn(stored[usage.seq - 1] as StoredEntry, usage, query.group_by ?? [])
    const key = JSON.stringify([start_at, group])
    const found = rows.get(key) ?? {
      row: { start_at, group, requests: 0, charged: '0', quantities: {}, sources: {} },
      sums: new Map<string, bigint>(),
    }
    rows.set(key, found)
    const plus = (name: string, amount: number): void => {
      found.sums.set(name, (found.sums.get(name) ?? 0n) + BigInt(amount))
    }
    plus('charged', charge.cost)
    plus('requests', charge.corrects === undefined ? 1 : 0)
    for (const [source, amount] of charge.cover) plus(`sources ${kindOf(source)}`, amount)
    for (const [name, quantity] of Object.entries(quantitiesIn(entries, charge)))
      plus(`quantities ${name}`, quantity)
  }
  return [...rows.values()].map(({ row, sums }) => ({
    ...row,
    requests: Number(sums.get('requests')),
    charged: decimal(sums.get('charged') ?? 0n),
    quantities: under(sums, 'quantities '),
    sources: under(sums, 'sources '),
  }))
}

function quantitiesIn(entries: ReadonlyMap<number, Entry>, charge: ChargeEntry): Record<string, number> {
  if (charge.refund !== undefined) return {}
  const quantities: Record<string, number> = { ...(entries.get(charge.usage) as UsageEntry).quantities }
  if (charge.corrects === undefined) return quantities
  const corrected = entries.get(charge.corrects) as ChargeEntry
  for (const [name, amount] of Object.entries((entries.get(corrected.usage) as UsageEntry).quantities))
    quantities[name] = (quantities[name] ?? 0) - amount
  return quantities
}

function bucketStart({ from, bucket }: UsageQuery, at: Millis, zone: string): Millis {
  if (bucket === undefined) return from
  if (bucket === '15m') return Math.floor(at / QUARTER) * QUARTER
  const rule = { anchor: 'calendar', unit: bucket as 'day', weekStart: 1 } as const
  return boundsAt(rule, at, { zone, anchorAt: 0, anchored: false }).startAt
}

function groupIn(
  stored: StoredEntry,
  usage: UsageEntry,
  names: readonly string[],
): Record<string, string | null> {
  const { subject = {}, attributes = {} } = readPrivate(stored) ?? {}
  const all: Record<string, string | undefined> = { feature: usage.feature, endpoint: usage.endpoint }
  for (const [name, value] of Object.entries(subject)) all[`subject.${name}`] = value
  for (const [name, value] of Object.entries(attributes)) all[`attributes.${name}`] = value
  return Object.fromEntries(names.map((name) => [name, all[name] ?? null]))
}

const kindOf = (source: string): string =>
  source.startsWith('grant:') ? 'credits' : source.startsWith('allowance:') ? 'allowance' : source
const under = (sums: ReadonlyMap<string, bigint>, prefix: string): Record<string, string> =>
  Object.fromEntries(
    [...sums].flatMap(([name, sum]) =>
      name.startsWith(prefix) ? [[name.slice(prefix.length), decimal(sum)]] : [],
    ),
  )
function decimal(micros: bigint): string {
  const digits = String(micros < 0n ? -micros : micros).padStart(7, '0')
  const text = `${digits.slice(0, -6)}.${digits.slice(-6)}`.replace(/\.?0+$/, '')
  return micros < 0n ? `-${text}` : text
}

const inOrder = (rows: readonly UsageRow[]): UsageRow[] =>
  rows.toSorted(
    (a, b) => a.start_at - b.start_at || (JSON.stringify(a.group) < JSON.stringify(b.group) ? -1 : 1),
  )

/** The engine's answer must be what all entries say. */
async function agrees(
  { engine, store }: Scene,
  zone: string,
  query: UsageQuery,
): Promise<readonly UsageRow[]> {
  const rows = await engine.usage('a', query)
  assert.deepEqual(inOrder(rows), inOrder(await naive(store, zone, query)), JSON.stringify(query))
  return rows
}

/** Numbers that look random and are the same each time. */
function chance(seed: number) {
  let state = seed
  const next = (): number => {
    state = (state * 1_664_525 + 1_013_904_223) % 2 ** 32
    return state / 2 ** 32
  }
  return {
    below: (bound: number): number => Math.floor(next() * bound),
    one: <T>(of: readonly T[]): T => of[Math.floor(next() * of.length)] as T,
    some: <T>(of: readonly T[]): T[] => of.filter(() => next() < 0.4),
  }
}
type Chance = ReturnType<typeof chance>

const ZONES = [
  'UTC',
  'Asia/Kolkata',
  'Asia/Kathmandu',
  'America/St_Johns',
  'Australia/Lord_Howe',
  'Europe/Berlin',
]
const DIMENSIONS: PolicyDocument['usage'][] = [
  undefined,
  { dimensions: ['subject.user', 'attributes.size'] },
  { dimensions: ['attributes.email', 'endpoint'] },
  { dimensions: [] },
]
const GROUPS = ['feature', 'endpoint', 'subject.user', 'attributes.size', 'attributes.email']

/** One account's history, with totals that are made at any time by any of two nodes. */
async function history(seed: number, steps: number): Promise<void> {
  const dice = chance(seed)
  const zone = dice.one(ZONES)
  const on = await scene(PLAN, {
    account: { time_zone: zone },
    policy: { usage: dice.one(DIMENSIONS) } as object,
  })
  const core = createCore(on.store)
  await on.grant('paid', 500)
  let ids = 0
  const closed: string[] = []
  const expired: string[] = []

  const person = () => {
    const user = dice.one(['ann', 'bob', 'constructor'])
    return {
      subject: { user },
      attributes: { size: dice.one(['large', 'small']), email: `${user}@example.org` },
    }
  }
  const usage = () => ({
    units: dice.below(5),
    ...(dice.below(3) === 0 ? { tokens: dice.below(100) / 10 } : {}),
  })
  const endpoint = () => (dice.below(2) === 0 ? {} : { endpoint: dice.one(['/v1/a', '/v1/b']) })
  const acts: readonly (() => Promise<unknown>)[] = [
    async () => {
      const id = `r${ids++}`
      await on.reserve(id, { feature: 'task', estimate: { units: 3 }, ...person() })
      await on.settle(id, { usage: usage(), ...endpoint() })
      closed.push(id)
    },
    async () => {
      const id = `r${ids++}`
      const back = dice.one([0, 1, MINUTE, 40 * MINUTE, 3 * DAY])
      const at = on.clock.now - dice.below(back + 1)
      await on.record(id, { feature: 'task', usage: usage(), at, ...endpoint(), ...person() })
      closed.push(id)
    },
    () => on.record(`r${ids++}`, { feature: 'job', cost: String(dice.below(9)) }),
    async () => {
      const id = `r${ids++}`
      await on.reserve(id, { feature: 'task', estimate: { units: 3 }, ...person() })
      expired.push(id)
    },
    async () => {
      const id = expired.pop()
      on.after(11 * MINUTE)
      await on.engine.sweep()
      if (id !== undefined) await on.settle(id, { usage: usage() })
    },
    async () => {
      const id = closed[dice.below(closed.length)]
      if (id !== undefined)
        await on.refund(id, `f${ids++}`, dice.below(2) === 0 ? {} : { amount: '0.000001' }).catch(known)
    },
    async () => on.after(dice.one([1, MINUTE, 7 * MINUTE, HOUR, 9 * HOUR, 2 * DAY]) + dice.below(MINUTE)),
    () => foldUsage(core, 'a'),
    () => Promise.all([foldUsage(core, 'a'), foldUsage(core, 'a'), foldUsage(createCore(on.store), 'a')]),
    async () => {
      if (dice.below(4) === 0) await on.publish(PLAN, { usage: dice.one(DIMENSIONS) ?? {} })
    },
    async () => {
      // Whoever has a request open is not forgotten before it ends; totals have to stay right all the same.
      if (dice.below(6) === 0)
        await on.engine.erase('a', 'user', dice.one(['ann', 'constructor'])).catch(known)
    },
  ]
  for (let step = 0; step < steps; step++) {
    await dice.one(acts)()
    if (dice.below(4) === 0) await agrees(on, zone, queryOf(dice, on.clock.now))
    if (dice.below(10) === 0) assert.deepEqual(await found(on.store), [])
  }
  await foldUsage(core, 'a')
  assert.deepEqual(await found(on.store), [])
  for (let n = 0; n < 12; n++) {
    const [what, wrong] = damaged(dice, await on.store.usage('a', EVER))
    assert.ok((await found(storeWith(on.store, wrong))).length > 0, what)
  }
  for (let n = 0; n < 20; n++) await agrees(on, zone, queryOf(dice, on.clock.now))
  await on.engine.close()
}

/** What an audit says about totals. */
async function found(store: Store): Promise<readonly string[]> {
  const told: string[] = []
  const onDisagreement = ({ kind, message }: Disagreement) => told.push(`${kind}: ${message}`)
  await auditStore(createCore(store), 35 * DAY, { accounts: ['a'], onDisagreement }, { actor: 'test' })
  assert.ok(
    told.every((one) => one.startsWith('usage: ')),
    told.join('\n'),
  )
  return told
}

const EVER = SPANS_MS.map((spanMs) => ({ spanMs, from: 0, to: 2 * START }))

/** The store, whose totals of usage are these. */
const storeWith = (store: Store, { totals, ...state }: UsageKept): Store => ({
  ...store,
  usage: async (_account, ranges) => ({
    ...state,
    totals: totals.filter((total) =>
      ranges.some(
        ({ spanMs, from, to }) => total.spanMs === spanMs && total.startAt >= from && total.startAt < to,
      ),
    ),
  }),
})

/** One thing about the totals is wrong: a field of one of them, one too few or too many, or how far they are said to stand. */
function damaged(dice: Chance, kept: UsageKept): readonly [what: string, UsageKept] {
  const total = dice.one(kept.totals)
  const others = kept.totals.filter((one) => one !== total)
  const as = (...some: UsageTotal[]): UsageKept => ({ ...kept, totals: [...others, ...some] })
  const but = (fields: Partial<UsageTotal>) => as({ ...total, ...fields })
  const group = JSON.stringify({ ...readGroup(total.group), feature: 'another' })
  const [first, last] = [earliestOf(kept), latestOf(kept)]
  return dice.one<readonly [string, UsageKept]>([
    ['requests', but({ requests: total.requests + 1 })],
    ['charged', but({ charged: total.charged - 1 })],
    ['quantities', but({ quantities: { ...total.quantities, units: (total.quantities.units ?? 0) + 1 } })],
    ['sources', but({ sources: { ...total.sources, overage: (total.sources.overage ?? 0) + 1 } })],
    ['first at', but({ firstAt: total.firstAt - DAY })],
    ['last at', but({ lastAt: total.lastAt + DAY })],
    ['first seq', but({ firstSeq: 0 })],
    ['last seq', but({ lastSeq: total.lastSeq + 1_000 })],
    ['its group', but({ group })],
    ['no group', but({ group: 'feature' })],
    ['a total is missing', as()],
    ['a total is there again', as(total, { ...total, startAt: total.startAt + 8 * total.spanMs, group })],
    ['none', { ...kept, totals: [] }],
    ['through less', { ...kept, through: kept.through - 1 }],
    ['through more', { ...kept, through: kept.through + 1_000 }],
    ['the earliest', { ...kept, earliestAt: first.startAt + LONGEST_MS }],
    ['the latest', { ...kept, latestAt: last.startAt - LONGEST_MS }],
    ['where they reach', { ...kept, latestAt: Number.MAX_SAFE_INTEGER }],
  ])
}

const earliestOf = ({ totals }: UsageKept): UsageTotal =>
  totals.reduce((one, other) => (other.startAt < one.startAt ? other : one))
const latestOf = ({ totals }: UsageKept): UsageTotal =>
  totals.reduce((one, other) => (other.startAt > one.startAt ? other : one))

function known(error: unknown): void {
  if (!(error instanceof SluiceError)) throw error
}

function queryOf(dice: Chance, now: Millis): UsageQuery {
  const snap = dice.one([1, 1, QUARTER, HOUR, DAY])
  const some = (): Millis => START - 4 * DAY + dice.below(now - START + 5 * DAY)
  const ends = [some(), dice.below(3) === 0 ? now : some()].sort((a, b) => a - b) as [Millis, Millis]
  const [from, to] = ends.map((at) => at - (at % snap)) as [Millis, Millis]
  const bucket = dice.one([undefined, '15m', 'hour', 'day', 'week', 'month'] as const)
  return { from, to, group_by: dice.some(GROUPS), ...(bucket === undefined ? {} : { bucket }) }
}

describe('usage', () => {
  for (let seed = 1; seed <= 16; seed++) {
    test(`is what all entries say, whatever was folded, history ${seed}`, () => history(seed, 160))
  }

  test('is folded over pages and transactions, by two nodes at once, and read from totals then', async () => {
    const on = await scene(PLAN)
    await on.grant('paid', 5_000)
    // A refund has no use of its own, so that pages end between a use and its charge.
    await on.record('first', 1)
    await on.refund('first', 'back')
    for (let n = 0; n < 3_000; n++) {
      on.after(MINUTE)
      await on.record(`r${n}`, {
        feature: 'task',
        usage: { units: 1 },
        attributes: { size: n % 3 ? 'small' : 'large' },
      })
    }
    const nodes = [createCore(on.store), createCore(on.store)]
    const through = await Promise.all(nodes.map((core) => foldUsage(core, 'a')))
    const last = (await on.told('charge')).at(-1)?.seq
    assert.deepEqual(through, [last, last])
    const query = { from: START, to: on.clock.now + 1, bucket: 'day', group_by: ['attributes.size'] }
    const rows = await agrees(on, 'UTC', query)
    assert.equal(rows.length, 6 + 1)
    assert.ok((await readFor(on, query)) <= 1, 'no entry but the oldest is read for whole days')
    const part = { ...query, from: query.from + 7 * MINUTE + 1 }
    await agrees(on, 'UTC', part)
    assert.ok((await readFor(on, part)) <= 2 * 15 + 2, 'for a part of a quarter hour its own entries are')
    await on.engine.close()
  })

  test('is folded by a question that had to read much, and by the quiet pass', async () => {
    const through = async (on: Scene) => (await on.store.usage('a', [])).through
    const used = async (on: Scene, count: number): Promise<void> => {
      for (let n = 0; n < count; n++) await on.record(`r${n}`, 1)
    }
    const few = await scene(PLAN)
    await used(few, 100)
    await few.engine.tidyUp()
    await few.engine.usage('a', { from: 0, to: few.clock.now + 1 })
    await few.engine.close()
    assert.equal(await through(few), 0)
    const asked = await scene(PLAN)
    await used(asked, 300)
    await asked.engine.usage('a', { from: 0, to: 1 })
    await asked.engine.close()
    assert.ok((await through(asked)) > 600)
    const tidied = await scene(PLAN)
    await used(tidied, 300)
    await tidied.engine.tidyUp()
    assert.ok((await through(tidied)) > 600)
    await tidied.engine.close()
  })

  test('is told apart in zones whose days end within a quarter hour', async () => {
    const on = await scene(PLAN, { account: { time_zone: 'Africa/Monrovia' }, startAt: Date.UTC(1971, 5, 1) })
    // Often enough for uses within the last half minute of a quarter hour, which belong to the next day.
    for (let n = 0; n < 1_500; n++) {
      await on.record(`r${n}`, 1)
      on.after(97 * SECOND)
    }
    await foldUsage(createCore(on.store), 'a')
    const range = { from: Date.UTC(1971, 4, 30), to: on.clock.now }
    for (const bucket of ['hour', 'day', 'week']) await agrees(on, 'Africa/Monrovia', { ...range, bucket })
    await on.engine.close()
  })

  test('is read again where totals move while they are read', async () => {
    const on = await scene(PLAN)
    const core = createCore(on.store)
    let reads = 0
    const store: Store = {
      ...on.store,
      async usage(account, ranges) {
        if (++reads === 2) {
          on.after(DAY)
          await on.record('late', 1)
          await foldUsage(core, 'a')
        }
        return on.store.usage(account, ranges)
      },
    }
    await on.record('early', 1)
    await foldUsage(core, 'a')
    const account = await cellOf(on.store)
    const { rows, unfolded } = await usageRows(store, account, { from: 0, to: START + 2 * DAY })
    assert.deepEqual([rows[0]?.requests, unfolded], [2, 0])
    await on.engine.close()
  })
})

const cellOf = async (store: Store): Promise<AccountCell> =>
  (await store.accounts({ limit: 1 }))[0] as AccountCell

/** How many entries an answer was read from. */
async function readFor({ store }: Scene, query: UsageQuery): Promise<number> {
  let read = 0
  const counting: Store = {
    ...store,
    async entries(account, asked) {
      const found = await store.entries(account, asked)
      read += found.length
      return found
    },
  }
  await usageRows(counting, await cellOf(store), query)
  return read
}

describe('usage where entries are gone', () => {
  /** An account whose oldest entries, up to this number, have been dropped. */
  const without = (store: Store, gone: number): Store => ({
    ...store,
    async entries(account, { from = 1, ...query }) {
      return store.entries(account, { ...query, from: Math.max(from, gone + 1) })
    },
  })
  const RANGE = { from: START - DAY, to: START + 3 * DAY, bucket: 'day' }

  async function twoDays() {
    const on = await scene(PLAN, { policy: { usage: { dimensions: ['subject.user', 'attributes.size'] } } })
    const person = (user: string) => ({
      subject: { user },
      attributes: { size: 'small', email: `${user}@example.org` },
    })
    const use = async (id: string, user: string) => on.record(id, { ...person(user), cost: '1' })
    await use('r1', 'ann')
    on.after(1)
    await use('r2', 'bob')
    const gone = (await on.told('charge')).at(-1)?.seq as number
    on.after(DAY)
    await use('r3', 'ann')
    await use('r4', 'bob')
    const core = createCore(on.store)
    await foldUsage(core, 'a')
    const cell = await cellOf(on.store)
    const ask = async (store: Store, query: Partial<UsageQuery>) =>
      (await usageRows(store, cell, { ...RANGE, ...query })).rows.map(
        ({ start_at, requests, group }) =>
          [(start_at - START) / DAY, requests, ...Object.values(group)] as const,
      )
    return { on, gone, core, ask }
  }

  test('totals answer, also by what they do not know', async () => {
    const { on, gone, ask } = await twoDays()
    const all = [
      [-0.5, 1, 'ann'],
      [-0.5, 1, 'bob'],
      [0.5, 1, 'ann'],
      [0.5, 1, 'bob'],
    ]
    const sorted = (rows: readonly (readonly unknown[])[]) => rows.map(String).sort()
    const left = without(on.store, gone)
    assert.deepEqual(sorted(await ask(left, { group_by: ['subject.user'] })), sorted(all))
    const byMail = [
      [-0.5, 2, null],
      [0.5, 1, 'ann@example.org'],
      [0.5, 1, 'bob@example.org'],
    ]
    assert.deepEqual(sorted(await ask(left, { group_by: ['attributes.email'] })), sorted(byMail))
    assert.deepEqual(sorted(await ask(on.store, { to: START + 1 })), sorted([[-0.5, 1]]))
    assert.deepEqual(
      sorted(await ask(left, { to: START + 1, group_by: ['attributes.size'] })),
      sorted([[-0.5, 1, 'small']]),
    )
    await on.engine.close()
  })

  test('what was folded and dropped while it was read is not missed', async () => {
    const on = await scene(PLAN)
    for (let n = 0; n < 4; n++) await on.record(`r${n}`, 1)
    let gone = false
    const left = without(on.store, Number.MAX_SAFE_INTEGER)
    const store: Store = {
      ...on.store,
      async entries(account, query) {
        if (!gone) await foldUsage(createCore(on.store), 'a')
        gone = true
        return left.entries(account, query)
      },
    }
    const { rows } = await usageRows(store, await cellOf(on.store), { from: 0, to: START + 1 })
    assert.deepEqual([rows[0]?.requests, rows[0]?.charged], [4, '4'])
    await on.engine.close()
  })

  test('a quarter hour is not divided there', async () => {
    const on = await scene(PLAN)
    for (let n = 0; n < 2; n++) {
      await on.record(`r${n}`, 1)
      on.after(1)
    }
    await foldUsage(createCore(on.store), 'a')
    const requests = async (store: Store, from: Millis, to: Millis) =>
      (await usageRows(store, await cellOf(on.store), { from, to })).rows.map((row) => row.requests)
    const left = without(on.store, Number.MAX_SAFE_INTEGER)
    assert.deepEqual(await requests(on.store, START, START + 1), [1])
    assert.deepEqual(await requests(left, START, START + 1), [2])
    assert.deepEqual(await requests(on.store, START + 1, START + 2), [1])
    assert.deepEqual(await requests(left, START + 1, START + 2), [])
    await on.engine.close()
  })

  test('a correction whose use was dropped is not told apart from entries', async () => {
    const on = await scene(PLAN)
    await on.reserve('r', { feature: 'task', estimate: { units: 3 } })
    on.after(11 * MINUTE)
    await on.engine.sweep()
    const gone = (await on.told('charge')).at(-1)?.seq as number
    on.after(HOUR)
    await on.settle('r', { usage: { units: 1 }, attributes: { size: 'small' } })
    await foldUsage(createCore(on.store), 'a')
    const cell = await cellOf(on.store)
    const query = { from: START + HOUR, to: START + 2 * HOUR, group_by: ['subject.user'] }
    const { rows } = await usageRows(without(on.store, gone), cell, query)
    assert.deepEqual(
      rows.map(({ charged, quantities }) => [charged, quantities]),
      [['-2', { units: '-2' }]],
    )
    await on.engine.close()
  })

  test('who is forgotten is named by no total', async () => {
    const { on, gone, ask } = await twoDays()
    await erase(
      createCore(without(on.store, gone)),
      'a',
      { dimension: 'user', value: 'ann' },
      { actor: 'test' },
    )
    const totals = (await on.store.usage('a', EVERYTHING)).totals.map(({ group }) => group)
    assert.ok(totals.length > 0 && !totals.some((group) => group.includes('ann')), String(totals))
    const rows = await ask(without(on.store, gone), { group_by: ['subject.user', 'attributes.size'] })
    assert.deepEqual(rows.map(String).sort(), ['-0.5,1,,', '-0.5,1,bob,small', '0.5,1,,', '0.5,1,bob,small'])
    await on.engine.close()
  })
})

const EVERYTHING = SPANS_MS.map((spanMs) => ({ spanMs, from: 0, to: 2 * START }))

describe('forgetting a person whose usage was folded', () => {
  const QUERY = { from: START - DAY, to: START + 10 * DAY, group_by: ['subject.user', 'attributes.size'] }

  async function folded(all = true) {
    const on = await scene(PLAN, {
      policy: { usage: { dimensions: ['attributes.size', 'attributes.email'] } },
    })
    for (let n = 0; n < 40; n++) {
      const user = n % 2 === 0 ? 'ann' : 'bob'
      await on.record(`r${n}`, {
        cost: '1',
        subject: { user },
        attributes: { size: 'small', email: `${user}@example.org` },
      })
      on.after(6 * MINUTE)
    }
    if (all) await foldUsage(createCore(on.store), 'a')
    const groups = async () =>
      new Set((await on.store.usage('a', EVERYTHING)).totals.map(({ group }) => group))
    return { on, groups }
  }

  test('leaves totals that say what the entries say, and know as much as before', async () => {
    const { on, groups } = await folded()
    await on.engine.erase('a', 'user', 'ann')
    assert.deepEqual(
      [...(await groups())].sort(),
      [
        '{"attributes.email":"bob@example.org","attributes.size":"small","feature":"job"}',
        '{"attributes.email":null,"attributes.size":null,"feature":"job"}',
      ].sort(),
    )
    await agrees(on, 'UTC', QUERY)
    assert.ok((await readFor(on, { ...QUERY, group_by: ['attributes.email'] })) <= 1)
    await on.engine.close()
  })

  test('changes no total where it is refused', async () => {
    const { on } = await folded()
    const before = await on.store.usage('a', EVERYTHING)
    await on.reserve('open', { cost: '1', subject: { user: 'ann' } })
    await assert.rejects(on.engine.erase('a', 'user', 'ann'))
    const after = await on.store.usage('a', EVERYTHING)
    assert.deepEqual(new Set(after.totals), new Set(before.totals))
    await agrees(on, 'UTC', QUERY)
    await on.engine.close()
  })

  for (const all of [true, false]) {
    const when = all ? 'before' : 'meanwhile by another'
    test(`is exact wherever it is interrupted, folded ${when}, and goes on when it is done again`, () =>
      interrupted(all))
  }
  async function interrupted(all: boolean): Promise<void> {
    for (let calls = 0, whole = false; !whole; calls++) {
      const { on, groups } = await folded(all)
      let left = calls
      const halted = <T>(work: () => Promise<T>): Promise<T> => {
        if (left-- <= 0) throw new Error('the node is gone')
        return work()
      }
      const dying: Store = {
        ...on.store,
        transact: (...given) =>
          halted(async () => {
            if (!all) await foldUsage(createCore(on.store), 'a')
            return on.store.transact(...given)
          }),
        keepUsage: (...given) => halted(() => on.store.keepUsage(...given)),
        usage: (...given) => halted(() => on.store.usage(...given)),
      }
      const ann = { dimension: 'user', value: 'ann' }
      whole = await erase(createCore(dying), 'a', ann, { actor: 'test' }).then(
        () => true,
        () => false,
      )
      await agrees(on, 'UTC', QUERY)
      await erase(createCore(on.store), 'a', ann, { actor: 'test' })
      await agrees(on, 'UTC', QUERY)
      assert.ok(![...(await groups())].some((group) => group.includes('ann')), `after ${calls} calls`)
      assert.ok(
        (await readFor(on, { ...QUERY, group_by: ['attributes.email'] })) <= 1,
        `after ${calls} calls`,
      )
      await on.engine.close()
      assert.ok(calls < 100)
    }
  }

  test('holds where another forgets somebody else at the same time', async () => {
    const { on, groups } = await folded()
    let interrupted = false
    const shared: Store = {
      ...on.store,
      async transact(account, keys, step, priority) {
        // Totals have been told apart by less, and the entries still name the person.
        const loose = [...(await groups())].some((group) => !group.includes('email'))
        if (!interrupted && loose) {
          interrupted = true
          await erase(createCore(on.store), 'a', { dimension: 'user', value: 'nobody' }, { actor: 'test' })
        }
        return on.store.transact(account, keys, step, priority)
      },
    }
    await erase(createCore(shared), 'a', { dimension: 'user', value: 'ann' }, { actor: 'test' })
    assert.ok(interrupted)
    await agrees(on, 'UTC', QUERY)
    assert.ok(![...(await groups())].some((group) => group.includes('ann')))
    await on.engine.close()
  })
})
