/** The real packages `ai` and `openai`, before a model that says what it is told to. */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { generateText, jsonSchema, stepCountIs, streamText, tool, wrapLanguageModel } from 'ai'
import { MockLanguageModelV3, simulateReadableStream } from 'ai/test'
import OpenAI, { RateLimitError } from 'openai'
import { openScene, type Scene } from '../test/client.ts'
import { type OpenAIApi, startOpenAI } from '../test/openai-api.ts'
import { sluice } from './ai.ts'
import { AccessRefused, type Client } from './index.ts'
import { meteredFetch } from './openai.ts'

let scene: Scene
let client: Client
before(async () => {
  scene = await openScene()
  client = scene.client()
})
after(() => scene.close())

/** 100 of input, 40 of them from the cache, and 7 of output: 60 + 4 + 70 CU. */
const COST = 134
async function expectLeft(account: string, available: number): Promise<void> {
  for (let tries = 0; ; tries++) {
    const { credits } = await client.account(account)
    if (credits.held === '0' && credits.available === String(available)) return
    if (tries > 100) assert.deepEqual([credits.available, credits.held], [String(available), '0'])
    await pause(20)
  }
}
const forAccount = (account: string, output = 20) => ({
  account,
  feature: 'chat',
  estimate: { input_tokens: 100, output_tokens: output },
})

describe('the AI SDK', () => {
  const usage = {
    inputTokens: { total: 100, noCache: 60, cacheRead: 40, cacheWrite: undefined },
    outputTokens: { total: 7, text: 7, reasoning: undefined },
  }
  const finishReason = (unified: 'stop' | 'tool-calls') => ({ unified, raw: unified })
  const text = (says: string) => ({
    content: [{ type: 'text' as const, text: says }],
    finishReason: finishReason('stop'),
    usage,
    warnings: [],
  })
  const metered = (account: string, inner: MockLanguageModelV3, output?: number) =>
    wrapLanguageModel({
      model: inner,
      middleware: sluice({ client, request: () => forAccount(account, output) }),
    })

  test('charges what was generated', async () => {
    await scene.account('generate', '10000', 'steady')
    const model = metered('generate', new MockLanguageModelV3({ doGenerate: async () => text('hello') }))
    assert.equal((await generateText({ model, prompt: 'hi' })).text, 'hello')
    await expectLeft('generate', 10_000 - COST)
  })

  test('charges as estimated what the model does not tell, or tells as something that is no count', async () => {
    await scene.account('untold', '10000', 'steady')
    const odd = { total: Number.NaN, noCache: undefined, cacheRead: undefined, cacheWrite: undefined }
    const untold = { ...usage, inputTokens: odd }
    const model = wrapLanguageModel({
      model: new MockLanguageModelV3({ doGenerate: async () => ({ ...text('hello'), usage: untold }) }),
      middleware: sluice({ client, request: () => ({ ...forAccount('untold'), request_id: 'r' }) }),
    })
    assert.equal((await generateText({ model, prompt: 'hi' })).text, 'hello')
    // 100 of input as estimated, and 7 of output.
    await expectLeft('untold', 10_000 - 170)
    const { entries } = await client.explain('untold', 'r')
    assert.equal(entries.find(({ kind }) => kind === 'usage')?.body.estimated, true)
  })

  test('charges each step of a tool loop', async () => {
    await scene.account('loop', '10000', 'steady')
    let step = 0
    const inner = new MockLanguageModelV3({
      doGenerate: async () =>
        ++step < 3
          ? {
              ...text(''),
              content: [{ type: 'tool-call', toolCallId: `c${step}`, toolName: 'look', input: '{}' }],
              finishReason: finishReason('tool-calls'),
            }
          : text('seen'),
    })
    const look = tool({ inputSchema: jsonSchema({ type: 'object' }), execute: async () => 'nothing' })
    const result = await generateText({
      model: metered('loop', inner),
      prompt: 'look',
      tools: { look },
      stopWhen: stepCountIs(5),
    })
    assert.equal(result.text, 'seen')
    await expectLeft('loop', 10_000 - 3 * COST)
  })

  test('throws a refusal, and does not ask the model', async () => {
    await scene.account('refused', '10', 'steady')
    const inner = new MockLanguageModelV3({ doGenerate: async () => assert.fail('the model was asked') })
    await assert.rejects(
      generateText({ model: metered('refused', inner), prompt: 'hi' }),
      (error) => error instanceof AccessRefused && error.refusal.reason === 'credits_short',
    )
  })

  const parts = (pieces: number) => [
    { type: 'stream-start' as const, warnings: [] },
    { type: 'text-start' as const, id: 't' },
    ...Array.from({ length: pieces }, () => ({ type: 'text-delta' as const, id: 't', delta: 'word' })),
    { type: 'text-end' as const, id: 't' },
    { type: 'finish' as const, finishReason: finishReason('stop'), usage },
  ]

  test('charges what was streamed', async () => {
    await scene.account('stream', '10000', 'steady')
    const inner = new MockLanguageModelV3({
      doStream: async () => ({ stream: simulateReadableStream({ chunks: parts(5) }) }),
    })
    assert.equal(await streamText({ model: metered('stream', inner), prompt: 'hi' }).text, 'word'.repeat(5))
    await expectLeft('stream', 10_000 - COST)
  })

  test('charges a stream that is left for what it brought', async () => {
    await scene.account('left', '10000', 'steady')
    const inner = new MockLanguageModelV3({
      doStream: async () => ({
        stream: simulateReadableStream({ chunks: parts(1000), chunkDelayInMs: 5 }),
      }),
    })
    const abort = new AbortController()
    const { textStream } = streamText({
      model: metered('left', inner),
      prompt: 'hi',
      abortSignal: abort.signal,
      onError: () => {},
    })
    let got = 0
    for await (const _ of textStream) if (++got === 4) abort.abort()
    for (let tries = 0; tries < 100 && (await client.account('left')).credits.held !== '0'; tries++)
      await pause(20)
    const { available, held } = (await client.account('left')).credits
    assert.equal(held, '0')
    // Some words of output at 10 CU, and the input, which the middleware counts by its length.
    const charged = 10_000 - Number(available)
    assert.ok(charged >= 40 && charged < 200, `${charged}`)
  })
})

describe('the package openai', () => {
  let api: OpenAIApi
  before(async () => {
    api = await startOpenAI()
  })
  after(() => api.close())
  const openai = (account: string) => {
    api.asked.length = 0
    return new OpenAI({
      apiKey: 'k',
      baseURL: api.url,
      fetch: meteredFetch({ client, request: () => forAccount(account) }),
    })
  }
  const messages = [{ role: 'user' as const, content: 'hi' }]

  test('chat completions and responses are charged what they used, streamed or not', async () => {
    await scene.account('openai', '10000', 'steady')
    const sdk = openai('openai')
    const chat = await sdk.chat.completions.create({ model: 'm', messages })
    assert.equal(chat.choices[0]?.message.content, 'hello')
    await expectLeft('openai', 10_000 - COST)
    await sdk.responses.create({ model: 'm', input: 'hi' })
    await expectLeft('openai', 10_000 - 2 * COST)
    let text = ''
    for await (const { choices } of await sdk.chat.completions.create({
      model: 'm',
      messages,
      stream: true,
    })) {
      assert.equal(choices.length, 1, 'who did not ask for its use is not told')
      text += choices[0]?.delta.content ?? ''
    }
    assert.equal(text, 'word'.repeat(5))
    await expectLeft('openai', 10_000 - 3 * COST)
    const asking = { model: 'm', messages, stream: true, stream_options: { include_usage: true } } as const
    const told: unknown[] = []
    for await (const { usage } of await sdk.chat.completions.create(asking))
      if (usage != null) told.push(usage.prompt_tokens)
    assert.deepEqual(told, [100])
    await expectLeft('openai', 10_000 - 4 * COST)
    const types: string[] = []
    for await (const event of await sdk.responses.create({ model: 'm', input: 'hi', stream: true }))
      types.push(event.type)
    assert.equal(types.at(-1), 'response.completed')
    await expectLeft('openai', 10_000 - 5 * COST)
  })

  test('what the API tells as something that is no count is charged as estimated, and reaches its reader', async () => {
    await scene.account('openai-odd', '10000', 'steady')
    const sdk = openai('openai-odd')
    const chat = await sdk.chat.completions.create({ model: 'odd', messages })
    assert.equal(chat.choices[0]?.message.content, 'hello')
    await expectLeft('openai-odd', 10_000 - 300)
    let text = ''
    for await (const chunk of await sdk.chat.completions.create({ model: 'odd', messages, stream: true }))
      text += chunk.choices[0]?.delta.content ?? ''
    assert.equal(text, 'word'.repeat(5))
  })

  test('sound that is streamed is not counted as if it were text', async () => {
    await scene.account('openai-sound', '400', 'steady')
    const chunk = (delta: object, usage: object | null = null) =>
      `data: ${JSON.stringify({ choices: usage === null ? [{ index: 0, delta }] : [], usage })}\n\n`
    async function* answer(): AsyncGenerator<string> {
      for (let piece = 0; piece < 3; piece++) {
        yield chunk({ audio: { data: 'A'.repeat(100_000), transcript: 'word' } })
        await pause(50)
      }
      yield chunk({}, { prompt_tokens: 100, completion_tokens: 7 })
      yield 'data: [DONE]\n\n'
    }
    const send = meteredFetch({
      client,
      request: () => ({ ...forAccount('openai-sound'), request_id: 'sound' }),
      fetch: async () =>
        new Response(ReadableStream.from(answer()).pipeThrough(new TextEncoderStream()), {
          headers: { 'content-type': 'text/event-stream' },
        }),
    })
    const body = JSON.stringify({ model: 'm', messages, stream: true })
    const response = await send('http://api.test/v1/chat/completions', { method: 'POST', body })
    assert.match(await response.text(), /\[DONE\]/)
    await expectLeft('openai-sound', 400 - 170)
    const { entries } = await client.explain('openai-sound', 'sound')
    assert.equal(entries.filter(({ kind }) => kind === 'decision').length, 1, 'no more was asked for')
  })

  test('a refusal is the package’s RateLimitError, and the API is not asked', async () => {
    await scene.account('openai poor'.replace(' ', '-'), '10', 'steady')
    await assert.rejects(
      openai('openai-poor').chat.completions.create({ model: 'm', messages }),
      (error) => error instanceof RateLimitError && error.code === 'credits_short',
    )
    assert.deepEqual(api.asked, [])
  })

  test('a refusal is tried again by the package only where that can help: not when the wait is long', async () => {
    await scene.account('openai-paced', '10000', 'paced')
    let asks = 0
    const sdk = new OpenAI({
      apiKey: 'k',
      baseURL: api.url,
      fetch: meteredFetch({
        client,
        request: () => {
          asks++
          return forAccount('openai-paced')
        },
      }),
    })
    await sdk.chat.completions.create({ model: 'm', messages })
    await assert.rejects(
      sdk.chat.completions.create({ model: 'm', messages }),
      (error) => error instanceof RateLimitError && Number(error.headers.get('retry-after')) > 60,
    )
    assert.equal(asks, 2)
  })

  test('a call that the API refuses is not charged', async () => {
    await scene.account('openai-broken', '10000', 'steady')
    await assert.rejects(openai('openai-broken').chat.completions.create({ model: 'broken', messages }))
    await expectLeft('openai-broken', 10_000)
  })

  test('a stream that is left is charged what it brought', async () => {
    await scene.account('openai-left', '10000', 'steady')
    const stream = await openai('openai-left').chat.completions.create({
      model: 'long',
      messages,
      stream: true,
    })
    let got = 0
    for await (const _ of stream) if (++got === 4) break
    for (let tries = 0; tries < 100 && (await client.account('openai-left')).credits.held !== '0'; tries++)
      await pause(20)
    const { available, held } = (await client.account('openai-left')).credits
    assert.equal(held, '0')
    const charged = 10_000 - Number(available)
    assert.ok(charged >= 40 && charged < 400, `${charged}`)
  })
})
