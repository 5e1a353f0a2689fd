import assert from 'node:assert/strict'
import { request } from 'node:http'
import { after, afterEach, before, describe, mock, test } from 'node:test'
import { type GatewayScene, openGateway, say, UPSTREAM_KEY } from '../../test/gateway.ts'
import { chatAnswer, chatStream, speakOpenai } from '../../test/openai-wire.ts'

const CHAT = '/v1/chat/completions'
const body = { model: 'm', messages: [{ role: 'user', content: 'hello' }] }

describe('the gateway', () => {
  let scene: GatewayScene
  before(async () => {
    scene = await openGateway({ usual: speakOpenai })
  })
  after(() => scene.close())
  afterEach(() => assert.deepEqual(scene.faults, []))

  const post = (key: string, what: unknown = body, headers: Record<string, string> = {}, path = CHAT) =>
    fetch(`${scene.url}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${key}`, ...headers },
      body: typeof what === 'string' ? what : JSON.stringify(what),
    })
  const last = () => {
    const got = scene.upstream.got.at(-1)
    assert.ok(got)
    return got
  }

  describe('keys', () => {
    test('never cross, in either direction', async () => {
      const key = await scene.account('cross', '1000')
      scene.upstream.next((got, response) =>
        say(response, chatAnswer(got), 200, {
          'set-cookie': 'session=upstream',
          'openai-organization': 'org-of-the-gateway',
          'openai-project': 'project-of-the-gateway',
          'x-ratelimit-remaining-tokens': '5',
          'x-request-id': 'seen',
        }),
      )
      const response = await post(key, body, {
        ...{ 'x-api-key': key, 'api-key': key, cookie: `key=${key}`, 'proxy-authorization': `Bearer ${key}` },
      })
      const got = last()
      assert.equal(got.headers.authorization, `Bearer ${UPSTREAM_KEY}`)
      const sent = JSON.stringify(got.headers) + got.bytes.toString() + got.path
      assert.ok(!sent.includes(key), sent)
      const told = JSON.stringify([...response.headers]) + (await response.text())
      assert.ok(!told.includes(UPSTREAM_KEY) && !told.includes('of-the-gateway'), told)
      assert.equal(response.headers.get('set-cookie'), null)
      assert.equal(response.headers.get('x-ratelimit-remaining-tokens'), null)
      assert.equal(response.headers.get('x-request-id'), 'seen')
    })

    test('say whose account it is, whatever a call says beside them', async () => {
      const key = await scene.account('mine', '1000', { subject: { user: 'u1' } })
      await scene.account('theirs', '1000')
      await post(
        key,
        {
          ...body,
          user: 'theirs',
          account: 'theirs',
          subject: { user: 'u2' },
          metadata: { account: 'theirs' },
        },
        {
          ...{ 'x-sluice-account': 'theirs', 'x-sluice-subject': 'user=u2', 'x-sluice-request-id': 'r1' },
          ...{
            'openai-organization': 'org-theirs',
            'openai-project': 'theirs',
            'x-forwarded-user': 'theirs',
          },
          ...{ 'x-sluice-granted': 'output_tokens=1000000', forwarded: 'for=theirs' },
        },
        `${CHAT}?account=theirs`,
      )
      assert.equal((await scene.used('mine'))?.requests, 1)
      assert.equal(await scene.used('theirs'), undefined)
      const names = Object.keys(last().headers).filter((name) => /sluice|forwarded|^openai/.test(name))
      assert.deepEqual(names, [])
      const [row] = await scene.engine.usage('mine', {
        from: 0,
        to: Date.now() + 1_000,
        group_by: ['subject.user'],
      })
      assert.deepEqual(row?.group, { 'subject.user': 'u1' })
    })

    test('of an upstream are not for callers', async () => {
      assert.equal((await post(UPSTREAM_KEY)).status, 401)
    })

    test('without an account pay for nothing', async () => {
      const { secret } = await scene.engine.createKey({ id: 'no-account', role: 'meter' })
      assert.equal((await post(secret)).status, 403)
    })

    test('that only read buy nothing', async () => {
      await scene.account('read', '1000')
      const { secret } = await scene.engine.createKey({ id: 'read-key', role: 'read', account: 'read' })
      assert.equal((await post(secret)).status, 403)
    })

    test('are asked for before anything else is told', async () => {
      const response = await fetch(`${scene.url}/v1/nothing`)
      assert.equal(response.status, 401)
    })
  })

  describe('where an upstream tells no usage', () => {
    const usageOf = async (account: string) => {
      await scene.settled(account)
      const { items } = await scene.engine.entries(account, { kinds: ['usage'] })
      return items.map(({ body }) => [body.estimated, body.quantities])
    }

    test('a whole answer is counted, and its charge is estimated', async () => {
      const key = await scene.account('uncounted', '1000')
      scene.upstream.next((got, response) => say(response, { ...chatAnswer(got), usage: undefined }))
      await (await post(key)).text()
      const [[estimated, quantities] = []] = await usageOf('uncounted')
      assert.equal(estimated, true)
      // "one two three", and the messages as JSON.
      assert.equal((quantities as Record<string, string>).output_tokens, '3')
      assert.ok(Number((quantities as Record<string, string>).input_tokens) > 5)
      const [item] = (await scene.engine.entries('uncounted', { kinds: ['usage'] })).items
      const { story } = await scene.engine.explain('uncounted', String(item?.request))
      assert.ok(
        story.some((line) => line.includes(', estimated')),
        story.join('\n'),
      )
    })

    test('a stream is counted, and its charge is estimated', async () => {
      const key = await scene.account('uncounted-stream', '1000')
      scene.upstream.next((got, response) => {
        const stream = chatStream({ ...got, body: { ...got.body, stream_options: {} } }, response)
        stream.piece({ content: 'one two' })
        stream.piece({ content: ' three' })
        stream.finish('stop')
      })
      await (await post(key, { ...body, stream: true })).text()
      const [[estimated, quantities] = []] = await usageOf('uncounted-stream')
      assert.equal(estimated, true)
      assert.equal((quantities as Record<string, string>).output_tokens, '3')
    })

    for (const [name, usage] of [
      ['negative', { prompt_tokens: -5, completion_tokens: 3 }],
      ['text', { prompt_tokens: '5', completion_tokens: '3' }],
      ['absurd', { prompt_tokens: 1e300, completion_tokens: 3 }],
      ['broken', { prompt_tokens: 1.5, completion_tokens: 3 }],
      ['a list', []],
    ] as const)
      test(`usage that is ${name} is as good as none`, async () => {
        const account = `usage-${name.replace(' ', '-')}`
        const key = await scene.account(account, '1000')
        scene.upstream.next((got, response) => say(response, { ...chatAnswer(got), usage }))
        await (await post(key)).text()
        const [[estimated] = []] = await usageOf(account)
        assert.equal(estimated, true)
      })

    test('where it tells it, a charge is not estimated, although its stream was counted on its way', async () => {
      const key = await scene.account('counted', '1000')
      await (await post(key, { ...body, stream: true })).text()
      const [[estimated] = []] = await usageOf('counted')
      assert.equal(estimated, undefined)
    })
  })

  test('a whole answer whose caller has gone is read to its end, and charged', async () => {
    const key = await scene.account('gone', '1000')
    const gone = new AbortController()
    scene.upstream.next(async (got, response) => {
      const text = JSON.stringify(chatAnswer(got))
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': text.length })
      response.write(text.slice(0, 20))
      await closed
      response.end(text.slice(20))
    })
    let close = (): void => {}
    const closed = new Promise<void>((resolve) => {
      close = resolve
    })
    const response = await fetch(`${scene.url}${CHAT}`, {
      ...{ method: 'POST', body: JSON.stringify(body), signal: gone.signal },
      headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
    })
    gone.abort()
    await response.text().catch(() => {})
    close()
    assert.equal((await scene.used('gone'))?.charged, '34.2')
  })

  describe('bodies', () => {
    test('that are not JSON are refused in the shape of the provider', async () => {
      const key = await scene.account('bodies', '1000')
      for (const [what, headers] of [
        ['{', {}],
        ['[]', {}],
        ['null', {}],
        ['{}', { 'content-type': 'text/plain' }],
      ] as const) {
        const response = await post(key, what, headers)
        const { error } = (await response.json()) as { error: { type: string } }
        assert.deepEqual([response.status, error.type], [400, 'invalid_request_error'])
      }
    })

    test('that are too long are refused before they are read', async () => {
      const key = await scene.account('too-long', '1000')
      const status = await new Promise((resolve, reject) => {
        const sent = request(`${scene.url}${CHAT}`, {
          method: 'POST',
          headers: {
            'content-type': 'application/json',
            authorization: `Bearer ${key}`,
            'content-length': 64 * 1024 * 1024,
          },
        })
        sent.on('response', (response) => {
          resolve(response.statusCode)
          sent.destroy()
        })
        sent.on('error', reject)
        sent.flushHeaders()
      })
      assert.equal(status, 413)
    })

    test('with pictures are not held as if these were text', async () => {
      const key = await scene.account('pictures', '20000')
      const url = `data:image/png;base64,${'A'.repeat(1_000_000)}`
      const content = [{ type: 'image_url', image_url: { url } }]
      const response = await post(key, { model: 'm', messages: [{ role: 'user', content }], max_tokens: 10 })
      assert.equal(response.status, 200)
      assert.equal(
        last().bytes.length,
        JSON.stringify({ model: 'm', messages: [{ role: 'user', content }], max_tokens: 10 }).length,
      )
    })
  })
})

test('quantities that the policy has no price for are free in what is held', async () => {
  const scene = await openGateway({
    usual: speakOpenai,
    policy: {
      features: { chat: { rate_card: [{ per_unit: { output_tokens: 10 } }] } },
      plans: { plan: { waterfall: [{ credits: ['purchased'] }] } },
    },
  })
  const key = await scene.account('free-input', '200')
  const send = (what: object) =>
    fetch(`${scene.url}${CHAT}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
      body: JSON.stringify({ ...body, ...what }),
    })
  const response = await send({ stream: true, max_tokens: 1_000 })
  assert.equal(response.headers.get('x-sluice-granted'), 'output_tokens=20')
  // All that came is shown to its end, although the input is nowhere held.
  const text = await response.text()
  assert.match(text, /"finish_reason":"stop".*\[DONE\]/s)
  assert.deepEqual((await scene.used('free-input'))?.charged, '30')
  await scene.close()
})

test('what only the owner can mend is answered 503, and official clients do not try it again', async () => {
  const scene = await openGateway({
    usual: speakOpenai,
    config: 'routes: [{ upstream: main, feature: no.such }]',
  })
  const key = await scene.account('owner', '100')
  const response = await fetch(`${scene.url}${CHAT}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
    body: JSON.stringify(body),
  })
  assert.equal(response.status, 503)
  assert.equal(response.headers.get('x-should-retry'), 'false')
  assert.match(await response.text(), /feature_unknown/)
  assert.equal(scene.upstream.got.length, 0)
  await scene.close()
})

test('one question to the engine decides a call, whatever of it has a price, and a new price counts at once', async (t) => {
  const policy = (...priced: readonly string[]) => ({
    features: { chat: { rate_card: [{ per_unit: Object.fromEntries(priced.map((name) => [name, 10])) }] } },
    plans: { plan: { waterfall: [{ credits: ['purchased' as const] }] } },
  })
  const scene = await openGateway({ usual: speakOpenai, policy: policy('output_tokens') })
  t.after(() => scene.close())
  const asked = mock.method(scene.engine, 'reserve')
  const key = await scene.account('asks-once', '100000')
  const call = async () => {
    const from = asked.mock.callCount()
    const response = await fetch(`${scene.url}${CHAT}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
      body: JSON.stringify({ ...body, max_tokens: 10 }),
    })
    await response.text()
    assert.equal(response.status, 200)
    assert.equal(asked.mock.callCount() - from, 1)
    const answer = await asked.mock.calls.at(-1)?.result
    return Number(answer?.granted)
  }
  assert.equal(await call(), 100)
  const publish = (...priced: readonly string[]) =>
    scene.engine.publishPolicy(JSON.stringify(policy(...priced)), undefined)
  await publish('output_tokens', 'input_tokens')
  assert.ok((await call()) > 100)
  // Of another kind of call nothing at all is priced.
  await publish('images')
  assert.equal(await call(), 0)
  await scene.settled('asks-once')
})
