/**
 * What tests of the engine share: an engine on the memory store with a clock that only the test moves, one account, and
 * naive books that are summed up afresh from cells and entries and must agree. Amounts are plain numbers of CU here.
 */
import assert from 'node:assert/strict'
import type { Engine } from '../src/engine/contract.ts'
import { createEngine, type EngineOptions } from '../src/engine.ts'
import { SluiceError } from '../src/errors.ts'
import type { AccountCell, Counters, RequestCell, SubjectCell } from '../src/kernel/cells.ts'
import { type ChargeEntry, type Entry, readEntry } from '../src/ledger/entries.ts'
import type { PlanDocument, PolicyDocument } from '../src/policy/schema.ts'
import { memoryStore } from '../src/store/memory.ts'
import type { Store } from '../src/store.ts'
import type { Millis } from '../src/units.ts'
import type * as wire from '../src/wire.ts'

export const SECOND = 1_000
export const MINUTE = 60 * SECOND
export const HOUR = 60 * MINUTE
export const DAY = 24 * HOUR
/** A Thursday noon in the middle of a month. */
export const START: Millis = Date.UTC(2026, 0, 15, 12)
/** One µCU, in CU. */
export const MICRO = 0.000001

/** `job` has no price: callers state its cost. A `unit` costs 1 CU, a `token` a tenth; `large` doubles both. */
export const FEATURES: PolicyDocument['features'] = {
  job: {},
  other: {},
  task: {
    rate_card: [
      { when: { size: 'large' }, per_unit: { units: 2, tokens: '0.2' } },
      { per_unit: { units: 1, tokens: '0.1' } },
    ],
  },
}
export const ALL_CREDITS = {
  credits: ['free', 'promo', 'plan', 'enterprise', 'adjustment', 'purchased'],
} as const
export const CREDITS_ONLY: PlanDocument = { waterfall: [ALL_CREDITS] }

export const policyOf = (plan: PlanDocument, more: Partial<PolicyDocument> = {}): PolicyDocument => ({
  features: FEATURES,
  ...more,
  plans: { ...more.plans, plan },
})

type ReserveIn = Partial<wire.ReserveRequest>
type Given<T> = number | Partial<T>
const costOf = <T extends object>(given: Given<T>): object =>
  typeof given === 'number' ? { cost: cu(given) } : given

/** A number of CU as the shortest decimal text: what answers say. */
export function cu(amount: number): string {
  return String(Number(amount.toFixed(6)))
}

export interface SceneOptions extends Partial<Omit<EngineOptions, 'store' | 'policy'>> {
  /** Fields of the account, or none is created. */
  readonly account?: Partial<wire.AccountRequest> | null
  readonly policy?: Partial<PolicyDocument>
  readonly startAt?: Millis
  /** False: no policy is published yet. */
  readonly published?: boolean
  /** The clocks that the store's is held against. */
  readonly node?: { readonly wall: () => Millis; readonly monotonic: () => number }
}

export type Scene = Awaited<ReturnType<typeof scene>>

/** Opens an engine whose only plan is `plan`, with the account `a` on it. */
export async function scene(plan: PlanDocument, options: SceneOptions = {}) {
  const { account = {}, policy = {}, startAt = START, published = true, node, ...rest } = options
  const clock = { now: startAt }
  const store = memoryStore({ now: () => clock.now, strict: true, ...node })
  const written = published ? { policy: policyOf(plan, policy) } : {}
  const engine = await createEngine({ store, ...written, sweeps: false, ...rest })
  if (account !== null) await engine.createAccount({ id: 'a', plan: 'plan', ...account })
  const on = (id: string) => ({
    ...callsOf(engine, id),
    /** Everything that is kept of the account, to compare before and after. */
    kept: async () => ({
      cells: await allCells(store, id),
      entries: await store.entries(id, { limit: 100_000 }),
    }),
    /** What the entries of one kind say, in order. */
    told: async (kind: wire.EntryView['kind']) =>
      (await entriesOf(store, id)).filter((entry) => entry.kind === kind),
    agree: () => booksAgree(store, id),
    reading: (subject?: wire.Subject) => readingOf(engine, id, subject),
  })
  return {
    engine,
    store,
    clock,
    ...on('a'),
    /** The same calls on another account, which is created on the same plan. */
    async beside(id: string) {
      await engine.createAccount({ id, plan: 'plan', ...account })
      return on(id)
    },
    after: (ms: Millis) => {
      clock.now += ms
    },
    /** Everything that is kept of the account, and which entries there are in all. */
    everything: async () => ({
      account: [await allCells(store, 'a'), await store.entries('a', { limit: 100_000 })],
      journal: (await engine.journal({ limit: 500 })).items.map(({ id, hash }) => `${id} ${hash}`),
    }),
    publish: (next: PlanDocument, more: Partial<PolicyDocument> = {}) =>
      engine.publishPolicy(JSON.stringify(policyOf(next, { ...policy, ...more })), undefined),
  }
}

function callsOf(engine: Engine, account: string) {
  const at = { account }
  return {
    reserve: (id: string, given: Given<ReserveIn> = {}) =>
      engine.reserve({ request_id: id, feature: 'job', ...at, ...costOf(given) }),
    extend: (id: string, step: number, given: Given<wire.ExtendRequest> = {}) =>
      engine.extend({ request_id: id, step, ...at, ...costOf(given) }),
    settle: (id: string, given: Given<wire.SettleRequest>) =>
      engine.settle({ request_id: id, ...at, ...costOf(given) }),
    release: (id: string) => engine.release({ request_id: id, ...at }),
    record: (id: string, given: Given<wire.RecordRequest>) =>
      engine.record({ request_id: id, feature: 'job', ...at, ...costOf(given) }),
    refund: (id: string, refundId: string, given: Partial<wire.RefundRequest> = {}) =>
      engine.refund(account, id, { refund_id: refundId, reason: 'test', ...given }),
    grant: (id: string, amount: number, given: Partial<wire.GrantRequest> = {}) =>
      engine.grant(account, { id, kind: 'purchased', amount: cu(amount), ...given }),
    view: (subject?: wire.Subject) => engine.account(account, subject),
    override: (
      name: string,
      limit: number | null,
      more: Partial<wire.OverridesRequest & wire.OverrideIn> = {},
    ) => {
      const { until_at, subject } = more
      const one = {
        name,
        limit: limit === null ? null : String(limit),
        ...(until_at === undefined ? {} : { until_at }),
      }
      return engine.overrideLimits(account, {
        reason: 'test',
        overrides: [one],
        ...(subject === undefined ? {} : { subject }),
      })
    },
  }
}

/** What an account shows, in short: `5h` → used and held, grants → remaining and held; zeros are left out. */
async function readingOf(
  engine: Engine,
  account: string,
  subject?: wire.Subject,
): Promise<Record<string, string>> {
  const view = await engine.account(account, subject)
  const read: Record<string, string> = {}
  const note = (name: string, used: string, held: string): void => {
    if (used !== '0' || held !== '0') read[name] = held === '0' ? used : `${used}+${held}`
  }
  for (const { windows } of view.allowances) for (const one of windows) note(one.name, one.used, one.held)
  for (const { id, remaining, held } of view.credits.grants) note(id, remaining, held)
  if (view.overage !== null) note('overage', view.overage.used, view.overage.held)
  for (const { name, used, held } of view.limits) note(name, used, held)
  note('debt', view.credits.debt, '0')
  return read
}

/** Rejects with an error of this code, with a path that begins so, and says what to do. */
export async function refused(
  code: string,
  path: string | undefined,
  call: () => Promise<unknown>,
): Promise<SluiceError> {
  let answer: unknown
  try {
    answer = await call()
  } catch (error) {
    assert.ok(error instanceof SluiceError, `not a SluiceError: ${error}`)
    const { path: where, remedy } = error.detail
    assert.equal(error.code, code, `${error.message} (${where})`)
    if (path !== undefined) assert.equal(where, path, error.message)
    assert.ok(remedy !== undefined && remedy !== '', `${error.message}: has no remedy`)
    return error
  }
  assert.fail(`expected ${code}, and was answered ${JSON.stringify(answer)}`)
}

/** Says of a failure in which case of a table it was. */
export async function during(what: string, run: () => Promise<unknown>): Promise<void> {
  try {
    await run()
  } catch (cause) {
    throw new Error(`in the case of: ${what}`, { cause })
  }
}

async function allCells(store: Store, account: string) {
  return Object.fromEntries(
    (await store.cells(account, '', { limit: 100_000 })).map(({ key, cell }) => [key, cell]),
  )
}

async function entriesOf(store: Store, account: string): Promise<Entry[]> {
  return (await store.entries(account, { limit: 100_000 })).map(readEntry)
}

// --- naive books

type Sums = Map<string, number>
const sum = (sums: Sums, key: string, amount: number): void =>
  void sums.set(key, (sums.get(key) ?? 0) + amount)
const nonZero = (sums: Sums): Record<string, number> =>
  Object.fromEntries([...sums].filter(([, amount]) => amount !== 0).sort(([a], [b]) => (a < b ? -1 : 1)))

/** Holds add up to what is held, charges to what is used, transfers to what remains; and each on its own is well formed. */
async function booksAgree(store: Store, account: string): Promise<void> {
  const cells = await allCells(store, account)
  const entries = await entriesOf(store, account)
  const requests = Object.entries(cells).flatMap(([key, cell]) =>
    key.startsWith('request:') ? [cell as RequestCell] : [],
  )
  const counters = countersOf(cells)
  assert.deepEqual(
    nonZero(heldBy(cells.account as AccountCell, counters)),
    nonZero(heldFor(requests, standingIn(counters))),
    'what is held',
  )
  assert.deepEqual(
    nonZero(usedIn(counters)),
    nonZero(chargedTo(entries, requests, standingIn(counters))),
    'what is used',
  )
  booksBalance(cells.account as AccountCell, entries)
  chargesAddUp(entries)
}

type Placed = readonly (readonly [place: string, counters: Counters])[]
function countersOf(cells: Record<string, unknown>): Placed {
  const subjects = Object.entries(cells).flatMap(([key, cell]) =>
    key.startsWith('subject:') ? [cell as SubjectCell] : [],
  )
  return [
    ['', (cells.account as AccountCell).counters],
    ...subjects.map((cell) => [`${cell.dimension}=${cell.value} `, cell.counters] as const),
  ]
}

function heldBy(account: AccountCell, counters: Placed): Sums {
  const sums: Sums = new Map([['holds', account.openHolds]])
  for (const { id, held } of account.grants) sum(sums, `grant:${id}`, held)
  for (const [place, { windows, concurrency }] of counters) {
    for (const [name, { startAt, held }] of Object.entries(windows))
      sum(sums, `${place}${name}@${startAt}`, held)
    for (const [name, ends] of Object.entries(concurrency))
      for (const end of ends) sum(sums, `${place}${name} to ${end}`, 1)
  }
  return sums
}

const placeOf = (request: RequestCell, by: string | undefined | null): string =>
  by === undefined || by === null ? '' : `${by}=${request.subject[by]} `

/** The window instances that there are now: what was held or used in others counts nowhere any more. */
function standingIn(counters: Placed): ReadonlySet<string> {
  return new Set(
    counters.flatMap(([place, { windows }]) =>
      Object.entries(windows).map(([name, { startAt }]) => `${place}${name}@${startAt}`),
    ),
  )
}

function heldFor(requests: readonly RequestCell[], standing: ReadonlySet<string>): Sums {
  const sums: Sums = new Map()
  const noteStanding = (key: string, amount: number): void => {
    if (standing.has(key)) sum(sums, key, amount)
  }
  for (const request of requests) {
    const { hold } = request
    assert.equal(
      hold !== undefined,
      request.state === 'open',
      `${request.id} holds while it is open, and only then`,
    )
    if (hold === undefined) continue
    sum(sums, 'holds', 1)
    assert.equal(
      hold.parts.reduce((all, { amount }) => all + amount, 0),
      hold.granted,
      `${request.id} holds its parts`,
    )
    for (const { source, amount, by, windows = [] } of hold.parts) {
      if (source.startsWith('grant:')) sum(sums, source, amount)
      for (const [key, startAt] of windows) noteStanding(`${placeOf(request, by)}${key}@${startAt}`, amount)
    }
    for (const { kind, name, by, amount, at } of hold.guards) {
      if (kind === 'budget') noteStanding(`${placeOf(request, by)}${name}@${at}`, amount)
      if (kind === 'concurrency') sum(sums, `${placeOf(request, by)}${name} to ${request.expiresAt}`, 1)
    }
  }
  return sums
}

function usedIn(counters: Placed): Sums {
  const sums: Sums = new Map()
  for (const [place, { windows }] of counters)
    for (const [name, { startAt, used }] of Object.entries(windows))
      sum(sums, `${place}${name}@${startAt}`, used)
  return sums
}

/** What charges moved in the windows that still stand. */
function chargedTo(
  entries: readonly Entry[],
  requests: readonly RequestCell[],
  standing: ReadonlySet<string>,
): Sums {
  const byId = new Map(requests.map((request) => [request.id, request]))
  const sums: Sums = new Map()
  for (const entry of entries) {
    if (entry.kind !== 'charge') continue
    const request = byId.get(entry.request ?? '')
    assert.ok(request !== undefined, `charge ${entry.seq} has a request`)
    for (const [key, by, startAt, amount] of entry.windows) {
      const place = `${placeOf(request, by)}${key}@${startAt}`
      if (standing.has(place)) sum(sums, place, amount)
    }
  }
  return sums
}

/** Every grant remains what was moved in and not out; the books say what was moved. */
function booksBalance(account: AccountCell, entries: readonly Entry[]): void {
  const sums: Sums = new Map()
  for (const [at, entry] of entries.entries()) {
    assert.equal(entry.seq, at + 1, 'entries are numbered without gaps')
    if (entry.kind !== 'balance') continue
    assert.ok(Number.isSafeInteger(entry.amount) && entry.amount > 0, `entry ${entry.seq} moves something`)
    sum(sums, entry.from, -entry.amount)
    sum(sums, entry.to, entry.amount)
  }
  const live: Sums = new Map(account.grants.map(({ id, remaining }) => [`grant:${id}`, remaining]))
  for (const [name, amount] of Object.entries(account.books)) sum(live, name, amount)
  assert.deepEqual(nonZero(live), nonZero(sums), 'balances are what was moved')
  for (const { id, remaining, held } of account.grants)
    assert.ok(held >= 0 && remaining >= held, `grant ${id} holds at most what remains`)
}

/** Every use has one charge, every cover sums to its cost, and what a grant, overage, debt or the house covered was moved. */
function chargesAddUp(entries: readonly Entry[]): void {
  const charges = entries.filter(
    (entry): entry is ChargeEntry & { kind: 'charge' } => entry.kind === 'charge',
  )
  const uses = entries.filter((entry) => entry.kind === 'usage').map(({ seq }) => seq)
  const charged = charges.filter(({ corrects }) => corrects === undefined).map(({ usage }) => usage)
  // A correction by a later settle has a usage of its own; a refund has not.
  const corrected = charges.filter(({ corrects, refund }) => corrects !== undefined && refund === undefined)
  assert.deepEqual(
    [...charged, ...corrected.map(({ usage }) => usage)].sort((a, b) => a - b),
    uses,
    'one charge a use',
  )
  for (const charge of charges) {
    const covered = charge.cover.reduce((all, [, amount]) => all + amount, 0)
    assert.equal(covered, charge.cost, `the cover of charge ${charge.seq} sums to its cost`)
    const booked: Sums = new Map()
    for (const entry of entries) {
      if (entry.kind !== 'balance' || entry.charge !== charge.seq) continue
      if (entry.to === 'charged') sum(booked, entry.from, entry.amount)
      if (entry.from === 'charged') sum(booked, entry.to, -entry.amount)
    }
    const said: Sums = new Map()
    for (const [source, amount] of charge.cover)
      if (!source.startsWith('allowance:')) sum(said, source, amount)
    if (charge.refund === undefined && charge.cost >= 0)
      assert.deepEqual(nonZero(booked), nonZero(said), `charge ${charge.seq} moved what it says`)
  }
}
