import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { type Beside, beside } from '../../../test/beside.ts'

const CONFIG = `
forward_auth:
  request_id_header: x-request-id
  rules:
    - { path: /api/free, feature: call, cost: '0' }
    - { methods: [POST], path: /api/render, feature: call, cost: '2.5' }
    - { path: /api/chat, feature: tokens }
    - { path: /api/embed, feature: tokens, quantities: { input_tokens: '3' } }
    - { path: /api/held, feature: tokens, hold: 1h }
    - { path: /api/*, feature: call, cost: '1' }
`

interface Said {
  readonly status: number
  readonly headers: Headers
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers as JSON, whatever their shape.
  readonly body: any
}

describe('forward-auth', () => {
  let world: Beside
  before(async () => {
    world = await beside(CONFIG)
  })
  after(() => world.close())

  async function send(
    path: string,
    headers: Readonly<Record<string, string>>,
    init: RequestInit = {},
  ): Promise<Said> {
    const response = await fetch(`${world.url}${path}`, { ...init, headers })
    const text = await response.text()
    return {
      status: response.status,
      headers: response.headers,
      body: text === '' ? undefined : JSON.parse(text),
    }
  }
  const ask = (key: string, method: string, uri: string, more: Readonly<Record<string, string>> = {}) =>
    send('/forward-auth', {
      authorization: `Bearer ${key}`,
      'x-forwarded-method': method,
      'x-forwarded-uri': uri,
      ...more,
    })
  const askNginx = (key: string, method: string, uri: string, more: Readonly<Record<string, string>> = {}) =>
    send('/forward-auth/nginx', {
      authorization: `Bearer ${key}`,
      'x-original-method': method,
      'x-original-uri': uri,
      ...more,
    })

  test('200 for what may be, charged at once as the rule says, with who pays and what is left', async () => {
    const key = await world.account('paid', '10')
    const said = await ask(key, 'POST', '/api/render?size=large')
    assert.equal(said.status, 200)
    assert.equal(said.headers.get('x-sluice-account'), 'paid')
    assert.match(said.headers.get('ratelimit') ?? '', /r=7500000/)
    assert.deepEqual(await world.charged('paid'), [1, '2.5'])
    const { state } = await world.engine.explain('paid', said.headers.get('x-sluice-request-id') ?? '')
    assert.equal(state, 'settled')
  })

  test('the first rule that fits counts: by method, by path, by quantities and by the default estimate', async () => {
    const key = await world.account('rules', '1000')
    for (const [method, uri] of [
      ['GET', '/api/render'],
      ['GET', '/api/chat'],
      ['GET', '/api/embed'],
      ['GET', '/api/free'],
    ] as const)
      assert.equal((await ask(key, method, uri)).status, 200, uri)
    assert.deepEqual(await world.charged('rules'), [4, '24'])
  })

  test('429 with Retry-After and problem details for what may not be yet', async () => {
    const key = await world.account('often', '100', { plan: 'seldom' })
    assert.equal((await ask(key, 'GET', '/api/a')).status, 200)
    assert.equal((await ask(key, 'GET', '/api/a')).status, 200)
    const said = await ask(key, 'GET', '/api/a')
    assert.equal(said.status, 429)
    assert.ok(Number(said.headers.get('retry-after')) > 0)
    assert.deepEqual([said.body.status, said.body.outcome], [429, 'wait'])
    assert.deepEqual(await world.charged('often'), [2, '2'])
  })

  test('429 without Retry-After, and with what would unblock it, where money is missing', async () => {
    const key = await world.account('poor', '2')
    const said = await ask(key, 'POST', '/api/render')
    assert.equal(said.status, 429)
    assert.equal(said.headers.get('retry-after'), null)
    assert.deepEqual([said.body.outcome, said.body.unblock.credits], ['deny', '0.5'])
    assert.deepEqual(await world.charged('poor'), [0, '0'])
  })

  test('nginx is told 403, and beside it the status that was meant', async () => {
    const key = await world.account('nginx', '2')
    const said = await askNginx(key, 'POST', '/api/render')
    assert.equal(said.status, 403)
    assert.equal(said.headers.get('x-sluice-status'), '429')
    assert.equal(said.headers.get('x-sluice-reason'), said.body.code)
    assert.equal((await askNginx(key, 'GET', '/api/a')).status, 200)
    assert.equal((await askNginx('wrong', 'GET', '/api/a')).status, 401)
  })

  test("what a caller writes into the other proxy's fields is not read", async () => {
    const key = await world.account('forger', '100')
    const forged = { 'x-original-method': 'GET', 'x-original-uri': '/api/free', 'x-sluice-account': 'other' }
    const said = await ask(key, 'POST', '/api/render', forged)
    assert.deepEqual([said.status, said.headers.get('x-sluice-account')], [200, 'forger'])
    await askNginx(key, 'POST', '/api/render', {
      'x-forwarded-method': 'GET',
      'x-forwarded-uri': '/api/free',
    })
    assert.deepEqual(await world.charged('forger'), [2, '5'])
  })

  test('the same id is charged once and answered as before; another meaning is a conflict', async () => {
    const key = await world.account('again', '100')
    const id = { 'x-request-id': 'one' }
    const [first, ...more] = await Promise.all([1, 2, 3].map(() => ask(key, 'POST', '/api/render', id)))
    for (const said of [first, ...more]) {
      assert.equal(said?.status, 200)
      assert.equal(said?.headers.get('x-sluice-request-id'), 'one')
    }
    assert.deepEqual(await world.charged('again'), [1, '2.5'])
    const other = await ask(key, 'GET', '/api/a', id)
    assert.deepEqual([other.status, other.body.code], [403, 'conflict'])
    assert.deepEqual(await world.charged('again'), [1, '2.5'])
  })

  test('an id whose hold was given back lets nobody pass', async () => {
    const key = await world.account('back', '100')
    const id = { 'x-request-id': 'held-1' }
    assert.equal((await ask(key, 'POST', '/api/held', id)).status, 200)
    assert.equal((await ask(key, 'POST', '/api/held', id)).status, 200)
    await world.engine.release({ account: 'back', request_id: 'held-1' })
    const said = await ask(key, 'POST', '/api/held', id)
    assert.deepEqual([said.status, said.body.code], [409, 'conflict'])
    assert.deepEqual(await world.charged('back'), [0, '0'])
  })

  test('401 without a key that is known, 403 with one for which nobody pays', async () => {
    assert.equal(
      (await send('/forward-auth', { 'x-forwarded-method': 'GET', 'x-forwarded-uri': '/api/a' })).status,
      401,
    )
    const said = await ask('nobody', 'GET', '/api/a')
    assert.deepEqual([said.status, said.headers.get('www-authenticate')], [401, 'Bearer'])
    const unbound = await world.key({ id: 'unbound', role: 'meter' })
    assert.equal((await ask(unbound, 'GET', '/api/a')).status, 403)
    const reader = await world.key({ id: 'reader', role: 'read', account: 'paid' })
    assert.equal((await ask(reader, 'GET', '/api/a')).status, 403)
  })

  test('403 where no rule fits, 400 where the proxy does not tell the request', async () => {
    const key = await world.account('stray', '100')
    const said = await ask(key, 'GET', '/elsewhere')
    assert.deepEqual([said.status, said.body.code], [403, 'no_rule'])
    assert.equal((await send('/forward-auth', { authorization: `Bearer ${key}` })).status, 400)
    assert.deepEqual(await world.charged('stray'), [0, '0'])
  })

  test('another spelling of a path is not another price', async () => {
    const key = await world.account('spelling', '100')
    for (const uri of ['/api/%72ender', '//api//render', '/x/../api/./render', '/api/free/%2e%2e/render'])
      assert.equal((await ask(key, 'POST', uri)).status, 200, uri)
    assert.deepEqual(await world.charged('spelling'), [4, '10'])
    for (const uri of ['/api/free%2f..%2frender', '/api/%', '/api/a%00', '/api/a%5cb', 'http://h/api/free'])
      assert.equal((await ask(key, 'POST', uri)).status, 400, uri)
    assert.deepEqual(await world.charged('spelling'), [4, '10'])
  })

  test('the subject is that of the key', async () => {
    const key = await world.account('firm', '100', { subject: { user: 'u1' } })
    await ask(key, 'GET', '/api/a', { 'x-sluice-subject': 'user=u2' })
    const rows = await world.engine.usage('firm', {
      from: 0,
      to: Date.now() + 60_000,
      group_by: ['subject.user'],
    })
    assert.deepEqual(
      rows.map(({ group }) => group),
      [{ 'subject.user': 'u1' }],
    )
  })

  describe('with a hold', () => {
    const report = (key: string, body: object) =>
      send(
        '/forward-auth/usage',
        { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
        { method: 'POST', body: JSON.stringify(body) },
      )
    let service: string
    before(async () => {
      service = await world.key({ id: 'service', role: 'meter' })
    })

    test('nothing is charged before it is reported, and cached tokens are not input as well', async () => {
      const key = await world.account('held', '1000')
      const said = await ask(key, 'POST', '/api/held')
      const request_id = said.headers.get('x-sluice-request-id')
      assert.equal((await world.engine.account('held')).credits.held, '20')
      const usage = {
        prompt_tokens: 20,
        completion_tokens: 5,
        total_tokens: 25,
        prompt_tokens_details: { cached_tokens: 10 },
      }
      const told = await report(service, { account: 'held', request_id, usage })
      assert.deepEqual([told.status, told.body.charged], [200, '61'])
      const again = await report(service, { account: 'held', request_id, usage })
      assert.deepEqual([again.status, again.body.replayed], [200, true])
      assert.deepEqual(await world.charged('held'), [1, '61'])
    })

    test('quantities are taken as they are', async () => {
      const key = await world.account('plain', '1000')
      const request_id = (await ask(key, 'POST', '/api/held')).headers.get('x-sluice-request-id')
      const told = await report(service, { account: 'plain', request_id, quantities: { output_tokens: '2' } })
      assert.deepEqual([told.status, told.body.charged], [200, '20'])
    })

    test('a customer cannot settle its own work, and what is no usage is refused', async () => {
      const key = await world.account('sly', '1000')
      const request_id = (await ask(key, 'POST', '/api/held')).headers.get('x-sluice-request-id')
      const body = { account: 'sly', request_id, quantities: { output_tokens: '0' } }
      assert.equal((await report(key, body)).status, 403)
      for (const wrong of [
        { account: 'sly', request_id },
        { account: 'sly', request_id, usage: { tokens: 3 } },
        { account: 'sly', request_id, usage: {}, quantities: {} },
        { account: 'sly', request_id, usage: {}, provider: 'nobody' },
        { account: 'sly', request_id, quantities: {}, more: 1 },
        { request_id, quantities: { output_tokens: '0' } },
      ])
        assert.equal((await report(service, wrong)).status, 400, JSON.stringify(wrong))
      assert.equal((await world.engine.account('sly')).credits.held, '20')
      assert.equal((await send('/forward-auth/usage', {})).status, 405)
      const post = (body: string, type = 'application/json') =>
        send(
          '/forward-auth/usage',
          { authorization: `Bearer ${service}`, 'content-type': type },
          { method: 'POST', body },
        )
      assert.equal((await post('[]')).status, 400)
      assert.equal((await post('{}', 'text/plain')).status, 415)
      assert.equal((await post(`"${'x'.repeat(100_000)}"`)).status, 413)
    })
  })

  test('no mistake of its own was made', () => assert.deepEqual(world.faults, []))
})

test('what no rule fits passes unasked where the owner wants that, without a key', async () => {
  const world = await beside(`
forward_auth: { otherwise: pass, key_header: x-api-key, rules: [{ path: /paid, feature: call, cost: '1' }] }`)
  try {
    const key = await world.account('a', '10')
    const ask = (uri: string, headers: Record<string, string> = {}) =>
      fetch(`${world.url}/forward-auth`, {
        headers: { 'x-forwarded-method': 'GET', 'x-forwarded-uri': uri, ...headers },
      })
    const passed = await ask('/')
    assert.deepEqual([passed.status, passed.headers.get('x-sluice-account')], [200, null])
    assert.equal((await ask('/paid')).status, 401)
    assert.equal((await ask('/paid', { 'x-api-key': key })).status, 200)
    // Without a field for ids each question is a request of its own, whatever the caller sends.
    assert.equal((await ask('/paid', { 'x-api-key': key, 'x-request-id': 'same' })).status, 200)
    assert.equal((await ask('/paid', { 'x-api-key': key, 'x-request-id': 'same' })).status, 200)
    assert.deepEqual(await world.charged('a'), [3, '3'])
  } finally {
    await world.close()
  }
})

for (const [mode, statuses] of [
  ['closed', [503, 503]],
  ['open', [200, 200]],
] as const)
  test(`while the store is away nothing is decided: ${mode} answers ${statuses[0]}`, async () => {
    const world = await beside(`
on_unavailable: ${mode}
forward_auth: { rules: [{ path: /a, feature: call, cost: '1' }] }`)
    try {
      const authorization = `Bearer ${await world.account('a', '10')}`
      const ask = async () => {
        const one = await fetch(`${world.url}/forward-auth`, {
          headers: { authorization, 'x-forwarded-method': 'GET', 'x-forwarded-uri': '/a' },
        })
        const two = await fetch(`${world.url}/forward-auth/nginx`, {
          headers: { authorization, 'x-original-method': 'GET', 'x-original-uri': '/a' },
        })
        return [one.status, two.status]
      }
      assert.deepEqual(await ask(), [200, 200])
      world.store.isAway = true
      assert.deepEqual(await ask(), statuses)
      world.store.isAway = false
      // What passed is told when the store is back, once.
      const told = mode === 'open' ? 4 : 2
      while ((await world.charged('a'))[0] < told) await pause(20)
      assert.deepEqual(await world.charged('a'), [told, String(told)])
    } finally {
      world.store.isAway = false
      await world.close()
    }
  })
