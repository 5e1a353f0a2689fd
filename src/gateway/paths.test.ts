import assert from 'node:assert/strict'
import { after, afterEach, before, describe, test } from 'node:test'
import { type GatewayScene, openGateway, say, UPSTREAM_KEY } from '../../test/gateway.ts'
import { readConfig } from './config.ts'

const CONFIG = `paths:
  - { method: POST, path: /v1/rerank, upstream: main, feature: search, quantities: { searches: 1, documents: { items: /documents } } }
  - { method: POST, path: /v1/translate/:language, upstream: main, feature: text, quantities: { characters: { characters: /input/text }, copies: { number: /n } } }
  - { method: POST, path: /v1/ocr, upstream: main, feature: ocr, quantities: { pages: { answer: /usage/pages, hold: 10 } } }
  - { method: GET, path: /v1/lookup/:id, upstream: main, feature: lookup, cost: '0.5' }
  - { method: GET, path: /v1/health, upstream: main }
  - { method: POST, path: /v1/moderations, upstream: main, feature: lookup, cost: 2 }
`
const per_unit = { searches: 10, documents: 1, characters: '0.5', copies: 3, pages: 4 }
const POLICY = {
  features: {
    ...Object.fromEntries(['search', 'text', 'ocr'].map((name) => [name, { rate_card: [{ per_unit }] }])),
    lookup: {},
  },
  plans: { plan: { waterfall: [{ credits: ['purchased' as const] }] } },
}

describe('any other path', () => {
  let scene: GatewayScene
  before(async () => {
    scene = await openGateway({
      ...{ policy: POLICY, config: CONFIG },
      usual: (got, response) => say(response, { path: got.path, got: got.body }),
    })
  })
  after(() => scene.close())
  afterEach(() => assert.deepEqual(scene.faults, []))

  const call = (key: string, method: string, path: string, body?: unknown) =>
    fetch(`${scene.url}${path}`, {
      method,
      headers: {
        authorization: `Bearer ${key}`,
        ...(body !== undefined && { 'content-type': 'application/json' }),
      },
      ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    })

  test('costs what its rule counts in what is sent', async () => {
    const key = await scene.account('rerank', '100')
    const response = await call(key, 'POST', '/v1/rerank?top=1', { query: 'q', documents: ['a', 'b', 'c'] })
    assert.deepEqual(await response.json(), {
      path: '/v1/rerank?top=1',
      got: { query: 'q', documents: ['a', 'b', 'c'] },
    })
    assert.equal(scene.upstream.got.at(-1)?.headers.authorization, `Bearer ${UPSTREAM_KEY}`)
    assert.equal((await scene.used('rerank'))?.charged, '13')
    const { items } = await scene.engine.entries('rerank', { kinds: ['usage'] })
    assert.deepEqual([items[0]?.body.endpoint, items[0]?.body.estimated], ['POST /v1/rerank', undefined])
  })

  test('in texts and numbers, under a path with parts of its own', async () => {
    const key = await scene.account('translate', '100')
    const sent = { input: { text: 'h\u00e9llo' }, n: 2 }
    assert.equal((await call(key, 'POST', '/v1/translate/fr', sent)).status, 200)
    assert.equal((await scene.used('translate'))?.charged, '8.5')
    assert.equal((await call(key, 'POST', '/v1/translate/fr/more', sent)).status, 404)
  })

  test('what cannot be measured is refused, and never free', async () => {
    const key = await scene.account('immeasurable', '100')
    const before = scene.upstream.got.length
    for (const n of ['2', -1, null, 1e300, [2], undefined]) {
      const response = await call(key, 'POST', '/v1/translate/fr', { input: { text: 'a' }, n })
      assert.equal(response.status, 400)
      assert.equal(((await response.json()) as { error: { param: string } }).error.param, 'n')
    }
    assert.equal((await call(key, 'POST', '/v1/translate/fr')).status, 400)
    assert.equal(scene.upstream.got.length, before)
  })

  test('a name that stands twice is the same for the gateway and the upstream', async () => {
    const key = await scene.account('twice', '100')
    const response = await call(key, 'POST', '/v1/rerank', '{"documents":[1,2,3],"documents":[1]}')
    assert.deepEqual(((await response.json()) as { got: unknown }).got, { documents: [1] })
    assert.equal((await scene.used('twice'))?.charged, '11')
  })

  test('or in the answer, within what was held', async () => {
    const key = await scene.account('ocr', '100')
    scene.upstream.next((_, response) => say(response, { usage: { pages: 3 } }))
    await (await call(key, 'POST', '/v1/ocr', { file: 'x' })).text()
    assert.equal((await scene.used('ocr'))?.charged, '12')
    scene.upstream.next((_, response) => say(response, { usage: {} }))
    await (await call(key, 'POST', '/v1/ocr', { file: 'x' })).text()
    assert.equal((await scene.used('ocr'))?.charged, '52')
    const { items } = await scene.engine.entries('ocr', { kinds: ['usage'] })
    assert.deepEqual(
      items.map(({ body }) => body.estimated),
      [undefined, true],
    )
    const poor = await scene.account('ocr-poor', '39')
    assert.equal((await call(poor, 'POST', '/v1/ocr', { file: 'x' })).status, 429)
  })

  test('or a fixed cost, for nothing where the upstream fails', async () => {
    const key = await scene.account('lookup', '100')
    scene.upstream.next((_, response) => say(response, { error: 'no such thing' }, 404))
    assert.equal((await call(key, 'GET', '/v1/lookup/a')).status, 404)
    assert.equal(await scene.used('lookup'), undefined)
    assert.equal((await call(key, 'GET', '/v1/lookup/b')).status, 200)
    assert.equal((await scene.used('lookup'))?.charged, '0.5')
  })

  test('or nothing', async () => {
    const key = await scene.account('health', '0')
    assert.equal((await call(key, 'GET', '/v1/health')).status, 200)
    assert.equal(await scene.used('health'), undefined)
  })

  test('a rule comes before what a provider knows of the path', async () => {
    const key = await scene.account('before', '100')
    assert.equal((await call(key, 'POST', '/v1/moderations', { input: 'a' })).status, 200)
    assert.equal((await scene.used('before'))?.charged, '2')
  })
})

test('rules that make no sense are refused with their place', () => {
  const read = (path: string) =>
    readConfig(
      `upstreams: { main: { provider: openai, url: 'http://127.0.0.1:1' } }
routes: [{ upstream: main, feature: chat }]
paths: [${path}]`,
      {},
    )
  const base = 'method: POST, path: /v1/a, upstream: main'
  assert.throws(() => read(`{ ${base}, feature: a }`), /paths\/0: its price is missing, or given twice/)
  assert.throws(() => read(`{ ${base}, feature: a, cost: 1, quantities: { a: 1 } }`), /given twice/)
  assert.throws(() => read(`{ ${base}, cost: 1 }`), /nobody pays/)
  assert.throws(() => read(`{ ${base.replace('main', 'other')} }`), /there is no upstream other/)
  assert.throws(
    () => read(`{ ${base}, feature: a, quantities: { a: { answer: /a } } }`),
    /paths\/0\/quantities/,
  )
  assert.throws(() => read(`{ method: POST, path: v1, upstream: main }`), /paths\/0\/path/)
})
