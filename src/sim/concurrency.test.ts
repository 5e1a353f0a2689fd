/** However many ask at once, no limit is passed, and none is left unused: on every store, by the same tests. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { testDatabase } from '../../test/postgres.ts'
import type { Engine } from '../engine/contract.ts'
import { createEngine } from '../engine.ts'
import type { PlanDocument } from '../policy/schema.ts'
import { memoryStore } from '../store/memory.ts'
import { postgresStore } from '../store/postgres/store.ts'
import { sqliteStore } from '../store/sqlite/store.ts'
import type * as wire from '../wire.ts'
import { randomFrom } from './random.ts'
import { spread } from './spread.ts'

const CREDITS = { credits: ['purchased'] } as const
/** Each with as many nodes as it may have. */
const STORES = {
  memory: async () => ({ stores: [memoryStore({ strict: true })], remove: () => {} }),
  sqlite: async () => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-'))
    const stores = [sqliteStore({ path: join(folder, 'state.db') })]
    return { stores, remove: () => rmSync(folder, { recursive: true }) }
  },
  postgres: async () => {
    const { url, drop } = await testDatabase()
    return { stores: [1, 2, 3].map(() => postgresStore({ url })), remove: drop }
  },
}
const CALLERS = 1_000
const AT_ONCE = { cost: '1' }

interface Case {
  readonly plan: PlanDocument
  readonly admits: number
  /** Credits given before. */
  readonly credits?: string
  /** By users: callers are shared out over ten, and each has its own limit. */
  readonly users?: number
}
// biome-ignore format: a row a line
const CASES: Readonly<Record<string, Case>> = {
  'a rate of requests, gcra': { plan: { guards: [{ name: 'r', rate: { meter: 'requests', limit: 40, per: '400d' } }], waterfall: [CREDITS] }, credits: '5000', admits: 40 },
  'a rate of requests, sliding': { plan: { guards: [{ name: 'r', rate: { meter: 'requests', limit: 40, per: '400d', algorithm: 'sliding' } }], waterfall: [CREDITS] }, credits: '5000', admits: 40 },
  'a rate of cost, fixed': { plan: { guards: [{ name: 'r', rate: { meter: 'cost', limit: 40, per: '400d', algorithm: 'fixed' } }], waterfall: [CREDITS] }, credits: '5000', admits: 40 },
  'a concurrency': { plan: { guards: [{ name: 'c', concurrency: 40 }], waterfall: [CREDITS] }, credits: '5000', admits: 40 },
  'a concurrency by user': { plan: { guards: [{ name: 'c', concurrency: 4, by: 'user' }], waterfall: [CREDITS] }, credits: '5000', admits: 40, users: 10 },
  'a budget': { plan: { guards: [{ name: 'b', budget: '40', per: '400d' }], waterfall: [CREDITS] }, credits: '5000', admits: 40 },
  'a budget by user': { plan: { guards: [{ name: 'b', budget: '4', per: '400d', by: 'user' }], waterfall: [CREDITS] }, credits: '5000', admits: 40, users: 10 },
  'an allowance': { plan: { waterfall: [{ allowance: 'a', windows: [{ name: 'w', limit: '40', per: '5h' }] }] }, admits: 40 },
  'two windows of an allowance': { plan: { waterfall: [{ allowance: 'a', windows: [{ name: 'w', limit: '400', per: '5h' }, { name: 'v', limit: '40', per: '7d' }] }] }, admits: 40 },
  'credits': { plan: { waterfall: [CREDITS] }, credits: '40', admits: 40 },
  'overage': { plan: { waterfall: [{ overage: { limit: '40', per: '400d' } }] }, admits: 40 },
  'all sources, one after another': { plan: { waterfall: [{ allowance: 'a', windows: [{ name: 'w', limit: '10', per: '5h' }] }, CREDITS, { overage: { limit: '10', per: '400d' } }] }, credits: '20', admits: 40 },
  'subjects': { plan: { subjects: { user: { max: 40 } }, waterfall: [CREDITS] }, credits: '5000', admits: 40, users: CALLERS },
}

async function engineWith(name: keyof typeof STORES, { plan, credits }: Case) {
  const { stores, remove } = await STORES[name]()
  const policy = { features: { job: {} }, plans: { plan } }
  const engines = await Promise.all(stores.map((store) => createEngine({ store, policy, sweeps: false })))
  const engine = spread(engines)
  await engine.createAccount({ id: 'a', plan: 'plan' })
  if (credits !== undefined) await engine.grant('a', { id: 'g', kind: 'purchased', amount: credits })
  const close = async (): Promise<void> => {
    await engine.close()
    await remove()
  }
  return { engine, close }
}

const admitted = (answers: readonly wire.DecisionAnswer[]): wire.DecisionAnswer[] =>
  answers.filter(({ outcome }) => outcome === 'allow')

function askAll(engine: Engine, users: number, callers: number, asks: { readonly cost: string }) {
  const calls = Array.from({ length: callers }, (_, caller) =>
    engine.reserve({
      request_id: `r${caller}`,
      account: 'a',
      subject: { user: `u${caller % users}` },
      feature: 'job',
      ...asks,
    }),
  )
  return Promise.all(calls)
}

for (const name of ['memory', 'sqlite', 'postgres'] as const) {
  describe(`on ${name}`, () => {
    test('5 parallel reserves of 50 on a limit of 100 admit exactly 2', async () => {
      const plan = {
        waterfall: [{ allowance: 'a', windows: [{ name: 'w', limit: '100', per: '5h' }] }],
      } as const
      const { engine, close } = await engineWith(name, { plan, admits: 2 })
      const answers = await askAll(engine, 1, 5, { cost: '50' })
      assert.equal(admitted(answers).length, 2)
      await close()
    })
    for (const [what, one] of Object.entries(CASES)) {
      test(`${CALLERS} callers never pass ${what}, and none of it is left`, async () => {
        const { engine, close } = await engineWith(name, one)
        const answers = await askAll(engine, one.users ?? 1, CALLERS, AT_ONCE)
        assert.equal(admitted(answers).length, one.admits)
        assert.equal((await engine.account('a')).open_holds, one.admits)
        assert.deepEqual((await engine.audit({})).disagreements, 0)
        await close()
      })
    }
    test('callers that repeat, settle and release in any order charge each request once', async () => {
      const plan = CASES['all sources, one after another'] as Case
      const { engine, close } = await engineWith(name, { ...plan, credits: '500' })
      const random = randomFrom(1)
      const calls = Array.from({ length: CALLERS }, () => {
        const request_id = `r${random.int(1, 60)}`
        const to = { request_id, account: 'a', cost: '1' }
        return random.pick([
          () => engine.reserve({ ...to, feature: 'job' }),
          () => engine.settle({ ...to, feature: 'job' }),
          () => engine.release({ request_id, account: 'a' }),
        ])()
      })
      await Promise.allSettled(calls)
      const page = await engine.entries('a', { kinds: ['charge'], limit: 200 })
      const charged = page.items.map(({ request }) => request)
      assert.equal(new Set(charged).size, charged.length)
      assert.deepEqual((await engine.audit({})).disagreements, 0)
      await close()
    })
  })
}
