import assert from 'node:assert/strict'
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { request as send } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import OpenAI, { toFile } from 'openai'
import { testDatabase } from '../../../test/postgres.ts'
import { startVideosApi, type VideosApi } from '../../../test/videos-api.ts'
import { createEngine, type Engine } from '../../engine.ts'
import { SluiceError } from '../../errors.ts'
import { memoryStore } from '../../store/memory.ts'
import { postgresStore } from '../../store/postgres/store.ts'
import { sqliteStore } from '../../store/sqlite/store.ts'
import type { Store } from '../../store.ts'
import { createGateway, type Gateway } from '../app.ts'
import { readConfig } from '../config.ts'

const POLICY = {
  features: {
    video: {
      rate_card: [
        { when: { model: 'sora-2-pro', resolution: '1024p' }, per_unit: { seconds: 50 } },
        { when: { model: 'sora-2-pro' }, per_unit: { seconds: 30 } },
        { per_unit: { seconds: 10 } },
      ],
    },
  },
  plans: {
    plan: { waterfall: [{ credits: ['purchased'] }] },
    short: { hold: { ttl: '1s', max_lifetime: '1s' }, waterfall: [{ credits: ['purchased'] }] },
    charging: {
      hold: { ttl: '1s', max_lifetime: '1s', on_expiry: 'charge' },
      waterfall: [{ credits: ['purchased'] }],
    },
  },
} as const

let upstream: VideosApi
before(async () => {
  upstream = await startVideosApi()
})
after(() => upstream.close())
afterEach(() => upstream.meanwhile(undefined))

async function gatewayOn(
  engine: Engine,
  jobs = 'poll: 20ms',
  onFault: (error: unknown) => void = (error) => console.error(error),
): Promise<Gateway> {
  const config = readConfig(
    `upstreams: { main: { provider: openai, url: ${upstream.url}, key_env: KEY } }
routes: [{ upstream: main, feature: video }]
jobs: { ${jobs} }`,
    { KEY: 'upstream-secret' },
  )
  const gateway = createGateway({ engine, config, onFault })
  gateway.server.listen(0, '127.0.0.1')
  await once(gateway.server, 'listening')
  return gateway
}
const urlOf = ({ server }: Gateway) => `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`

let accounts = 0
async function accountWith(engine: Engine, credits: string, plan = 'plan') {
  const account = `account-${++accounts}`
  await engine.createAccount({ id: account, plan })
  await engine.grant(account, { id: 'g', kind: 'purchased', amount: credits })
  const { secret } = await engine.createKey({ id: `key-${account}`, role: 'meter', account })
  return { account, secret }
}
const clientOf = (url: string, apiKey: string) => new OpenAI({ baseURL: url, apiKey, maxRetries: 0 })

/** Waits until it is so, however long the machine takes. */
async function until(what: () => Promise<boolean> | boolean): Promise<void> {
  while (!(await what())) await pause(5)
}
const stateOf = async (engine: Engine, account: string, id: string) =>
  (await engine.request(account, id))?.state
const chargedFor = async (engine: Engine, account: string, id: string) =>
  (await engine.explain(account, id)).charged
const held = async (engine: Engine, account: string) => (await engine.account(account)).credits.held
async function isClean(engine: Engine): Promise<void> {
  assert.equal((await engine.audit({ onDisagreement: (one) => console.error(one) })).disagreements, 0)
}

describe('a video', () => {
  let engine: Engine
  let gateway: Gateway
  let url: string
  before(async () => {
    engine = await createEngine({ store: memoryStore(), policy: POLICY })
    gateway = await gatewayOn(engine, 'poll: 1h')
    url = urlOf(gateway)
  })
  after(async () => {
    await gateway.close(100)
    await isClean(engine)
    await engine.close()
  })

  test('is held at seconds and resolution, and settled by the poll that sees it done', async () => {
    const { account, secret } = await accountWith(engine, '1000')
    const { videos } = clientOf(url, secret)
    const made = await videos.create({
      model: 'sora-2-pro',
      prompt: 'a cat',
      seconds: '8',
      size: '1792x1024',
    })
    assert.match(made.id, /^video_[0-9a-f]{48}$/)
    assert.deepEqual(
      [made.object, made.status, made.seconds, made.size],
      ['video', 'queued', '8', '1792x1024'],
    )
    assert.equal(await held(engine, account), '400')
    assert.equal((await videos.retrieve(made.id)).status, 'queued')
    assert.equal(await stateOf(engine, account, made.id), 'open')
    upstream.end(upstream.newest().id)
    const done = await videos.retrieve(made.id)
    assert.deepEqual([done.id, done.status, done.progress], [made.id, 'completed', 100])
    assert.equal(await chargedFor(engine, account, made.id), '400')
    assert.equal(await held(engine, account), '0')
  })

  test('is charged as what was made, not as what was ordered', async () => {
    const { account, secret } = await accountWith(engine, '1000')
    const { videos } = clientOf(url, secret)
    const made = await videos.create({ model: 'sora-2-pro', prompt: 'a', seconds: '8', size: '1792x1024' })
    upstream.end(upstream.newest().id, { seconds: '4', size: '1280x720' })
    await videos.retrieve(made.id)
    assert.equal(await chargedFor(engine, account, made.id), '120')
  })

  test('of absurd length is charged as ordered', async () => {
    const { account, secret } = await accountWith(engine, '1000')
    const { videos } = clientOf(url, secret)
    const made = await videos.create({ prompt: 'a' })
    upstream.end(upstream.newest().id, { seconds: '-1', size: 'huge' })
    await videos.retrieve(made.id)
    assert.equal(await chargedFor(engine, account, made.id), '40')
  })

  test('that fails costs nothing, and says why', async () => {
    const { account, secret } = await accountWith(engine, '1000')
    const { videos } = clientOf(url, secret)
    const made = await videos.create({ prompt: 'a' })
    upstream.end(upstream.newest().id, { status: 'failed', error: { code: 'moderation', message: 'no' } })
    const failed = await videos.retrieve(made.id)
    assert.deepEqual([failed.status, failed.error?.code], ['failed', 'moderation'])
    const told = await engine.explain(account, made.id)
    assert.deepEqual([told.state, told.charged], ['released', '0'])
    assert.match(told.story.join(' '), /the upstream says: moderation/)
  })

  test('is refused as the package knows it where its account has too little', async () => {
    const { secret } = await accountWith(engine, '39')
    const { creates } = upstream.seen
    await assert.rejects(
      clientOf(url, secret).videos.create({ prompt: 'a' }),
      (error) => error instanceof OpenAI.RateLimitError && error.code === 'insufficient_quota',
    )
    assert.equal(upstream.seen.creates, creates)
  })

  test('that the upstream refuses is held no longer, and its words come through', async () => {
    const { account, secret } = await accountWith(engine, '1000')
    const { videos } = clientOf(url, secret)
    await assert.rejects(
      videos.create({} as never),
      (error) => error instanceof OpenAI.BadRequestError && /prompt is missing/.test(error.message),
    )
    assert.equal(await held(engine, account), '0')
    upstream.meanwhile((_request, response) => {
      response.destroy()
      return true
    })
    await assert.rejects(
      videos.create({ prompt: 'a' }),
      (error) => error instanceof OpenAI.InternalServerError,
    )
    assert.equal(await held(engine, account), '0')
  })

  test('of no length or size that is one is refused before anything is held', async () => {
    const { account, secret } = await accountWith(engine, '1000')
    const { videos } = clientOf(url, secret)
    for (const wrong of [{ seconds: '0' }, { seconds: '1e3' }, { seconds: '9999' }, { size: 'large' }])
      await assert.rejects(
        videos.create({ prompt: 'a', ...wrong } as never),
        (error) => error instanceof OpenAI.BadRequestError && error.param === Object.keys(wrong)[0],
      )
    const twice = new FormData()
    for (const seconds of ['1', '12']) twice.append('seconds', seconds)
    const answer = await fetch(`${url}/videos`, {
      method: 'POST',
      headers: { authorization: `Bearer ${secret}` },
      body: twice,
    })
    assert.equal(answer.status, 400)
    assert.equal(await held(engine, account), '0')
  })

  test('is made after a picture that is sent with it', async () => {
    const { secret } = await accountWith(engine, '1000')
    const { files } = upstream.seen
    const input_reference = await toFile(Buffer.alloc(100_000, 7), 'cat.png', { type: 'image/png' })
    await clientOf(url, secret).videos.create({ prompt: 'a', input_reference })
    assert.equal(upstream.seen.files, files + 1)
  })

  test('is ordered as JSON as well', async () => {
    const { account, secret } = await accountWith(engine, '1000')
    const answer = await fetch(`${url}/videos`, {
      method: 'POST',
      headers: { authorization: `Bearer ${secret}`, 'content-type': 'application/json' },
      body: JSON.stringify({ prompt: 'a', seconds: '12' }),
    })
    assert.equal(answer.status, 200)
    assert.equal(await held(engine, account), '120')
  })

  test('is downloaded whole and in ranges, and is charged before its first byte', async () => {
    const { account, secret } = await accountWith(engine, '1000')
    const { videos } = clientOf(url, secret)
    const { id } = await videos.create({ prompt: 'a' })
    await assert.rejects(
      videos.downloadContent(id),
      (error) => error instanceof OpenAI.BadRequestError && !error.message.includes('upstream_video'),
    )
    upstream.end(upstream.newest().id)
    const whole = await videos.downloadContent(id)
    assert.equal(await chargedFor(engine, account, id), '40')
    assert.equal(whole.headers.get('content-length'), String(upstream.film.length))
    assert.deepEqual(Buffer.from(await whole.arrayBuffer()), upstream.film)
    const part = await videos.downloadContent(id, { variant: 'video' }, { headers: { range: 'bytes=2-9' } })
    assert.deepEqual([part.status, await part.text()], [206, 'lmfilmfi'])
  })

  test('comes as it is sent, and whoever leaves stops it at the upstream', async () => {
    const { secret } = await accountWith(engine, '1000')
    const { videos } = clientOf(url, secret)
    const { id } = await videos.create({ prompt: 'a' })
    upstream.end(upstream.newest().id)
    const stopped = Promise.withResolvers<void>()
    upstream.meanwhile((request, response) => {
      if (!request.url?.endsWith('/content')) return false
      response.on('close', stopped.resolve)
      // The rest never comes.
      response.writeHead(200, { 'content-type': 'video/mp4', 'content-length': 100 }).write('begin')
      return true
    })
    const leave = new AbortController()
    const content = await videos.downloadContent(id, {}, { signal: leave.signal })
    const first = await content.body?.getReader().read()
    assert.equal(Buffer.from(first?.value ?? []).toString(), 'begin')
    leave.abort()
    await stopped.promise
  })

  test('is known to its owner alone', async () => {
    const { account, secret } = await accountWith(engine, '1000')
    const other = await accountWith(engine, '1000')
    const owner = clientOf(url, secret)
    const stranger = clientOf(url, other.secret)
    const { id } = await owner.videos.create({ prompt: 'a' })
    upstream.end(upstream.newest().id)
    const { deletes } = upstream.seen
    for (const call of [
      () => stranger.videos.retrieve(id),
      () => stranger.videos.downloadContent(id),
      () => stranger.videos.delete(id),
      () => stranger.videos.remix(id, { prompt: 'b' }),
      () => owner.videos.retrieve(upstream.newest().id),
      () => owner.videos.retrieve('video_'),
    ])
      await assert.rejects(call(), (error) => error instanceof OpenAI.NotFoundError)
    assert.equal(upstream.seen.deletes, deletes)
    assert.deepEqual((await stranger.videos.list()).data, [])
    const keyOf = async (user: string) =>
      clientOf(url, (await engine.createKey({ id: user, role: 'meter', account, subject: { user } })).secret)
    const [ada, bob] = [await keyOf('ada'), await keyOf('bob')]
    const hers = await ada.videos.create({ prompt: 'a' })
    assert.equal((await ada.videos.retrieve(hers.id)).id, hers.id)
    await assert.rejects(bob.videos.retrieve(hers.id), (error) => error instanceof OpenAI.NotFoundError)
    assert.deepEqual((await bob.videos.list()).data, [])
  })

  test('stands in the list of its owner, newest first, a page at a time', async () => {
    const { secret } = await accountWith(engine, '1000')
    const { videos } = clientOf(url, secret)
    const made: string[] = []
    for (const prompt of ['a', 'b', 'c', 'd', 'e']) {
      made.push((await videos.create({ prompt })).id)
      await pause(2)
    }
    const listed: string[] = []
    for await (const { id } of videos.list({ limit: 2 })) listed.push(id)
    assert.deepEqual(listed, made.toReversed())
    const { data } = await videos.list({ order: 'asc', limit: 3 })
    assert.deepEqual(
      data.map(({ prompt }) => prompt),
      ['a', 'b', 'c'],
    )
  })

  test('that is deleted before it is done costs nothing; one that is done is charged', async () => {
    const { account, secret } = await accountWith(engine, '1000')
    const { videos } = clientOf(url, secret)
    const early = await videos.create({ prompt: 'a' })
    assert.deepEqual(await videos.delete(early.id), { id: early.id, object: 'video.deleted', deleted: true })
    assert.equal(await stateOf(engine, account, early.id), 'released')
    const done = await videos.create({ prompt: 'b' })
    upstream.end(upstream.newest().id)
    await videos.delete(done.id)
    assert.equal(await chargedFor(engine, account, done.id), '40')
    for (const { id } of [early, done])
      await assert.rejects(videos.retrieve(id), (error) => error instanceof OpenAI.NotFoundError)
    assert.deepEqual((await videos.list()).data, [])
  })

  test('is made anew from another, as long and as large as that', async () => {
    const { account, secret } = await accountWith(engine, '1000')
    const { videos } = clientOf(url, secret)
    const first = await videos.create({ model: 'sora-2-pro', prompt: 'a', seconds: '8', size: '1280x720' })
    upstream.end(upstream.newest().id)
    await videos.retrieve(first.id)
    const again = await videos.remix(first.id, { prompt: 'b' })
    assert.equal(again.remixed_from_video_id, first.id)
    assert.equal(await held(engine, account), '240')
    upstream.end(upstream.newest().id)
    assert.equal((await videos.retrieve(again.id)).remixed_from_video_id, first.id)
    assert.equal(await chargedFor(engine, account, again.id), '240')
  })

  const finished = async (videos: OpenAI['videos'], fields: Partial<OpenAI.VideoCreateParams> = {}) => {
    const { id } = await videos.create({ prompt: 'a', ...fields })
    const made = upstream.newest().id
    upstream.end(made)
    await videos.retrieve(id)
    return { id, made }
  }

  for (const what of ['form', 'JSON'] as const)
    test(`is edited, as long and as large as it is, by ${what}`, async () => {
      const { account, secret } = await accountWith(engine, '1000')
      const client = clientOf(url, secret)
      const { videos } = client
      const first = await finished(videos, { model: 'sora-2-pro', seconds: '8', size: '1280x720' })
      const fields = { prompt: 'b', video: { id: first.id } }
      const edited = await (what === 'form'
        ? videos.edit(fields)
        : client.post('/videos/edits', { body: fields }).then((made) => made as OpenAI.Video))
      assert.match(edited.id, /^video_/)
      assert.equal(edited.remixed_from_video_id, first.id)
      const { video, 'video[id]': named } = upstream.ordered
      assert.equal(named ?? (video as { id: string }).id, first.made)
      assert.equal(await held(engine, account), '240')
      upstream.end(upstream.newest().id)
      await videos.retrieve(edited.id)
      assert.equal(await chargedFor(engine, account, edited.id), '240')
    })

  test('goes on: what comes behind it is held and charged, and not all of it again', async () => {
    const { account, secret } = await accountWith(engine, '1000')
    const { videos } = clientOf(url, secret)
    const first = await finished(videos, { seconds: '12' })
    const longer = await videos.extend({ prompt: 'on', seconds: '8', video: { id: first.id } })
    assert.equal(longer.seconds, '20')
    assert.equal(await held(engine, account), '80')
    upstream.end(upstream.newest().id)
    assert.equal((await videos.retrieve(longer.id)).seconds, '20')
    assert.equal(await chargedFor(engine, account, longer.id), '80')
    // And on from there.
    const longest = await videos.extend({ prompt: 'on', seconds: '4', video: { id: longer.id } })
    assert.equal(longest.seconds, '24')
    assert.equal(await held(engine, account), '40')
    const copy = await videos.edit({ prompt: 'b', video: { id: longer.id } })
    assert.equal(copy.seconds, '20')
    assert.equal(await held(engine, account), '240')
    const again = { headers: { 'idempotency-key': 'k' } }
    const fields = { prompt: 'on', seconds: '4' as const, video: { id: first.id } }
    const one = await videos.extend(fields, again)
    assert.equal((await videos.extend(fields, again)).id, one.id)
  })

  test('goes on from none that is another’s, that somebody brings, or that is not named', async () => {
    const { account, secret } = await accountWith(engine, '1000')
    const stranger = clientOf(url, (await accountWith(engine, '1000')).secret)
    const { videos } = clientOf(url, secret)
    const first = await finished(videos)
    const { creates } = upstream.seen
    const from = (video: object) => ({ prompt: 'b', seconds: '4' as const, video: video as { id: string } })
    const film = await toFile(Buffer.from('film'), 'film.mp4')
    for (const id of [first.id, first.made, 'video_', ''])
      for (const call of [
        () => stranger.videos.edit(from({ id })),
        () => stranger.videos.extend(from({ id })),
      ])
        await assert.rejects(call(), (error) => error instanceof OpenAI.NotFoundError)
    for (const odd of [film, { id: first.id, more: 'x' }, { id: [first.id] }, [first.id]])
      await assert.rejects(videos.edit(from(odd)), (error) => error instanceof OpenAI.BadRequestError)
    const { seconds: _, ...without } = from({ id: first.id })
    for (const seconds of [undefined, '0', '-4', '4.5', '1e9', 'x'])
      await assert.rejects(
        videos.extend({ ...without, seconds: seconds as never }),
        (error) => error instanceof OpenAI.BadRequestError,
      )
    assert.equal(upstream.seen.creates, creates)
    assert.equal(await held(engine, account), '0')
    // What there is no money for is not made.
    const poor = await accountWith(engine, '50')
    const { videos: own } = clientOf(url, poor.secret)
    const small = await finished(own)
    await assert.rejects(own.extend({ ...from({ id: small.id }), seconds: '8' }), { status: 429 })
    assert.equal(upstream.seen.creates, creates + 1)
  })

  test('has characters that are their maker’s alone, and cost nothing', async () => {
    const { account, secret } = await accountWith(engine, '1000')
    const stranger = clientOf(url, (await accountWith(engine, '1000')).secret)
    const client = clientOf(url, secret)
    const { videos } = client
    const film = await toFile(Buffer.from('film'), 'film.mp4')
    const { id } = await videos.createCharacter({ name: 'Mossy', video: film })
    assert.match(String(id), /^char_\d+\.[\w-]{16}$/)
    assert.equal((await videos.getCharacter(String(id))).id, id)
    assert.equal(await held(engine, account), '0')
    const raw = String(id).split('.')[0] as string
    for (const wrong of [String(id), raw]) {
      await assert.rejects(stranger.videos.getCharacter(wrong), { status: 404 })
      const order = { body: { prompt: 'a', characters: [{ id: wrong }] } }
      await assert.rejects(stranger.post('/videos', order), { status: 404 })
    }
    const { creates } = upstream.seen
    const fields = { prompt: 'a', characters: [{ id }] }
    await client.post('/videos', { body: fields })
    assert.deepEqual(upstream.ordered.characters, [{ id: raw }])
    await videos.create(fields as never)
    assert.equal(upstream.ordered['characters[][id]'], raw)
    assert.equal(upstream.seen.creates, creates + 2)
    // A file of the upstream's is nobody's.
    const named = { prompt: 'a', input_reference: { file_id: 'file-1' } }
    await assert.rejects(videos.create(named), { status: 400 })
    await assert.rejects(stranger.post('/videos', { body: named }), { status: 400 })
  })

  test('ordered again under the same key is the same one', async () => {
    const { account, secret } = await accountWith(engine, '1000')
    const { videos } = clientOf(url, secret)
    const { creates } = upstream.seen
    const order = (prompt: string, key: string) =>
      videos.create({ prompt }, { headers: { 'idempotency-key': key } })
    const both = await Promise.all([order('a', 'k'), order('a', 'k')])
    assert.equal(both[0].id, both[1].id)
    assert.equal((await order('a', 'k')).id, both[0].id)
    assert.equal(upstream.seen.creates, creates + 1)
    assert.equal(await held(engine, account), '40')
    assert.notEqual((await order('a', 'other')).id, both[0].id)
    for (const other of [{ prompt: 'b' }, { prompt: 'a', seconds: '8' } as const])
      await assert.rejects(
        videos.create(other, { headers: { 'idempotency-key': 'k' } }),
        (error) => error instanceof OpenAI.BadRequestError && error.code === 'idempotency_key_reused',
      )
  })

  test('whose order failed is ordered anew under the same key', async () => {
    const { account, secret } = await accountWith(engine, '1000')
    const { videos } = clientOf(url, secret)
    const order = () => videos.create({ prompt: 'a' }, { headers: { 'idempotency-key': 'k' } })
    upstream.meanwhile((_request, response) => {
      response.writeHead(500).end()
      return true
    })
    await assert.rejects(order(), (error) => error instanceof OpenAI.InternalServerError)
    await assert.rejects(order(), (error) => error instanceof OpenAI.InternalServerError)
    assert.equal(await held(engine, account), '0')
    upstream.meanwhile(undefined)
    const made = await order()
    assert.equal((await order()).id, made.id)
    assert.equal(await held(engine, account), '40')
  })

  test('whose orderer has left meanwhile is its all the same', async () => {
    const { account, secret } = await accountWith(engine, '1000')
    const gone = new AbortController()
    const left = once(gateway.server, 'connection').then(([socket]) => once(socket, 'close'))
    upstream.meanwhile(async (request) => {
      if (request.method !== 'POST') return false
      gone.abort()
      await left
      return false
    })
    const body = JSON.stringify({ prompt: 'a' })
    const call = send(`${url}/videos`, {
      method: 'POST',
      agent: false,
      headers: { authorization: `Bearer ${secret}`, 'content-type': 'application/json' },
      signal: gone.signal,
    })
    call.on('error', () => {}).end(body)
    const { videos } = clientOf(url, secret)
    await until(() => gone.signal.aborted)
    await until(async () => (await videos.list()).data.length === 1)
    assert.equal(await held(engine, account), '40')
  })

  test('whose hold was given back before it was done is charged all the same', async () => {
    const { account, secret } = await accountWith(engine, '1000')
    const { videos } = clientOf(url, secret)
    const { id } = await videos.create({ prompt: 'a' })
    await engine.release({ account, request_id: id })
    upstream.end(upstream.newest().id)
    await videos.downloadContent(id)
    assert.equal(await chargedFor(engine, account, id), '40')
  })
})

test('a video goes to another upstream where the first cannot be reached, as the model that it has there', async () => {
  const engine = await createEngine({ store: memoryStore(), policy: POLICY })
  const config = readConfig(
    `upstreams:
  dead: { provider: openai, url: http://127.0.0.1:1 }
  main: { provider: openai, url: ${upstream.url}, key_env: KEY }
routes: [{ upstream: dead, feature: video, fallback: [{ upstream: main, model: sora-2-pro }] }]`,
    { KEY: 'upstream-secret' },
  )
  const gateway = createGateway({ engine, config })
  gateway.server.listen(0, '127.0.0.1')
  await once(gateway.server, 'listening')
  const { account, secret } = await accountWith(engine, '1000')
  const { videos } = clientOf(urlOf(gateway), secret)
  const made = await videos.create({ model: 'sora-2', prompt: 'a' })
  assert.equal(upstream.newest().model, 'sora-2-pro')
  assert.equal(await held(engine, account), '120')
  upstream.end(upstream.newest().id)
  assert.equal((await videos.retrieve(made.id)).status, 'completed')
  assert.equal(await chargedFor(engine, account, made.id), '120')
  await gateway.close(100)
  await isClean(engine)
  await engine.close()
})

describe('a video that nobody asks about', () => {
  let engine: Engine
  before(async () => {
    engine = await createEngine({ store: memoryStore(), policy: POLICY })
  })
  after(async () => {
    await isClean(engine)
    await engine.close()
  })

  test('is settled when it is done, and released when it has failed', async () => {
    const gateway = await gatewayOn(engine)
    const { account, secret } = await accountWith(engine, '1000')
    const { videos } = clientOf(urlOf(gateway), secret)
    const good = await videos.create({ prompt: 'a' })
    const first = upstream.newest().id
    const bad = await videos.create({ prompt: 'b' })
    upstream.end(upstream.newest().id, { status: 'failed' })
    upstream.end(first)
    await until(async () => (await stateOf(engine, account, good.id)) === 'settled')
    await until(async () => (await stateOf(engine, account, bad.id)) === 'released')
    assert.equal(await chargedFor(engine, account, good.id), '40')
    await gateway.close(100)
  })

  test('stays held beyond the time for its order', async () => {
    const gateway = await gatewayOn(engine)
    const { account, secret } = await accountWith(engine, '1000')
    const { id } = await clientOf(urlOf(gateway), secret).videos.create({ prompt: 'a' })
    const from = (await engine.request(account, id))?.created_at ?? 0
    await until(async () => ((await engine.request(account, id))?.expires_at ?? 0) - from > 23 * 3_600_000)
    await gateway.close(100)
    await engine.release({ account, request_id: id })
  })

  for (const [onLost, state, charged] of [
    ['release', 'released', '0'],
    ['charge', 'settled', '40'],
  ] as const)
    test(`and that its upstream has forgotten is lost: ${onLost}`, async () => {
      const gateway = await gatewayOn(engine, `poll: 20ms, lost_after: 50ms, on_lost: ${onLost}`)
      const { account, secret } = await accountWith(engine, '1000')
      const { id } = await clientOf(urlOf(gateway), secret).videos.create({ prompt: 'a' })
      const name = upstream.newest().id
      upstream.forget(name)
      await until(async () => (await stateOf(engine, account, id)) === state)
      const told = await engine.explain(account, id)
      assert.equal(told.charged, charged)
      if (onLost === 'release')
        assert.match(told.story.join(' '), new RegExp(`nothing more was heard.*${name}`))
      await gateway.close(100)
    })

  test('and that its upstream remembers after it was lost is charged when it is asked for', async () => {
    const gateway = await gatewayOn(engine, 'poll: 20ms, lost_after: 50ms')
    const { account, secret } = await accountWith(engine, '1000')
    const { videos } = clientOf(urlOf(gateway), secret)
    const { id } = await videos.create({ prompt: 'a' })
    let isAway = true
    upstream.meanwhile((_request, response) => {
      if (isAway) response.writeHead(503).end()
      return isAway
    })
    await until(async () => (await stateOf(engine, account, id)) === 'released')
    isAway = false
    upstream.end(upstream.newest().id)
    // The upstream is left alone for a while after it has failed so often.
    await until(() =>
      videos.retrieve(id).then(
        ({ status }) => status === 'completed',
        () => false,
      ),
    )
    assert.equal(await chargedFor(engine, account, id), '40')
    await gateway.close(100)
  })

  for (const [plan, expired, meanwhile] of [
    ['short', 'expired_released', '0'],
    ['charging', 'expired_charged', '40'],
  ] as const)
    test(`longer than its plan holds ends as that says, ${expired}, and is corrected when it is asked for`, async () => {
      const gateway = await gatewayOn(engine)
      const { account, secret } = await accountWith(engine, '1000', plan)
      const { videos } = clientOf(urlOf(gateway), secret)
      const made = await videos.create({ prompt: 'a' })
      const done = upstream.newest().id
      const other = await videos.create({ prompt: 'b' })
      for (const { id } of [made, other])
        await until(async () => (await stateOf(engine, account, id)) === expired)
      assert.equal(await chargedFor(engine, account, made.id), meanwhile)
      upstream.end(upstream.newest().id, { status: 'failed' })
      upstream.end(done, { seconds: '8' })
      await videos.retrieve(made.id)
      await videos.retrieve(other.id)
      assert.equal(await chargedFor(engine, account, made.id), '80')
      assert.equal(await chargedFor(engine, account, other.id), '0')
      await gateway.close(100)
    })
})

async function openHolds(child: ChildProcess, account: string): Promise<number> {
  child.send(account)
  return (await once(child, 'message'))[0]
}

describe('while the store is away', () => {
  let engine: Engine
  before(async () => {
    engine = await createEngine({ store: memoryStore(), policy: POLICY })
  })
  after(async () => {
    await isClean(engine)
    await engine.close()
  })
  const away = () => Promise.reject(new SluiceError('unavailable', 'the store is away'))

  test('a video that was ordered is noted when it is back', async () => {
    let failures = 2
    const note: Engine['note'] = (...given) => (failures-- > 0 ? away() : engine.note(...given))
    const gateway = await gatewayOn({ ...engine, note })
    const { account, secret } = await accountWith(engine, '1000')
    const { creates } = upstream.seen
    const { id } = await clientOf(urlOf(gateway), secret).videos.create({ prompt: 'a' })
    assert.equal(upstream.seen.creates, creates + 1)
    upstream.end(upstream.newest().id)
    await until(async () => (await stateOf(engine, account, id)) === 'settled')
    await gateway.close(100)
  })

  test('a video is settled when it is back, though nobody asks', async () => {
    let isAway = true
    const settle: Engine['settle'] = (...given) => (isAway ? away() : engine.settle(...given))
    const faults: unknown[] = []
    const gateway = await gatewayOn({ ...engine, settle }, 'poll: 20ms', (error) => faults.push(error))
    const { account, secret } = await accountWith(engine, '1000')
    const { videos } = clientOf(urlOf(gateway), secret)
    const { id } = await videos.create({ prompt: 'a' })
    upstream.end(upstream.newest().id)
    await assert.rejects(videos.downloadContent(id), (error) => error instanceof OpenAI.InternalServerError)
    await until(() => faults.length > 1)
    isAway = false
    await until(async () => (await stateOf(engine, account, id)) === 'settled')
    assert.equal(await chargedFor(engine, account, id), '40')
    await gateway.close(100)
  })

  test('a video that can never be noted is taken back and costs nothing', async () => {
    const note = () => Promise.reject(new SluiceError('internal', 'no'))
    const gateway = await gatewayOn({ ...engine, note }, 'poll: 20ms', () => {})
    const { account, secret } = await accountWith(engine, '1000')
    const { deletes } = upstream.seen
    await assert.rejects(
      clientOf(urlOf(gateway), secret).videos.create({ prompt: 'a' }),
      (error) => error instanceof OpenAI.InternalServerError,
    )
    assert.equal(upstream.seen.deletes, deletes + 1)
    assert.equal(await held(engine, account), '0')
    await gateway.close(100)
  })

  test('a hold whose gateway died before it could note the video ends as the plan says', async () => {
    const dead = Promise.withResolvers<never>()
    const gateway = await gatewayOn({ ...engine, note: () => dead.promise }, 'poll: 20ms', () => {})
    const { account, secret } = await accountWith(engine, '1000', 'short')
    const { creates } = upstream.seen
    const order = clientOf(urlOf(gateway), secret).videos.create({ prompt: 'a' })
    order.catch(() => {})
    await until(() => upstream.seen.creates > creates)
    await until(async () => (await engine.account(account)).open_holds === 0)
    assert.equal((await engine.account(account)).credits.available, '1000')
    dead.reject(new Error('gone'))
    await gateway.close(100)
  })
})

test('an order that its upstream never answers does not keep a gateway from closing, nor its hold', async () => {
  const engine = await createEngine({ store: memoryStore(), policy: POLICY })
  const gateway = await gatewayOn(engine)
  const { account, secret } = await accountWith(engine, '1000')
  const asked = Promise.withResolvers<void>()
  upstream.meanwhile(({ method }) => {
    if (method === 'POST') asked.resolve()
    return method === 'POST'
  })
  const order = clientOf(urlOf(gateway), secret).videos.create({ prompt: 'a' })
  const refused = assert.rejects(order, { status: 503, message: /shutting down/ })
  await asked.promise
  await gateway.close(10)
  await refused
  assert.equal((await engine.account(account)).open_holds, 0)
  await isClean(engine)
  await engine.close()
})

describe('when a gateway is gone', () => {
  test('a video that was ordered before a kill is settled by the next one, and downloaded there', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-jobs-'))
    const file = join(folder, 'state.db')
    const opened = (): Promise<Engine> => createEngine({ store: sqliteStore({ path: file }), policy: POLICY })
    const setup = await opened()
    const { account, secret } = await accountWith(setup, '1000')
    await setup.close()
    const children: ChildProcess[] = []
    const started = async (): Promise<string> => {
      const path = new URL('../../../test/jobs.child.ts', import.meta.url).pathname
      const child = fork(path, [file, upstream.url])
      children.push(child)
      const [port] = await once(child, 'message')
      return `http://127.0.0.1:${port}/v1`
    }
    const killed = async (): Promise<void> => {
      const child = children.at(-1) as ChildProcess
      const exit = once(child, 'exit')
      child.kill('SIGKILL')
      await exit
    }
    try {
      const { id } = await clientOf(await started(), secret).videos.create({ prompt: 'a' })
      await killed()
      upstream.end(upstream.newest().id)
      const url = await started()
      // Nobody asks but the gateway itself.
      await until(async () => (await openHolds(children.at(-1) as ChildProcess, account)) === 0)
      const content = await clientOf(url, secret).videos.downloadContent(id)
      assert.equal((await content.arrayBuffer()).byteLength, upstream.film.length)
      await killed()
      const engine = await opened()
      assert.equal(await stateOf(engine, account, id), 'settled')
      assert.equal(await chargedFor(engine, account, id), '40')
      await isClean(engine)
      await engine.close()
    } finally {
      for (const child of children) child.kill('SIGKILL')
      rmSync(folder, { recursive: true, force: true })
    }
  })

  test('two gateways on one PostgreSQL settle a video once, and each takes over what the other leaves', async () => {
    const database = await testDatabase()
    const stores: Store[] = [1, 2].map(() => postgresStore({ url: database.url }))
    const engines = await Promise.all(stores.map((store) => createEngine({ store, policy: POLICY })))
    const [one, two] = engines as [Engine, Engine]
    try {
      const first = await gatewayOn(one, 'poll: 50ms')
      const second = await gatewayOn(two, 'poll: 50ms')
      const { account, secret } = await accountWith(one, '10000')
      const [here, there] = [first, second].map((gateway) => clientOf(urlOf(gateway), secret).videos)
      assert.ok(here !== undefined && there !== undefined)
      const ids: string[] = []
      const names: string[] = []
      for (let n = 0; n < 10; n++) {
        const { id } = await (n % 2 === 0 ? here : there).create({ prompt: 'a' })
        ids.push(id)
        names.push(upstream.newest().id)
      }
      for (const name of names) upstream.end(name)
      await Promise.all(ids.flatMap((id) => [here.retrieve(id), there.retrieve(id)]))
      for (const id of ids) assert.equal(await chargedFor(one, account, id), '40')
      assert.equal((await one.account(account)).credits.available, '9600')
      const again = { headers: { 'idempotency-key': 'k' } }
      const same = await Promise.all([here, there].map((videos) => videos.create({ prompt: 'c' }, again)))
      assert.equal(same[0]?.id, same[1]?.id)
      assert.equal(await held(one, account), '40')
      await here.delete(String(same[0]?.id))
      const late = await here.create({ prompt: 'b' })
      await first.close(100)
      upstream.end(upstream.newest().id)
      await until(async () => (await stateOf(two, account, late.id)) === 'settled')
      assert.equal((await two.account(account)).credits.available, '9560')
      await second.close(100)
      await isClean(one)
    } finally {
      await Promise.all(engines.map((engine) => engine.close()))
      await database.drop()
    }
  })
})
