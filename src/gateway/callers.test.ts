/** What callers may do wrong: none of it is served as somebody else, for nothing or for ever, and none is a fault of the gateway. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { after, before, describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { type GatewayScene, openGateway, say, until } from '../../test/gateway.ts'
import { chatAnswer, chatStream, speakOpenai, TOLD } from '../../test/openai-wire.ts'

const messages = [{ role: 'user', content: 'hello' }]
const BODY = JSON.stringify({ model: 'm', messages })
const PATH = '/v1/chat/completions'

describe('callers', () => {
  let scene: GatewayScene
  before(async () => {
    scene = await openGateway({
      usual: speakOpenai,
      upstream: ', idle_timeout: 1s',
      config: 'max_body_mb: 1\nplans: { slow: { wait: 1h }, debt: { when_spent: debt } }',
    })
  })
  after(() => scene.close())
  const port = () => Number(new URL(scene.url).port)
  let count = 0
  const caller = async (credits = '1000000', plan = 'plan') => {
    const account = `c${count++}`
    return { account, secret: await scene.account(account, credits, { plan }) }
  }
  const post = (
    secret: string,
    body: string | Buffer | ReadableStream = BODY,
    more: RequestInit = {},
    path = PATH,
  ) =>
    fetch(`${scene.url}${path}`, {
      ...{ method: 'POST', body: body as never, duplex: 'half' },
      ...more,
      headers: {
        authorization: `Bearer ${secret}`,
        'content-type': 'application/json',
        ...(more.headers as object),
      },
    })
  /** All that comes back for these bytes until the other side closes. */
  async function wire(...pieces: (string | Buffer)[]): Promise<string> {
    const socket = connect(port(), '127.0.0.1')
    await once(socket, 'connect')
    for (const piece of pieces) socket.write(piece)
    return heard(socket)
  }
  async function heard(socket: Socket): Promise<string> {
    let text = ''
    socket.setEncoding('latin1').on('data', (piece: string) => {
      text += piece
    })
    socket.on('error', () => {})
    if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve))
    return text
  }
  const head = (secret: string, more = '', first = `POST ${PATH} HTTP/1.1`) =>
    `${first}\r\nhost: x\r\nauthorization: Bearer ${secret}\r\ncontent-type: application/json\r\n${more}`
  const LENGTH = `content-length: ${BODY.length}\r\n`
  /** Nothing of them runs any more, here or upstream. */
  async function quiet(account: string): Promise<void> {
    await scene.settled(account)
    await until(
      () => scene.upstream.running,
      (running) => running === 0,
    )
  }

  describe('whose request is read in two ways', () => {
    const twice: readonly [what: string, bytes: (secret: string) => string][] = [
      ['a length and pieces', (s) => `${head(s, `${LENGTH}transfer-encoding: chunked\r\n`)}\r\n0\r\n\r\n`],
      ['two lengths', (s) => `${head(s, `${LENGTH}content-length: 3\r\n`)}\r\n${BODY}`],
      [
        'two lengths in one',
        (s) => `${head(s, `content-length: ${BODY.length}, ${BODY.length}\r\n`)}\r\n${BODY}`,
      ],
      ['a length below none', (s) => `${head(s, 'content-length: -1\r\n')}\r\n${BODY}`],
      ['a length with a sign', (s) => `${head(s, `content-length: +${BODY.length}\r\n`)}\r\n${BODY}`],
      ['a length of hexadecimal', (s) => `${head(s, 'content-length: 0x10\r\n')}\r\n${BODY}`],
      ['pieces and more', (s) => `${head(s, 'transfer-encoding: chunked, identity\r\n')}\r\n0\r\n\r\n`],
      [
        'pieces twice',
        (s) => `${head(s, 'transfer-encoding: chunked\r\ntransfer-encoding: x\r\n')}\r\n0\r\n\r\n`,
      ],
      ['pieces of an odd name', (s) => `${head(s, 'transfer-encoding: xchunked\r\n')}\r\n0\r\n\r\n`],
      ['pieces with a space', (s) => `${head(s, 'transfer-encoding : chunked\r\n')}\r\n0\r\n\r\n`],
      [
        'a piece of no size',
        (s) => `${head(s, 'transfer-encoding: chunked\r\n')}\r\nxyz\r\n${BODY}\r\n0\r\n\r\n`,
      ],
      [
        'a piece of too great a size',
        (s) => `${head(s, 'transfer-encoding: chunked\r\n')}\r\nffffffffffffffffff\r\n${BODY}`,
      ],
      [
        'a piece that is longer than it says',
        (s) => `${head(s, 'transfer-encoding: chunked\r\n')}\r\n2\r\n${BODY}\r\n0\r\n\r\n`,
      ],
      ['lines of a header that are folded', (s) => `${head(s, `${LENGTH}x-a: b\r\n c: d\r\n`)}\r\n${BODY}`],
      ['a line that ends in CR alone', (s) => `${head(s, `${LENGTH}x-a: b\rx-c: d\r\n`)}\r\n${BODY}`],
      ['a header with a NUL', (s) => `${head(s, `${LENGTH}x-a: \0\r\n`)}\r\n${BODY}`],
      ['no host', (s) => head(s, `${LENGTH}\r\n${BODY}`).replace('host: x\r\n', '')],
      ['an address of none', (s) => `${head(s, LENGTH, 'POST host:80 HTTP/1.1')}\r\n${BODY}`],
    ]
    for (const [what, bytes] of twice)
      test(what, async () => {
        const { account, secret } = await caller()
        const before = scene.upstream.got.length
        const text = await wire(
          `${bytes(secret)}`,
          `GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${secret}\r\nconnection: close\r\n\r\n`,
        )
        assert.match(text, /^HTTP\/1\.1 400 /)
        assert.equal(text.match(/HTTP\/1\.1 /g)?.length, 1, 'what follows is not a call')
        assert.equal(scene.upstream.got.length, before)
        assert.equal(await scene.used(account), undefined)
      })
  })

  describe('whose path is not what it seems', () => {
    const paths: readonly [path: string, status: number][] = [
      ['//', 404],
      ['///', 404],
      ['//host/v1/chat/completions', 404],
      ['//host:port/v1/chat/completions', 404],
      ['//[/v1/chat/completions', 404],
      ['/v1/models/a/../../chat/completions', 200],
      ['/v1/models/%2e%2e/chat/completions', 200],
      ['/v1%2fchat%2fcompletions', 404],
      ['/v1/chat%2fcompletions', 404],
      ['/v1/chat/completions/', 404],
      ['/v1/chat/completions;x', 404],
      ['/v1/chat/completions%00', 404],
      ['/V1/chat/completions', 404],
      ['/v1/models/../../../etc/passwd', 404],
      ['http://evil.example/v1/chat/completions', 200],
      ['http://a b/v1', 400],
      ['http://[/v1', 400],
      ['ftp://host/v1/chat/completions', 400],
      ['file:///v1/chat/completions', 400],
      ['*', 400],
    ]
    for (const [path, status] of paths)
      test(path, async () => {
        const { account, secret } = await caller()
        const before = scene.upstream.got.length
        const text = await wire(
          `${head(secret, `${LENGTH}connection: close\r\n`, `POST ${path} HTTP/1.1`)}\r\n${BODY}`,
        )
        assert.match(text, new RegExp(`^HTTP/1\\.1 ${status} `), text)
        const got = scene.upstream.got.slice(before)
        assert.deepEqual(
          got.map(({ path, headers }) => [path, `http://${headers.host}`]),
          status === 200 ? [[PATH, scene.upstream.url]] : [],
        )
        assert.equal((await scene.used(account))?.requests, status === 200 ? 1 : undefined)
      })

    test('a name of a model does not leave its place', async () => {
      const { secret } = await caller()
      for (const name of ['a%2fb', 'a%2e%2e%2fb', 'a?b=c', '%2e%2e']) {
        const before = scene.upstream.got.length
        await (
          await fetch(`${scene.url}/v1/models/${name}`, { headers: { authorization: `Bearer ${secret}` } })
        ).text()
        for (const { path } of scene.upstream.got.slice(before))
          assert.match(path, /^\/v1\/models(\/a\?b=c)?$/)
      }
    })
  })

  describe('who say that they are somebody else', () => {
    test('by header or body: the key alone tells', async () => {
      const [mine, theirs] = [await caller(), await caller()]
      const said = {
        account: theirs.account,
        subject: { user: 'x' },
        feature: 'free',
        request_id: 'r',
        attributes: { model: 'cheap' },
      }
      const response = await post(
        mine.secret,
        JSON.stringify({ model: 'm', messages, ...said, metadata: said, user: theirs.account }),
        {
          headers: {
            'x-sluice-account': theirs.account,
            'x-account': theirs.account,
            'x-sluice-subject': 'user=x',
            'openai-organization': 'o',
            'openai-project': 'p',
            'x-forwarded-for': '1.2.3.4',
            cookie: 'a=b',
            'idempotency-key': 'k',
            'proxy-authorization': 'Basic x',
            'x-api-key': theirs.secret,
            'api-key': 'k',
            connection: 'keep-alive',
          },
        },
      )
      assert.equal(response.status, 200)
      await response.text()
      assert.equal((await scene.used(mine.account))?.requests, 1)
      assert.equal(await scene.used(theirs.account), undefined)
      const { headers, bytes } = scene.upstream.got.at(-1) as { headers: object; bytes: Buffer }
      const names = Object.keys(headers)
      for (const name of [
        'x-sluice-account',
        'x-sluice-subject',
        'openai-organization',
        'openai-project',
        'x-forwarded-for',
        'cookie',
        'idempotency-key',
        'proxy-authorization',
        'x-api-key',
        'api-key',
      ])
        assert.ok(!names.includes(name), `${name} went upstream`)
      assert.ok(!(JSON.stringify(headers) + bytes).includes(mine.secret))
    })

    test('what Connection names goes no further, and what is needed is there all the same', async () => {
      const { secret, account } = await caller()
      const text = await wire(
        `${head(secret, `${LENGTH}connection: close, x-a, authorization, content-type, host\r\nx-a: 1\r\nte: trailers\r\nkeep-alive: 1\r\nupgrade: h2c\r\n`)}\r\n${BODY}`,
      )
      assert.match(text, /^HTTP\/1\.1 200 /)
      const { headers } = scene.upstream.got.at(-1) as { headers: Record<string, string> }
      for (const name of ['x-a', 'te', 'keep-alive', 'upgrade']) assert.ok(!(name in headers), name)
      assert.equal(headers['content-type'], 'application/json')
      assert.equal((await scene.used(account))?.requests, 1)
    })

    test('keys that are unknown, of another role, bound to nobody, or revoked', async () => {
      const { account, secret } = await caller()
      const make = async (id: string, more: object) =>
        (await scene.engine.createKey({ id, role: 'meter', ...more } as never)).secret
      const reads = await make('reads', { role: 'read', account })
      const unbound = await make('unbound', {})
      const admin = await make('admin-key', { role: 'admin' })
      const before = scene.upstream.got.length
      const refused: readonly [secret: string, status: number][] = [
        ['', 401],
        ['sk-nobody', 401],
        [`${secret}x`, 401],
        [`${secret} ${secret}`, 401],
        [reads, 403],
        [unbound, 403],
        [admin, 403],
      ]
      for (const [given, status] of refused) {
        const response = await post(given)
        assert.equal(response.status, status, given)
        assert.equal(
          typeof ((await response.json()) as { error: { message: string } }).error.message,
          'string',
        )
      }
      assert.equal((await fetch(`${scene.url}${PATH}`, { method: 'POST', body: BODY })).status, 401)
      await scene.engine.revokeKey(`key-${account}`)
      await until(
        async () => {
          const response = await post(secret)
          await response.text()
          return response.status
        },
        (status) => status === 401,
      )
      assert.ok(scene.upstream.got.length - before < 1_000)
    })

    test('a key without an account sees no models either', async () => {
      const unbound = (await scene.engine.createKey({ id: 'unbound-2', role: 'meter' })).secret
      const response = await fetch(`${scene.url}/v1/models`, {
        headers: { authorization: `Bearer ${unbound}` },
      })
      assert.equal(response.status, 403)
    })
  })

  describe('whose body is no body', () => {
    const deep = (n: number) => `${'['.repeat(n)}${']'.repeat(n)}`
    const bad: readonly [what: string, body: string][] = [
      ['nothing', ''],
      ['no JSON', '{'],
      ['a list', '[]'],
      ['null', 'null'],
      ['text', '"a"'],
      ['no messages', '{"model":"m"}'],
      ['messages that are none', '{"model":"m","messages":{}}'],
      ['no model', '{"messages":[]}'],
      ['a model that is none', '{"model":{"a":1},"messages":[]}'],
      ['a model of controls', '{"model":"a\\u0000\\r\\nb","messages":[]}'],
      ['a model that is too long', `{"model":"${'m'.repeat(257)}","messages":[]}`],
      ['messages that are too deep', `{"model":"m","messages":${deep(100_000)}}`],
      ['a bound of none', '{"model":"m","messages":[],"max_tokens":0}'],
      ['a bound that is text', '{"model":"m","messages":[],"max_tokens":"10"}'],
      ['a bound beyond all', '{"model":"m","messages":[],"max_tokens":9007199254740991}'],
      ['a bound of infinity', '{"model":"m","messages":[],"max_tokens":1e400}'],
      ['choices beyond all', '{"model":"m","messages":[],"n":1000000}'],
      ['choices below none', '{"model":"m","messages":[],"n":-1}'],
    ]
    for (const [what, body] of bad)
      test(what, async () => {
        const { account, secret } = await caller()
        const response = await post(secret, body)
        const told = (await response.json()) as { error: { type: string } }
        assert.equal(response.status, 400, JSON.stringify(told))
        assert.equal(told.error.type, 'invalid_request_error')
        assert.equal(await scene.used(account), undefined)
        assert.equal((await scene.settled(account)).open_holds, 0)
      })

    test('the largest that is asked for is decided, not an error', async () => {
      const { secret } = await caller('1')
      const most = { model: 'm', messages, max_tokens: 1e9, n: 128 }
      assert.equal((await post(secret, JSON.stringify(most))).status, 429)
      const many = {
        model: 'm',
        prompt: Array.from({ length: 100_000 }, () => 'a'),
        max_tokens: 1e9,
        best_of: 128,
      }
      assert.equal((await post(secret, JSON.stringify(many), {}, '/v1/completions')).status, 429)
    })

    test('names of objects in a body are names', async () => {
      const { secret, account } = await caller()
      const response = await post(
        secret,
        '{"model":"m","__proto__":{"stream":true,"n":100},"constructor":1,"messages":[]}',
      )
      assert.equal(response.status, 200)
      assert.match(await response.text(), /one two three/)
      assert.equal((await scene.used(account))?.charged, '34.2')
    })

    test('what is packed is not read as something else', async () => {
      const { secret } = await caller()
      const response = await post(secret, BODY, { headers: { 'content-encoding': 'gzip' } })
      assert.equal(response.status, 400)
    })

    test('too large, as it says: refused before it is read', async () => {
      const { secret } = await caller()
      const text = await wire(`${head(secret, 'content-length: 4000000000\r\n')}\r\n`)
      assert.match(text, /^HTTP\/1\.1 413 /)
    })

    test('too large, in pieces that do not say how many', async () => {
      const { account, secret } = await caller()
      const socket = connect(port(), '127.0.0.1')
      const answer = heard(socket)
      socket.write(`${head(secret, 'transfer-encoding: chunked\r\n')}\r\n`)
      const piece = Buffer.alloc(64 * 1024, ' ')
      let sent = 0
      while (!socket.destroyed && sent < 256 * 1024 * 1024) {
        socket.write(
          Buffer.concat([Buffer.from(`${piece.length.toString(16)}\r\n`), piece, Buffer.from('\r\n')]),
        )
        sent += piece.length
        await new Promise(setImmediate)
      }
      await answer
      assert.ok(sent < 256 * 1024 * 1024, 'it was taken for ever')
      assert.equal(await scene.used(account), undefined)
    })

    test('an ordinary client is told that a body is too large', async () => {
      const { secret } = await caller()
      const response = await post(secret, Buffer.alloc(5 * 1024 * 1024, ' '))
      assert.equal(response.status, 413)
      assert.match(await response.text(), /at most/)
    })
  })

  describe('who are slow', () => {
    test('with their head or their body: their connection is closed', async () => {
      const { account, secret } = await caller()
      const { server } = scene.gateway
      const [headers, request] = [server.headersTimeout, server.requestTimeout]
      server.headersTimeout = 100
      server.requestTimeout = 100
      try {
        const [slowHead, slowBody] = await Promise.all([
          wire(`POST ${PATH} HTTP/1.1\r\nhost: x\r\nx-a`),
          wire(`${head(secret, LENGTH)}\r\n{`),
        ])
        for (const text of [slowHead, slowBody]) assert.match(text, /^(HTTP\/1\.1 408 |$)/)
      } finally {
        server.headersTimeout = headers
        server.requestTimeout = request
      }
      assert.equal(await scene.used(account), undefined)
    })

    test('at reading a stream: upstream is held back, and who reads nothing is cut off and charged', async () => {
      const { account, secret } = await caller()
      let sent = 0
      scene.upstream.next(async (got, response) => {
        const stream = chatStream(got, response)
        const content = 'word '.repeat(2_000)
        while (!response.closed) {
          stream.piece({ content })
          sent += content.length
          if (response.writableNeedDrain)
            await Promise.race([once(response, 'drain'), once(response, 'close')])
        }
      })
      const socket = connect(port(), '127.0.0.1')
      const body = JSON.stringify({ model: 'm', messages, stream: true })
      socket.write(`${head(secret, `content-length: ${body.length}\r\n`)}\r\n${body}`)
      socket.on('error', () => {})
      await until(
        () => sent,
        (now) => now > 0,
      )
      await quiet(account)
      assert.ok(sent < 32 * 1024 * 1024, `${sent} bytes were taken`)
      assert.ok(Number((await scene.used(account))?.charged) > 1_000)
      socket.destroy()
    })

    test('at reading a whole answer: it is charged', async () => {
      const { account, secret } = await caller()
      const before = scene.upstream.got.length
      scene.upstream.next((got, response) =>
        say(response, { ...chatAnswer(got), padding: 'x'.repeat(12_000_000) }),
      )
      const socket = connect(port(), '127.0.0.1')
      socket.write(`${head(secret, LENGTH)}\r\n${BODY}`)
      socket.on('error', () => {})
      await until(
        () => scene.upstream.got.length,
        (now) => now > before,
      )
      await quiet(account)
      assert.equal((await scene.used(account))?.charged, '34.2')
      socket.destroy()
    })
  })

  describe('who ask in ways that are seldom seen', () => {
    test('after 100 Continue', async () => {
      const { account, secret } = await caller()
      const socket = connect(port(), '127.0.0.1')
      const answer = heard(socket)
      socket.write(`${head(secret, `${LENGTH}expect: 100-continue\r\nconnection: close\r\n`)}\r\n`)
      await once(socket, 'data')
      socket.write(BODY)
      assert.match(await answer, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 /)
      assert.ok(!('expect' in (scene.upstream.got.at(-1)?.headers ?? {})))
      assert.equal((await scene.used(account))?.requests, 1)
    })

    test('many at once on one connection: each is answered in its turn, and charged', async () => {
      const { account, secret } = await caller()
      const one = (more = '') => `${head(secret, LENGTH + more)}\r\n${BODY}`
      const text = await wire(one(), one(), one(), one('connection: close\r\n'))
      assert.equal(text.match(/HTTP\/1\.1 200 /g)?.length, 4)
      assert.equal((await scene.used(account))?.requests, 4)
    })

    test('many at once, and gone: what waits behind another ends as well', async () => {
      const { account, secret } = await caller()
      const body = JSON.stringify({ model: 'm', messages, stream: true })
      const forEver = async (got: never, response: never) => {
        const stream = chatStream(got, response)
        while (!(response as { closed: boolean }).closed) {
          stream.piece({ content: 'word '.repeat(100) })
          await pause(2)
        }
      }
      for (let n = 0; n < 3; n++) scene.upstream.next(forEver as never)
      const socket = connect(port(), '127.0.0.1')
      socket.on('error', () => {})
      socket.write(`${head(secret, `content-length: ${body.length}\r\n`)}\r\n${body}`.repeat(3))
      await until(
        () => scene.upstream.running,
        (running) => running === 3,
      )
      await once(socket, 'data')
      socket.destroy()
      await quiet(account)
    })
  })

  describe('who leave', () => {
    const stream = JSON.stringify({ model: 'm', messages, stream: true })
    /** Sends a call, waits for what `when` says, and goes. */
    async function leaves(
      secret: string,
      body: string,
      when: (socket: Socket, seen: () => string) => Promise<unknown>,
    ) {
      const socket = connect(port(), '127.0.0.1')
      let text = ''
      socket.on('error', () => {})
      socket.setEncoding('utf8').on('data', (piece: string) => {
        text += piece
      })
      socket.write(`${head(secret, `content-length: ${Buffer.byteLength(body)}\r\n`)}\r\n${body}`)
      await when(socket, () => text)
      socket.destroy()
    }
    const sees = (what: string) => (_: Socket, seen: () => string) =>
      until(seen, (text) => text.includes(what))

    test('at once, or in the middle of their body', async () => {
      const { account, secret } = await caller()
      for (let n = 0; n < 20; n++) {
        await leaves(secret, stream, () => pause(n % 5))
        const socket = connect(port(), '127.0.0.1')
        socket.write(`${head(secret, 'content-length: 1000\r\n')}\r\n{`, () => socket.destroy())
      }
      await quiet(account)
    })

    test('while they wait in the row', async () => {
      const { account, secret } = await caller('1000000', 'slow')
      await (await post(secret)).text()
      await leaves(secret, stream, () => pause(50))
      await quiet(account)
      assert.equal((await scene.used(account))?.requests, 1)
    })

    test('before the first byte: upstream is stopped, and nothing is held', async () => {
      const { account, secret } = await caller()
      const asked = Promise.withResolvers<void>()
      scene.upstream.next(() => asked.resolve())
      await leaves(secret, stream, () => asked.promise)
      await quiet(account)
      assert.equal(await scene.used(account), undefined)
    })

    test('in the middle of a stream: what it brought is charged', async () => {
      const { account, secret } = await caller()
      scene.upstream.next((got, response) => chatStream(got, response).piece({ content: 'one two three' }))
      await leaves(secret, stream, sees('three'))
      await quiet(account)
      assert.equal((await scene.used(account))?.quantities.output_tokens, '3')
    })

    test('when all text has come, before it is told what was used: that is charged', async () => {
      const { account, secret } = await caller()
      const gone = Promise.withResolvers<void>()
      scene.upstream.next(async (got, response) => {
        const chunks = chatStream(got, response)
        chunks.piece({ content: 'one two three' })
        chunks.tell({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] })
        await gone.promise
        // It thought for long before it spoke.
        chunks.tell({ choices: [], usage: { ...TOLD, completion_tokens: 5_000 } })
        chunks.tell('[DONE]' as never)
        chunks.end()
      })
      await leaves(secret, stream, sees('stop'))
      await pause(50)
      gone.resolve()
      await quiet(account)
      assert.equal((await scene.used(account))?.quantities.output_tokens, '5000')
    })

    test('in a whole answer that is all but complete: it is charged', async () => {
      const { account, secret } = await caller()
      const gone = Promise.withResolvers<void>()
      scene.upstream.next(async (got, response) => {
        const body = JSON.stringify(chatAnswer(got))
        response.writeHead(200, { 'content-type': 'application/json' }).write(body.slice(0, -1))
        await gone.promise
        response.end(body.slice(-1))
      })
      await leaves(secret, BODY, sees('one two three'))
      await pause(50)
      gone.resolve()
      await quiet(account)
      assert.equal((await scene.used(account))?.charged, '34.2')
    })

    test('in a whole answer that never ends: it is not read for ever', async () => {
      for (const isQuick of [true, false]) {
        const { account, secret } = await caller()
        scene.upstream.next(async (_, response) => {
          response.writeHead(200, { 'content-type': 'application/json' }).write('{"one":')
          while (!response.closed) {
            if (!response.write(Buffer.alloc(isQuick ? 256 * 1024 : 1, ' ')))
              await Promise.race([once(response, 'drain'), once(response, 'close')])
            await pause(isQuick ? 1 : 100)
          }
        })
        await leaves(secret, BODY, sees('one'))
        await quiet(account)
        assert.ok(Number((await scene.used(account))?.quantities.output_tokens) > 0)
      }
    })

    test('anywhere in an answer: no hold stays, and nothing that was heard is free', async () => {
      const { account, secret } = await caller()
      for (let n = 0; n < 30; n++)
        await leaves(secret, n % 2 === 0 ? stream : BODY, (_, seen) =>
          until(
            seen,
            (text) => text.length > n * 40 || text.includes('[DONE]') || text.endsWith('}\r\n0\r\n\r\n'),
          ),
        )
      await quiet(account)
      assert.equal((await scene.used(account))?.requests, 30)
    })
  })
})
