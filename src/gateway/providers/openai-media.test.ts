/** Pictures, sound and moderations through the package of OpenAI, forms through real clients of other kinds as well. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, afterEach, before, describe, test } from 'node:test'
import OpenAI, { toFile } from 'openai'
import type { ImageGenCompletedEvent, ImagesResponse } from 'openai/resources/images'
import { events, type GatewayScene, type Got, openGateway, say, UPSTREAM_KEY } from '../../../test/gateway.ts'

const credits = { waterfall: [{ credits: ['purchased' as const] }] }
const POLICY = {
  features: {
    pictures: {
      rate_card: [
        {
          when: { model: 'by-token' },
          per_unit: { input_tokens: 1, image_input_tokens: 2, output_tokens: 10 },
        },
        { when: { size: '1024x1024', quality: 'high' }, per_unit: { images: 200 } },
        { per_unit: { images: 50 } },
      ],
    },
    talk: { rate_card: [{ per_unit: { characters: 1 } }] },
    listening: {
      rate_card: [
        {
          when: { model: 'by-token' },
          per_unit: { audio_input_tokens: 3, input_tokens: 1, output_tokens: 10 },
        },
        { per_unit: { seconds: 2 } },
      ],
    },
  },
  plans: { plan: credits },
}
const CONFIG = `routes:
  - { endpoint: 'images.*', upstream: main, feature: pictures }
  - { endpoint: audio.speech, upstream: main, feature: talk }
  - { endpoint: 'audio.*', model: mapped, as: whisper-1, upstream: main, feature: listening }
  - { endpoint: 'audio.*', upstream: main, feature: listening }
`
const USAGE = {
  input_tokens: 30,
  input_tokens_details: { text_tokens: 10, image_tokens: 20 },
  output_tokens: 40,
  total_tokens: 70,
}

const formOf = ({ bytes, headers }: Got): Promise<FormData> =>
  new Response(bytes as Uint8Array<ArrayBuffer>, {
    headers: { 'content-type': String(headers['content-type']) },
  }).formData()

describe('pictures and sound', () => {
  let scene: GatewayScene
  before(async () => {
    scene = await openGateway({
      policy: POLICY,
      config: CONFIG,
      async usual(got, response) {
        const { n } = got.body
        if (got.path === '/v1/images/generations')
          return say(response, {
            created: 1,
            data: Array.from({ length: Number(n ?? 1) }, () => ({ b64_json: 'AAAA' })),
            ...(got.body.model === 'by-token' && { usage: USAGE }),
          } satisfies ImagesResponse)
        if (got.path === '/v1/audio/speech') {
          response.writeHead(200, { 'content-type': 'audio/mpeg' })
          return void response.end(Buffer.from([1, 2, 3, 0, 255]))
        }
        return say(response, { error: { message: got.path } }, 404)
      },
    })
  })
  after(() => scene.close())
  afterEach(() => assert.deepEqual(scene.faults, []))

  const client = async (account: string, amount = '1000000') =>
    new OpenAI({ baseURL: `${scene.url}/v1`, apiKey: await scene.account(account, amount), maxRetries: 0 })
  const last = () => {
    const got = scene.upstream.got.at(-1)
    assert.ok(got)
    return got
  }

  test('pictures are charged by size and quality', async () => {
    const openai = await client('pictures')
    const more = { size: '1024x1024' as const, quality: 'high' as const }
    const answer = await openai.images.generate({ model: 'gpt-image-1', prompt: 'a cat', n: 2, ...more })
    assert.equal(answer.data?.length, 2)
    assert.deepEqual(await scene.used('pictures'), {
      charged: '400',
      quantities: { images: '2' },
      requests: 1,
    })
  })

  test('or by tokens, where the policy prices these', async () => {
    const openai = await client('picture-tokens')
    await openai.images.generate({ model: 'by-token', prompt: 'a cat' })
    assert.equal((await scene.used('picture-tokens'))?.charged, '450')
  })

  test('what they can cost is held before', async () => {
    const openai = await client('picture-poor', '399')
    await assert.rejects(
      openai.images.generate({ model: 'm', prompt: 'a cat', n: 2, size: '1024x1024', quality: 'high' }),
      OpenAI.RateLimitError,
    )
  })

  test('a stream of pictures is charged for each of its ends', async () => {
    const openai = await client('picture-stream')
    const head = { b64_json: 'A'.repeat(5_000_000), background: 'auto', created_at: 1 } as const
    const looks = { output_format: 'png', quality: 'auto', size: 'auto' } as const
    scene.upstream.next((_, response) => {
      const stream = events(response)
      stream.tell({ type: 'image_generation.partial_image', partial_image_index: 0, ...head, ...looks })
      for (let n = 0; n < 2; n++) {
        const end = { type: 'image_generation.completed', ...head, ...looks, usage: USAGE } as const
        stream.tell(end satisfies ImageGenCompletedEvent, end.type)
      }
      stream.end()
    })
    const all = await Array.fromAsync(
      await openai.images.generate({ model: 'by-token', prompt: 'a cat', stream: true, n: 2 }),
    )
    assert.equal(all.length, 3)
    assert.equal((await scene.used('picture-stream'))?.charged, '900')
  })

  test('an edit is a form: its picture arrives as it was, its fields are what is charged', async () => {
    const openai = await client('edit')
    const bytes = randomBytes(300_000)
    scene.upstream.next((_, response) =>
      say(response, { created: 1, data: [{ b64_json: 'AA' }, { b64_json: 'AA' }] }),
    )
    await openai.images.edit({
      ...{ model: 'm', prompt: 'a hat', n: 2, size: '1024x1024', quality: 'high' },
      image: await toFile(bytes, 'cat.png', { type: 'image/png' }),
    })
    const form = await formOf(last())
    const image = form.get('image')
    assert.ok(image instanceof File)
    assert.deepEqual([image.name, image.type], ['cat.png', 'image/png'])
    assert.deepEqual(Buffer.from(await image.arrayBuffer()), bytes)
    assert.equal(form.get('prompt'), 'a hat')
    assert.equal(last().headers.authorization, `Bearer ${UPSTREAM_KEY}`)
    assert.equal((await scene.used('edit'))?.charged, '400')
  })

  test('speech is charged by characters, and its sound comes as it is', async () => {
    const openai = await client('speech')
    const answer = await openai.audio.speech.create({ model: 'tts', voice: 'alloy', input: 'héllo 🎵' })
    assert.equal(answer.headers.get('content-type'), 'audio/mpeg')
    assert.deepEqual(Buffer.from(await answer.arrayBuffer()), Buffer.from([1, 2, 3, 0, 255]))
    assert.deepEqual(await scene.used('speech'), {
      charged: '7',
      quantities: { characters: '7' },
      requests: 1,
    })
    const { items } = await scene.engine.entries('speech', { kinds: ['usage'] })
    assert.equal(items[0]?.body.estimated, undefined)
  })

  const listen = async (openai: OpenAI, model: string, more: object = {}) =>
    openai.audio.transcriptions.create({
      ...{ model, file: await toFile(randomBytes(80_000), 'talk.mp3', { type: 'audio/mpeg' }) },
      ...more,
    })

  test('transcriptions are charged by the seconds that are told', async () => {
    const openai = await client('seconds')
    scene.upstream.next((_, response) =>
      say(response, { text: 'hi', usage: { type: 'duration', seconds: 7.25 } }),
    )
    assert.equal((await listen(openai, 'whisper-1')).text, 'hi')
    assert.deepEqual(await scene.used('seconds'), {
      charged: '14.5',
      quantities: { seconds: '7.25' },
      requests: 1,
    })
  })

  test('or by tokens, and those of sound apart', async () => {
    const openai = await client('audio-tokens')
    const usage = {
      ...{ type: 'tokens', input_tokens: 50, output_tokens: 4, total_tokens: 54 },
      input_token_details: { audio_tokens: 45, text_tokens: 5 },
    }
    scene.upstream.next((_, response) => say(response, { text: 'hi', usage }))
    await listen(openai, 'by-token')
    assert.deepEqual((await scene.used('audio-tokens'))?.charged, '180')
  })

  test('as a stream', async () => {
    const openai = await client('audio-stream')
    scene.upstream.next((_, response) => {
      const stream = events(response)
      stream.tell({ type: 'transcript.text.delta', delta: 'hi' })
      const usage = { type: 'tokens', input_tokens: 50, output_tokens: 4, total_tokens: 54 }
      stream.tell({ type: 'transcript.text.done', text: 'hi', usage })
      stream.end()
    })
    const stream = await listen(openai, 'by-token', { stream: true })
    assert.equal((await Array.fromAsync(stream as unknown as AsyncIterable<unknown>)).length, 2)
    assert.equal((await scene.used('audio-stream'))?.charged, '90')
  })

  test('where nothing is told they are charged by the size of the file, as estimated', async () => {
    const openai = await client('untold')
    scene.upstream.next((_, response) => {
      response.writeHead(200, { 'content-type': 'text/plain' })
      response.end('hi\n')
    })
    const text = await listen(openai, 'whisper-1', { response_format: 'text' })
    assert.equal(String(text), 'hi\n')
    // 80,000 bytes at 8,000 a second.
    assert.equal((await scene.used('untold'))?.charged, '20')
    const { items } = await scene.engine.entries('untold', { kinds: ['usage'] })
    assert.equal(items[0]?.body.estimated, true)
  })

  test('a model of another name goes upstream as what it is there', async () => {
    const openai = await client('mapped')
    scene.upstream.next((_, response) => say(response, { text: 'hi', duration: 1 }))
    await openai.audio.translations.create({
      ...{ model: 'mapped', file: await toFile(randomBytes(100), 'talk.mp3') },
    })
    assert.equal((await formOf(last())).get('model'), 'whisper-1')
    assert.equal((await scene.used('mapped'))?.charged, '2')
  })

  test('a form that names two models is refused, and so is one that is none', async () => {
    const key = await scene.account('forms', '1000')
    const form = new FormData()
    form.set('file', new Blob(['abc']), 'a.mp3')
    form.append('model', 'whisper-1')
    form.append('model', 'by-token')
    const before = scene.upstream.got.length
    const headers = { authorization: `Bearer ${key}` }
    const send = (body: FormData | string, more = {}) =>
      fetch(`${scene.url}/v1/audio/transcriptions`, {
        method: 'POST',
        headers: { ...headers, ...more },
        body,
      })
    assert.equal((await send(form)).status, 400)
    assert.equal((await send('{}', { 'content-type': 'application/json' })).status, 400)
    const broken = { 'content-type': 'multipart/form-data; boundary=x' }
    for (const body of [
      '',
      '--x',
      '--x\r\n\r\n--x--',
      'nothing',
      '--x\r\ncontent-disposition: form-data; name="model"',
    ])
      assert.equal((await send(body, broken)).status, 400)
    const many = '--x\r\ncontent-disposition: form-data; name="a"\r\n\r\nb\r\n'.repeat(300)
    const response = await send(`${many}--x--\r\n`, broken)
    assert.match(await response.text(), /at most 200 fields/)
    assert.equal(scene.upstream.got.length, before)
  })

  test('moderations cost nothing', async () => {
    const openai = await client('moderations', '0')
    scene.upstream.next((got, response) => {
      assert.deepEqual(got.body, { input: 'text' })
      say(response, { id: 'm1', model: 'm', results: [] })
    })
    assert.equal((await openai.moderations.create({ input: 'text' })).id, 'm1')
    assert.equal(await scene.used('moderations'), undefined)
  })
})
