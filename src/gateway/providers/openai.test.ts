/** The official packages against the gateway, each before an upstream that speaks as the provider does. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { after, afterEach, before, describe, test } from 'node:test'
import { createOpenAI } from '@ai-sdk/openai'
import { embed, generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai'
import OpenAI from 'openai'
import { type GatewayScene, openGateway, say } from '../../../test/gateway.ts'
import {
  chatAnswer,
  chatStream,
  responseStream,
  speakOpenai,
  TOLD,
  TOLD_QUANTITIES,
} from '../../../test/openai-wire.ts'

const messages = [{ role: 'user' as const, content: 'hello' }]
const TELL_WEATHER = {
  type: 'function' as const,
  function: {
    name: 'weather',
    parameters: { type: 'object', properties: { place: { type: 'string' } } },
  },
}

describe('the official packages', () => {
  let scene: GatewayScene
  before(async () => {
    scene = await openGateway({
      usual: speakOpenai,
      config: 'plans: { debt: { when_spent: debt } }',
    })
  })
  after(() => scene.close())
  afterEach(() => assert.deepEqual(scene.faults, []))

  const client = async (account: string, credits = '100000', plan = 'plan', maxRetries = 0) =>
    new OpenAI({
      baseURL: `${scene.url}/v1`,
      apiKey: await scene.account(account, credits, { plan }),
      maxRetries,
    })
  const provider = async (account: string, credits = '100000') =>
    createOpenAI({ baseURL: `${scene.url}/v1`, apiKey: await scene.account(account, credits) })
  const last = () => {
    const got = scene.upstream.got.at(-1)
    assert.ok(got)
    return got
  }
  /** 4 + 0.2 + 30 CU. */
  const TOLD_ONCE = { charged: '34.2', quantities: TOLD_QUANTITIES, requests: 1 }

  describe('chat', () => {
    test('a whole answer is charged as the upstream says', async () => {
      const openai = await client('chat-whole')
      const answer = await openai.chat.completions.create({ model: 'm', messages })
      assert.equal(answer.choices[0]?.message.content, 'one two three')
      assert.deepEqual(answer.usage, TOLD)
      assert.deepEqual(await scene.used('chat-whole'), TOLD_ONCE)
    })

    test('usage is asked for upstream and hidden from who did not ask', async () => {
      const openai = await client('chat-hidden')
      const chunks = await Array.fromAsync(
        await openai.chat.completions.create({ model: 'm', messages, stream: true }),
      )
      assert.deepEqual(last().body.stream_options, { include_usage: true })
      assert.equal(chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join(''), 'one two three')
      assert.deepEqual(
        chunks.filter(({ usage, choices }) => usage != null || choices.length === 0),
        [],
      )
      assert.deepEqual(await scene.used('chat-hidden'), TOLD_ONCE)
    })

    test('usage is shown to who asked', async () => {
      const openai = await client('chat-shown')
      const chunks = await Array.fromAsync(
        await openai.chat.completions.create({
          ...{ model: 'm', messages, stream: true },
          stream_options: { include_usage: true },
        }),
      )
      assert.deepEqual(chunks.at(-1)?.usage, TOLD)
      assert.deepEqual(await scene.used('chat-shown'), TOLD_ONCE)
    })

    test('usage is hidden where the upstream lays it into the last piece of text', async () => {
      const openai = await client('chat-laid-in')
      scene.upstream.next((got, response) => {
        const stream = chatStream(got, response)
        stream.tell({
          choices: [{ index: 0, delta: { content: 'all' }, finish_reason: 'stop' }],
          usage: TOLD,
        })
        stream.tell({ choices: [], usage: { ...TOLD } })
        stream.end()
      })
      const chunks = await Array.fromAsync(
        await openai.chat.completions.create({ model: 'm', messages, stream: true }),
      )
      assert.deepEqual(
        chunks.map(({ usage, choices }) => [usage, choices[0]?.delta.content]),
        [[undefined, 'all']],
      )
      assert.deepEqual(await scene.used('chat-laid-in'), TOLD_ONCE)
    })

    test('tool calls come through piece by piece', async () => {
      const openai = await client('chat-tools')
      scene.upstream.next((got, response) => {
        const stream = chatStream(got, response)
        const call = { index: 0, id: 'call1', type: 'function' as const }
        stream.piece({
          role: 'assistant',
          tool_calls: [{ ...call, function: { name: 'weather', arguments: '' } }],
        })
        for (const piece of ['{"pla', 'ce":"R', 'ome"}'])
          stream.piece({ tool_calls: [{ index: 0, function: { arguments: piece } }] })
        stream.finish('tool_calls')
      })
      const stream = openai.chat.completions.stream({ model: 'm', messages, tools: [TELL_WEATHER] })
      const answer = await stream.finalChatCompletion()
      const [call] = answer.choices[0]?.message.tool_calls ?? []
      assert.ok(call?.type === 'function')
      assert.deepEqual([call.function.name, call.function.arguments], ['weather', '{"place":"Rome"}'])
      assert.deepEqual(last().body.tools, [TELL_WEATHER])
      assert.deepEqual(await scene.used('chat-tools'), TOLD_ONCE)
    })

    test('several answers at once are held for each, and told apart', async () => {
      const openai = await client('chat-n', '300')
      const { data, response } = await openai.chat.completions
        .create({ model: 'm', messages, n: 3, max_tokens: 100 })
        .withResponse()
      assert.equal(data.choices.length, 3)
      // 300 CU are enough for less than 30 of the 300 tokens of output, a third of them each.
      const granted = Number(
        /^output_tokens=(\d+)$/.exec(String(response.headers.get('x-sluice-granted')))?.[1],
      )
      assert.ok(granted > 16 && granted < 30, `${granted}`)
      assert.equal(last().body.max_tokens, Math.floor(granted / 3))
      assert.equal(last().body.max_completion_tokens, undefined)
    })

    test('a part of several answers is never more than was granted, however small', async () => {
      const openai = await client('chat-n-small', '190')
      const answer = openai.chat.completions.create({ model: 'm', messages, n: 128, max_tokens: 100 })
      await assert.rejects(answer, OpenAI.RateLimitError)
    })

    test('who has too little for the whole gets a part, and is told so', async () => {
      const openai = await client('chat-part', '300')
      const { response } = await openai.chat.completions
        .create({ model: 'm', messages, max_completion_tokens: 1_000 })
        .withResponse()
      const granted = String(response.headers.get('x-sluice-granted'))
      assert.equal(granted, `output_tokens=${last().body.max_completion_tokens}`)
      assert.ok(Number(last().body.max_completion_tokens) < 30)
    })

    test('who has enough is not bounded, and nothing is said of it', async () => {
      const openai = await client('chat-enough')
      const { response } = await openai.chat.completions.create({ model: 'm', messages }).withResponse()
      assert.equal(response.headers.get('x-sluice-granted'), null)
      assert.deepEqual(last().body, { model: 'm', messages })
    })

    test('fields that the gateway does not know go upstream as they are', async () => {
      const openai = await client('chat-fields')
      const more = {
        temperature: 0.25,
        metadata: { a: 'b' },
        reasoning_effort: 'low' as const,
        new_field: [1],
      }
      await openai.chat.completions.create({ model: 'm', messages, ...more })
      assert.deepEqual(last().body, { model: 'm', messages, ...more })
    })

    test('money that runs out within a stream ends it as a bound that is reached', async () => {
      const openai = await client('chat-ends', '400')
      let closed: Promise<unknown> | undefined
      scene.upstream.next(async (got, response) => {
        closed = once(response, 'close')
        const stream = chatStream(got, response)
        while (!response.closed) {
          stream.piece({ content: 'word '.repeat(8) })
          await new Promise(setImmediate)
        }
      })
      const chunks = await Array.fromAsync(
        await openai.chat.completions.create({ model: 'm', messages, stream: true }),
      )
      assert.equal(chunks.at(-1)?.choices[0]?.finish_reason, 'length')
      assert.equal(chunks.at(-1)?.id, 'c1')
      await closed
      const { credits } = await scene.settled('chat-ends')
      assert.equal(credits.held, '0')
      assert.ok(Number(credits.available) < 100, credits.available)
    })

    test('where the plan says so it goes on into debt', async () => {
      const openai = await client('chat-debt', '400', 'debt')
      scene.upstream.next((got, response) => {
        const stream = chatStream(got, response)
        for (let n = 0; n < 100; n++) stream.piece({ content: 'word '.repeat(8) })
        stream.finish('stop', { prompt_tokens: 6, completion_tokens: 800, total_tokens: 806 })
      })
      const chunks = await Array.fromAsync(
        await openai.chat.completions.create({ model: 'm', messages, stream: true }),
      )
      assert.equal(chunks.at(-1)?.choices[0]?.finish_reason, 'stop')
      assert.equal((await scene.used('chat-debt'))?.charged, '8006')
      assert.equal((await scene.settled('chat-debt')).credits.debt, '7606')
    })

    test('who leaves a stream pays for what it brought, and the upstream is let go', async () => {
      const openai = await client('chat-left')
      let closed: Promise<unknown> | undefined
      scene.upstream.next((got, response) => {
        closed = once(response, 'close')
        const stream = chatStream(got, response)
        for (let n = 0; n < 10; n++) stream.piece({ content: 'word ' })
      })
      const stream = await openai.chat.completions.create({ model: 'm', messages, stream: true })
      let seen = 0
      for await (const _ of stream) if (++seen === 10) break
      await closed
      const used = await scene.used('chat-left')
      // Ten words, and a space that ends them, by a tokenizer.
      assert.equal(used?.quantities.output_tokens, '11')
      assert.equal(scene.upstream.running, 0)
    })
  })

  describe('responses', () => {
    test('a whole answer and a stream are charged as the upstream says', async () => {
      const openai = await client('responses')
      const whole = await openai.responses.create({ model: 'm', input: 'hello' })
      assert.equal(whole.output_text, 'one two three')
      const types: string[] = []
      for await (const event of await openai.responses.create({ model: 'm', input: 'hello', stream: true }))
        types.push(event.type)
      assert.equal(types[0], 'response.created')
      assert.equal(types.at(-1), 'response.completed')
      const { quantities, requests } = (await scene.used('responses')) ?? {}
      assert.deepEqual([quantities?.output_tokens, requests], ['6', 2])
    })

    test('the package collects a stream', async () => {
      const openai = await client('responses-stream')
      const stream = openai.responses.stream({ model: 'm', input: 'hello' })
      assert.equal((await stream.finalResponse()).output_text, 'one two three')
    })

    test('who has too little for the whole gets a part', async () => {
      const openai = await client('responses-part', '300')
      const { response } = await openai.responses
        .create({ model: 'm', input: 'hello', max_output_tokens: 5_000 })
        .withResponse()
      assert.equal(response.headers.get('x-sluice-granted'), `output_tokens=${last().body.max_output_tokens}`)
    })

    test('money that runs out within a stream makes the response incomplete', async () => {
      const openai = await client('responses-ends', '400')
      scene.upstream.next(async (got, response) => {
        const stream = responseStream(got, response)
        while (!response.closed) {
          stream.piece('word '.repeat(8))
          await new Promise(setImmediate)
        }
      })
      const all = await Array.fromAsync(
        await openai.responses.create({ model: 'm', input: 'hello', stream: true }),
      )
      const end = all.at(-1)
      assert.ok(end?.type === 'response.incomplete')
      assert.match(end.response.id, /^r1\.[\w-]{16}$/)
      assert.deepEqual(end.response.incomplete_details, { reason: 'max_output_tokens' })
      const numbers = all.map(({ sequence_number }) => sequence_number)
      assert.deepEqual(
        numbers,
        numbers.toSorted((a, b) => a - b),
      )
      assert.equal(new Set(numbers).size, numbers.length)
    })

    test('the answer that is collected from such a stream has the text that came', async () => {
      const openai = await client('responses-collected', '400')
      scene.upstream.next(async (got, response) => {
        const stream = responseStream(got, response)
        while (!response.closed) {
          stream.piece('word '.repeat(8))
          await new Promise(setImmediate)
        }
      })
      const stream = openai.responses.stream({ model: 'm', input: 'hello' })
      let text = ''
      stream.on('response.output_text.delta', ({ delta }) => {
        text += delta
      })
      const end = new Promise<OpenAI.Responses.Response>((resolve) =>
        stream.on('response.incomplete', ({ response }) => resolve(response)),
      )
      await stream.done()
      assert.match(text, /^(word )+$/)
      const [message] = (await end).output
      assert.ok(message?.type === 'message')
      assert.equal(message.status, 'incomplete')
      assert.deepEqual(message.content, [{ type: 'output_text', text, annotations: [] }])
    })
  })

  test('completions, whole and as a stream', async () => {
    const openai = await client('completions')
    const whole = await openai.completions.create({ model: 'm', prompt: 'hello' })
    assert.equal(whole.choices[0]?.text, 'one two three')
    let text = ''
    for await (const chunk of await openai.completions.create({ model: 'm', prompt: 'hello', stream: true }))
      text += chunk.choices[0]?.text ?? ''
    assert.equal(text, 'one two three')
    assert.equal((await scene.used('completions'))?.requests, 2)
  })

  test('embeddings, in the form that the package asks for', async () => {
    const openai = await client('embeddings')
    const answer = await openai.embeddings.create({ model: 'm', input: ['a', 'b'], encoding_format: 'float' })
    assert.deepEqual(answer.data[0]?.embedding, [0.5, -0.25])
    assert.equal((await scene.used('embeddings'))?.charged, '6')
  })

  test('models are listed for nothing', async () => {
    const openai = await client('models', '0')
    assert.deepEqual(
      (await Array.fromAsync(openai.models.list())).map(({ id }) => id),
      ['m'],
    )
    assert.equal(await scene.used('models'), undefined)
  })

  describe('errors', () => {
    test('an unknown key', async () => {
      const openai = new OpenAI({ baseURL: `${scene.url}/v1`, apiKey: 'sk-nobody', maxRetries: 0 })
      await assert.rejects(
        openai.chat.completions.create({ model: 'm', messages }),
        OpenAI.AuthenticationError,
      )
    })

    test('a body that makes no sense names its field', async () => {
      const openai = await client('bad-body')
      await assert.rejects(
        openai.chat.completions.create({ model: 'm', messages, max_tokens: -1 }),
        (error) => error instanceof OpenAI.BadRequestError && error.param === 'max_tokens',
      )
    })

    test('no money is an error that is not tried again', async () => {
      const openai = await client('no-money', '1', 'plan', 3)
      const before = scene.upstream.got.length
      await assert.rejects(openai.chat.completions.create({ model: 'm', messages }), (error) => {
        assert.ok(error instanceof OpenAI.RateLimitError)
        assert.equal(error.code, 'insufficient_quota')
        assert.equal(error.type, 'insufficient_quota')
        assert.equal(error.headers.get('x-should-retry'), 'false')
        return true
      })
      assert.equal(scene.upstream.got.length, before)
    })

    test('an error of the upstream comes as it is, and costs nothing', async () => {
      const openai = await client('upstream-400')
      scene.upstream.next((_, response) =>
        say(
          response,
          { error: { message: 'too long', code: 'context_length_exceeded', param: 'messages' } },
          400,
        ),
      )
      await assert.rejects(
        openai.chat.completions.create({ model: 'm', messages }),
        (error) => error instanceof OpenAI.BadRequestError && error.code === 'context_length_exceeded',
      )
      assert.equal(await scene.used('upstream-400'), undefined)
    })

    test("the gateway's own key is no matter of the caller", async () => {
      const openai = await client('upstream-401')
      scene.upstream.next((_, response) => say(response, { error: { message: 'key sk-abc is wrong' } }, 401))
      await assert.rejects(
        openai.chat.completions.create({ model: 'm', messages }),
        (error) => error instanceof OpenAI.InternalServerError && !error.message.includes('sk-abc'),
      )
    })

    test('a path that is not there', async () => {
      const openai = await client('no-path')
      await assert.rejects(openai.get('/nothing'), OpenAI.NotFoundError)
    })

    test('a stream that breaks off ends with an error, and what it brought is charged', async () => {
      const openai = await client('cut')
      scene.upstream.next(async (got, response) => {
        const stream = chatStream(got, response)
        stream.piece({ content: 'one two' })
        await new Promise((resolve) => response.write(': still here\n\n', resolve))
        response.destroy()
      })
      const stream = await openai.chat.completions.create({ model: 'm', messages, stream: true })
      await assert.rejects(
        Array.fromAsync(stream),
        (error) => error instanceof OpenAI.APIError && error.type === 'server_error',
      )
      assert.equal((await scene.used('cut'))?.quantities.output_tokens, '2')
    })

    test('what is too fast is told when it is not any more', async () => {
      const openai = await client('too-fast', '1000', 'slow', 0)
      await openai.chat.completions.create({ model: 'm', messages, max_tokens: 1 })
      await assert.rejects(
        openai.chat.completions.create({ model: 'm', messages, max_tokens: 1 }),
        (error) => {
          assert.ok(error instanceof OpenAI.RateLimitError)
          assert.equal(error.code, 'rate_limit_exceeded')
          // An hour is no time that a client should stand and wait.
          assert.equal(error.headers.get('x-should-retry'), 'false')
          assert.ok(error.headers.get('x-sluice-request-id'))
          const ms = Number(error.headers.get('retry-after-ms'))
          assert.ok(ms > 0 && ms <= 3_600_000, `${ms}`)
          assert.equal(Number(error.headers.get('retry-after')), Math.ceil(ms / 1_000))
          assert.equal(error.headers.get('x-ratelimit-limit-requests'), '1')
          return true
        },
      )
    })

    test('the package tries again by itself when it was told to wait', async () => {
      const openai = await client('patient', '1000', 'brisk', 5)
      const answers = await Promise.all(
        [1, 2].map(() => openai.chat.completions.create({ model: 'm', messages, max_tokens: 1 })),
      )
      assert.equal(answers.length, 2)
    })
  })

  describe('the AI SDK', () => {
    test('text of chat and of responses', async () => {
      const openai = await provider('ai-text')
      for (const model of [openai.chat('m'), openai.responses('m')]) {
        const { text, usage } = await generateText({ model, prompt: 'hello', maxRetries: 0 })
        assert.equal(text, 'one two three')
        assert.deepEqual([usage.inputTokens, usage.outputTokens], [6, 3])
      }
      assert.equal((await scene.used('ai-text'))?.charged, '68.4')
    })

    test('streams of both, with the usage that it asks for', async () => {
      const openai = await provider('ai-streams')
      for (const model of [openai.chat('m'), openai.responses('m')]) {
        const result = streamText({ model, prompt: 'hello', maxRetries: 0 })
        assert.equal(await result.text, 'one two three')
        assert.equal((await result.usage).outputTokens, 3)
      }
      assert.equal((await scene.used('ai-streams'))?.charged, '68.4')
    })

    test('a tool loop charges each of its steps', async () => {
      const openai = await provider('ai-loop')
      scene.upstream.next((got, response) =>
        say(
          response,
          chatAnswer(got, {
            content: null,
            tool_calls: [
              { id: 'c1', type: 'function', function: { name: 'weather', arguments: '{"place":"Rome"}' } },
            ],
          }),
        ),
      )
      const weather = tool({ inputSchema: jsonSchema({ type: 'object' }), execute: async () => 'sunny' })
      const result = await generateText({
        ...{ model: openai.chat('m'), prompt: 'weather?', maxRetries: 0 },
        ...{ tools: { weather }, stopWhen: stepCountIs(3) },
      })
      assert.equal(result.steps.length, 2)
      assert.equal(result.steps[0]?.toolResults[0]?.output, 'sunny')
      assert.equal((await scene.used('ai-loop'))?.requests, 2)
    })

    test('a stream that money ends has the reason length', async () => {
      const openai = await provider('ai-ends', '400')
      for (const model of [openai.chat('m'), openai.responses('m')]) {
        await scene.engine.grant('ai-ends', { id: model.provider, kind: 'purchased', amount: '400' })
        scene.upstream.next(async (got, response) => {
          const stream = model.provider.includes('chat')
            ? chatStream(got, response)
            : responseStream(got, response)
          const words = 'word '.repeat(8)
          while (!response.closed) {
            if ('finish' in stream && model.provider.includes('chat'))
              (stream as ReturnType<typeof chatStream>).piece({ content: words })
            else (stream as ReturnType<typeof responseStream>).piece(words)
            await new Promise(setImmediate)
          }
        })
        const result = streamText({ model, prompt: 'hello', maxRetries: 0 })
        assert.match(await result.text, /^(word )+$/)
        assert.equal(await result.finishReason, 'length')
      }
    })

    test('embeddings', async () => {
      const openai = await provider('ai-embed')
      const { embedding } = await embed({ model: openai.embedding('m'), value: 'hello', maxRetries: 0 })
      assert.deepEqual(embedding, [0.5, -0.25])
    })
  })
})
