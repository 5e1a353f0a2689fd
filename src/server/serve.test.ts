// Sockets, because that is what this is about: malformed requests, closing without losing, the deadline.
import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { createEngine, type Engine } from '../engine.ts'
import { memoryStore } from '../store/memory.ts'
import { createApp } from './app.ts'
import { POLICY } from './fixtures/policy.ts'
import { type Served, serve } from './serve.ts'

const KEY = 'k'

/** A server whose reserve waits until `go` is called, over an engine that tells when it closes. */
async function slowServer(deadlineMs?: number) {
  const engine = await createEngine({ store: memoryStore(), policy: POLICY, sweeps: false })
  await engine.createAccount({ id: 'acme', plan: 'open' })
  await engine.grant('acme', { id: 'g', kind: 'free', amount: '10' })
  const events: string[] = []
  let go = (): void => {}
  const gate = new Promise<void>((open) => {
    go = open
  })
  const slow: Engine = {
    ...engine,
    reserve: async (request, caller) => {
      events.push('asked')
      await gate
      const answer = await engine.reserve(request, caller)
      events.push('decided')
      return answer
    },
    close: async () => {
      events.push('closed')
      await engine.close()
    },
  }
  const app = createApp({ engine: slow, adminKey: KEY })
  const served = await serve(app, slow, deadlineMs === undefined ? {} : { deadlineMs })
  return { served, events, go: () => go() }
}
const reserve = (url: string) =>
  fetch(`${url}/v1/reserve`, {
    method: 'POST',
    headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' },
    body: JSON.stringify({ request_id: 'r', account: 'acme', feature: 'chat', cost: '1' }),
  })
async function until(true_: () => boolean): Promise<void> {
  while (!true_()) await sleep(5)
}

describe('closing', () => {
  test('requests in flight are answered, new connections are refused, and the engine closes last', async () => {
    const { served, events, go } = await slowServer()
    const inFlight = reserve(served.url)
    await until(() => events.includes('asked'))
    const closing = served.close()
    await assert.rejects(reserve(served.url))
    assert.deepEqual(events, ['asked'])
    go()
    const answer = await inFlight
    assert.equal(answer.status, 200)
    assert.equal(((await answer.json()) as { outcome: string }).outcome, 'allow')
    await closing
    assert.deepEqual(events, ['asked', 'decided', 'closed'])
    await served.close()
    assert.equal(events.length, 3)
  })

  test('503 closing: a further request on a connection that is still open', async () => {
    const { served, events, go } = await slowServer()
    const { port } = new URL(served.url)
    const socket = connect(Number(port), '127.0.0.1')
    let text = ''
    socket.on('data', (data) => {
      text += data
    })
    const body = JSON.stringify({ request_id: 'r', account: 'acme', feature: 'chat', cost: '1' })
    const request = `POST /v1/reserve HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${KEY}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`
    socket.write(request)
    await until(() => events.includes('asked'))
    const closing = served.close()
    await sleep(20)
    socket.write(request)
    go()
    await closing
    await until(() => socket.closed)
    const statuses = [...text.matchAll(/HTTP\/1\.1 (\d+)/g)].map((match) => match[1])
    assert.equal(statuses[0], '200')
    if (statuses.length > 1) assert.match(text, /"code":"closing"/)
  })

  test('a request that never ends is cut at the deadline, and the engine closes all the same', async () => {
    const { served, events, go } = await slowServer(100)
    const stuck = reserve(served.url)
    stuck.catch(() => undefined)
    await until(() => events.includes('asked'))
    const started = performance.now()
    await served.close()
    assert.ok(performance.now() - started < 3000)
    await assert.rejects(stuck)
    assert.ok(events.includes('closed'))
    go()
  })
})

describe('what is not HTTP', () => {
  let served: Served
  before(async () => {
    const engine = await createEngine({ store: memoryStore(), sweeps: false })
    served = await serve(createApp({ engine }), engine)
  })
  after(() => served.close())

  const send = (text: string) =>
    new Promise<string>((resolve, reject) => {
      const socket = connect(Number(new URL(served.url).port), '127.0.0.1', () => socket.write(text))
      let answer = ''
      socket.on('data', (data) => {
        answer += data
      })
      socket.on('close', () => resolve(answer)).on('error', reject)
    })

  test('400: a problem document, where the connection still takes one', async () => {
    const answer = await send('NONSENSE\r\n\r\n')
    assert.match(answer, /^HTTP\/1\.1 400 /)
    assert.match(answer, /content-type: application\/problem\+json/)
    assert.equal(JSON.parse(answer.slice(answer.indexOf('\r\n\r\n'))).code, 'invalid')
  })

  test('413: header fields beyond measure', async () => {
    const answer = await send(`GET /healthz HTTP/1.1\r\nhost: x\r\nx: ${'y'.repeat(100_000)}\r\n\r\n`)
    assert.match(answer, /^HTTP\/1\.1 413 /)
    assert.match(answer, /"code":"too_big"/)
  })
})
