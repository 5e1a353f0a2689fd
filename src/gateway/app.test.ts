import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, before, describe, test } from 'node:test'
import OpenAI from 'openai'
import { createEngine, type Engine } from '../engine.ts'
import { memoryStore } from '../store/memory.ts'
import { createGateway, type Gateway } from './app.ts'
import { readConfig } from './config.ts'

const POLICY = {
  features: {
    chat: { rate_card: [{ per_unit: { input_tokens: 1, cached_input_tokens: 1, output_tokens: 10 } }] },
  },
  plans: { plan: { waterfall: [{ credits: ['purchased'] }] } },
} as const

describe('the gateway', () => {
  let engine: Engine
  let gateway: Gateway
  let upstream: Server
  let url: string
  before(async () => {
    upstream = createServer((request, response) => void answer(request, response))
    upstream.listen(0, '127.0.0.1')
    await once(upstream, 'listening')
    const to = `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`
    engine = await createEngine({ store: memoryStore(), policy: POLICY })
    const config = readConfig(
      `upstreams: { main: { provider: openai, url: ${to}, key_env: KEY } }
routes: [{ upstream: main, feature: chat }]`,
      { KEY: 'upstream-secret' },
    )
    gateway = createGateway({ engine, config, onFault: (error) => console.error(error) })
    gateway.server.listen(0, '127.0.0.1')
    await once(gateway.server, 'listening')
    url = `http://127.0.0.1:${(gateway.server.address() as AddressInfo).port}/v1`
  })
  after(async () => {
    await gateway.close(100)
    await engine.close()
    upstream.closeAllConnections()
    upstream.close()
  })

  async function client(account: string, credits: string): Promise<OpenAI> {
    await engine.createAccount({ id: account, plan: 'plan' })
    await engine.grant(account, { id: 'g', kind: 'purchased', amount: credits })
    const { secret } = await engine.createKey({ id: `key-${account}`, role: 'meter', account })
    return new OpenAI({ baseURL: url, apiKey: secret, maxRetries: 0 })
  }
  const charged = async (account: string) => {
    const { items } = await engine
      .usage(account, { from: 0, to: Date.now() + 1_000 })
      .then((rows) => ({ items: rows }))
    return items.map(({ charged, quantities }) => [charged, quantities])
  }

  test('a whole answer is charged as the upstream says', async () => {
    const openai = await client('whole', '100000')
    const answer = await openai.chat.completions.create({
      model: 'm',
      messages: [{ role: 'user', content: 'hello' }],
    })
    assert.equal(answer.choices[0]?.message.content, 'one two three')
    await settled(engine, 'whole')
    assert.deepEqual(await charged('whole'), [
      ['36', { cached_input_tokens: '2', input_tokens: '4', output_tokens: '3' }],
    ])
  })

  test('a stream comes through, and its usage only where it was asked for', async () => {
    const openai = await client('stream', '100000')
    const stream = await openai.chat.completions.create({
      model: 'm',
      stream: true,
      messages: [{ role: 'user', content: 'hello' }],
    })
    let text = ''
    for await (const chunk of stream) {
      assert.equal(chunk.usage ?? null, null)
      text += chunk.choices[0]?.delta.content ?? ''
    }
    assert.equal(text, 'one two three ')
    await settled(engine, 'stream')
    assert.deepEqual((await charged('stream'))[0]?.[0], '36')
  })

  test('who has too little for the whole gets a part', async () => {
    const openai = await client('part', '300')
    const { data, response } = await openai.chat.completions
      .create({ model: 'm', messages: [{ role: 'user', content: 'hello' }], max_tokens: 1_000 })
      .withResponse()
    assert.match(String(response.headers.get('x-sluice-granted')), /^output_tokens=2\d$/)
    assert.equal(data.choices[0]?.message.content, 'one two three')
  })

  test('who has nothing is refused as the package knows it', async () => {
    const openai = await client('poor', '1')
    await assert.rejects(
      openai.chat.completions.create({ model: 'm', messages: [{ role: 'user', content: 'hello' }] }),
      (error) => error instanceof OpenAI.RateLimitError && error.code === 'insufficient_quota',
    )
  })
})

async function settled(engine: Engine, account: string): Promise<void> {
  while ((await engine.account(account)).open_holds > 0)
    await new Promise((resolve) => setTimeout(resolve, 5))
}

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const pieces: Buffer[] = []
  for await (const piece of request) pieces.push(piece as Buffer)
  const body = JSON.parse(Buffer.concat(pieces).toString())
  assert.equal(request.headers.authorization, 'Bearer upstream-secret')
  const usage = {
    prompt_tokens: 6,
    completion_tokens: 3,
    total_tokens: 9,
    prompt_tokens_details: { cached_tokens: 2 },
  }
  const head = { id: 'c', created: 1, model: body.model }
  if (body.stream !== true) {
    response.setHeader('content-type', 'application/json')
    const message = { role: 'assistant', content: 'one two three' }
    response.end(
      JSON.stringify({
        ...head,
        object: 'chat.completion',
        choices: [{ index: 0, message, finish_reason: 'stop' }],
        usage,
      }),
    )
    return
  }
  response.setHeader('content-type', 'text/event-stream')
  const chunk = (more: object) =>
    response.write(`data: ${JSON.stringify({ ...head, object: 'chat.completion.chunk', ...more })}\n\n`)
  for (const word of ['one ', 'two ', 'three '])
    chunk({ choices: [{ index: 0, delta: { content: word }, finish_reason: null }] })
  chunk({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] })
  if (body.stream_options?.include_usage) chunk({ choices: [], usage })
  response.end('data: [DONE]\n\n')
}
