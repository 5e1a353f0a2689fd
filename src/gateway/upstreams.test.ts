/** What upstreams may do wrong, and what becomes of it: every call ends, its hold is closed, and nothing of the upstream's shows. */
import assert from 'node:assert/strict'
import type { ServerResponse } from 'node:http'
import { createServer } from 'node:net'
import { after, before, describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { brotliCompressSync, createGzip, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { type GatewayScene, openGateway, type Script, say, UPSTREAM_KEY, until } from '../../test/gateway.ts'
import { chatAnswer, chatStream, speakOpenai, TOLD } from '../../test/openai-wire.ts'

const messages = [{ role: 'user', content: 'hello' }]
/** Bytes as they are, past what a server would let one write. */
function raw(response: ServerResponse, ...pieces: (string | Buffer)[]): void {
  for (const piece of pieces) response.socket?.write(piece)
}
const STREAM_HEAD = 'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n'
const chunk = (content: string, more: object = {}) =>
  `data: ${JSON.stringify({ id: 'c', object: 'chat.completion.chunk', choices: [{ index: 0, delta: { content }, finish_reason: null }], ...more })}\n\n`

describe('upstreams', () => {
  let scene: GatewayScene
  before(async () => {
    scene = await openGateway({
      usual: speakOpenai,
      upstream: ', idle_timeout: 1s, first_byte_timeout: 1500ms, total_timeout: 4s',
    })
  })
  after(() => scene.close())

  let count = 0
  /** One call of an account of its own; what the upstream does is said by `script`. */
  async function call(
    script: Script | undefined,
    body: object = {},
    more: { credits?: string; signal?: AbortSignal; plan?: string } = {},
  ) {
    const account = `u${count++}`
    const secret = await scene.account(account, more.credits ?? '1000000', { plan: more.plan ?? 'plan' })
    if (script !== undefined) scene.upstream.next(script)
    const response = await fetch(`${scene.url}/v1/chat/completions`, {
      method: 'POST',
      redirect: 'manual',
      headers: { authorization: `Bearer ${secret}`, 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'm', messages, ...body }),
      ...(more.signal !== undefined && { signal: more.signal }),
    })
    const text = await response.text().catch((error: Error) => `broken off: ${error.message}`)
    const used = await scene.used(account)
    await until(
      () => scene.upstream.running,
      (running) => running === 0,
    )
    assert.ok(!(text + JSON.stringify([...response.headers])).includes(UPSTREAM_KEY), 'the key shows')
    return { status: response.status, headers: response.headers, text, used, account }
  }
  const code = ({ text }: { text: string }) => JSON.parse(text).error.code

  describe('that refuse or cannot be understood', () => {
    const page = '<html>welcome</html>'
    const wrong: readonly [what: string, script: Script][] = [
      [
        'a page in the place of an answer',
        (_, response) => void response.writeHead(200, { 'content-type': 'text/html' }).end(page),
      ],
      ['an answer without a type', (_, response) => void response.writeHead(200).end('{}')],
      ['nothing at all', (_, response) => void response.writeHead(204).end()],
      [
        'that it is elsewhere',
        (_, response) => void response.writeHead(307, { location: 'http://127.0.0.1:9/' }).end(),
      ],
      [
        'that it was moved',
        (_, response) => void response.writeHead(301, { location: '/v1/elsewhere' }).end(),
      ],
      ['that the key is wrong', (_, response) => say(response, { error: { message: UPSTREAM_KEY } }, 401)],
      ['that the key may not', (_, response) => say(response, { error: { message: UPSTREAM_KEY } }, 403)],
      ['an error that shows the key', ({ headers }, response) => say(response, headers, 500)],
      [
        'a packing that nobody knows',
        (_, response) => say(response, chatAnswer, 200, { 'content-encoding': 'snappy' }),
      ],
      [
        'an error that never ends',
        async (_, response) => {
          response.writeHead(500)
          while (!response.closed) {
            response.write(Buffer.alloc(64 * 1024, 'x'))
            await pause(1)
          }
        },
      ],
      [
        'an error that breaks off',
        (_, response) => {
          response.writeHead(500, { 'content-length': 100 }).write('a')
          setImmediate(() => response.destroy())
        },
      ],
    ]
    for (const [what, script] of wrong)
      test(what, async () => {
        const answer = await call(script)
        assert.equal(answer.status, 502)
        assert.equal(code(answer), 'upstream_wrong')
        assert.equal(answer.used, undefined)
        assert.ok(!answer.headers.has('location'))
      })

    test('an error is shown as it is, whatever its status', async () => {
      for (const status of [400, 404, 409, 422, 429, 500, 503]) {
        const answer = await call((_, response) =>
          say(response, { error: { message: 'so', n: status } }, status, { 'retry-after': '7' }),
        )
        assert.equal(answer.status, status)
        assert.deepEqual(JSON.parse(answer.text), { error: { message: 'so', n: status } })
        assert.equal(answer.headers.get('retry-after'), '7')
        assert.equal(answer.used, undefined)
      }
    })

    test('1xx answers before the true one are passed over', async () => {
      const answer = await call((got, response) => {
        response.writeContinue()
        response.writeEarlyHints({ link: '</a>; rel=preload' })
        speakOpenai(got, response)
      })
      assert.equal(answer.status, 200)
      assert.equal(answer.used?.charged, '34.2')
    })
  })

  describe('that are not there', () => {
    const gone: readonly [what: string, script: Script][] = [
      ['reset before they answer', (_, response) => void response.socket?.resetAndDestroy()],
      ['close before they answer', (_, response) => void response.destroy()],
      [
        'speak no HTTP',
        (_, response) => {
          raw(response, 'hello\r\n\r\n')
          response.socket?.end()
        },
      ],
      [
        'have a header that is too large',
        (_, response) => {
          raw(response, `HTTP/1.1 200 OK\r\nx: ${'y'.repeat(40_000)}\r\n\r\n`)
        },
      ],
      [
        'change their protocol',
        (_, response) => {
          raw(response, 'HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n')
          response.socket?.end()
        },
      ],
      [
        'lay a bare CR into a header',
        (_, response) => {
          raw(response, 'HTTP/1.1 200 OK\r\nx: a\rset-cookie: b\r\ncontent-length: 0\r\n\r\n')
          response.socket?.end()
        },
      ],
    ]
    for (const [what, script] of gone)
      test(what, async () => {
        // Once more is tried where nothing of an answer has come.
        scene.upstream.next(script)
        const answer = await call(script)
        assert.equal(answer.status, 502, answer.text)
        assert.equal(code(answer), 'upstream_unreachable')
        assert.equal(answer.used, undefined)
        // Another call is well again, and takes the second script where there was no second try.
        await call(undefined)
        assert.equal((await call(undefined)).status, 200)
      })

    test('never answer', async () => {
      const answer = await call(() => {})
      assert.equal(answer.status, 504)
      assert.equal(code(answer), 'upstream_slow')
      assert.equal(answer.used, undefined)
    })

    test('never accept', async () => {
      const nobody = createServer().listen(0, '127.0.0.1')
      await until(
        () => nobody.listening,
        (is) => is,
      )
      const { port } = nobody.address() as { port: number }
      await new Promise((resolve) => nobody.close(resolve))
      const other = await openGateway({
        usual: speakOpenai,
        config: `routes: [{ upstream: away, feature: chat }]`,
        upstream: ` }\n  away: { provider: openai, url: 'http://127.0.0.1:${port}'`,
      })
      const secret = await other.account('a', '1000')
      const response = await fetch(`${other.url}/v1/chat/completions`, {
        method: 'POST',
        headers: { authorization: `Bearer ${secret}`, 'content-type': 'application/json' },
        body: JSON.stringify({ model: 'm', messages }),
      })
      assert.equal(response.status, 502)
      assert.equal((await other.settled('a')).open_holds, 0)
      assert.equal(await other.used('a'), undefined)
      await other.close()
    })
  })

  describe('whose header is not theirs to set', () => {
    test('fields of the connection, cookies and what is about the account stay here', async () => {
      const answer = await call((got, response) => {
        const body = JSON.stringify(chatAnswer(got))
        raw(
          response,
          'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: x-hop, keep-alive\r\nx-hop: 1\r\nkeep-alive: timeout=1\r\n',
          'set-cookie: a=b\r\nset-cookie: c=d\r\nx-ratelimit-remaining-requests: 9\r\nopenai-organization: org\r\nopenai-project: p\r\n',
          'x-sluice-granted: output_tokens=9999999\r\nratelimit: "theirs";r=1\r\nproxy-authenticate: Basic\r\nupgrade: h2c\r\ntrailer: x\r\n',
          `x-mine: 1\r\nx-mine: 2\r\nserver: nginx\r\nalt-svc: h3=":443"\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
        )
        response.socket?.end()
      })
      assert.equal(answer.status, 200)
      for (const name of 'x-hop set-cookie x-ratelimit-remaining-requests openai-organization openai-project x-sluice-granted proxy-authenticate upgrade trailer server alt-svc'.split(
        ' ',
      ))
        assert.ok(!answer.headers.has(name), `${name} is there`)
      assert.equal(answer.headers.get('x-mine'), '1, 2')
      assert.ok(!answer.headers.get('ratelimit')?.includes('theirs'))
    })

    test('signs that no header may have are no mistake of the gateway', async () => {
      const answer = await call((got, response) => {
        const body = JSON.stringify(chatAnswer(got))
        raw(
          response,
          'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n',
          Buffer.from('x-odd: \u{1f600} \u00e9\u0100\r\n', 'utf8'),
          `content-length: ${body.length}\r\n\r\n${body}`,
        )
        response.socket?.end()
      })
      assert.equal(answer.status, 200)
      assert.equal(answer.used?.charged, '34.2')
    })

    test('a name of an object is a header like others', async () => {
      const answer = await call((got, response) => {
        response.setHeader('constructor', 'a')
        response.setHeader('__proto__', 'b')
        speakOpenai(got, response)
      })
      assert.equal(answer.status, 200)
    })
  })

  describe('whose answers are packed though nobody asked for it', () => {
    const PACKERS = { gzip: gzipSync, deflate: deflateSync, br: brotliCompressSync, zstd: zstdCompressSync }
    for (const [name, pack] of Object.entries(PACKERS))
      test(`by ${name}`, async () => {
        const answer = await call((got, response) => {
          assert.equal(got.headers['accept-encoding'], 'identity')
          response.writeHead(200, { 'content-type': 'application/json', 'content-encoding': name })
          response.end(pack(Buffer.from(JSON.stringify(chatAnswer(got)))))
        })
        assert.equal(JSON.parse(answer.text).choices[0].message.content, 'one two three')
        assert.ok(!answer.headers.has('content-encoding'))
        assert.equal(answer.used?.charged, '34.2')
      })

    test('a stream comes as it is told', async () => {
      let seen = ''
      const account = 'packed-stream'
      const secret = await scene.account(account, '10000')
      const go = Promise.withResolvers<void>()
      scene.upstream.next(async (_, response) => {
        response.writeHead(200, { 'content-type': 'text/event-stream', 'content-encoding': 'gzip' })
        const gzip = createGzip()
        gzip.pipe(response)
        gzip.write(chunk('one '))
        gzip.flush()
        await go.promise
        gzip.end(`${chunk('two')}data: ${JSON.stringify({ choices: [], usage: TOLD })}\n\ndata: [DONE]\n\n`)
      })
      const response = await fetch(`${scene.url}/v1/chat/completions`, {
        method: 'POST',
        headers: { authorization: `Bearer ${secret}`, 'content-type': 'application/json' },
        body: JSON.stringify({ model: 'm', messages, stream: true }),
      })
      for await (const piece of response.body as ReadableStream<Uint8Array>) {
        seen += Buffer.from(piece).toString()
        if (seen.includes('one ')) go.resolve()
      }
      assert.match(seen, /two[\s\S]*\[DONE\]\n\n$/)
      assert.equal((await scene.used(account))?.charged, '34.2')
    })

    test('what is no such packing ends as an answer that breaks off', async () => {
      const wrong: Script = (_, response) =>
        void response
          .writeHead(200, { 'content-type': 'application/json', 'content-encoding': 'gzip' })
          .end('{"a":1}')
      await assert.rejects(call(wrong), /fetch failed/)
      assert.equal(await scene.used(`u${count - 1}`), undefined)
    })
  })

  describe('that tell nonsense of what was used', () => {
    /** Input 4 + 2 cached + 3 output are told; counted are 8 of input and 3 of output. */
    const absurd: readonly [what: string, usage: unknown][] = [
      ['nothing', undefined],
      ['null', null],
      ['a list', [1, 2]],
      ['text', 'many'],
      ['a million millions', { ...TOLD, completion_tokens: 1e12 }],
      ['less than none', { ...TOLD, completion_tokens: -3 }],
      ['parts', { ...TOLD, completion_tokens: 1.5 }],
      ['text for numbers', { ...TOLD, prompt_tokens: '6' }],
      ['no number', { ...TOLD, prompt_tokens: null }],
      ['objects for numbers', { prompt_tokens: {}, completion_tokens: [] }],
      ['no output, though there was some', { ...TOLD, completion_tokens: 0 }],
    ]
    for (const [what, usage] of absurd) {
      test(`${what}, in a whole answer`, async () => {
        const { used, status } = await call((got, response) => say(response, { ...chatAnswer(got), usage }))
        assert.equal(status, 200)
        assert.equal(used?.quantities.output_tokens, '3')
        assert.ok(Number(used?.quantities.input_tokens) < 100)
      })
      test(`${what}, in a stream`, async () => {
        const { used, text } = await call(
          (got, response) => {
            const stream = chatStream(got, response)
            stream.piece({ content: 'one two three' })
            stream.finish('stop', usage as typeof TOLD)
          },
          { stream: true },
        )
        assert.equal(used?.quantities.output_tokens, '3')
        assert.ok(Number(used?.quantities.input_tokens) < 100)
        assert.match(text, /\[DONE\]\n\n$/)
        if (usage !== null && typeof usage === 'object' && !Array.isArray(usage))
          assert.ok(!text.includes('"usage"'), 'nobody asked for it')
      })
    }

    const usage = (more: object = {}) => ({ choices: [], usage: { ...TOLD, ...more } })
    const script =
      (...all: (string | object)[]): Script =>
      (got, response) => {
        const stream = chatStream(got, response)
        for (const one of all)
          typeof one === 'string' ? stream.piece({ content: one }) : stream.tell(one as never)
        stream.end()
      }
    const streams: readonly [what: string, script: Script, output: string][] = [
      ['twice', script('one two three', usage(), usage()), '3'],
      [
        'each time less',
        script('one two three', usage({ completion_tokens: 9 }), usage({ completion_tokens: 5 })),
        '5',
      ],
      ['nonsense after sense', script('one two three', usage(), usage({ completion_tokens: -1 })), '3'],
      ['before the text, and never again', script(usage({ completion_tokens: 0 }), 'one two three'), '3'],
      [
        'before the text, and after it',
        script(usage({ completion_tokens: 0 }), 'one two three', usage()),
        '3',
      ],
      ['before the text, and all of it', script(usage(), 'one two'), '3'],
      [
        'with each piece',
        script('one ', usage({ completion_tokens: 1 }), 'two three', usage({ completion_tokens: 3 })),
        '3',
      ],
    ]
    for (const [what, tell, output] of streams)
      test(`${what}, in a stream`, async () => {
        const { used } = await call(tell, { stream: true })
        assert.equal(used?.quantities.output_tokens, output)
      })

    test('what it used before the text, and text without end: money ends it', async () => {
      const { used, text } = await call(
        async (got, response) => {
          const stream = chatStream(got, response)
          stream.tell(usage({ completion_tokens: 0 }) as never)
          while (!response.closed) {
            stream.piece({ content: 'word '.repeat(10) })
            await new Promise(setImmediate)
          }
        },
        { stream: true },
        { credits: '2000' },
      )
      assert.match(text, /"finish_reason":"length"[\s\S]*\[DONE\]\n\n$/)
      assert.ok(Number(used?.charged) <= 2_000 && Number(used?.charged) > 500, JSON.stringify(used))
    })

    test('text that is no JSON though it says so is charged by its length', async () => {
      const { used, text } = await call((_, response) => {
        response
          .writeHead(200, { 'content-type': 'application/json' })
          .end('{"choices": [ tell me more'.padEnd(400, ' more'))
      })
      assert.equal(text.length, 400)
      assert.equal(used?.quantities.output_tokens, '100')
    })
  })

  describe('whose streams are torn', () => {
    const cut: readonly [what: string, pieces: (string | Buffer)[]][] = [
      ['in the middle of a frame', [chunk('one two three'), 'data: {"id":"c","choi']],
      [
        'in the middle of a sign',
        [chunk('one two three'), Buffer.from('data: {"x":"\u{1f600}').subarray(0, -2)],
      ],
      ['after a CR', [chunk('one two three'), 'data: x\r']],
      ['before anything', [chunk('one two three').slice(0, 0)]],
    ]
    for (const [what, pieces] of cut) {
      test(`${what}, by a reset: it ends with an error, and what it brought is charged`, async () => {
        const { used, text } = await call(
          async (_, response) => {
            raw(response, `${STREAM_HEAD}transfer-encoding: chunked\r\n\r\n`)
            for (const piece of pieces)
              if (piece.length > 0)
                raw(response, `${Buffer.byteLength(piece).toString(16)}\r\n`, piece, '\r\n')
            await pause(50)
            response.socket?.resetAndDestroy()
          },
          { stream: true },
        )
        // Half a frame is not shown: the error is a frame of its own.
        assert.match(
          text,
          /(?:^|\n\n)data: \{"error":\{"message":"the upstream broke off its answer"[^\n]*\n\n$/,
        )
        for (const frame of text.split('\n\n').slice(0, -1)) JSON.parse(frame.slice(6))
        assert.equal(used?.quantities.output_tokens, pieces[0] === '' ? undefined : '3')
      })
      test(`${what}, with a proper end: what it brought is charged`, async () => {
        const { used, text } = await call(
          async (_, response) => {
            raw(response, `${STREAM_HEAD}connection: close\r\n\r\n`, ...pieces)
            response.socket?.end()
          },
          { stream: true },
        )
        assert.equal(used?.quantities.output_tokens, pieces[0] === '' ? undefined : '3')
        assert.ok(!text.includes('"error"'))
      })
    }

    test('lines that end in CR, LF and both, comments, and no last word', async () => {
      const data = chunk('one two three').trimEnd()
      for (const [end, done] of [
        ['\r', ''],
        ['\r\n', 'data: [DONE]'],
        ['\n', 'data: [DONE]\n\ndata: [DONE]\n\n'],
      ] as const) {
        const sent = `: hello${end}${end}event: x${end}${data}${end}${end}:${end}${end}${done}`
        const { used, text } = await call(
          (_, response) => {
            raw(response, `${STREAM_HEAD}connection: close\r\n\r\n`, ...[...sent].map((sign) => sign))
            response.socket?.end()
          },
          { stream: true },
        )
        assert.equal(text, sent)
        assert.equal(used?.quantities.output_tokens, '3')
      }
    })

    test('a frame without end is cut off', async () => {
      const { used, text } = await call(
        async (_, response) => {
          raw(response, `${STREAM_HEAD}connection: close\r\n\r\n${chunk('one two three')}data: "`)
          const piece = Buffer.alloc(256 * 1024, 'x')
          while (response.socket?.destroyed === false) {
            if (!response.socket.write(piece))
              await Promise.race([
                new Promise((resolve) => response.socket?.once('drain', resolve)),
                pause(20),
              ])
          }
        },
        { stream: true },
      )
      assert.match(text, /broke off[^\n]*\n\n$/)
      assert.ok(text.length < 2_000)
      assert.equal(used?.quantities.output_tokens, '3')
    })

    test('a frame of megabytes comes whole', async () => {
      const { text } = await call(
        (got, response) => {
          const stream = chatStream(got, response)
          stream.piece({ content: 'y'.repeat(3_000_000) })
          stream.finish('stop')
        },
        { stream: true },
      )
      assert.ok(text.includes('y'.repeat(3_000_000)))
    })

    test('silence ends it', async () => {
      const { text, used } = await call(
        (got, response) => {
          chatStream(got, response).piece({ content: 'one two three' })
        },
        { stream: true },
      )
      assert.match(text, /broke off/)
      assert.equal(used?.quantities.output_tokens, '3')
    })

    test('a whole answer that falls silent ends as broken off, and costs nothing', async () => {
      const { text, used } = await call((_, response) => {
        response.writeHead(200, { 'content-type': 'application/json' }).write('{"id": ')
      })
      assert.match(text, /^broken off/)
      assert.equal(used, undefined)
    })

    test('comments for ever end', async () => {
      const { text } = await call(
        async (_, response) => {
          response.writeHead(200, { 'content-type': 'text/event-stream' })
          while (!response.closed) {
            response.write(': still here\n\n')
            await pause(100)
          }
        },
        { stream: true },
      )
      assert.match(text, /broke off/)
    })

    test('a whole answer that drips for ever ends', async () => {
      const { text } = await call(async (_, response) => {
        response.writeHead(200, { 'content-type': 'application/json' })
        while (!response.closed) {
          response.write(' ')
          await pause(100)
        }
      })
      assert.match(text, /^broken off/)
    })
  })

  describe('whose answers are deep or strange', () => {
    const deep = (n: number) => '['.repeat(n) + ']'.repeat(n)
    const odd: readonly [what: string, json: string][] = [
      ['deep', `{"choices": ${deep(50_000)}, "usage": ${deep(50_000)}}`],
      ['a list', '[1, 2]'],
      ['a number', '7'],
      ['null', 'null'],
      ['choices that are none', '{"choices": {"a": 1}, "usage": []}'],
      [
        'choices of nothing',
        '{"choices": [null, 1, "a", [], {"message": 7, "delta": 8, "index": -1, "finish_reason": {}}]}',
      ],
      [
        'names of objects',
        '{"__proto__": {"usage": 1}, "constructor": 1, "choices": [{"delta": {"__proto__": null}}]}',
      ],
    ]
    for (const [what, json] of odd)
      test(what, async () => {
        assert.equal(
          (
            await call(
              (_, response) => void response.writeHead(200, { 'content-type': 'application/json' }).end(json),
            )
          ).text,
          json,
        )
        const stream = await call(
          (_, response) =>
            void response
              .writeHead(200, { 'content-type': 'text/event-stream' })
              .end(`data: ${json}\n\ndata: [DONE]\n\n`),
          { stream: true },
        )
        assert.match(stream.text, /\n\n$/)
      })
  })
})

test('an upstream that fails one account again and again still serves the others; one that fails several rests', async (t) => {
  const scene = await openGateway({
    usual: ({ body }, response) =>
      body.model === 'poison' ? say(response, {}, 500) : say(response, chatAnswer({ body } as never)),
  })
  t.after(() => scene.close())
  const call = async (key: string, model: string) => {
    const response = await fetch(`${scene.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
      body: JSON.stringify({ model, messages }),
    })
    const { error } = (await response.json()) as { error?: { code: string } }
    return [response.status, error?.code]
  }
  const [mallory, ...others] = await Promise.all(
    ['mallory', 'a', 'b', 'c'].map((id) => scene.account(id, '1000000')),
  )
  for (let n = 0; n < 30; n++) assert.deepEqual(await call(mallory as string, 'poison'), [500, undefined])
  for (const key of others) assert.deepEqual(await call(key, 'm'), [200, undefined])
  for (let n = 0; n < 4; n++) for (const key of others) await call(key, 'poison')
  assert.deepEqual(await call(mallory as string, 'm'), [502, 'upstream_resting'])
})
