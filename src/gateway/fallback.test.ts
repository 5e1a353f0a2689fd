/** More than one upstream: which of them a call goes to, and what becomes of it where that one fails. */
import assert from 'node:assert/strict'
import { after, afterEach, before, describe, test } from 'node:test'
import Anthropic from '@anthropic-ai/sdk'
import OpenAI, { toFile } from 'openai'
import { speakAnthropic } from '../../test/anthropic-wire.ts'
import { type GatewayScene, openGateway, say } from '../../test/gateway.ts'
import { speakOpenai } from '../../test/openai-wire.ts'

const CONFIG = `routes:
  - { endpoint: 'messages*', upstream: claude, feature: chat }
  - { endpoint: 'audio.*', upstream: main, as: big, feature: sound, fallback: [{ upstream: spare, model: small }, { upstream: main }] }
  - { upstream: main, feature: chat, fallback: [{ upstream: spare, model: small }] }
plans:
  faithful: { fallback: false }
`
const waterfall = [{ credits: ['purchased' as const] }]
const POLICY = {
  features: {
    chat: {
      rate_card: [
        { when: { model: 'small' }, per_unit: { input_tokens: 1, output_tokens: 1 } },
        { per_unit: { input_tokens: 1, output_tokens: 10 } },
      ],
    },
    sound: {
      rate_card: [{ when: { model: 'small' }, per_unit: { seconds: 1 } }, { per_unit: { seconds: 5 } }],
    },
  },
  plans: { plan: { waterfall }, faithful: { waterfall } },
}

describe('of several upstreams', () => {
  let scene: GatewayScene
  before(async () => {
    scene = await openGateway({
      ...{ policy: POLICY, config: CONFIG },
      upstreams: { main: 'openai', spare: 'openai', claude: 'anthropic' },
      usual: (got, response) =>
        (got.headers['x-api-key'] === undefined ? speakOpenai : speakAnthropic)(got, response),
    })
  })
  after(() => scene.close())
  afterEach(() => assert.deepEqual(scene.faults, []))

  const client = async (account: string, plan = 'plan') =>
    new OpenAI({
      ...{ baseURL: `${scene.url}/v1`, maxRetries: 0 },
      apiKey: await scene.account(account, '100000', { plan }),
    })
  const chat = { model: 'm', messages: [{ role: 'user' as const, content: 'hello' }] }
  const unwell = () => scene.upstream.next((_, response) => say(response, { error: { message: 'no' } }, 503))

  test('each provider has its own, by path and, where both know the path, by header', async () => {
    const apiKey = await scene.account('both', '100000')
    const openai = new OpenAI({ baseURL: `${scene.url}/v1`, apiKey, maxRetries: 0 })
    const anthropic = new Anthropic({ baseURL: scene.url, apiKey, maxRetries: 0 })
    await openai.chat.completions.create(chat)
    await anthropic.messages.create({ ...chat, max_tokens: 10 })
    assert.deepEqual((await openai.models.list()).data[0]?.object, 'model')
    assert.deepEqual((await anthropic.models.list()).data[0]?.type, 'model')
    assert.equal((await scene.used('both'))?.requests, 2)
  })

  test('the next one serves where the first is not well, charged as what ran', async () => {
    const openai = await client('falls-back')
    unwell()
    const answer = await openai.chat.completions.create(chat)
    assert.equal(answer.model, 'small')
    // 4 of input, 2 from the cache for nothing, and 3 of output at the small model's price.
    assert.deepEqual(await scene.used('falls-back'), {
      charged: '7',
      quantities: { input_tokens: '4', cached_input_tokens: '2', output_tokens: '3' },
      requests: 1,
    })
  })

  test('a form goes there under the name of the model there', async () => {
    const openai = await client('form-falls-back')
    const models: unknown[] = []
    for (const status of [503, 503, 200])
      scene.upstream.next(async ({ bytes, headers }, response) => {
        const type = { 'content-type': String(headers['content-type']) }
        const form = await new Response(bytes as Uint8Array<ArrayBuffer>, { headers: type }).formData()
        models.push(form.get('model'))
        say(response, { text: 'hi', usage: { type: 'duration', seconds: 2 } }, status)
      })
    const file = await toFile(Buffer.from('abc'), 'a.mp3')
    await openai.audio.transcriptions.create({ model: 'whisper-1', file })
    assert.deepEqual(models, ['big', 'small', 'big'])
    assert.equal((await scene.used('form-falls-back'))?.charged, '10')
  })

  test('where all fail, the caller is told, and pays nothing', async () => {
    const openai = await client('all-fail')
    unwell()
    unwell()
    await assert.rejects(openai.chat.completions.create(chat), OpenAI.InternalServerError)
    assert.equal(await scene.used('all-fail'), undefined)
  })

  test('a plan may keep to the first', async () => {
    const openai = await client('faithful', 'faithful')
    unwell()
    const before = scene.upstream.got.length
    await assert.rejects(openai.chat.completions.create(chat), OpenAI.InternalServerError)
    assert.equal(scene.upstream.got.length, before + 1)
  })

  test('an error of the call itself is not tried elsewhere', async () => {
    const openai = await client('own-error')
    const before = scene.upstream.got.length
    scene.upstream.next((_, response) => say(response, { error: { message: 'too long' } }, 400))
    await assert.rejects(openai.chat.completions.create(chat), OpenAI.BadRequestError)
    assert.equal(scene.upstream.got.length, before + 1)
  })
})
