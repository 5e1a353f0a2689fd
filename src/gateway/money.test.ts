import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type GatewayScene, type GatewaySceneOptions, openGateway, until } from '../../test/gateway.ts'
import { chatStream, speakOpenai } from '../../test/openai-wire.ts'
import { SluiceError } from '../errors.ts'
import { memoryStore } from '../store/memory.ts'
import type { Store } from '../store.ts'

const messages = [{ role: 'user', content: 'hello' }]
const post = (scene: GatewayScene, secret: string, more: object = {}) =>
  fetch(`${scene.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${secret}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'm', messages, ...more }),
  })
async function using(
  options: Partial<GatewaySceneOptions>,
  work: (scene: GatewayScene) => Promise<void>,
): Promise<void> {
  const scene = await openGateway({ usual: speakOpenai, ...options })
  try {
    await work(scene)
  } finally {
    await scene.close()
  }
}

/** Goes on for ever, and heeds the bound that it is given. */
const endless: GatewaySceneOptions['usual'] = async (got, response) => {
  const stream = chatStream(got, response)
  const bound = Number(got.body.max_completion_tokens ?? Number.POSITIVE_INFINITY)
  for (let n = 0; n < bound && !response.closed; n += 8) {
    stream.piece({ content: 'word '.repeat(Math.min(8, bound - n)) })
    await new Promise(setImmediate)
  }
  if (!response.closed) stream.finish('length')
}

describe('money', () => {
  const ends = { usual: endless, config: 'usual_output_tokens: 50\nplans: { debt: { when_spent: debt } }' }

  test('50 streams at once on one account never pass what there is, and end as streams do', async () => {
    await using(ends, async (scene) => {
      const secret = await scene.account('a', '20000')
      const texts = await Promise.all(
        Array.from({ length: 50 }, async () => {
          const response = await post(scene, secret, { stream: true })
          return response.status === 200 ? response.text() : ''
        }),
      )
      const served = texts.filter((text) => text !== '')
      assert.ok(served.length > 10, `${served.length}`)
      for (const text of served) assert.match(text, /"finish_reason":"length"[\s\S]*\[DONE\]\n\n$/)
      const { credits } = await scene.settled('a')
      const used = await scene.used('a')
      assert.equal(Number(credits.debt), 0)
      assert.ok(Number(used?.charged) <= 20_000, JSON.stringify(used))
      // Nothing of it lies idle while streams want more.
      assert.ok(Number(used?.charged) > 10_000, JSON.stringify(used))
      const heard = texts.join('').match(/word /g)?.length ?? 0
      // The last piece of each may bring a little more than was left.
      assert.ok(heard <= 2_000 + served.length * 8, `${heard} words were heard for ${used?.charged}`)
    })
  })

  test('on a plan that lets debt be made a stream goes on, and all of it is charged', async () => {
    await using(ends, async (scene) => {
      const secret = await scene.account('d', '1000', { plan: 'debt' })
      scene.upstream.next(async (got, response) => {
        const stream = chatStream(got, response)
        for (let n = 0; n < 100; n++) stream.piece({ content: 'word '.repeat(8) })
        stream.finish('stop', { prompt_tokens: 10, completion_tokens: 800, total_tokens: 810 })
      })
      const text = await (await post(scene, secret, { stream: true })).text()
      assert.equal(text.match(/word /g)?.length, 800)
      const used = await scene.used('d')
      assert.equal(used?.quantities.output_tokens, '800')
      const { credits } = await scene.settled('d')
      assert.ok(Number(used?.charged) > 1_000 || Number(credits.debt) > 0, JSON.stringify(used))
      // Who has nothing left begins nothing.
      assert.equal((await post(scene, secret)).status, 429)
    })
  })

  test('whole answers at once: what is held is never lent twice', async () => {
    await using({}, async (scene) => {
      const secret = await scene.account('w', '300')
      const answers = await Promise.all(
        Array.from({ length: 40 }, () => post(scene, secret, { max_tokens: 3 })),
      )
      for (const answer of answers) await answer.text()
      const used = await scene.used('w')
      assert.equal(used?.requests, answers.filter(({ status }) => status === 200).length)
      assert.ok(Number(used?.charged) <= 300, JSON.stringify(used))
    })
  })
})

describe('while the store is away', () => {
  /** A store that goes away and comes back as a test says. */
  function away() {
    const store = memoryStore()
    const state = { isAway: false, asked: 0 }
    const wrapped: Store = {
      ...store,
      transact(account, keys, step, priority) {
        if (!state.isAway) return store.transact(account, keys, step, priority)
        state.asked++
        return Promise.reject(new SluiceError('unavailable', 'The store is away.'))
      },
    }
    return { state, wrapped }
  }
  const config = (how: string) => `on_unavailable: ${how}`
  /** Known to the gateway, so that its key is answered for a second. */
  const known = async (scene: GatewayScene, id: string, credits = '100000') => {
    const secret = await scene.account(id, credits)
    const response = await post(scene, secret, { max_tokens: 10 })
    assert.equal(response.status, 200)
    await response.text()
    assert.equal((await scene.used(id))?.charged, '34.2')
    return secret
  }
  const back = async (scene: GatewayScene, id: string, requests: number) => {
    await until(
      () => scene.used(id),
      (used) => used?.requests === requests,
    )
    return scene.used(id)
  }

  test('closed: nobody passes, and is told to come again', async () => {
    const { state, wrapped } = away()
    await using({ store: wrapped, config: config('closed') }, async (scene) => {
      const secret = await known(scene, 'a')
      const before = scene.upstream.got.length
      state.isAway = true
      const response = await post(scene, secret, { max_tokens: 10 })
      assert.equal(response.status, 503)
      assert.equal(((await response.json()) as { error: { type: string } }).error.type, 'server_error')
      assert.equal(scene.upstream.got.length, before)
      state.isAway = false
      assert.equal((await post(scene, secret, { max_tokens: 10 })).status, 200)
      assert.equal((await back(scene, 'a', 2))?.charged, '68.4')
    })
  })

  test('open: everybody passes, and is charged once when it is back', async () => {
    const { state, wrapped } = away()
    await using({ store: wrapped, config: config('open') }, async (scene) => {
      const secret = await known(scene, 'a')
      state.isAway = true
      for (const stream of [true, false]) {
        const response = await post(scene, secret, { stream, max_tokens: 10 })
        assert.equal(response.status, 200)
        assert.match(await response.text(), /three/)
      }
      state.isAway = false
      const used = await back(scene, 'a', 3)
      assert.equal(used?.charged, '102.6')
    })
  })

  test('bounded: each account passes for as much as that', async () => {
    const { state, wrapped } = away()
    await using({ store: wrapped, config: config("{ per_account: '250' }") }, async (scene) => {
      const [a, b] = [await known(scene, 'a'), await known(scene, 'b')]
      state.isAway = true
      // Each is taken for what was held for one like it: about 110.
      const statuses = async (secret: string) => {
        const answers = await Promise.all([1, 2, 3, 4].map(() => post(scene, secret, { max_tokens: 10 })))
        for (const answer of answers) await answer.text()
        return answers.map(({ status }) => status).sort()
      }
      assert.deepEqual(await statuses(a), [200, 200, 503, 503])
      assert.deepEqual(await statuses(b), [200, 200, 503, 503])
      state.isAway = false
      assert.equal((await back(scene, 'a', 3))?.charged, '102.6')
      assert.equal((await back(scene, 'b', 3))?.charged, '102.6')
    })
  })

  test('a stream that runs when it goes away goes on, and is charged when it is back', async () => {
    const { state, wrapped } = away()
    await using({ store: wrapped }, async (scene) => {
      const secret = await known(scene, 'a')
      const go = Promise.withResolvers<void>()
      scene.upstream.next(async (got, response) => {
        const stream = chatStream(got, response)
        stream.piece({ content: 'one ' })
        await go.promise
        for (let n = 0; n < 20; n++) stream.piece({ content: 'word ' })
        stream.finish('stop')
      })
      const response = await post(scene, secret, { stream: true, max_tokens: 10 })
      state.isAway = true
      go.resolve()
      assert.match(await response.text(), /\[DONE\]/)
      state.isAway = false
      assert.equal((await back(scene, 'a', 2))?.charged, '68.4')
    })
  })
})

describe('a gateway that is closed', () => {
  test('ends what runs within its time: streams, waits, and answers that never end', async () => {
    const scene = await openGateway({ usual: endless, config: 'plans: { slow: { wait: 1h } }' })
    const [a, b, c] = [
      await scene.account('a', '1000000'),
      await scene.account('b', '1000000'),
      await scene.account('c', '1000000', { plan: 'slow' }),
    ]
    const streams = await post(scene, a, { stream: true })
    scene.upstream.next(
      (_, response) => void response.writeHead(200, { 'content-type': 'application/json' }).write('{'),
    )
    const whole = await post(scene, b)
    scene.upstream.next(speakOpenai)
    await (await post(scene, c)).text()
    const all: Promise<unknown>[] = [streams.text(), whole.text(), post(scene, c)]
    const ended = Promise.allSettled(all)
    await scene.gateway.close(100)
    const [streamed] = await ended
    assert.ok(streamed?.status === 'fulfilled', 'a stream is not broken off')
    assert.match(String(streamed.value), /"code":"closing"/)
    for (const id of ['a', 'b', 'c']) assert.equal((await scene.engine.account(id)).open_holds, 0)
    assert.ok(Number((await scene.used('a'))?.charged) > 0)
    await scene.close()
  })
})
