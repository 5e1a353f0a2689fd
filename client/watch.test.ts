// Nothing missed and nothing twice, whatever happens to the connection; and what bytes mean, wherever they are cut.
import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { createServer } from 'node:http'
import { after, before, describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { openScene, type Scene } from '../test/client.ts'
import { ADMIN_KEY } from '../test/server.ts'
import { createFrameReader, type Frame } from './frames.ts'
import type { AccountEvent, Client, SluiceError } from './index.ts'
import { createWatches } from './watch.ts'

describe('server-sent events', () => {
  const TEXT = `\uFEFFretry: 250\nid: 7\n\n: a comment\n\nid:8\revent:account\rdata: {"a":"größe €𝄞"}\r\rid: 9\r\nevent: entry\r\ndata: one\r\ndata:  two\r\ndata\r\n\r\nid: 1\\0\ndata: 3\n\nnonsense: x\nevent: lost\n\nid\ndata:last\n\ndata: never ended`
  const BYTES = new TextEncoder().encode(TEXT.replace('\\0', '\0'))
  const WANTED: readonly Frame[] = [
    { id: '8', event: 'account', data: '{"a":"größe €𝄞"}' },
    { id: '9', event: 'entry', data: 'one\n two\n' },
    { id: '9', event: 'message', data: '3' },
    { id: '', event: 'message', data: 'last' },
  ]
  function framesOf(pieces: readonly Uint8Array[]) {
    const reader = createFrameReader()
    const frames = pieces.flatMap((piece) => reader.read(piece))
    return { frames, id: reader.id, retryMs: reader.retryMs }
  }

  test('mean the same wherever they are cut, within characters and ends of lines too', () => {
    const wanted = { frames: WANTED, id: '', retryMs: 250 }
    assert.deepEqual(framesOf([BYTES]), wanted)
    for (let cut = 0; cut <= BYTES.length; cut++)
      assert.deepEqual(framesOf([BYTES.subarray(0, cut), BYTES.subarray(cut)]), wanted, `cut at ${cut}`)
    for (const size of [1, 2, 3, 5, 7]) {
      const count = Math.ceil(BYTES.length / size)
      const pieces = Array.from({ length: count }, (_, i) => BYTES.subarray(i * size, (i + 1) * size))
      assert.deepEqual(framesOf(pieces), wanted, `pieces of ${size}`)
    }
  })

  test('an id without data is where to go on from', () => {
    const reader = createFrameReader()
    assert.deepEqual([reader.read(new TextEncoder().encode('id: 5\n\n')), reader.id], [[], '5'])
  })
})

test('a connection that has fallen silent is given up, and made again where it was', {
  timeout: 60_000,
}, async () => {
  const asked: (string | undefined)[] = []
  const server = createServer((request, response) => {
    asked.push(request.headers['last-event-id']?.toString())
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.write(asked.length === 1 ? 'retry: 1\nid: 7\n\n' : 'id: 8\ndata: {"event":"entry","seq":8}\n\n')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  const watches = createWatches({
    ...{
      url: `http://127.0.0.1:${port}`,
      key: 'k',
      fetch,
      deadlineMs: 60_000,
      random: () => 0,
      silentMs: 200,
    },
  })
  for await (const event of watches.watch('a')) {
    assert.equal(event.seq, 8)
    break
  }
  // On a slow machine the second may have fallen silent, too, before it was read.
  assert.deepEqual(asked.slice(0, 2), [undefined, '7'])
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
})

describe('an account that is watched', { timeout: 180_000 }, () => {
  let scene: Scene
  let client: Client
  before(async () => {
    scene = await openScene()
    client = scene.client({ deadlineMs: 60_000, breaker: { failures: 1_000_000 } })
    await scene.account('a', '1000000')
  })
  after(() => scene.close())

  const use = (id: string) => client.record({ request_id: id, account: 'a', feature: 'write', cost: '1' })
  const first = async (events: AsyncIterable<AccountEvent>) => {
    for await (const event of events) return event
    return undefined
  }
  /** Numbers and ids of all entries after one. */
  async function entriesAfter(seq: number): Promise<string[]> {
    const ids: string[] = []
    for (let cursor: string | null = ''; cursor !== null; ) {
      const path = `/v1/accounts/a/entries?limit=500${cursor && `&cursor=${cursor}`}`
      const { body } = await scene.server.call('GET', path)
      const page = body as { items: { seq: number; hash: string }[]; next: string | null }
      for (const entry of page.items) if (entry.seq > seq) ids.push(`${entry.seq} ${entry.hash}`)
      cursor = page.next
    }
    return ids
  }
  /** Reads entries until the one of this request's last transfer. */
  function collect(events: AsyncIterable<AccountEvent>) {
    const told: string[] = []
    const requests = new Set<string | undefined>()
    let from: number | undefined
    const done = (async () => {
      for await (const event of events) {
        from ??= event.seq
        if (event.event !== 'entry') continue
        told.push(`${event.entry.seq} ${event.entry.hash}`)
        requests.add(event.entry.request)
        if (event.entry.request?.endsWith('last') && event.entry.kind === 'balance') return
      }
    })()
    return {
      told,
      requests,
      done,
      get from() {
        return from
      },
    }
  }

  test('is shown, and then told entry by entry', async () => {
    const seen: AccountEvent[] = []
    for await (const event of client.watch('a')) {
      seen.push(event)
      if (seen.length === 1) await use('r1')
      if (event.event === 'account' && seen.length > 1) break
    }
    const [begin, ...more] = seen
    assert.ok(begin?.event === 'account')
    const end = more.pop()
    assert.deepEqual(end, { event: 'account', seq: begin.seq + 3, account: await client.account('a') })
    assert.deepEqual(
      more.map((event) => event.event === 'entry' && [event.seq, event.entry.request]),
      [1, 2, 3].map((place) => [begin.seq + place, 'r1']),
    )
  })

  test('is told whole and once, over connections that are cut anywhere', async () => {
    let connections = 0
    let bytes = 0
    const cutting: typeof fetch = async (...given) => {
      const response = await fetch(...given)
      if (response.body === null) return response
      let left = 200 + ((connections++ * 7919) % 6000)
      const body = response.body.pipeThrough(
        new TransformStream<Uint8Array, Uint8Array>({
          transform(chunk, controller) {
            const part = chunk.subarray(0, left)
            left -= part.length
            bytes += part.length
            controller.enqueue(part)
            if (left === 0) controller.error(new Error('the connection is lost'))
          },
        }),
      )
      return new Response(body, response)
    }
    const watches = createWatches({
      ...{ url: scene.url, key: ADMIN_KEY, fetch: cutting, deadlineMs: 60_000, random: () => 0.001 },
    })
    const [begin] = [await first(client.watch('a'))]
    const from = begin?.seq ?? 0
    const seen = collect(watches.watch('a', { after: from }))
    for (let i = 0; i < 40; i++) await Promise.all([0, 1, 2, 3].map((one) => use(`cut-${i}-${one}`)))
    await use('cut-last')
    await seen.done
    assert.deepEqual(seen.told, await entriesAfter(from))
    assert.ok(connections > 20, `${connections} connections, ${bytes} bytes`)
    watches.close()
  })

  test('is told whole and once, while its server is killed and started again', async () => {
    const seen = collect(client.watch('a'))
    while (seen.from === undefined) await pause(5)
    let going = true
    let count = 0
    const loops = Array.from({ length: 4 }, async () => {
      while (going) await use(`kill-${count++}`)
    })
    for (let time = 0; time < 3; time++) {
      const before = count
      while (count < before + 20) await pause(5)
      await scene.kill()
      await scene.restart()
    }
    const before = count
    while (count < before + 20) await pause(5)
    going = false
    await Promise.all(loops)
    await use('kill-last')
    await seen.done
    assert.deepEqual(seen.told, await entriesAfter(seen.from))
    for (let i = 0; i < count; i++) assert.ok(seen.requests.has(`kill-${i}`), `kill-${i}`)
  })

  test('misses nothing that comes while it is away, also where it had been told nothing', async () => {
    let connections = 0
    const losing: typeof fetch = async (...given) => {
      connections++
      if (connections === 2) await use('between')
      const response = await fetch(...given)
      if (connections > 1 || response.body === null) return response
      const { value } = await response.body.getReader().read()
      return new Response(value, response)
    }
    const watches = createWatches({
      ...{ url: scene.url, key: ADMIN_KEY, fetch: losing, deadlineMs: 60_000, random: () => 0.001 },
    })
    const event = await first(watches.watch('a', { events: ['entry'] }))
    assert.ok(event?.event === 'entry')
    assert.deepEqual([event.entry.request, event.entry.kind], ['between', 'usage'])
  })

  test('is refused for good where the key or the account is wrong', async () => {
    const watch = (key: string, account: string, after?: number) =>
      assert.rejects(
        first(scene.client({ key, deadlineMs: 60_000 }).watch(account, { after })),
        (error: SluiceError) => {
          codes.push(`${error.status} ${error.code}`)
          return error.name === 'SluiceError' && error.remedy !== undefined
        },
      )
    const codes: string[] = []
    const { body } = await scene.server.call('POST', '/v1/keys', { id: 'meter', role: 'meter' })
    await watch('wrong', 'a')
    await watch((body as { secret: string }).secret, 'a')
    await watch(ADMIN_KEY, 'nobody')
    await watch(ADMIN_KEY, 'a', 1e9)
    assert.deepEqual(codes, ['401 unauthorized', '403 forbidden', '404 account_unknown', '400 invalid'])
  })

  test('ends when its signal is aborted, the loop is left, or the client is closed', async () => {
    const other = scene.client({ deadlineMs: 60_000 })
    const ending = new AbortController()
    const open = () => other.watch('a', { signal: ending.signal })[Symbol.asyncIterator]()
    const aborted = open()
    await aborted.next()
    const next = aborted.next()
    ending.abort()
    assert.equal((await next).done, true)
    assert.deepEqual(getEventListeners(ending.signal, 'abort'), [])
    assert.equal((await open().next()).done, true)

    const left = other.watch('a')[Symbol.asyncIterator]()
    await left.next()
    const never = left.next()
    await left.return?.()
    assert.equal((await never).done, true)

    const closed = other.watch('a')[Symbol.asyncIterator]()
    await closed.next()
    const last = closed.next()
    await other.close()
    assert.equal((await last).done, true)
    assert.equal((await other.watch('a')[Symbol.asyncIterator]().next()).done, true)
    const streams = async () => {
      const answer = await fetch(`${scene.url}/metrics`, {
        headers: { authorization: `Bearer ${ADMIN_KEY}` },
      })
      return /^sluice_event_streams (\d+)$/m.exec(await answer.text())?.[1]
    }
    while ((await streams()) !== '0') await pause(20)
  })

  test('that takes longer to reach than a decision may is watched all the same', async () => {
    const far = scene.client({
      deadlineMs: 50,
      async fetch(input, init) {
        await pause(200, undefined, { signal: init?.signal as AbortSignal })
        return fetch(input, init)
      },
    })
    assert.equal((await first(far.watch('a')))?.event, 'account')
    await assert.rejects(far.account('a'), { code: 'unavailable' })
  })

  test('that cannot be reached keeps no other call from being made', async () => {
    let tried = 0
    const other = scene.client({
      deadlineMs: 60_000,
      breaker: { failures: 1, restMs: 600_000 },
      fetch: async (...given) => {
        if (!String(given[0]).endsWith('/events')) return fetch(...given)
        tried++
        if (tried > 2) return fetch(...given)
        throw new TypeError('no way there')
      },
    })
    const event = await first(other.watch('a'))
    assert.deepEqual([event?.event, tried], ['account', 3])
    assert.equal((await other.account('a')).id, 'a')
  })
})
