// Accounts, grants, lists, usage, policy, keys and the node itself over HTTP.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { memoryStore } from '../../store/memory.ts'
import { POLICY } from '../fixtures/policy.ts'
import { createWorld, type World } from '../fixtures/world.ts'

let world: World
before(async () => {
  world = await createWorld({ storeOf: (now) => memoryStore({ now, strict: true }), policy: POLICY })
})
after(() => world.close())

const patch = (url: string, body: unknown, ifMatch?: string) =>
  world.ask('PATCH', url, { body, ...(ifMatch !== undefined && { headers: { 'if-match': ifMatch } }) })

describe('accounts', () => {
  test('200: made, and made again the same; 409 where it is another', async () => {
    const account = { id: 'acme', plan: 'plus', time_zone: 'Europe/Berlin', metadata: { tier: 'gold' } }
    const first = await world.post('/v1/accounts', account)
    assert.deepEqual([first.status, first.headers.etag, first.body.metadata], [200, '"1"', { tier: 'gold' }])
    assert.deepEqual((await world.post('/v1/accounts', account)).body, first.body)
    const other = await world.post('/v1/accounts', { ...account, plan: 'open' })
    assert.deepEqual([other.status, other.body.code], [409, 'conflict'])
  })

  test('200, 412: a patch under If-Match holds only what was read', async () => {
    const { headers } = await world.get('/v1/accounts/acme')
    const changed = await patch('/v1/accounts/acme', { metadata: { tier: null, owner: 'x' } }, headers.etag)
    assert.deepEqual(
      [changed.status, changed.headers.etag, changed.body.metadata],
      [200, '"2"', { owner: 'x' }],
    )
    for (const tag of [String(headers.etag), '"99"', 'W/"2"', '"1", "2"', '2', '""', '"x"']) {
      const late = await patch('/v1/accounts/acme', { plan: 'open' }, tag)
      assert.deepEqual([late.status, late.body.code], [412, 'precondition_failed'], tag)
    }
    assert.equal((await patch('/v1/accounts/acme', { metadata: null }, '*')).body.revision, 3)
    assert.equal((await patch('/v1/accounts/acme', { status: 'suspended' })).body.status, 'suspended')
    assert.equal((await patch('/v1/accounts/acme', { status: 'active' })).headers.etag, '"5"')
  })

  test('200, 415: a merge patch may say that it is one, and what is none may not', async () => {
    const headers = { 'content-type': 'application/merge-patch+json' }
    const send = (method: 'PATCH' | 'POST', url: string, body: object) =>
      world.ask(method, url, { body, headers })
    const { status, body } = await send('PATCH', '/v1/accounts/acme', { status: 'active' })
    assert.deepEqual([status, body.status], [200, 'active'])
    const wrong = await send('PATCH', '/v1/accounts/acme', { metadata: { tier: 5 } })
    assert.deepEqual([wrong.status, wrong.body.path], [400, '/metadata/tier'])
    const other = await send('POST', '/v1/accounts', { id: 'other', plan: 'plus' })
    assert.deepEqual([other.status, other.body.code, other.body.path], [415, 'media_type', '/content-type'])
    const { content } = (await world.get('/openapi.json')).body.paths['/v1/accounts/{id}'].patch.requestBody
    assert.deepEqual(Object.keys(content), ['application/json', 'application/merge-patch+json'])
  })

  test('200, 412: overrides replace limits by name, and are seen where the subject is asked for', async () => {
    const overrides = {
      subject: { user: 'u1' },
      overrides: [{ name: 'included/5h', limit: '99' }],
      reason: 'launch',
    }
    const url = '/v1/accounts/acme/overrides'
    assert.equal(
      (await world.ask('PUT', url, { body: overrides, headers: { 'if-match': '"1"' } })).status,
      412,
    )
    const { status, headers } = await world.ask('PUT', url, {
      body: overrides,
      headers: { 'if-match': '"5"' },
    })
    assert.deepEqual([status, headers.etag], [200, '"6"'])
    const limitOf = async (query: string) =>
      (await world.get(`/v1/accounts/acme${query}`)).body.allowances[0]?.windows[0].limit
    assert.deepEqual(
      [await limitOf('?user=u1'), await limitOf('?user=u2'), await limitOf('')],
      ['99', '10', undefined],
    )
  })

  test('200: grants are given, listed and taken back; each once', async () => {
    const url = '/v1/accounts/acme/grants'
    const grant = {
      id: 'g-1',
      kind: 'promo',
      amount: 12.5,
      subjects: { user: 'u1' },
      features: ['chat'],
      reason: 'hello',
    }
    assert.deepEqual((await world.post(url, grant)).body.replayed, false)
    const again = await world.post(url, grant)
    assert.deepEqual([again.status, again.body.replayed, again.body.remaining], [200, true, '12.5'])
    assert.equal((await world.post(url, { ...grant, amount: 1 })).body.code, 'conflict')
    // A revocation may have no body at all.
    const revoked = await world.ask('POST', `${url}/g-1/revoke`)
    assert.deepEqual([revoked.status, revoked.body.status, revoked.body.remaining], [200, 'revoked', '0'])
    assert.equal((await world.post(`${url}/g-1/revoke`, { reason: 'again' })).body.status, 'revoked')
    assert.deepEqual(
      (await world.get(url)).body.items.map(({ id }: { id: string }) => id),
      ['g-1'],
    )
  })
})

describe('lists', () => {
  before(async () => {
    for (let i = 0; i < 7; i++)
      await world.engine.createAccount({ id: `list-${i}`, plan: i < 4 ? 'open' : 'plus' })
    for (let i = 0; i < 5; i++) {
      await world.post('/v1/accounts/list-0/grants', { id: `g${i}`, kind: 'free', amount: '10' })
      const subject = { user: `u${i % 3}`, team: 't' }
      await world.post('/v1/reserve', {
        request_id: `r${i}`,
        account: 'list-5',
        feature: 'chat',
        subject: { user: `u${i % 3}` },
        cost: '0.1',
      })
      await world.post('/v1/record', {
        request_id: `m${i}`,
        account: 'list-0',
        feature: 'chat',
        subject,
        cost: '1',
        attributes: { model: i % 2 ? 'big' : 'small' },
      })
    }
  })

  /** Follows `next` to the end, in pages of a size. */
  async function all(url: string, limit: number): Promise<readonly unknown[]> {
    const items: unknown[] = []
    let cursor: string | null = ''
    let pages = 0
    while (cursor !== null) {
      const query: string = `limit=${limit}${cursor === '' ? '' : `&cursor=${cursor}`}`
      const { status, body }: { status: number; body: { items: unknown[]; next: string | null } } =
        await world.get(`${url}${url.includes('?') ? '&' : '?'}${query}`)
      assert.equal(status, 200)
      assert.ok(body.items.length <= limit)
      items.push(...body.items)
      cursor = body.next
      assert.ok(++pages < 100)
    }
    return items
  }

  const URLS = [
    '/v1/accounts',
    '/v1/accounts?plan=open&status=active',
    '/v1/accounts?q=list-',
    '/v1/accounts/list-0/grants',
    '/v1/accounts/list-5/holds',
    '/v1/accounts/list-5/subjects',
    '/v1/accounts/list-0/entries',
    '/v1/accounts/list-0/entries?kind=usage,charge',
    '/v1/accounts/list-0/entries?order=newest',
    '/v1/entries',
    '/v1/entries?kind=balance',
    '/v1/policy/versions',
    '/v1/keys',
  ]
  for (const url of URLS) {
    test(`200: ${url} is the same in pages of 1, 2 and 500`, async () => {
      await world.ask('POST', '/v1/keys', { body: { id: 'list-key', role: 'read' } })
      const whole = await all(url, 500)
      assert.ok(whole.length > 0)
      assert.deepEqual(await all(url, 1), whole)
      assert.deepEqual(await all(url, 2), whole)
    })
  }

  test('200: filters are exact', async () => {
    const ids = (await all('/v1/accounts?plan=open', 500)).map((account) => (account as { id: string }).id)
    assert.deepEqual(ids, ['list-0', 'list-1', 'list-2', 'list-3'])
    const kinds = new Set(
      (await all('/v1/entries?kind=balance,usage', 500)).map((entry) => (entry as { kind: string }).kind),
    )
    assert.deepEqual([...kinds].sort(), ['balance', 'usage'])
    const newest = (await all('/v1/accounts/list-0/entries?order=newest', 500)).map(
      (entry) => (entry as { seq: number }).seq,
    )
    assert.deepEqual(
      newest,
      newest.toSorted((a, b) => b - a),
    )
  })

  test('200: usage sums exactly, by what is asked', async () => {
    const span = `from=${world.clock.now - 1000}&to=${world.clock.now + 1000}`
    const { items } = (
      await world.get(`/v1/accounts/list-0/usage?${span}&group_by=subject.user,attributes.model`)
    ).body
    assert.equal(
      items.reduce((sum: number, row: { requests: number }) => sum + row.requests, 0),
      5,
    )
    assert.deepEqual(
      new Set(items.map((row: { group: Record<string, string> }) => row.group['attributes.model'])),
      new Set(['big', 'small']),
    )
    const whole = (await world.get(`/v1/accounts/list-0/usage?${span}`)).body.items
    assert.deepEqual([whole.length, whole[0].charged, whole[0].requests], [1, '5', 5])
    for (const bucket of ['15m', 'hour', 'day', 'week', 'month']) {
      assert.equal(
        (await world.get(`/v1/accounts/list-0/usage?${span}&bucket=${bucket}`)).body.items[0].charged,
        '5',
        bucket,
      )
    }
  })
})

describe('policy', () => {
  const put = (body: unknown, headers: Record<string, string>) =>
    world.ask('PUT', '/v1/policy', { body, headers })
  const next = POLICY.replace('limit: "10"', 'limit: "20"')

  test('428: If-Match is needed; 412: it must be the version in force', async () => {
    const { headers } = await world.get('/v1/policy')
    assert.equal(headers.etag, '"1"')
    const without = await put({ policy: next }, {})
    assert.deepEqual(
      [without.status, without.body.code, without.body.path],
      [428, 'precondition_required', '/if-match'],
    )
    const stale = await put({ policy: next }, { 'if-match': '"0"' })
    assert.deepEqual([stale.status, stale.body.code], [412, 'precondition_failed'])
  })

  test('200: YAML, JSON and text inside JSON are one and the same document', async () => {
    const yaml = await put(next, { 'content-type': 'application/yaml', 'if-match': '"1"' })
    assert.deepEqual(
      [yaml.status, yaml.body.version, yaml.headers.etag, yaml.body.text],
      [200, 2, '"2"', next],
    )
    const json = JSON.stringify(
      {
        features: { a: { rate_card: [{ per_unit: { s: 1 } }] } },
        plans: { p: { waterfall: [{ overage: { limit: '1', per: 'day' } }] } },
      },
      null,
      2,
    )
    assert.equal((await put(json, { 'if-match': '"2"' })).body.text, json)
    assert.equal((await put({ policy: next }, { 'if-match': '"3"' })).body.text, next)
    const same = await put({ policy: next }, { 'if-match': '*' })
    assert.deepEqual([same.status, same.body.version], [200, 4])
    assert.deepEqual((await world.get('/v1/policy?version=2')).body.text, next)
  })

  test('400: a policy that is not valid, with every complaint, its path and line; nothing is published', async () => {
    const broken = 'features: {}\nplans:\n  p:\n    waterfal: []\n'
    const answer = await put(broken, { 'content-type': 'application/yaml', 'if-match': '"4"' })
    assert.deepEqual([answer.status, answer.body.code], [400, 'policy_invalid'])
    assert.ok(
      answer.body.complaints.some(
        ({ path, line }: { path: string; line: number }) => path.startsWith('/plans/p') && line >= 3,
      ),
    )
    const checked = await world.ask('POST', '/v1/policy/check', {
      body: broken,
      headers: { 'content-type': 'text/yaml' },
    })
    assert.deepEqual([checked.status, checked.body.valid], [200, false])
    assert.deepEqual(checked.body.complaints, answer.body.complaints)
    assert.equal((await world.get('/v1/policy')).body.version, 4)
  })

  test('400: an empty body, a wrapped text with more beside it, bytes that are not UTF-8', async () => {
    const headers = { 'if-match': '"4"' }
    for (const [body, path] of [
      ['', ''],
      ['  \n', ''],
      ['{"policy":"x","more":1}', '/policy'],
      ['{"policy":{}}', '/policy'],
      [Buffer.from([0xff, 0xfe]), ''],
    ] as const) {
      const answer = await put(body, headers)
      assert.deepEqual([answer.status, answer.body.code, answer.body.path], [400, 'invalid', path])
    }
    const notJson = await put('{"features":', headers)
    assert.deepEqual([notJson.status, notJson.body.code], [400, 'policy_invalid'])
  })
})

describe('keys', () => {
  test('200: a secret is told once, and only there', async () => {
    const made = await world.post('/v1/keys', { id: 'once', role: 'read', expires_at: world.clock.now + 1e9 })
    assert.match(made.body.secret, /^\S{20,}$/)
    assert.equal((await world.get('/v1/accounts', made.body.secret)).status, 200)
    assert.ok(!(await world.get('/v1/keys')).text.includes(made.body.secret))
    assert.ok(!(await world.get('/v1/accounts/@system/entries')).text.includes(made.body.secret))
    const again = await world.post('/v1/keys', {
      id: 'once',
      role: 'read',
      expires_at: world.clock.now + 1e9,
    })
    assert.deepEqual([again.status, again.body.code], [409, 'conflict'])
  })
})

describe('the node', () => {
  test('200: the test clock is set, and what follows happens then', async () => {
    const now = world.clock.now + 60_000
    assert.deepEqual((await world.ask('PUT', '/v1/test-clock', { body: { now } })).body, { now })
    const { body } = await world.post('/v1/reserve', {
      request_id: 't',
      account: 'list-0',
      feature: 'chat',
      cost: '0',
      dry_run: true,
    })
    assert.equal(body.decided_at, now)
  })

  test('404: without a test clock there is no such call', async () => {
    const { createApp } = await import('../app.ts')
    const app = createApp({ engine: world.engine, adminKey: 'k' })
    const answer = await app.inject({
      method: 'PUT',
      url: '/v1/test-clock',
      payload: { now: 1 },
      headers: { authorization: 'Bearer k' },
    })
    assert.equal(answer.statusCode, 404)
    assert.ok(!JSON.stringify(app.swagger()).includes('test-clock'))
    await app.close()
  })

  test('503: not ready, with the store’s reason', async () => {
    const health = { ready: false, problem: 'clock_suspect', queued: 0, detail: {} } as const
    const sick = await createWorld({
      storeOf: (now) => memoryStore({ now }),
      through: (engine) => ({ ...engine, health: () => health }),
    })
    const answer = await sick.ask('GET', '/readyz', { key: null })
    assert.deepEqual(
      [answer.status, answer.body.code, answer.headers['retry-after']],
      [503, 'clock_suspect', '1'],
    )
    assert.equal((await sick.ask('GET', '/healthz', { key: null })).status, 200)
    await sick.close()
  })

  test('HEAD answers as GET does, without a body', async () => {
    const answer = await world.ask('HEAD', '/healthz', { key: null })
    assert.deepEqual([answer.status, answer.text], [200, ''])
    assert.equal((await world.ask('HEAD', '/v1/accounts', { key: null })).status, 401)
  })

  test('the caller’s request id comes back; one that is no id does not', async () => {
    const ask = (id: string) => world.ask('GET', '/healthz', { headers: { 'x-request-id': id } })
    assert.equal((await ask('trace-7')).headers['x-request-id'], 'trace-7')
    assert.notEqual((await ask('a b')).headers['x-request-id'], 'a b')
  })
})
