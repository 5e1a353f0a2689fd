import assert from 'node:assert/strict'
import { once } from 'node:events'
import { after, afterEach, before, describe, test } from 'node:test'
import Anthropic from '@anthropic-ai/sdk'
import { messageStream, speakAnthropic, TOLD } from '../../../test/anthropic-wire.ts'
import { type GatewayScene, openGateway, say, UPSTREAM_KEY } from '../../../test/gateway.ts'

const messages = [{ role: 'user' as const, content: 'hello' }]
const POLICY = {
  features: {
    chat: {
      rate_card: [
        {
          per_unit: {
            input_tokens: 1,
            cached_input_tokens: '0.1',
            cache_write_input_tokens: 2,
            output_tokens: 10,
          },
        },
      ],
    },
  },
  plans: { plan: { waterfall: [{ credits: ['purchased' as const] }] } },
}

describe('the package of Anthropic', () => {
  let scene: GatewayScene
  before(async () => {
    scene = await openGateway({ usual: speakAnthropic, upstreams: { main: 'anthropic' }, policy: POLICY })
  })
  after(() => scene.close())
  afterEach(() => assert.deepEqual(scene.faults, []))

  const client = async (account: string, credits = '100000') =>
    new Anthropic({ baseURL: scene.url, apiKey: await scene.account(account, credits), maxRetries: 0 })
  const last = () => {
    const got = scene.upstream.got.at(-1)
    assert.ok(got)
    return got
  }
  /** 4 + 0.2 + 10 + 30 CU. */
  const TOLD_ONCE = {
    charged: '44.2',
    quantities: {
      ...{ input_tokens: '4', cached_input_tokens: '2', cache_write_input_tokens: '5', output_tokens: '3' },
    },
    requests: 1,
  }

  test('a whole message is charged as the upstream says, under its own key', async () => {
    const anthropic = await client('whole')
    const answer = await anthropic.messages.create({ model: 'm', max_tokens: 100, messages })
    assert.deepEqual(answer.content, [{ type: 'text', text: 'one two three', citations: null }])
    assert.deepEqual(answer.usage, TOLD)
    assert.equal(last().headers['x-api-key'], UPSTREAM_KEY)
    assert.match(String(last().headers['anthropic-version']), /^\d{4}-\d{2}-\d{2}$/)
    assert.deepEqual(await scene.used('whole'), TOLD_ONCE)
  })

  test('a stream is collected by the package, and charged by its first and last word', async () => {
    const anthropic = await client('stream')
    const stream = anthropic.messages.stream({ model: 'm', max_tokens: 100, messages })
    assert.equal(await stream.finalText(), 'one two three')
    assert.deepEqual(await scene.used('stream'), TOLD_ONCE)
  })

  test('the input of tools comes through piece by piece', async () => {
    const anthropic = await client('tools')
    scene.upstream.next((got, response) => {
      const stream = messageStream(got, response)
      stream.tell({
        ...{ type: 'content_block_start', index: 0 },
        content_block: {
          ...{ type: 'tool_use', id: 'call1', name: 'weather', input: {} },
          caller: { type: 'direct' },
        },
      })
      for (const partial_json of ['{"pla', 'ce":"Rome"}'])
        stream.tell({
          ...{ type: 'content_block_delta', index: 0 },
          delta: { type: 'input_json_delta', partial_json },
        })
      stream.finish('tool_use')
    })
    const tools = [{ name: 'weather', input_schema: { type: 'object' as const } }]
    const stream = anthropic.messages.stream({ model: 'm', max_tokens: 100, messages, tools })
    const [block] = (await stream.finalMessage()).content
    assert.ok(block?.type === 'tool_use')
    assert.deepEqual(block.input, { place: 'Rome' })
  })

  test('who has too little for the whole gets a part, thoughts and all', async () => {
    const anthropic = await client('part', '300')
    const thinking = { type: 'enabled' as const, budget_tokens: 4_000 }
    const { response } = await anthropic.messages
      .create({ model: 'm', max_tokens: 5_000, messages, thinking })
      .withResponse()
    assert.equal(response.headers.get('x-sluice-granted'), `output_tokens=${last().body.max_tokens}`)
    assert.deepEqual(last().body.thinking, { type: 'disabled' })
  })

  test('money that runs out within a stream ends it as a bound that is reached', async () => {
    const anthropic = await client('ends', '600')
    let closed: Promise<unknown> | undefined
    scene.upstream.next(async (got, response) => {
      closed = once(response, 'close')
      const stream = messageStream(got, response)
      stream.open(0)
      while (!response.closed) {
        stream.piece('word '.repeat(8))
        await new Promise(setImmediate)
      }
    })
    const stream = anthropic.messages.stream({ model: 'm', max_tokens: 5_000, messages })
    const answer = await stream.finalMessage()
    assert.equal(answer.stop_reason, 'max_tokens')
    assert.match(await stream.finalText(), /^(word )+$/)
    await closed
    const { quantities } = (await scene.used('ends')) ?? {}
    // Of the input the upstream had told; the output was counted.
    assert.equal(quantities?.cache_write_input_tokens, '5')
    assert.ok(Number(quantities?.output_tokens) > 20)
  })

  test('tokens are counted and models listed for nothing', async () => {
    const anthropic = await client('free', '0')
    assert.deepEqual(await anthropic.messages.countTokens({ model: 'm', messages }), { input_tokens: 6 })
    assert.deepEqual(last().body, { model: 'm', messages })
    const models = await Array.fromAsync(anthropic.models.list())
    assert.deepEqual(
      models.map(({ id }) => id),
      ['m'],
    )
    assert.equal(await scene.used('free'), undefined)
  })

  describe('errors', () => {
    test('an unknown key', async () => {
      const anthropic = new Anthropic({ baseURL: scene.url, apiKey: 'sk-nobody', maxRetries: 0 })
      await assert.rejects(
        anthropic.messages.create({ model: 'm', max_tokens: 1, messages }),
        (error) => error instanceof Anthropic.AuthenticationError && error.type === 'authentication_error',
      )
    })

    test('no money', async () => {
      const anthropic = await client('no-money', '1')
      await assert.rejects(anthropic.messages.create({ model: 'm', max_tokens: 100, messages }), (error) => {
        assert.ok(error instanceof Anthropic.RateLimitError)
        assert.equal(error.type, 'rate_limit_error')
        assert.equal(error.headers.get('x-should-retry'), 'false')
        return true
      })
    })

    test('a body that makes no sense', async () => {
      const anthropic = await client('bad-body')
      await assert.rejects(
        anthropic.messages.create({ model: 'm', max_tokens: 0, messages }),
        Anthropic.BadRequestError,
      )
    })

    test('an error of the upstream comes as it is, and costs nothing', async () => {
      const anthropic = await client('overloaded')
      const error = { type: 'invalid_request_error', message: 'prompt is too long' }
      scene.upstream.next((_, response) => say(response, { type: 'error', error }, 400))
      await assert.rejects(
        anthropic.messages.create({ model: 'm', max_tokens: 100, messages }),
        (thrown) => thrown instanceof Anthropic.BadRequestError && thrown.message.includes('too long'),
      )
      assert.equal(await scene.used('overloaded'), undefined)
    })

    test('a stream that breaks off ends with an error', async () => {
      const anthropic = await client('cut')
      scene.upstream.next(async (got, response) => {
        const stream = messageStream(got, response)
        stream.open(0)
        stream.piece('one two')
        await new Promise((resolve) => response.write(': still here\n\n', resolve))
        response.destroy()
      })
      const stream = await anthropic.messages.create({ model: 'm', max_tokens: 100, messages, stream: true })
      await assert.rejects(
        Array.fromAsync(stream),
        (error) => error instanceof Anthropic.APIError && error.type === 'api_error',
      )
      assert.equal((await scene.used('cut'))?.quantities.output_tokens, '2')
    })
  })
})
