// The life of a request over HTTP: reserve, extend, settle, release, record, refund, explain, batch.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { type Item, parseList } from '../../../test/structured-fields.ts'
import { memoryStore } from '../../store/memory.ts'
import { POLICY } from '../fixtures/policy.ts'
import { type Answer, createWorld, type World } from '../fixtures/world.ts'

let world: World
before(async () => {
  world = await createWorld({
    storeOf: (now) => memoryStore({ now, strict: true }),
    policy: POLICY,
    accounts: ['acme', 'plus', 'burst', 'full', 'batch', 'bulk'].map((id) => ({
      id,
      plan: id === 'acme' || id === 'bulk' ? 'open' : 'plus',
    })),
  })
  await world.post('/v1/accounts/acme/grants', { id: 'g', kind: 'free', amount: '1000' })
})
after(() => world.close())

const acme = { account: 'acme', feature: 'chat' }
const plus = { account: 'plus', feature: 'chat', subject: { user: 'u1' } }
const without = (answer: Answer) => ({ ...answer.body, replayed: undefined, state: undefined })

describe('reserve', () => {
  test('200 allow: the split, the hold’s end and each limit, in body and header alike', async () => {
    const { status, body, headers } = await world.post('/v1/reserve', {
      request_id: 'a-1',
      ...plus,
      cost: '2.5',
    })
    assert.deepEqual(
      [status, body.outcome, body.reason, body.state, body.replayed],
      [200, 'allow', 'granted', 'open', false],
    )
    assert.deepEqual(body.from, [{ source: 'allowance:included', amount: '2.5' }])
    const told = parseList(headers.ratelimit ?? '') as readonly Item[]
    assert.deepEqual(
      told.map(([name]) => name),
      body.limits.map(({ name }: { name: string }) => name),
    )
    const included = told.find(([name]) => name === 'included/5h')?.[1] ?? []
    assert.equal(Object.fromEntries(included).r, 7_500_000)
    assert.equal(headers['retry-after'], undefined)
  })

  test('200 again: the same id and meaning is the first answer, replayed, with the state now', async () => {
    const ask = { request_id: 'a-2', ...acme, estimate: { input_tokens: 5 }, attributes: { model: 'big' } }
    const first = await world.post('/v1/reserve', ask)
    const again = await world.post('/v1/reserve', ask)
    assert.deepEqual([again.status, again.body.replayed, again.body.state], [200, true, 'open'])
    assert.deepEqual(without(again), without(first))
    await world.post('/v1/settle', { request_id: 'a-2', account: 'acme', usage: { input_tokens: 1 } })
    const after = await world.post('/v1/reserve', ask)
    assert.deepEqual(
      [after.body.replayed, after.body.state, without(after)],
      [true, 'settled', without(first)],
    )
  })

  test('409 conflict: the same id with another meaning, with the first answer', async () => {
    const first = await world.post('/v1/reserve', { request_id: 'a-3', ...acme, cost: '1' })
    const other = await world.post('/v1/reserve', { request_id: 'a-3', ...acme, cost: '2' })
    assert.deepEqual([other.status, other.body.code, other.body.path], [409, 'conflict', '/request_id'])
    assert.equal(other.body.first.request_id, 'a-3')
    assert.equal(other.body.first.cost, first.body.cost)
  })

  test('200 wait: a full rate tells when, in body and Retry-After', async () => {
    const ask = (id: string) =>
      world.post('/v1/reserve', { ...plus, account: 'burst', request_id: id, cost: '0.1' })
    for (const id of ['1', '2', '3', '4', '5']) {
      await ask(id)
      await world.post('/v1/release', { request_id: id, account: 'burst' })
    }
    const { status, body, headers } = await ask('6')
    assert.deepEqual([status, body.outcome, body.reason], [200, 'wait', 'rate_full'])
    assert.equal(headers['retry-after'], String(Math.ceil(body.retry_after_ms / 1000)))
    assert.ok(body.unblock.wait_until > body.decided_at)
  })

  test('200 deny: a denial is a value, with what would unblock it', async () => {
    const { status, body } = await world.post('/v1/reserve', {
      ...plus,
      account: 'full',
      request_id: 'd',
      cost: '500',
    })
    assert.deepEqual([status, body.outcome, body.state, body.expires_at], [200, 'deny', 'none', null])
    assert.ok(body.unblock !== undefined)
  })

  test('200 partial: what fits, where less is welcome', async () => {
    const { status, body } = await world.post('/v1/reserve', {
      ...plus,
      account: 'full',
      request_id: 'p',
      cost: '500',
      min_cost: '1',
    })
    assert.deepEqual(
      [status, body.outcome, body.reason, body.granted],
      [200, 'partial', 'granted_in_part', '10'],
    )
  })

  test('200 dry_run: writes and remembers nothing', async () => {
    const { status, body } = await world.post('/v1/reserve', {
      request_id: 'dry',
      ...acme,
      cost: '1',
      dry_run: true,
    })
    assert.deepEqual([status, body.outcome, body.dry_run], [200, 'allow', true])
    assert.equal((await world.get('/v1/accounts/acme/requests/dry')).status, 404)
  })

  test('the API never answers 429', async () => {
    const { paths } = (await world.get('/openapi.json')).body
    assert.ok(!JSON.stringify(paths).includes('"429"'))
  })
})

describe('extend, settle, release, record, refund', () => {
  test('200: a hold grows step by step, and a step that comes again is answered again', async () => {
    await world.post('/v1/reserve', { request_id: 'b-1', ...acme, cost: '1' })
    const step = { request_id: 'b-1', account: 'acme', step: 1, cost: '3' }
    const first = await world.post('/v1/extend', step)
    assert.deepEqual([first.status, first.body.granted], [200, '3'])
    const again = await world.post('/v1/extend', step)
    assert.deepEqual([again.status, again.body.replayed, again.body.granted], [200, true, '3'])
    const gap = await world.post('/v1/extend', { ...step, step: 5 })
    assert.deepEqual([gap.status, gap.body.code], [409, 'step_out_of_order'])
  })

  test('200: settle charges once, gives the rest back, and conflicts with another truth', async () => {
    const settle = { request_id: 'b-1', account: 'acme', cost: '2' }
    const first = await world.post('/v1/settle', settle)
    assert.deepEqual(
      [first.status, first.body.charged, first.body.returned, first.body.state],
      [200, '2', '1', 'settled'],
    )
    const again = await world.post('/v1/settle', settle)
    assert.deepEqual([again.status, again.body.replayed, again.body.charged], [200, true, '2'])
    const other = await world.post('/v1/settle', { ...settle, cost: '1' })
    assert.deepEqual([other.status, other.body.code, other.body.first.charged], [409, 'conflict', '2'])
  })

  test('200: release gives all back, once; and a reserve that comes later is denied', async () => {
    await world.post('/v1/reserve', { request_id: 'b-2', ...acme, cost: '1' })
    const release = { request_id: 'b-2', account: 'acme', reason: 'gone' }
    assert.equal((await world.post('/v1/release', release)).body.returned, '1')
    const again = await world.post('/v1/release', release)
    assert.deepEqual([again.status, again.body.replayed, again.body.state], [200, true, 'released'])
    await world.post('/v1/release', { request_id: 'b-3', account: 'acme' })
    const late = await world.post('/v1/reserve', { request_id: 'b-3', ...acme, cost: '1' })
    assert.deepEqual([late.status, late.body.outcome, late.body.reason], [200, 'deny', 'released'])
  })

  test('200: record charges without a hold, once', async () => {
    const record = { request_id: 'b-4', ...acme, cost: '1.5', endpoint: '/v1/chat', duration_ms: 12 }
    assert.deepEqual((await world.post('/v1/record', record)).body.charged, '1.5')
    assert.equal((await world.post('/v1/record', record)).body.replayed, true)
  })

  test('200: a refund corrects the charge, once, under its own id', async () => {
    const url = '/v1/accounts/acme/requests/b-4/refund'
    const refund = { refund_id: 'f', amount: '0.5', reason: 'late' }
    const first = await world.post(url, refund)
    assert.deepEqual([first.status, first.body.refunded, first.body.charged], [200, '0.5', '1'])
    assert.equal((await world.post(url, refund)).body.replayed, true)
    const other = await world.post(url, { ...refund, amount: '0.1' })
    assert.deepEqual([other.status, other.body.code], [409, 'conflict'])
  })

  test('200: the explanation has the whole story, in its account and over all', async () => {
    const { status, body } = await world.get('/v1/accounts/acme/requests/b-4')
    assert.deepEqual([status, body.state, body.charged], [200, 'recorded', '1'])
    assert.ok(body.story.length > 0)
    assert.deepEqual((await world.get('/v1/requests/b-4')).body, { items: [body], next: null })
  })

  test('200: ids with every printable character, in body and path', async () => {
    for (const id of ['a/b', 'a%2Fb', '?x=1&y', '#', '"', '\\', '~', "'", ';', '|<>', '+', '%']) {
      assert.equal((await world.post('/v1/record', { request_id: id, ...acme, cost: '0' })).status, 200, id)
      const told = await world.get(`/v1/accounts/acme/requests/${encodeURIComponent(id)}`)
      assert.equal(told.body.request_id, id)
    }
  })
})

describe('batch', () => {
  const run = async (operations: readonly object[]) =>
    (await world.post('/v1/batch', { operations })).body.results

  test('one account’s operations run in order, and each stands alone', async () => {
    const id = { request_id: 'c-1', account: 'batch' }
    const results = await run([
      { op: 'reserve', ...id, feature: 'chat', subject: { user: 'u' }, cost: '1' },
      { op: 'extend', ...id, step: 1, cost: '2' },
      { op: 'extend', ...id, step: 9, cost: '3' },
      { op: 'settle', ...id, cost: '1.5' },
      { op: 'release', ...id },
      { op: 'record', request_id: 'c-2', account: 'nobody', feature: 'chat', cost: '1' },
      {
        op: 'record',
        request_id: 'c-2',
        account: 'batch',
        feature: 'chat',
        subject: { user: 'u' },
        cost: '1',
      },
    ])
    assert.deepEqual(
      results.map(({ status }: { status: number }) => status),
      [200, 200, 409, 200, 200, 404, 200],
    )
    assert.deepEqual(
      [results[1].body.granted, results[3].body.charged, results[4].body.state],
      ['2', '1.5', 'settled'],
    )
  })

  test('256 operations over two accounts: every answer at its place', async () => {
    const operations = Array.from({ length: 256 }, (_, i) => ({
      op: 'record',
      request_id: `d-${i}`,
      account: i % 2 ? 'acme' : 'bulk',
      feature: 'chat',
      cost: '0.01',
    }))
    const results = await run(operations)
    assert.deepEqual(
      results.map(({ body }: { body: { request_id: string } }) => body.request_id),
      operations.map(({ request_id }) => request_id),
    )
  })

  test('the same batch again changes nothing', async () => {
    const operations = [{ op: 'record', request_id: 'e-1', ...acme, cost: '1' }]
    const before = await world.get('/v1/accounts/acme')
    await run(operations)
    const [again] = await run(operations)
    assert.equal(again.body.replayed, true)
    const after = await world.get('/v1/accounts/acme')
    assert.equal(Number(before.body.credits.available) - Number(after.body.credits.available), 1)
  })

  test('no operations, no results', async () => assert.deepEqual(await run([]), []))
})
