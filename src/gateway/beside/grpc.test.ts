import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import * as grpc from '@grpc/grpc-js'
import { type Beside, beside } from '../../../test/beside.ts'
import { envoyServices } from './grpc.ts'

const CONFIG = `
forward_auth:
  request_id_header: x-request-id
  rules:
    - { methods: [POST], path: /api/render, feature: call, cost: '2.5' }
    - { path: /api/*, feature: call, cost: '1' }
rate_limit:
  rules:
    - { domain: hits, account: org, feature: call, cost: '1.5', request_id: id }
    - { domain: keyed, key: authorization, feature: tokens, quantities: { input_tokens: '2' }, attributes: { tier: tier } }
    - { domain: users, entries: { path: /v1/* }, account: org, subject: { user: who }, feature: call, cost: '1' }
grpc: { port: 0 }
`

// biome-ignore lint/suspicious/noExplicitAny: tests look into messages as they come, whatever their shape.
type Message = any
interface Caller {
  call(method: 'ShouldRateLimit' | 'Check', message: object): Promise<Message>
  close(): void
}

/** A client that is made from the published protos, as Envoy's own is. */
function callerOf(port: number | undefined): Caller {
  const { rateLimit, authorization } = envoyServices()
  const open = (service: Message): Message =>
    new (grpc.makeClientConstructor(service, 'service'))(
      `127.0.0.1:${port}`,
      grpc.credentials.createInsecure(),
    )
  const clients = { ShouldRateLimit: open(rateLimit), Check: open(authorization) }
  return {
    call: (method, message) =>
      new Promise((resolve, reject) => {
        clients[method][method](message, (error: Error | null, answer: Message) =>
          error === null ? resolve(answer) : reject(error),
        )
      }),
    close: () => {
      for (const client of Object.values(clients)) client.close()
    },
  }
}

const headersOf = (list: readonly Message[]): Readonly<Record<string, string>> =>
  Object.fromEntries(list.map((one) => [one.key ?? one.header.key, one.value ?? one.header.value]))

describe('over gRPC', () => {
  let world: Beside
  let caller: Caller
  before(async () => {
    world = await beside(CONFIG)
    caller = callerOf(world.grpcPort)
  })
  after(async () => {
    caller.close()
    await world.close()
  })

  describe('the rate limit service', () => {
    const limit = (domain: string, entries: Readonly<Record<string, string>>[], hits_addend = 0) =>
      caller.call('ShouldRateLimit', {
        domain,
        hits_addend,
        descriptors: entries.map((one) => ({
          entries: Object.entries(one).map(([key, value]) => ({ key, value })),
        })),
      })

    test('OK with the fields of its limits, and each hit is charged', async () => {
      await world.account('hits', '10')
      const one = await limit('hits', [{ org: 'hits' }])
      assert.deepEqual([one.overall_code, one.statuses.length, one.statuses[0].code], [1, 1, 1])
      assert.equal(one.statuses[0].limit_remaining, 8)
      assert.match(headersOf(one.response_headers_to_add).ratelimit ?? '', /r=8500000/)
      assert.equal((await limit('hits', [{ org: 'hits' }], 3)).overall_code, 1)
      assert.deepEqual(await world.charged('hits'), [2, '6'])
    })

    test('OVER_LIMIT says how long, in a field, in the status and in the body', async () => {
      await world.account('seldom', '100', { plan: 'seldom' })
      assert.equal((await limit('hits', [{ org: 'seldom' }])).overall_code, 1)
      assert.equal((await limit('hits', [{ org: 'seldom' }])).overall_code, 1)
      const { overall_code, statuses, response_headers_to_add, raw_body } = await limit('hits', [
        { org: 'seldom' },
      ])
      assert.equal(overall_code, 2)
      assert.ok(Number(headersOf(response_headers_to_add)['retry-after']) > 0)
      assert.deepEqual([statuses[0].code, statuses[0].limit_remaining], [2, 0])
      assert.equal(statuses[0].current_limit.name, 'calls')
      assert.ok(statuses[0].duration_until_reset.seconds > 0)
      assert.equal(JSON.parse(raw_body.toString()).outcome, 'wait')
      assert.deepEqual(await world.charged('seldom'), [2, '3'])
    })

    test('all descriptors or none: what the first would have paid is given back', async () => {
      await world.account('rich', '100')
      await world.account('poor', '1')
      const both = [{ org: 'rich' }, { org: 'poor' }, { org: 'rich' }]
      const said = await limit('hits', both)
      assert.equal(said.overall_code, 2)
      assert.deepEqual(
        said.statuses.map(({ code }: Message) => code),
        [1, 2, 0],
      )
      assert.deepEqual(await world.charged('rich'), [0, '0'])
      assert.equal((await limit('hits', [{ org: 'rich' }, { org: 'rich' }])).overall_code, 1)
      assert.deepEqual(await world.charged('rich'), [2, '3'])
    })

    test('an id of the request is charged once', async () => {
      await world.account('once', '100')
      const entries = [
        { org: 'once', id: 'r1' },
        { org: 'once', id: 'r1' },
      ]
      for (let time = 0; time < 3; time++) assert.equal((await limit('hits', entries)).overall_code, 1)
      assert.deepEqual(await world.charged('once'), [2, '3'])
    })

    test('a key pays for whom it stands, and an unknown one is over its limit', async () => {
      const key = await world.account('keyed', '100', { subject: { user: 'u1' } })
      const said = await limit('keyed', [{ authorization: `Bearer ${key}`, tier: 'fast' }], 4)
      assert.equal(said.overall_code, 1)
      const rows = await world.engine.usage('keyed', {
        ...{ from: 0, to: Date.now() + 60_000 },
        group_by: ['subject.user', 'attributes.tier'],
      })
      assert.deepEqual(
        rows.map(({ group, charged, quantities }) => [group, charged, quantities]),
        [[{ 'subject.user': 'u1', 'attributes.tier': 'fast' }, '8', { input_tokens: '8' }]],
      )
      const refused = await limit('keyed', [{ authorization: 'Bearer nobody' }])
      assert.equal(refused.overall_code, 2)
      assert.equal(JSON.parse(refused.raw_body.toString()).code, 'unauthorized')
    })

    test('entries say whom in the account it is for, and which rule it is', async () => {
      await world.account('users', '100')
      assert.equal((await limit('users', [{ org: 'users', who: 'u7', path: '/v1/x' }])).overall_code, 1)
      const rows = await world.engine.usage('users', {
        ...{ from: 0, to: Date.now() + 60_000 },
        group_by: ['subject.user'],
      })
      assert.deepEqual(
        rows.map(({ group }) => group),
        [{ 'subject.user': 'u7' }],
      )
      for (const [domain, entries] of [
        ['users', { org: 'users', who: 'u7', path: '/v2/x' }],
        ['users', { who: 'u7', path: '/v1/x' }],
        ['nowhere', { org: 'users' }],
      ] as const) {
        const said = await limit(domain, [entries])
        assert.deepEqual([said.overall_code, JSON.parse(said.raw_body.toString()).code], [2, 'no_rule'])
      }
      const stranger = await limit('hits', [{ org: 'stranger' }])
      assert.deepEqual(
        [stranger.overall_code, JSON.parse(stranger.raw_body.toString()).code],
        [2, 'account_unknown'],
      )
    })
  })

  describe('ext_authz', () => {
    const check = (method: string, path: string, headers: Readonly<Record<string, string>>) =>
      caller.call('Check', { attributes: { request: { http: { method, path, headers } } } })

    test('OK with who pays for what stands behind, without the key, and with the limits for the caller', async () => {
      const key = await world.account('checked', '10')
      const said = await check('POST', '/api/render?x=1', {
        authorization: `Bearer ${key}`,
        'x-request-id': 'e1',
      })
      assert.equal(said.status.code, 0)
      const { headers, headers_to_remove, response_headers_to_add } = said.ok_response
      assert.deepEqual(headersOf(headers), { 'x-sluice-account': 'checked', 'x-sluice-request-id': 'e1' })
      for (const { append_action } of headers) assert.equal(append_action, 2)
      assert.deepEqual(headers_to_remove, ['authorization'])
      assert.match(headersOf(response_headers_to_add).ratelimit ?? '', /r=7500000/)
      assert.deepEqual(await world.charged('checked'), [1, '2.5'])
    })

    test('raw headers are read as well', async () => {
      const key = await world.account('raw', '10')
      const said = await caller.call('Check', {
        attributes: {
          request: {
            http: {
              ...{ method: 'GET', path: '/api/a' },
              header_map: { headers: [{ key: 'authorization', raw_value: Buffer.from(`Bearer ${key}`) }] },
            },
          },
        },
      })
      assert.equal(said.status.code, 0)
      assert.deepEqual(await world.charged('raw'), [1, '1'])
    })

    test('429, 401, 403 and 400 are answers, with what to tell the caller', async () => {
      const key = await world.account('seldomer', '100', { plan: 'seldom' })
      const authorization = `Bearer ${key}`
      await check('GET', '/api/a', { authorization })
      await check('GET', '/api/a', { authorization })
      const { status, denied_response } = await check('GET', '/api/a', { authorization })
      assert.deepEqual([status.code, denied_response.status.code], [8, 429])
      assert.ok(Number(headersOf(denied_response.headers)['retry-after']) > 0)
      assert.equal(JSON.parse(denied_response.body).outcome, 'wait')
      for (const [path, auth, grpcCode, http] of [
        ['/api/a', 'Bearer nobody', 16, 401],
        ['/other', authorization, 7, 403],
        ['/api/%', authorization, 3, 400],
        ['', authorization, 3, 400],
      ] as const) {
        const said = await check('GET', path, { authorization: auth })
        assert.deepEqual([said.status.code, said.denied_response.status.code], [grpcCode, http], path)
      }
      assert.deepEqual(await world.charged('seldomer'), [2, '2'])
    })

    test('an empty message is refused, and makes no mistake', async () => {
      const said = await caller.call('Check', {})
      assert.equal(said.denied_response.status.code, 400)
      assert.deepEqual(world.faults, [])
    })
  })
})

test('what cannot be decided fails the call, so that Envoy says who passes', async () => {
  const world = await beside(CONFIG)
  const caller = callerOf(world.grpcPort)
  const key = await world.account('a', '10')
  await world.engine.close()
  const authorization = `Bearer ${key}`
  const unavailable = (error: grpc.ServiceError) => error.code === grpc.status.UNAVAILABLE
  try {
    await assert.rejects(
      caller.call('Check', {
        attributes: { request: { http: { method: 'GET', path: '/api/a', headers: { authorization } } } },
      }),
      unavailable,
    )
    await assert.rejects(
      caller.call('ShouldRateLimit', {
        domain: 'hits',
        descriptors: [{ entries: [{ key: 'org', value: 'a' }] }],
      }),
      unavailable,
    )
    await world.stopGateway()
    await assert.rejects(caller.call('Check', {}), unavailable)
  } finally {
    caller.close()
    await world.stopGateway()
  }
})

test('what passes unasked takes forged fields along to nobody', async () => {
  const world = await beside(`
forward_auth: { otherwise: pass, rules: [{ path: /paid, feature: call, cost: '1' }] }
rate_limit: { otherwise: pass, rules: [{ domain: d, account: org, feature: call, cost: '1' }] }
grpc: { port: 0 }`)
  const caller = callerOf(world.grpcPort)
  try {
    const said = await caller.call('Check', {
      attributes: { request: { http: { method: 'GET', path: '/' } } },
    })
    assert.equal(said.status.code, 0)
    assert.deepEqual(said.ok_response.headers_to_remove, ['x-sluice-account', 'x-sluice-request-id'])
    const limited = await caller.call('ShouldRateLimit', { domain: 'other', descriptors: [{ entries: [] }] })
    assert.deepEqual([limited.overall_code, limited.statuses.length], [1, 1])
  } finally {
    caller.close()
    await world.close()
  }
})

test('the messages have the field numbers that Envoy sends', () => {
  // A RateLimitRequest by hand: domain = 1, descriptors = 2 { entries = 1 { key = 1, value = 2 } }, hits_addend = 3.
  const bytes = Buffer.from('0a0164' + '1208' + '0a06' + '0a016b' + '120176' + '1805', 'hex')
  const { rateLimit } = envoyServices()
  const message = rateLimit.ShouldRateLimit?.requestDeserialize(bytes) as Message
  assert.equal(message.domain, 'd')
  assert.deepEqual(message.descriptors[0].entries, [{ key: 'k', value: 'v' }])
  assert.equal(message.hits_addend, 5)
})
