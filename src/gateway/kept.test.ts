/** What OpenAI keeps of calls, through one key that all callers share: whose it is holds by the ids that they are given. */
import assert from 'node:assert/strict'
import type { ServerResponse } from 'node:http'
import { after, before, describe, test } from 'node:test'
import OpenAI from 'openai'
import { type GatewayScene, type Got, openGateway, say, UPSTREAM_KEY } from '../../test/gateway.ts'
import { responseAnswer, responseStream, speakOpenai } from '../../test/openai-wire.ts'
import { readConfig } from './config.ts'
import { createIds } from './ids.ts'

/** An upstream that keeps what it is asked, by ids of its own, and knows of no callers. */
function keeper() {
  const kept = new Map<string, Record<string, unknown>>()
  let made = 0
  const put = (kind: string, more: object): Record<string, unknown> => {
    const one = { id: `${kind}_${++made}`, ...more }
    kept.set(one.id, one)
    return one
  }
  async function answer(got: Got, response: ServerResponse): Promise<void> {
    const [, , kind = '', id, below, item] = (got.path.split('?')[0] ?? '').split('/')
    const one = kept.get(item ?? id ?? '')
    if (kind !== 'responses' && kind !== 'conversations') return speakOpenai(got, response)
    if (id !== undefined && one === undefined)
      return say(response, { error: { message: `no ${item ?? id}`, type: 'invalid_request_error' } }, 404)
    if (got.method === 'GET' && below === undefined) return say(response, one)
    if (below === 'input_items' || (got.method === 'GET' && item === undefined && below === 'items'))
      return say(response, {
        ...{ object: 'list', has_more: false, first_id: 'msg_a', last_id: 'msg_b' },
        data: [
          { id: 'msg_a', type: 'message', role: 'user', content: [{ type: 'input_text', text: 'id' }] },
          { id: 'msg_b', type: 'mcp_approval_response', approval_request_id: 'mcpr_1', approve: true },
        ],
      })
    if (got.method === 'DELETE') {
      kept.delete(id ?? '')
      return say(response, { id, object: kind, deleted: true })
    }
    if (below === 'cancel') return say(response, { ...one, status: 'cancelled' })
    if (kind === 'conversations')
      return say(response, one ?? put('conv', { object: 'conversation', created_at: 1, metadata: {} }))
    if (got.body.stream === true) {
      const stream = responseStream(got, response)
      stream.piece('one ')
      stream.piece('two')
      return stream.finish('one two')
    }
    const { previous_response_id = null, conversation } = got.body
    say(
      response,
      put('resp', {
        ...{ ...responseAnswer(got, 'one', 'completed'), id: `resp_${made + 1}` },
        previous_response_id,
        ...(conversation !== undefined && { conversation: { id: conversation } }),
      }),
    )
  }
  return { answer, kept }
}

const PLACES = `routes:
  - { model: m, upstream: main, feature: chat, fallback: [{ upstream: spare, model: spare-m }] }
  - { upstream: main, feature: chat }
paths: [{ method: POST, path: /v1/rerank, upstream: main }]`

const open = (config = PLACES, upstream = '') =>
  openGateway({
    ...{ config, upstream, usual: keeper().answer },
    upstreams: { main: 'openai', spare: 'openai', claude: 'anthropic' },
  })

describe('what a provider keeps', () => {
  let scene: GatewayScene
  before(async () => {
    scene = await open()
  })
  after(() => scene.close())

  const client = (apiKey: string, { url } = scene) =>
    new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 })
  const clientOf = async (id: string, subject?: Record<string, string>) =>
    client(await scene.account(id, '10000', subject === undefined ? {} : { subject }))
  const last = () => scene.upstream.got.at(-1) as Got
  const ask = { model: 'm', input: 'hello' } as const
  const isUnknown = (error: unknown) => {
    assert.ok(error instanceof OpenAI.NotFoundError, String(error))
    assert.deepEqual([error.code, error.type], ['not_found', 'invalid_request_error'])
    return true
  }

  test('is read on from by the account that made it, whole and as a stream', async () => {
    const ada = await clientOf('ada')
    const first = await ada.responses.create(ask)
    assert.match(first.id, /^resp_\d+\.[\w-]{16}$/)
    assert.match(first.output[0]?.id ?? '', /^m1\.[\w-]{16}$/)
    const second = await ada.responses.create({ ...ask, previous_response_id: first.id })
    assert.equal(last().body.previous_response_id, first.id.split('.')[0])
    assert.equal(second.previous_response_id, first.id)
    const events = await ada.responses.create({ ...ask, stream: true, previous_response_id: second.id })
    const ids = new Set<string>()
    for await (const event of events) {
      if ('response' in event) ids.add(event.response.id)
      if ('item_id' in event) ids.add(event.item_id)
      if ('item' in event) ids.add(String(event.item.id))
    }
    assert.equal(ids.size, 2)
    for (const id of ids) assert.match(id, /^(r1|m1)\.[\w-]{16}$/)
    assert.ok([...ids].includes(first.output[0]?.id ?? ''))
  })

  test('is looked at, cancelled and deleted by it, and its list goes on', async () => {
    const ada = await clientOf('looks')
    const { id } = await ada.responses.create(ask)
    assert.equal((await ada.responses.retrieve(id)).id, id)
    assert.equal((await ada.responses.cancel(id)).id, id)
    const items = await ada.responses.inputItems.list(id)
    const [message, approval] = items.data as unknown as Record<string, string>[]
    assert.match(message?.id ?? '', /^msg_a\.[\w-]{16}$/)
    assert.match(approval?.approval_request_id ?? '', /^mcpr_1\.[\w-]{16}$/)
    await ada.responses.inputItems.list(id, { after: message?.id ?? '', limit: 5 })
    assert.match(last().path, /input_items\?(?=.*limit=5)(?=.*after=msg_a(&|$))/)
    await ada.responses.delete(id)
    await assert.rejects(ada.responses.retrieve(id), OpenAI.NotFoundError)
    assert.match(last().path, /^\/v1\/responses\/resp_\d+$/)
  })

  test('is not there for another account, nor by the id that the upstream has for it', async () => {
    const ada = await clientOf('owner')
    const bob = await clientOf('stranger')
    const { id, output } = await ada.responses.create(ask)
    const conversation = await ada.conversations.create()
    const before = scene.upstream.got.length
    const all = [id, conversation.id, output[0]?.id ?? '']
    for (const named of all) {
      const upstreams = named.split('.')[0] as string
      for (const wrong of [named, upstreams, `${upstreams}.`, `${upstreams}.${'A'.repeat(16)}`, '.', '']) {
        const { responses, conversations } = bob
        await assert.rejects(responses.create({ ...ask, previous_response_id: wrong }), isUnknown)
        await assert.rejects(responses.create({ ...ask, conversation: wrong }), isUnknown)
        await assert.rejects(responses.create({ ...ask, conversation: { id: wrong } }), isUnknown)
        const reference = { type: 'item_reference' as const, id: wrong }
        await assert.rejects(responses.create({ ...ask, input: [reference] }), isUnknown)
        await assert.rejects(responses.create({ ...ask, input: [{ id: wrong }] }), isUnknown)
        await assert.rejects(conversations.create({ items: [reference as never] }), isUnknown)
        if (wrong === '' || wrong === '.') continue
        await assert.rejects(responses.retrieve(wrong), isUnknown)
        await assert.rejects(responses.cancel(wrong), isUnknown)
        await assert.rejects(responses.delete(wrong), isUnknown)
        await assert.rejects(responses.inputItems.list(wrong).then(), isUnknown)
        await assert.rejects(conversations.retrieve(wrong), isUnknown)
        await assert.rejects(conversations.update(wrong, { metadata: {} }), isUnknown)
        await assert.rejects(conversations.delete(wrong), isUnknown)
        await assert.rejects(conversations.items.list(wrong).then(), isUnknown)
        await assert.rejects(conversations.items.create(wrong, { items: [] }), isUnknown)
      }
    }
    // Nothing of it has been sent, held or charged.
    assert.equal(scene.upstream.got.length, before)
    assert.equal(await scene.used('stranger'), undefined)
    // One id of its own does not open the other's beside it.
    const own = await bob.conversations.create()
    const item = { conversation_id: own.id }
    await assert.rejects(bob.conversations.items.retrieve(output[0]?.id ?? '', item), isUnknown)
    await assert.rejects(
      bob.responses.create({ ...ask, conversation: own.id, previous_response_id: id }),
      isUnknown,
    )
  })

  test('is one subject’s where its key stands for one, and the whole account’s as well', async () => {
    const ann = await clientOf('team', { user: 'ann' })
    const make = async (id: string, subject?: Record<string, string>) => {
      const { secret } = await scene.engine.createKey({
        ...{ id, role: 'meter', account: 'team' },
        ...(subject !== undefined && { subject }),
      })
      return client(secret)
    }
    const [whole, ben, annAtWork] = await Promise.all([
      make('team-whole'),
      make('team-ben', { user: 'ben' }),
      make('team-work', { user: 'ann', project: 'work' }),
    ])
    const anns = await ann.responses.create(ask)
    assert.equal((await whole.responses.retrieve(anns.id)).id, anns.id)
    await assert.rejects(ben.responses.retrieve(anns.id), isUnknown)
    await assert.rejects(annAtWork.responses.retrieve(anns.id), isUnknown)
    const works = await annAtWork.responses.create(ask)
    assert.equal((await ann.responses.retrieve(works.id)).id, works.id)
    const wholes = await whole.responses.create(ask)
    await assert.rejects(ann.responses.retrieve(wholes.id), isUnknown)
    // A tag less is no key.
    await assert.rejects(ben.responses.retrieve(anns.id.slice(0, -16)), isUnknown)
    // The dimensions of two ids are not one id's.
    const bens = await ben.responses.create(ask)
    await assert.rejects(ben.responses.retrieve(anns.id + bens.id.slice(-16)), isUnknown)
  })

  test('an item that says all by itself loses an id that is nobody’s, and keeps its own', async () => {
    const ada = await clientOf('items')
    const { output } = await ada.responses.create(ask)
    const [message] = output
    await ada.responses.create({
      ...ask,
      input: [
        message as never,
        { role: 'user', content: 'id' },
        { type: 'reasoning', id: 'rs_others', summary: [], encrypted_content: 'x' },
      ],
    })
    assert.deepEqual(
      (last().body.input as Record<string, unknown>[]).map(({ id, type }) => [id, type]),
      [
        ['m1', 'message'],
        [undefined, undefined],
        [undefined, 'reasoning'],
      ],
    )
  })

  test('is asked of the upstream that keeps it, although another comes first', async () => {
    const ada = await clientOf('fallback')
    scene.upstream.next((_got, response) => say(response, {}, 500))
    const first = await ada.responses.create(ask)
    assert.equal(first.model, 'spare-m')
    const second = await ada.responses.create({ ...ask, previous_response_id: first.id })
    assert.equal(second.model, 'spare-m')
    // The route of this model does not lead there.
    await assert.rejects(
      ada.responses.create({ ...ask, model: 'other', previous_response_id: first.id }),
      isUnknown,
    )
    assert.equal((await ada.responses.create(ask)).model, 'm')
  })

  test('holds over a restart, on another node, and with the key of the upstream kept for ids alone', async (t) => {
    const { id } = await (await clientOf('moves')).responses.create(ask)
    const other = await open(PLACES)
    t.after(() => other.close())
    const secret = await other.account('moves', '10000')
    other.upstream.next((got, response) =>
      say(response, { id: got.path.split('/').at(-1), object: 'response', output: [] }),
    )
    assert.equal((await client(secret, other).responses.retrieve(id)).id, id)
    const stranger = await other.account('moves-not', '10000')
    await assert.rejects(client(stranger, other).responses.retrieve(id), isUnknown)
    const ids = createIds()
    const owner = { account: 'moves', subject: undefined }
    const upstream = id.split('.')[0]
    assert.equal(ids.open(id, { name: 'main', idKey: UPSTREAM_KEY }, owner), upstream)
    for (const keeper of [
      { name: 'spare', idKey: UPSTREAM_KEY },
      { name: 'main', idKey: 'another' },
      { name: 'main', idKey: undefined },
    ])
      assert.equal(createIds().open(id, keeper, owner), undefined)
    const written = readConfig(
      `upstreams: { main: { provider: openai, url: 'http://x', key_env: NEW, id_key_env: OLD } }
routes: [{ upstream: main, feature: f }]`,
      { NEW: 'new', OLD: UPSTREAM_KEY },
    ).upstreams.get('main')
    assert.deepEqual([written?.key, written?.idKey], ['new', UPSTREAM_KEY])
  })

  const post = async (secret: string, path: string, body: object, { url } = scene) => {
    const response = await fetch(`${url}/v1/${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${secret}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
    return [response.status, await response.json()] as [number, { error?: { param?: string } }]
  }
  const said = (content: object) => [{ role: 'user', content: [content] }]
  const max = { model: 'm', max_tokens: 5 }
  const FOREIGN: readonly [path: string, body: object, param: string][] = [
    [
      'responses',
      { ...ask, input: said({ type: 'input_file', file_id: 'file-1' }) },
      'input.0.content.0.file_id',
    ],
    [
      'responses',
      { ...ask, tools: [{ type: 'file_search', vector_store_ids: ['vs_1'] }] },
      'tools.0.vector_store_ids',
    ],
    [
      'responses',
      { ...ask, tools: [{ type: 'code_interpreter', container: 'cntr_1' }] },
      'tools.0.container',
    ],
    [
      'responses',
      { ...ask, tools: [{ type: 'code_interpreter', container: { type: 'auto', file_ids: ['f'] } }] },
      'tools.0.container.file_ids',
    ],
    ['responses', { ...ask, prompt: { id: 'pmpt_1' } }, 'prompt.id'],
    [
      'conversations',
      { items: said({ type: 'input_image', file_id: 'file-1' }) },
      'items.0.content.0.file_id',
    ],
    [
      'chat/completions',
      { model: 'm', messages: said({ type: 'file', file: { file_id: 'file-1' } }) },
      'messages.0.content.0.file.file_id',
    ],
    [
      'chat/completions',
      { model: 'm', messages: [{ role: 'assistant', audio: { id: 'audio_1' } }] },
      'messages.0.audio.id',
    ],
    ['audio/speech', { model: 'm', input: 'a', voice: { id: 'voice_1' } }, 'voice'],
    [
      'messages',
      { ...max, messages: said({ type: 'document', source: { type: 'file', file_id: 'file_1' } }) },
      'messages.0.content.0.source.file_id',
    ],
    ['messages', { ...max, messages: said({ type: 'text', text: 'a' }), container: 'c_1' }, 'container'],
  ]

  test('and is bound to nobody is not served, unless its owner says that all may have it', async (t) => {
    const routes = `routes: [{ endpoint: 'messages*', upstream: claude, feature: chat }, { upstream: main, feature: chat }]`
    const [safe, shared] = [await open(routes), await open(routes, ', shared_storage: true')]
    t.after(() => Promise.all([safe.close(), shared.close()]))
    const [key, sharedKey] = [await safe.account('a', '100000'), await shared.account('a', '100000')]
    for (const [path, body, param] of FOREIGN) {
      const [status, { error }] = await post(key, path, body, safe)
      assert.equal(status, 400, path)
      if (path !== 'messages') assert.equal(error?.param, param)
      const before = shared.upstream.got.length
      await post(sharedKey, path, body, shared)
      assert.ok(shared.upstream.got.length > before, `${path} ${param}`)
    }
    assert.equal(safe.upstream.got.length, 0)
    await Promise.all([safe.settled('a'), shared.settled('a')])
  })

  test('what only looks like it is served', async () => {
    const secret = await scene.account('looks-like', '100000')
    const tool = { type: 'function', name: 'f', parameters: { properties: { file_id: { type: 'string' } } } }
    const bodies: object[] = [
      { ...ask, tools: [tool], metadata: { file_id: 'x' } },
      { ...ask, tools: [{ type: 'code_interpreter', container: { type: 'auto' } }] },
      {
        ...ask,
        input: [
          {
            type: 'code_interpreter_call',
            id: 'ci_1',
            container_id: 'cntr_1',
            code: '',
            status: 'completed',
          },
          {
            ...{ type: 'message', role: 'assistant' },
            content: [{ type: 'output_text', text: 'a', annotations: [{ file_id: 'f', container_id: 'c' }] }],
          },
        ],
      },
    ]
    for (const body of bodies) assert.equal((await post(secret, 'responses', body))[0], 200)
  })

  test('is not streamed again, and rules for any path that lead to it have to be meant', async () => {
    const ada = await clientOf('again')
    const { id } = await ada.responses.create(ask)
    await assert.rejects(ada.responses.retrieve(id, { stream: true }), OpenAI.BadRequestError)
    const rule = (path: string, more = '') =>
      readConfig(
        `upstreams: { main: { provider: openai, url: 'http://x/v1'${more} } }
routes: [{ upstream: main, feature: f }]
paths: [{ method: GET, path: ${path}, upstream: main }]`,
        {},
      )
    for (const path of [
      '/v1/files',
      '/files/:id',
      '/v1/responses/:id',
      '/openai/v1/batches',
      '/v1/:any/:id',
    ]) {
      assert.throws(() => rule(path), { code: 'invalid' })
      rule(path, ', shared_storage: true')
    }
    rule('/v1/rerank/:id')
  })
})
