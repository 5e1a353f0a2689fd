import assert from 'node:assert/strict'
import type { ServerResponse } from 'node:http'
import { after, before, describe, test } from 'node:test'
import OpenAI from 'openai'
import { tokensOf } from './ngram.ts'
import { MODELS, startUpstream, type Upstream } from './server.ts'

const model = MODELS.large
const messages = [{ role: 'user' as const, content: 'Tell me about the whale.' }]

describe('the example of an upstream', () => {
  let upstream: Upstream
  let openai: OpenAI
  let now = Date.UTC(2026, 0, 1)
  before(async () => {
    upstream = await startUpstream({ key: 'its-key', now: () => now })
    openai = new OpenAI({ baseURL: `${upstream.url}/v1`, apiKey: 'its-key', maxRetries: 0 })
  })
  after(() => upstream.close())

  test('a chat completion says something, and what it took', async () => {
    const { choices, usage } = await openai.chat.completions.create({ model, messages })
    const { message, finish_reason } = choices[0]!
    assert.match(message.content!, /^\p{Lu}.{20,}[.!?]$/u)
    assert.equal(finish_reason, 'stop')
    assert.equal(usage?.completion_tokens, tokensOf(message.content!).length)
    assert.equal(usage?.prompt_tokens, tokensOf(messages[0]!.content).length + 3)
    assert.equal(usage?.total_tokens, usage!.prompt_tokens + usage!.completion_tokens)
  })

  test('the same seed says the same, whole or as a stream, and another one something else', async () => {
    const ask = async (seed: number) =>
      (await openai.chat.completions.create({ model, seed, messages })).choices[0]!.message.content
    const said = await ask(7)
    assert.equal(await ask(7), said)
    assert.notEqual(await ask(8), said)
    const stream = await openai.chat.completions.create({
      model,
      seed: 7,
      stream: true,
      messages,
    })
    let text = ''
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? ''
    assert.equal(text, said)
  })

  test('a bound ends it after so many tokens, in each of several answers', async () => {
    const { choices, usage } = await openai.chat.completions.create({
      ...{ model, messages, n: 3, max_completion_tokens: 5 },
    })
    assert.deepEqual(
      choices.map(({ message, finish_reason }) => [tokensOf(message.content!).length, finish_reason]),
      [1, 2, 3].map(() => [5, 'length']),
    )
    assert.equal(new Set(choices.map(({ message }) => message.content)).size, 3)
    assert.equal(usage?.completion_tokens, 15)
  })

  test('a stop sequence ends it before that sequence, also where it comes in several tokens', async () => {
    const ask = { model, seed: 3, messages }
    const whole = (await openai.chat.completions.create(ask)).choices[0]!.message.content!
    const stop = whole.slice(31, 47)
    const stream = openai.chat.completions.stream({ ...ask, stop })
    const { choices } = await stream.finalChatCompletion()
    assert.equal(choices[0]!.message.content, whole.slice(0, whole.indexOf(stop)))
    assert.equal(choices[0]!.finish_reason, 'stop')
  })

  test('a stream tells its usage to those who ask, and to nobody else', async () => {
    const ask = { model, stream: true, messages } as const
    const silent = []
    for await (const { usage } of await openai.chat.completions.create(ask)) silent.push(usage)
    assert.deepEqual(new Set(silent), new Set([undefined]))
    const told = []
    for await (const chunk of await openai.chat.completions.create({
      ...ask,
      stream_options: { include_usage: true },
    }))
      told.push(chunk)
    const last = told.at(-1)!
    const text = told.map(({ choices }) => choices[0]?.delta.content ?? '').join('')
    assert.deepEqual(last.choices, [])
    assert.equal(last.usage?.completion_tokens, tokensOf(text).length)
    assert.deepEqual(new Set(told.slice(0, -1).map(({ usage }) => usage)), new Set([null]))
  })

  test('responses come whole and as events', async () => {
    const ask = { model, seed: 5, instructions: 'Be brief.', input: 'What did Ahab say?' }
    const whole = await openai.responses.create(ask)
    assert.equal(whole.status, 'completed')
    assert.equal(whole.usage?.output_tokens, tokensOf(whole.output_text).length)
    const stream = openai.responses.stream(ask)
    const types: string[] = []
    stream.on('event', ({ type }) => types.push(type))
    const final = await stream.finalResponse()
    assert.equal(final.output_text, whole.output_text)
    assert.deepEqual([types[0], types.at(-1)], ['response.created', 'response.completed'])
    const cut = await openai.responses.create({ ...ask, max_output_tokens: 4 })
    assert.deepEqual([cut.status, cut.incomplete_details], ['incomplete', { reason: 'max_output_tokens' }])
    assert.equal(cut.usage?.output_tokens, 4)
  })

  test('completions have a short bound of their own, and take several prompts', async () => {
    const { choices, usage } = await openai.completions.create({
      model,
      seed: 2,
      prompt: ['Call me', 'The sea'],
    })
    assert.deepEqual(
      choices.map(({ index, text, finish_reason }) => [index, tokensOf(text).length, finish_reason]),
      [
        [0, 16, 'length'],
        [1, 16, 'length'],
      ],
    )
    assert.equal(usage?.completion_tokens, 32)
    let text = ''
    for await (const chunk of await openai.completions.create({
      model,
      seed: 2,
      prompt: 'Call me',
      stream: true,
    }))
      text += chunk.choices[0]?.text ?? ''
    assert.equal(text, choices[0]!.text)
  })

  test('texts that share words have embeddings in a like direction', async () => {
    const input = ['the white whale swims', 'the white whale sleeps', 'tax law in Ohio']
    const { data, usage } = await openai.embeddings.create({
      model: MODELS.embedding,
      input,
      dimensions: 512,
    })
    const [one, like, other] = data.map(({ embedding }) => embedding) as [number[], number[], number[]]
    const along = (a: number[], b: number[]): number => a.reduce((sum, value, at) => sum + value * b[at]!, 0)
    assert.equal(one.length, 512)
    assert.ok(Math.abs(along(one, one) - 1) < 1e-5)
    assert.ok(along(one, like) > along(one, other) + 0.3)
    assert.equal(usage.prompt_tokens, input.flatMap(tokensOf).length)
  })

  test('a video is queued, rendered in its time, and then a real file', async () => {
    const made = await openai.videos.create({ model: MODELS.video, prompt: 'A whale breaches', seconds: '8' })
    assert.deepEqual([made.status, made.progress, made.seconds], ['queued', 0, '8'])
    await assert.rejects(openai.videos.downloadContent(made.id), OpenAI.NotFoundError)
    now += 2_000
    const later = await openai.videos.retrieve(made.id)
    assert.deepEqual([later.status, later.progress], ['in_progress', 50])
    now += 2_000
    const done = await openai.videos.retrieve(made.id)
    assert.deepEqual([done.status, done.progress, done.completed_at], ['completed', 100, now / 1_000])
    const content = await openai.videos.downloadContent(made.id)
    assert.equal(content.headers.get('content-type'), 'video/mp4')
    const bytes = Buffer.from(await content.arrayBuffer())
    assert.equal(bytes.toString('latin1', 4, 8), 'ftyp')
    const { data } = await openai.videos.list()
    assert.deepEqual(data[0], done)
    assert.equal((await openai.videos.remix(made.id, { prompt: 'At night' })).remixed_from_video_id, made.id)
    assert.equal((await openai.videos.delete(made.id)).deleted, true)
    await assert.rejects(openai.videos.retrieve(made.id), OpenAI.NotFoundError)
  })

  test('a video whose prompt asks for it fails half-way', async () => {
    const { id } = await openai.videos.create({ model: MODELS.video, prompt: 'A storm [fail]', seconds: '4' })
    now += 1_000
    const { status, error } = await openai.videos.retrieve(id)
    assert.deepEqual([status, error?.code], ['failed', 'moderation_blocked'])
  })

  test('models are listed, and others are unknown', async () => {
    const { data } = await openai.models.list()
    assert.deepEqual(
      data.map(({ id }) => id),
      Object.values(MODELS),
    )
    await assert.rejects(
      openai.chat.completions.create({ model: 'gpt-9', messages }),
      (error) => error instanceof OpenAI.NotFoundError && error.code === 'model_not_found',
    )
  })

  test('what is wrong is refused as the package knows it', async () => {
    const stranger = new OpenAI({ baseURL: `${upstream.url}/v1`, apiKey: 'another', maxRetries: 0 })
    await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError)
    await assert.rejects(openai.chat.completions.create({ model, messages: [] }), OpenAI.BadRequestError)
    await assert.rejects(
      openai.chat.completions.create({ model, messages, max_tokens: 0 }),
      (error) => error instanceof OpenAI.BadRequestError && error.param === 'max_tokens',
    )
  })

  test('a caller that leaves a stream stops it', async () => {
    const slow = await startUpstream({ tokensPerSecond: 20 })
    const client = new OpenAI({ baseURL: `${slow.url}/v1`, apiKey: 'any', maxRetries: 0 })
    const ended = new Promise<ServerResponse>((resolve) =>
      slow.server.once('request', (_, response) => response.once('close', () => resolve(response))),
    )
    const stream = await client.chat.completions.create({ model, stream: true, messages })
    for await (const _ of stream) break
    assert.equal((await ended).writableFinished, false)
    await slow.close()
  })

  test('tokens come no faster than they are asked to', async () => {
    const slow = await startUpstream({ tokensPerSecond: 50, isUsageTold: false })
    const client = new OpenAI({ baseURL: `${slow.url}/v1`, apiKey: 'any', maxRetries: 0 })
    const startedAt = performance.now()
    const answer = await client.chat.completions.create({ model, messages, max_tokens: 10 })
    assert.ok(performance.now() - startedAt > 190, 'ten tokens at fifty a second take a fifth of a second')
    assert.equal(answer.usage, undefined)
    await slow.close()
  })
})
