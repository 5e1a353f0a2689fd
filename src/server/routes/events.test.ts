// Events over real sockets: what is framed, who may listen, how streams end.
import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { after, before, describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import type { Engine } from '../../engine.ts'
import { memoryStore } from '../../store/memory.ts'
import type * as wire from '../../wire.ts'
import { ADMIN_KEY, createWorld, type World } from '../fixtures/world.ts'
import { serve } from '../serve.ts'

const POLICY = `features: { job: {} }
plans:
  plan:
    waterfall: [{ credits: [purchased] }]
`
interface Opened {
  readonly world: World
  readonly url: string
  close(): Promise<void>
}

async function open(
  options: { heartbeatMs?: number; through?: (engine: Engine) => Engine } = {},
): Promise<Opened> {
  const world = await createWorld({
    storeOf: (now) => memoryStore({ now }),
    policy: POLICY,
    accounts: [{ id: 'a', plan: 'plan' }],
    ...options,
  })
  await world.engine.grant('a', { id: 'g', kind: 'purchased', amount: '1000000' })
  const served = await serve(world.app, world.engine, { deadlineMs: 600_000 })
  return { world, url: served.url, close: served.close }
}
const use = ({ world }: Opened, id: string, user = 'amy') =>
  world.engine.record({ request_id: id, account: 'a', feature: 'job', subject: { user }, cost: '1' })

interface Listening {
  readonly response: Response
  /** All that came. */
  readonly text: string
  /** Reads until what came has this in it; false where it has ended before. */
  until(part: string | RegExp): Promise<boolean>
  readonly ended: Promise<boolean>
  leave(): void
}
async function listen(url: string, query = '', headers: Record<string, string> = {}): Promise<Listening> {
  const leaving = new AbortController()
  const response = await fetch(`${url}/v1/accounts/a/events${query}`, {
    headers: { authorization: `Bearer ${ADMIN_KEY}`, ...headers },
    signal: leaving.signal,
  })
  const decoder = new TextDecoder()
  const reader = (response.body as ReadableStream<Uint8Array>).getReader()
  let text = ''
  async function until(part: string | RegExp): Promise<boolean> {
    while (!(typeof part === 'string' ? text.includes(part) : part.test(text))) {
      const { done, value } = await reader.read()
      if (done) return false
      text += decoder.decode(value, { stream: true })
    }
    return true
  }
  return {
    response,
    get text() {
      return text
    },
    until,
    get ended() {
      return until('never said').then((said) => !said)
    },
    leave: () => leaving.abort(),
  }
}
const framesOf = (text: string) =>
  [...text.matchAll(/^id: (\d+)\nevent: (\w+)\ndata: (.+)\n$/gm)].map(([, id, event, data = '']) => ({
    id: Number(id),
    event,
    data: JSON.parse(data) as wire.AccountEvent,
  }))

describe('a stream of events', { timeout: 60_000 }, () => {
  let on: Opened
  before(async () => {
    on = await open({ heartbeatMs: 20 })
  })
  after(() => on.close())

  test('200: where it begins, the account, and then what comes, as frames', async () => {
    const listening = await listen(on.url)
    const { status, headers } = listening.response
    assert.deepEqual(
      [status, ...['content-type', 'cache-control', 'x-accel-buffering'].map((name) => headers.get(name))],
      [200, 'text/event-stream; charset=utf-8', 'no-store', 'no'],
    )
    await listening.until('event: account')
    assert.match(listening.text, /^retry: 1000\nid: 3\n\nid: 3\nevent: account\n/)
    await use(on, 'r1')
    await listening.until(/id: 6\nevent: account\n.*\n\n/)
    const frames = framesOf(listening.text)
    const { items } = await on.world.engine.entries('a', { limit: 100 })
    assert.deepEqual(
      frames.map(({ id, event }) => [id, event]),
      [
        [3, 'account'],
        [4, 'entry'],
        [5, 'entry'],
        [6, 'entry'],
        [6, 'account'],
      ],
    )
    for (const { id, event, data } of frames) assert.deepEqual([data.seq, data.event], [id, event])
    assert.deepEqual(
      frames.flatMap(({ data }) => (data.event === 'entry' ? [data.entry] : [])),
      items.slice(3),
    )
    listening.leave()
  })

  test('a comment comes where nothing else does', async () => {
    const listening = await listen(on.url, '?events=entry')
    assert.ok(await listening.until(/\n\n:\n\n:\n\n/))
    listening.leave()
  })

  test('goes on after Last-Event-ID, with the kinds that were chosen', async () => {
    await use(on, 'r2')
    const listening = await listen(on.url, '?events=entry', { 'last-event-id': '3' })
    await listening.until(/id: 9\n.*\n.*\n\n/)
    assert.match(listening.text, /^retry: 1000\nid: 3\n\nid: 4\n/)
    assert.deepEqual(
      framesOf(listening.text).map(({ id }) => id),
      [4, 5, 6, 7, 8, 9],
    )
    listening.leave()
  })

  test('400: what is no id of an event, and what is no kind of them', async () => {
    for (const [query, header, path] of [
      ['', 'soon', '/last-event-id'],
      ['', '-1', '/last-event-id'],
      ['', '1e3', '/last-event-id'],
      ['', '1, 2', '/last-event-id'],
      ['', '999', '/last-event-id'],
      ['?events=charges', '', '/events'],
      ['?events=', '', '/events'],
      ['?events=entry&events=account', '', '/events'],
    ] as const) {
      const { status, body } = await on.world.ask('GET', `/v1/accounts/a/events${query}`, {
        headers: header === '' ? {} : { 'last-event-id': header },
      })
      assert.deepEqual([status, body.code, body.path], [400, 'invalid', path], `${query} ${header}`)
      assert.ok(body.remedy)
    }
    assert.equal((await on.world.get('/v1/accounts/nobody/events')).status, 404)
    assert.equal((await on.world.ask('HEAD', '/v1/accounts/a/events')).status, 404)
  })

  test('a bound key hears its own, and asks for nobody else', async () => {
    const key = await on.world.makeKey({ id: 'amys', role: 'read', account: 'a', subject: { user: 'amy' } })
    const listening = await listen(on.url, '', { authorization: `Bearer ${key}` })
    await listening.until('event: account')
    await use(on, 'ben-1', 'ben')
    await use(on, 'amy-1', 'amy')
    await listening.until('"charge"')
    assert.match(listening.text, /amy-1/)
    assert.doesNotMatch(listening.text, /ben/)
    listening.leave()
    for (const url of ['/v1/accounts/a/events?user=ben', '/v1/accounts/b/events'])
      assert.equal((await on.world.get(url, key)).status, 403)
  })

  test('ends when its key is revoked', async () => {
    const key = await on.world.makeKey({ id: 'short', role: 'read' })
    const listening = await listen(on.url, '', { authorization: `Bearer ${key}` })
    await listening.until('event: account')
    await on.world.post('/v1/keys/short/revoke', undefined)
    assert.equal(await listening.ended, true)
    assert.equal((await on.world.get('/v1/accounts/a/events', key)).status, 401)
  })

  test('lets go of what it held when its reader leaves', async () => {
    while (on.world.engine.metrics.streams > 0) await pause(5)
    const listening = await listen(on.url)
    assert.equal(on.world.engine.metrics.streams, 1)
    listening.leave()
    while (on.world.engine.metrics.streams > 0) await pause(5)
  })
})

test('a server that closes ends all streams at once, also of readers that do not read', {
  timeout: 60_000,
}, async () => {
  let pulled = 0
  const through = (engine: Engine): Engine => ({
    ...engine,
    watch(...given) {
      const events = engine.watch(...given)[Symbol.asyncIterator]()
      return {
        [Symbol.asyncIterator]: () => ({
          next() {
            pulled++
            return events.next()
          },
        }),
      }
    },
  })
  const on = await open({ through })
  const listening = await listen(on.url, '?events=account')
  await listening.until('event: account')
  const text = 'x'.repeat(200)
  for (let i = 0; i < 20_000; i += 500) {
    const some = Array.from({ length: 500 }, (_, place) =>
      on.world.engine.record({
        ...{ request_id: `r${i + place}`, account: 'a', feature: 'job', cost: '0.000001' },
        attributes: { text },
      }),
    )
    await Promise.all(some)
  }
  pulled = 0
  const deaf = connect(Number(new URL(on.url).port), '127.0.0.1')
  deaf.write(
    `GET /v1/accounts/a/events?events=entry HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${ADMIN_KEY}\r\nlast-event-id: 0\r\n\r\n`,
  )
  deaf.pause()
  deaf.on('error', () => {})
  // It is pulled until the buffers of both sockets are full, and not on.
  for (let before = -1; pulled === 0 || pulled !== before; ) {
    before = pulled
    await pause(300)
  }
  const { items } = await on.world.engine.entries('a', { limit: 1, newestFirst: true })
  const newest = items[0]?.seq ?? 0
  assert.ok(newest > 40_000 && pulled < newest / 2, `${pulled} of ${newest} were pulled`)
  const ended = listening.ended
  await on.close()
  assert.equal(await ended, true)
  deaf.destroy()
})

test('a store that fails under a stream ends its connection, and nothing else', {
  timeout: 60_000,
}, async () => {
  const through = (engine: Engine): Engine => ({
    ...engine,
    async *watch(...given) {
      for await (const event of engine.watch(...given)) {
        yield event
        if (event.event === 'entry') throw new Error('the disk is gone')
      }
    },
  })
  const on = await open({ through })
  const listening = await listen(on.url)
  await listening.until('event: account')
  await use(on, 'r')
  await assert.rejects(listening.until('never said'), TypeError)
  while (on.world.engine.metrics.streams > 0) await pause(5)
  assert.equal((await on.world.get('/v1/accounts/a')).status, 200)
  await on.close()
})
