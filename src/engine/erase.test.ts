import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createEngine, type Engine } from '../engine.ts'
import { SluiceError } from '../errors.ts'
import { memoryStore } from '../store/memory.ts'
import type { Store } from '../store.ts'

const POLICY = `
features: { work: { rate_card: [{ per_unit: { units: 1 } }] } }
plans:
  p:
    guards: [{ name: in-flight, concurrency: 5, by: user }]
    waterfall: [{ allowance: a, by: user, windows: [{ name: day, limit: "100", per: day }] }]
`
const reserve = (engine: Engine, id: string) =>
  engine.reserve({
    request_id: id,
    account: 'acme',
    subject: { user: 'ann' },
    feature: 'work',
    estimate: { units: 1 },
  })

async function started(store: Store): Promise<Engine> {
  const engine = await createEngine({ store, policy: POLICY, sweeps: false })
  await engine.createAccount({ id: 'acme', plan: 'p' })
  return engine
}

test('a request that is reserved while its person is looked up is not torn from its hold', async (t) => {
  const plain = memoryStore({ strict: true })
  let reserved = false
  const store: Store = {
    ...plain,
    async entries(account, query) {
      if (!reserved) {
        reserved = true
        await reserve(engine, 'late')
      }
      return plain.entries(account, query)
    },
  }
  const engine = await started(store)
  t.after(() => engine.close())
  await reserve(engine, 'early')
  await engine.settle({ request_id: 'early', account: 'acme', usage: { units: 1 } })
  await assert.rejects(
    engine.erase('acme', 'user', 'ann'),
    (error) => error instanceof SluiceError && error.code === 'conflict' && error.detail.path === '/value',
  )
  const settled = await engine.settle({ request_id: 'late', account: 'acme', usage: { units: 1 } })
  assert.equal(settled.charged, '1')
  assert.ok((await engine.erase('acme', 'user', 'ann')).entries > 0)
  assert.equal((await engine.audit({})).disagreements, 0)
})

test('a dimension may be called as what every object has', async () => {
  const engine = await started(memoryStore({ strict: true }))
  const grant = (id: string, subjects: Record<string, string>) =>
    engine.grant('acme', { id, kind: 'free', amount: 1, subjects })
  await grant('teams', { team: 't' })
  await grant('constructors', { constructor: 'c' })
  const caller = { actor: 'key', subject: { constructor: 'd' } }
  const { credits } = await engine.account('acme', caller.subject, caller)
  assert.deepEqual(
    credits.grants.map(({ id }) => id),
    ['teams'],
  )
  assert.deepEqual(await engine.erase('acme', 'constructor', 'c'), { entries: 1 })
})

test('forgetting someone again, or nobody, writes nothing', async (t) => {
  const engine = await started(memoryStore({ strict: true }))
  t.after(() => engine.close())
  await reserve(engine, 'r1')
  await engine.settle({ request_id: 'r1', account: 'acme', usage: { units: 1 } })
  await engine.erase('acme', 'user', 'ann')
  const before = await engine.entries('acme', {})
  assert.deepEqual(await engine.erase('acme', 'user', 'ann'), { entries: 0 })
  assert.deepEqual(await engine.erase('acme', 'user', 'nobody'), { entries: 0 })
  assert.deepEqual(await engine.entries('acme', {}), before)
  assert.ok(!JSON.stringify(before).includes('ann'))
})

test('a kept key is known while the clock is not trusted, and a revoked one is not', async (t) => {
  let now = 1_800_000_000_000
  let wall = now
  const engine = await started(memoryStore({ now: () => now, wall: () => wall, monotonic: () => wall }))
  t.after(() => engine.close())
  const kept = await engine.createKey({ id: 'kept', role: 'admin' })
  const gone = await engine.createKey({ id: 'gone', role: 'admin' })
  await engine.revokeKey('gone')
  now += 3_600_000
  wall += 1_000
  await assert.rejects(
    engine.account('acme'),
    (error) => error instanceof SluiceError && error.code === 'clock_suspect',
  )
  assert.equal((await engine.authenticate(kept.secret))?.id, 'kept')
  assert.equal(await engine.authenticate(gone.secret), undefined)
  engine.acceptClock()
  assert.equal((await engine.account('acme')).id, 'acme')
})
