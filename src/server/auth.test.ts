import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Engine } from '../engine.ts'
import { memoryStore } from '../store/memory.ts'
import { POLICY } from './fixtures/policy.ts'
import { ADMIN_KEY, createWorld, type World } from './fixtures/world.ts'

const accounts = [
  { id: 'acme', plan: 'open' },
  { id: 'beta', plan: 'open' },
]
let asked = 0
const countingAuthenticate = (engine: Engine): Engine => ({
  ...engine,
  authenticate: (secret) => {
    asked += 1
    return engine.authenticate(secret)
  },
})
const reserve = (id: string, more: object = {}) => ({
  request_id: id,
  account: 'acme',
  feature: 'chat',
  cost: '1',
  ...more,
})

let world: World
before(async () => {
  world = await createWorld({
    storeOf: (now) => memoryStore({ now }),
    policy: POLICY,
    accounts,
    through: countingAuthenticate,
  })
})
after(() => world.close())

describe('401: who is not known', () => {
  const refused: readonly [what: string, authorization: string | undefined][] = [
    ['no header', undefined],
    ['another scheme', 'Basic YWRtaW46'],
    ['no key after the scheme', 'Bearer '],
    ['a key with a space', `Bearer ${ADMIN_KEY} x`],
    ['an unknown key', 'Bearer sk_00000000000000000000000000000000_nobody'],
    ['the admin key and more', `Bearer ${ADMIN_KEY}x`],
    ['the beginning of the admin key', `Bearer ${ADMIN_KEY.slice(0, -1)}`],
    ['an endless key', `Bearer ${'x'.repeat(10_000)}`],
  ]
  for (const [what, authorization] of refused) {
    test(what, async () => {
      const headers = authorization === undefined ? {} : { authorization }
      const answer = await world.ask('GET', '/v1/accounts/acme', { key: null, headers })
      assert.equal(answer.status, 401)
      assert.equal(answer.body.code, 'unauthorized')
      assert.equal(answer.body.path, '/authorization')
      assert.match(answer.headers['www-authenticate'] ?? '', /^Bearer/)
      assert.ok(!answer.text.includes('xxxx'))
    })
  }

  test('the scheme is read in any case', async () => {
    const headers = { authorization: `bEARER ${ADMIN_KEY}` }
    assert.equal((await world.ask('GET', '/v1/accounts/acme', { key: null, headers })).status, 200)
  })

  test('a body is not read before the key is known', async () => {
    const answer = await world.ask('POST', '/v1/reserve', { key: null, body: 'not json' })
    assert.equal(answer.status, 401)
  })
})

/** Beside `admin`, which may all. */
const CALLS: readonly [method: string, url: string, roles: string][] = [
  ['POST', '/v1/reserve', 'meter'],
  ['POST', '/v1/extend', 'meter'],
  ['POST', '/v1/settle', 'meter'],
  ['POST', '/v1/release', 'meter'],
  ['POST', '/v1/record', 'meter'],
  ['POST', '/v1/batch', 'meter'],
  ['POST', '/v1/accounts', ''],
  ['GET', '/v1/accounts', 'read'],
  ['GET', '/v1/accounts/acme', 'meter read call'],
  ['PATCH', '/v1/accounts/acme', ''],
  ['PUT', '/v1/accounts/acme/overrides', ''],
  ['POST', '/v1/accounts/acme/erase', ''],
  ['POST', '/v1/accounts/acme/repair', ''],
  ['POST', '/v1/accounts/acme/grants', ''],
  ['GET', '/v1/accounts/acme/grants', 'read'],
  ['POST', '/v1/accounts/acme/grants/g/revoke', ''],
  ['GET', '/v1/accounts/acme/requests/r', 'meter read'],
  ['GET', '/v1/requests/r', 'meter read'],
  ['POST', '/v1/accounts/acme/requests/r/refund', ''],
  ['GET', '/v1/accounts/acme/holds', 'read'],
  ['GET', '/v1/accounts/acme/subjects', 'read'],
  ['GET', '/v1/accounts/acme/usage?from=0&to=1', 'read call'],
  ['GET', '/v1/accounts/acme/entries', 'read'],
  // One that would be opened has no end.
  ['GET', '/v1/accounts/nobody/events', 'read call'],
  ['GET', '/v1/entries', 'read'],
  ['GET', '/v1/policy', 'read'],
  ['PUT', '/v1/policy', ''],
  ['GET', '/v1/policy/versions', 'read'],
  ['POST', '/v1/policy/check', ''],
  ['POST', '/v1/keys', ''],
  ['GET', '/v1/keys', 'read'],
  ['POST', '/v1/keys/k/revoke', ''],
  ['GET', '/metrics', 'read'],
  ['POST', '/v1/clock/accept', ''],
  ['PUT', '/v1/test-clock', ''],
]

describe('roles', () => {
  test('every call that needs a key stands in this table', async () => {
    const paths = (await world.get('/openapi.json')).body.paths as Record<
      string,
      Record<string, { security?: [] }>
    >
    const needing = Object.values(paths).flatMap((path) =>
      Object.values(path).filter(({ security }) => security === undefined),
    )
    assert.equal(needing.length, CALLS.length)
  })

  for (const role of ['meter', 'read']) {
    test(`403: what a key of role ${role} may not do; the rest passes the guard`, async () => {
      const key = await world.makeKey({ id: `role-${role}`, role })
      for (const [method, url, roles] of CALLS) {
        const answer = await world.ask(method, url, { key, ...(method !== 'GET' && { body: {} }) })
        const may = roles.split(' ').includes(role)
        assert.equal(answer.status === 403, !may, `${role}: ${method} ${url} was ${answer.status}`)
        if (!may) assert.deepEqual([answer.body.code, answer.body.path], ['forbidden', '/authorization'])
      }
    })
  }

  test('200: liveness, readiness and the contract need no key', async () => {
    for (const url of ['/healthz', '/readyz', '/openapi.json']) {
      assert.equal((await world.ask('GET', url, { key: null })).status, 200)
    }
  })
})

describe('a key of role call', () => {
  test('400: is bound to an account, or is not made', async () => {
    const { status, body } = await world.post('/v1/keys', { id: 'of-nobody', role: 'call' })
    assert.deepEqual([status, body.code, body.path], [400, 'invalid', '/account'])
    const made = await world.post('/v1/keys', { id: 'of-somebody', role: 'call', account: 'acme' })
    assert.deepEqual([made.status, made.body.role, made.body.account], [200, 'call', 'acme'])
    const { items } = (await world.get('/v1/keys')).body
    assert.equal(items.find(({ id }: { id: string }) => id === 'of-somebody').role, 'call')
  })

  test('403: does nothing but look at its account; what it has reserved elsewhere stays as it is', async () => {
    const key = await world.makeKey({ id: 'caller', role: 'call', account: 'acme' })
    await world.post('/v1/reserve', reserve('held'))
    for (const [method, url, roles] of CALLS) {
      const may = roles.split(' ').includes('call')
      const answer = await world.ask(method, url.replace('nobody', 'beta'), {
        key,
        ...(method !== 'GET' && { body: { request_id: 'held', account: 'acme', cost: '0' } }),
      })
      const path = url.includes('nobody') ? '/id' : '/authorization'
      if (!may || url.includes('nobody'))
        assert.deepEqual([answer.status, answer.body.path], [403, path], `${method} ${url}`)
      else assert.equal(answer.status, 200, `${method} ${url}`)
    }
    assert.equal((await world.get('/v1/accounts/acme/requests/held')).body.state, 'open')
    assert.equal((await world.get('/v1/accounts/beta', key)).status, 403)
  })

  test('403: bound to a subject, it sees no usage of the whole account', async () => {
    const bound = { account: 'acme', subject: { user: 'u1' } }
    const key = await world.makeKey({ id: 'caller-u1', role: 'call', ...bound })
    assert.equal((await world.get('/v1/accounts/acme', key)).status, 200)
    assert.equal((await world.get('/v1/accounts/acme/usage?from=0&to=1', key)).status, 403)
  })
})

describe('a key bound to an account', () => {
  let key: string
  before(async () => {
    key = await world.makeKey({ id: 'of-acme', role: 'admin', account: 'acme' })
  })

  test('403: a body that names another account, with the path', async () => {
    for (const call of ['reserve', 'extend', 'settle', 'release', 'record']) {
      const more =
        { extend: { step: 1 }, record: { feature: 'chat' }, reserve: { feature: 'chat' } }[call] ?? {}
      const answer = await world.post(`/v1/${call}`, { request_id: 'x', account: 'beta', ...more }, key)
      assert.deepEqual(
        [answer.status, answer.body.code, answer.body.path],
        [403, 'forbidden', '/account'],
        call,
      )
    }
  })

  test('403: each operation of a batch that names another account, and only those', async () => {
    const operations = [
      { op: 'reserve', ...reserve('of-acme-1') },
      { op: 'reserve', ...reserve('of-acme-2', { account: 'beta' }) },
    ]
    const { body } = await world.post('/v1/batch', { operations }, key)
    assert.deepEqual(
      body.results.map((result: { status: number }) => result.status),
      [200, 403],
    )
  })

  test('403: another account in the path', async () => {
    const reads = ['', '/grants', '/holds', '/subjects', '/entries', '/usage?from=0&to=1', '/requests/x']
    for (const rest of reads) {
      const answer = await world.get(`/v1/accounts/beta${rest}`, key)
      assert.deepEqual([answer.status, answer.body.path], [403, '/id'], rest)
      assert.notEqual((await world.get(`/v1/accounts/acme${rest}`, key)).status, 403, rest)
    }
  })

  test('403: what reaches over all accounts', async () => {
    for (const url of [
      '/v1/accounts',
      '/v1/entries',
      '/v1/policy',
      '/v1/policy/versions',
      '/v1/keys',
      '/metrics',
    ]) {
      assert.equal((await world.get(url, key)).status, 403, url)
    }
    assert.equal((await world.ask('PUT', '/v1/policy', { body: { policy: POLICY }, key })).status, 403)
    assert.equal((await world.post('/v1/accounts', { id: 'gamma', plan: 'open' }, key)).status, 403)
    assert.equal((await world.post('/v1/keys', { id: 'more', role: 'admin' }, key)).status, 403)
    assert.equal((await world.ask('POST', '/v1/clock/accept', { key })).status, 403)
  })

  test('404: a request of another account is not found over all accounts', async () => {
    await world.post('/v1/reserve', reserve('of-beta', { account: 'beta' }))
    assert.equal((await world.get('/v1/requests/of-beta')).body.items.length, 1)
    assert.equal((await world.get('/v1/requests/of-beta', key)).status, 404)
  })
})

describe('a key bound to a subject', () => {
  let key: string
  before(async () => {
    key = await world.makeKey({ id: 'of-u1', role: 'meter', account: 'acme', subject: { user: 'u1' } })
  })

  test('200: a dimension that is left out is filled in, others stay', async () => {
    await world.post('/v1/reserve', reserve('fill-1'), key)
    await world.post('/v1/record', reserve('fill-2', { subject: { team: 't1' } }), key)
    assert.deepEqual((await world.get('/v1/accounts/acme/requests/fill-1')).body.subject, { user: 'u1' })
    assert.deepEqual((await world.get('/v1/accounts/acme/requests/fill-2')).body.subject, {
      user: 'u1',
      team: 't1',
    })
  })

  test('403: another value, with its path, in calls and in batches', async () => {
    const other = reserve('fill-3', { subject: { user: 'u2' } })
    const answer = await world.post('/v1/reserve', other, key)
    assert.deepEqual([answer.status, answer.body.path], [403, '/subject/user'])
    const { body } = await world.post('/v1/batch', { operations: [{ op: 'record', ...other }] }, key)
    assert.deepEqual([body.results[0].status, body.results[0].body.path], [403, '/subject/user'])
    assert.equal((await world.get('/v1/accounts/acme?user=u2', key)).body.path, '/user')
    assert.equal((await world.get('/v1/accounts/acme', key)).status, 200)
  })

  test('403: a request of another subject can be neither read nor moved', async () => {
    await world.post('/v1/reserve', reserve('of-u2', { subject: { user: 'u2' } }))
    const same = { request_id: 'of-u2', account: 'acme' }
    const calls: readonly [string, object][] = [
      ['extend', { step: 1 }],
      ['settle', { cost: '1' }],
      ['release', {}],
      ['record', { feature: 'chat', cost: '1' }],
      ['reserve', { feature: 'chat', cost: '1' }],
    ]
    for (const [call, more] of calls) {
      const answer = await world.post(`/v1/${call}`, { ...same, ...more }, key)
      assert.deepEqual(
        [answer.status, answer.body.path, answer.body.first],
        [403, '/request_id', undefined],
        call,
      )
    }
    assert.equal((await world.get('/v1/accounts/acme/requests/of-u2', key)).status, 403)
    assert.equal((await world.get('/v1/requests/of-u2', key)).status, 404)
    assert.equal((await world.get('/v1/accounts/acme/requests/of-u2')).body.state, 'open')
  })

  test('200: its own requests go their whole way, in order, in a batch too', async () => {
    const own = { request_id: 'own', account: 'acme' }
    const operations = [
      { op: 'reserve', ...reserve('own') },
      { op: 'extend', ...own, step: 1, cost: '2' },
      { op: 'settle', ...own, cost: '2' },
    ]
    const { body } = await world.post('/v1/batch', { operations }, key)
    assert.deepEqual(
      body.results.map((result: { status: number }) => result.status),
      [200, 200, 200],
    )
    assert.equal((await world.get('/v1/requests/own', key)).body.items[0].state, 'settled')
  })

  test('200: its own refusals can be read, and 404: those of others not', async () => {
    const own = await world.post('/v1/reserve', reserve('refused-u1', { cost: '1000000' }), key)
    assert.equal(own.body.outcome, 'deny', own.text)
    await world.post('/v1/reserve', reserve('refused-u2', { cost: '1000000', subject: { user: 'u2' } }))
    const told = await world.get('/v1/accounts/acme/requests/refused-u1', key)
    assert.deepEqual([told.status, told.body.state, told.body.subject], [200, 'none', { user: 'u1' }])
    assert.equal((await world.get('/v1/accounts/acme/requests/refused-u2', key)).status, 404)
  })

  test('200: a settle need not name whose the request is, whatever else its subject says', async () => {
    const team = { subject: { team: 't1' } }
    const own = { request_id: 'of-team', account: 'acme' }
    await world.post('/v1/reserve', reserve('of-team', team), key)
    assert.equal((await world.post('/v1/settle', { ...own, cost: '1' }, key)).status, 200)
    for (const [by, more] of [
      [key, {}],
      [key, team],
      [undefined, {}],
      [undefined, { subject: { user: 'u1', team: 't1' } }],
    ] as const) {
      const again = await world.post('/v1/settle', { ...own, ...more, cost: '1' }, by)
      assert.deepEqual([again.status, again.body.replayed], [200, true])
    }
    const late = { request_id: 'late', account: 'acme', feature: 'chat', cost: '1' }
    assert.equal((await world.post('/v1/settle', late, key)).status, 200)
    assert.equal((await world.post('/v1/settle', late, key)).body.replayed, true)
    assert.deepEqual((await world.get('/v1/requests/late', key)).body.items[0].subject, { user: 'u1' })
  })

  test('200: it is told of its own refusals, and not of those of others under the same id', async () => {
    const much = (subject?: object) => reserve('refused', { cost: '9007199254', ...(subject && { subject }) })
    await world.post('/v1/reserve', much({ user: 'u2' }))
    assert.equal((await world.get('/v1/accounts/acme/requests/refused', key)).status, 404)
    assert.equal((await world.get('/v1/requests/refused', key)).status, 404)
    const { body } = await world.post('/v1/reserve', much(), key)
    for (const url of ['/v1/accounts/acme/requests/refused', '/v1/requests/refused']) {
      const told = (await world.get(url, key)).body
      const { refusals } = told.items?.[0] ?? told
      assert.deepEqual(
        refusals.map((one: { answer: unknown }) => one.answer),
        [body],
        url,
      )
    }
    assert.equal((await world.get('/v1/accounts/acme/requests/refused')).body.refusals.length, 2)
  })

  test('200: of the account it is not shown grants that are only for others', async () => {
    const grants = '/v1/accounts/acme/grants'
    const before = (await world.get('/v1/accounts/acme', key)).body.credits
    await world.post(grants, { id: 'u2s', kind: 'free', amount: '7', subjects: { user: ['u2'] } })
    await world.post(grants, { id: 'u1s', kind: 'free', amount: '3', subjects: { user: ['u2', 'u1'] } })
    const { available, grants: seen } = (await world.get('/v1/accounts/acme', key)).body.credits
    assert.equal(Number(available), Number(before.available) + 3)
    assert.deepEqual(
      seen.map(({ id }: { id: string }) => id).filter((id: string) => id.endsWith('s')),
      ['u1s'],
    )
    const whole = (await world.get('/v1/accounts/acme')).body.credits
    assert.equal(Number(whole.available), Number(before.available) + 10)
  })

  test('403: lists that show other subjects', async () => {
    const reader = await world.makeKey({
      id: 'reads-u1',
      role: 'read',
      account: 'acme',
      subject: { user: 'u1' },
    })
    for (const rest of ['grants', 'holds', 'subjects', 'entries', 'usage?from=0&to=1']) {
      assert.equal((await world.get(`/v1/accounts/acme/${rest}`, reader)).status, 403, rest)
    }
    assert.equal((await world.get('/v1/accounts/acme', reader)).status, 200)
  })
})

describe('what the engine said about a key', () => {
  test('is used again for a second at most, also by calls at once', async () => {
    const key = await world.makeKey({ id: 'kept', role: 'read' })
    const before = asked
    await Promise.all(Array.from({ length: 20 }, () => world.get('/v1/accounts/acme', key)))
    await world.get('/v1/accounts/acme', key)
    assert.equal(asked - before, 1)
    await sleep(1050)
    await world.get('/v1/accounts/acme', key)
    assert.equal(asked - before, 2)
  })

  test('401: a revoked key is refused at once', async () => {
    const key = await world.makeKey({ id: 'revoked', role: 'read' })
    assert.equal((await world.get('/v1/accounts/acme', key)).status, 200)
    assert.equal((await world.ask('POST', '/v1/keys/revoked/revoke')).status, 200)
    assert.equal((await world.get('/v1/accounts/acme', key)).status, 401)
  })

  test('401: a key that has expired, by the store’s clock', async () => {
    const key = await world.makeKey({ id: 'expires', role: 'read', expires_at: world.clock.now + 60_000 })
    assert.equal((await world.get('/v1/accounts/acme', key)).status, 200)
    await world.ask('PUT', '/v1/test-clock', { body: { now: world.clock.now + 60_000 } })
    assert.equal((await world.get('/v1/accounts/acme', key)).status, 401)
  })

  test('a refusal is not kept', async () => {
    const unknown = 'sk_00000000000000000000000000000000_later'
    const before = asked
    await world.get('/v1/accounts/acme', unknown)
    await world.get('/v1/accounts/acme', unknown)
    assert.equal(asked - before, 2)
  })
})

test('the actor in every entry is the key’s id', async () => {
  const key = await world.makeKey({ id: 'who-did-it', role: 'meter' })
  await world.post('/v1/record', { request_id: 'actor', account: 'acme', feature: 'chat', cost: '1' }, key)
  const { entries } = (await world.get('/v1/accounts/acme/requests/actor')).body
  assert.deepEqual([...new Set(entries.map((entry: { actor: string }) => entry.actor))], ['who-did-it'])
})
