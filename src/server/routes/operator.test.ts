// What an operator does beside a running server: forget a person, repair an account, accept a clock.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { memoryStore } from '../../store/memory.ts'
import { POLICY } from '../fixtures/policy.ts'
import { createWorld, type World } from '../fixtures/world.ts'

const accounts = ['acme', 'beta'].map((id) => ({ id, plan: 'plus' }))
const ADA = { dimension: 'user', value: 'ada-lovelace' }
const ask = (request_id: string, user: string, account = 'acme') => ({
  ...{ request_id, account, feature: 'chat', subject: { user }, cost: '1' },
})
const whole = async ({ engine }: World) => assert.equal((await engine.audit({})).disagreements, 0)

describe('erase', () => {
  let world: World
  before(async () => {
    const storeOf = (now: () => number) => memoryStore({ now, strict: true })
    world = await createWorld({ storeOf, policy: POLICY, accounts })
  })
  after(() => world.close())
  const erase = (body: object = ADA, key?: string, account = 'acme') =>
    world.post(`/v1/accounts/${account}/erase`, body, key)
  const journal = async () => JSON.stringify((await world.get('/v1/entries?limit=500')).body)

  test('409: a request of the person is open; nothing is changed, and the remedy says what to do', async () => {
    await world.post('/v1/record', ask('r-1', ADA.value))
    await world.post('/v1/record', ask('r-2', 'grace'))
    await world.post('/v1/reserve', ask('r-3', ADA.value))
    await world.post('/v1/reserve', { ...ask('r-4', ADA.value), cost: '500' })
    const before = await journal()
    const { status, body } = await erase()
    assert.deepEqual([status, body.code], [409, 'conflict'])
    assert.match(body.detail, /r-3/)
    assert.match(body.remedy, /settle or release/)
    assert.equal(await journal(), before)
  })

  test('200: then entries, requests and refusals name nobody, others stay, and the books are whole', async () => {
    await world.post('/v1/settle', { request_id: 'r-3', account: 'acme', cost: '1' })
    const { status, body } = await erase()
    assert.equal(status, 200)
    assert.ok(body.entries > 0)
    const after = await journal()
    assert.ok(!after.includes(ADA.value) && after.includes('grace'))
    const requests = '/v1/accounts/acme/requests'
    assert.deepEqual((await world.get(`${requests}/r-1`)).body.subject, {})
    assert.equal(
      (await world.get(`${requests}/r-4`)).status,
      404,
      'it was refused, and is known from the log alone',
    )
    assert.deepEqual((await world.get(`${requests}/r-2`)).body.subject, { user: 'grace' })
    await whole(world)
  })

  test('200: again, or someone who was never there: no entries', async () => {
    for (const value of [ADA.value, 'nobody']) {
      assert.deepEqual((await erase({ ...ADA, value })).body, { entries: 0 })
    }
  })

  test('200: the entry names the key, and not the person', async () => {
    const key = await world.makeKey({ id: 'privacy', role: 'admin', account: 'acme' })
    assert.equal((await erase({ dimension: 'user', value: 'grace' }, key)).status, 200)
    const [last] = (await world.get('/v1/accounts/acme/entries?order=newest&limit=1')).body.items
    assert.deepEqual([last.actor, last.kind, last.body.what], ['privacy', 'change', 'erased'])
    assert.ok(!JSON.stringify(last).includes('grace'))
  })

  test('403: a key of another account, or of one subject', async () => {
    const other = await world.makeKey({ id: 'of-beta', role: 'admin', account: 'beta' })
    assert.deepEqual((await erase(ADA, other)).body.path, '/id')
    const subject = { user: ADA.value }
    const own = await world.makeKey({ id: 'of-ada', role: 'admin', account: 'acme', subject })
    assert.deepEqual([(await erase(ADA, own)).status, (await erase(ADA, own)).body.code], [403, 'forbidden'])
  })
})

describe('repair', () => {
  let world: World
  before(async () => {
    // The node's own clock goes with the store's, which is trusted therefore.
    world = await createWorld({
      storeOf: (now) => memoryStore({ now, strict: true }),
      policy: POLICY,
      accounts,
    })
  })
  after(() => world.close())

  test('503, 200: an account that has seen a later instant goes on from now, with one entry', async () => {
    const now = world.clock.now
    world.clock.now = now + 3_600_000
    await world.post('/v1/record', ask('r-1', 'ada'))
    world.clock.now = now
    const behind = await world.post('/v1/reserve', ask('r-2', 'ada'))
    assert.deepEqual([behind.status, behind.body.code], [503, 'clock_behind'])
    const repaired = await world.ask('POST', '/v1/accounts/acme/repair')
    assert.deepEqual([repaired.status, repaired.body.id], [200, 'acme'])
    assert.equal(repaired.headers.etag, `"${repaired.body.revision}"`)
    const [entry] = (await world.get('/v1/accounts/acme/entries?order=newest&limit=1')).body.items
    assert.deepEqual([entry.actor, entry.body.what, entry.at], ['admin', 'repair', now])
    assert.equal((await world.post('/v1/reserve', ask('r-2', 'ada'))).body.outcome, 'allow')
    await world.post('/v1/release', { request_id: 'r-2', account: 'acme' })
    await whole(world)
  })

  test('200: an account that has nothing to be repaired is only shown', async () => {
    const entries = async () => (await world.get('/v1/accounts/beta/entries')).body.items.length
    const before = await entries()
    assert.equal((await world.ask('POST', '/v1/accounts/beta/repair')).status, 200)
    assert.equal(await entries(), before)
  })

  test('403: a key of another account', async () => {
    const key = await world.makeKey({ id: 'of-beta', role: 'admin', account: 'beta' })
    assert.equal((await world.ask('POST', '/v1/accounts/acme/repair', { key })).status, 403)
  })
})

describe('accept', () => {
  test('503, 200: a clock that has jumped is taken as it stands, and the node is ready', async () => {
    const world = await createWorld({
      storeOf: (now) => memoryStore({ now, wall: () => 0, monotonic: () => 0, strict: true }),
      policy: POLICY,
      accounts,
    })
    const accept = () => world.ask('POST', '/v1/clock/accept')
    const ready = async () => (await world.ask('GET', '/readyz', { key: null })).status
    assert.deepEqual((await accept()).body, { accepted: true }, 'also where there is nothing to accept')
    world.clock.now += 3_600_000
    const refused = await world.post('/v1/reserve', ask('r-1', 'ada'))
    assert.deepEqual([refused.status, refused.body.code, await ready()], [503, 'clock_suspect', 503])
    const { status, body } = await accept()
    assert.deepEqual([status, body], [200, { accepted: true }])
    assert.equal(await ready(), 200)
    const { body: decided } = await world.post('/v1/reserve', ask('r-1', 'ada'))
    assert.deepEqual([decided.outcome, decided.decided_at], ['allow', world.clock.now])
    await world.close()
  })
})
