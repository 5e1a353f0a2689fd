import assert from 'node:assert/strict'
import { getEventListeners, setMaxListeners } from 'node:events'
import { after, before, describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { openScene, type Scene } from '../test/client.ts'
import { AccessRefused, type AccessRequest, type Lease, SluiceError } from './index.ts'
import { open } from './open.ts'

describe('access', () => {
  let scene: Scene
  before(async () => {
    scene = await openScene()
  })
  after(() => scene.close())

  const write = (account: string, words: number) => ({ account, feature: 'write', estimate: { words } })
  const credits = async (account: string) => (await scene.client().account(account)).credits
  const state = async (account: string, id: string) => (await scene.client().explain(account, id)).state

  test('runs the work, charges what it reported, and gives the rest back', async () => {
    await scene.account('reports', '100')
    const client = scene.client()
    const answer = await client.access(write('reports', 10), (lease) => {
      assert.equal(lease.granted, '10')
      assert.equal(lease.report({ words: 3 }), true)
      return 'text'
    })
    assert.ok(answer.ok)
    assert.equal(answer.value, 'text')
    assert.equal(answer.charge?.charged, '3')
    assert.equal(answer.charge?.returned, '7')
    assert.equal((await credits('reports')).available, '97')
  })

  test('charges as estimated where nothing was reported, and nothing where the work failed', async () => {
    await scene.account('silent', '100')
    const client = scene.client()
    const done = await client.access(write('silent', 10), () => 1)
    assert.ok(done.ok && done.charge?.charged === '10')
    await assert.rejects(
      client.access({ ...write('silent', 10), request_id: 'broken' }, () => Promise.reject(new Error('no'))),
      /no/,
    )
    assert.equal(await state('silent', 'broken'), 'released')
    await assert.rejects(
      client.access({ ...write('silent', 10), request_id: 'half' }, (lease) => {
        lease.report({ words: 4 })
        throw new Error('half way')
      }),
      /half way/,
    )
    assert.equal(await state('silent', 'half'), 'settled')
    assert.equal((await credits('silent')).available, '86')
    assert.equal((await credits('silent')).held, '0')
  })

  test('a charge says that it is estimated where the last report did', async () => {
    await scene.account('guesses', '100')
    const client = scene.client()
    const estimated = async (id: string) => {
      const { entries } = await client.explain('guesses', id)
      return entries.find(({ kind }) => kind === 'usage')?.body.estimated
    }
    await client.access({ ...write('guesses', 10), request_id: 'counted' }, (lease) =>
      lease.report({ words: 3 }, { estimated: true }),
    )
    assert.equal(await estimated('counted'), true)
    await client.access({ ...write('guesses', 10), request_id: 'told' }, (lease) => {
      lease.report({ words: 3 }, { estimated: true })
      lease.report({ words: 4 })
    })
    assert.equal(await estimated('told'), undefined)
  })

  test('work that reports nothing is charged what is held: by default, of a part, or by its cost', async () => {
    await scene.account('quiet', '5')
    const client = scene.client()
    const charged = async (request: Partial<AccessRequest>) => {
      const done = await client.access({ account: 'quiet', feature: 'write', ...request }, () => 1)
      assert.ok(done.ok)
      assert.deepEqual([done.charge?.returned, done.charge?.debt], ['0', '0'])
      return done.charge?.charged
    }
    assert.equal(await charged({}), '1')
    assert.equal(await charged({ estimate: { words: 3 }, min: { words: 1 } }), '3')
    assert.equal(await charged({ cost: '9', min_cost: '1' }), '1')
    await scene.account('half', '5')
    const half = await client.access(
      { account: 'half', feature: 'write', estimate: { words: 10 }, min: { words: 1 } },
      ({ outcome, granted }) => [outcome, granted],
    )
    assert.ok(half.ok)
    assert.deepEqual(half.value, ['partial', '5'])
    assert.equal(half.charge?.charged, '5')
  })

  test('a report that is no amount is the work’s own mistake, and counts for nothing', async () => {
    await scene.account('wrong', '100')
    const client = scene.client()
    await assert.rejects(
      client.access({ ...write('wrong', 10), request_id: 'r' }, (lease) => {
        lease.report({ words: 2 })
        lease.report({ words: Number.NaN })
      }),
      /NaN is no amount/,
    )
    assert.equal((await scene.client().explain('wrong', 'r')).charged, '2')
  })

  test('a refusal is a value, or an error where it is asked for', async () => {
    await scene.account('poor', '5')
    const client = scene.client()
    const never = () => assert.fail('the work ran')
    const refused = await client.access(write('poor', 10), never)
    assert.ok(!refused.ok)
    assert.equal(refused.outcome, 'deny')
    assert.equal(refused.reason, 'credits_short')
    assert.deepEqual(refused.decision?.unblock, { credits: '5', at_most: '5' })
    await assert.rejects(
      client.accessOrThrow(write('poor', 10), never),
      (error) => error instanceof AccessRefused && error.refusal.reason === 'credits_short',
    )
    await assert.rejects(
      client.access({ account: 'poor', feature: 'paint' }, never),
      (error) => error instanceof SluiceError && error.code === 'feature_unknown',
    )
  })

  test('what has been done is not done again', async () => {
    await scene.account('twice', '100')
    const client = scene.client()
    let runs = 0
    const once = () => client.access({ ...write('twice', 10), request_id: 'r' }, () => ++runs)
    assert.ok((await once()).ok)
    const again = await once()
    assert.ok(!again.ok)
    assert.equal(again.outcome, 'done')
    assert.equal(again.reason, 'settled')
    assert.equal(runs, 1)
  })

  test('more is asked for only of what grows, and not for work that ends with what it told', async () => {
    await scene.account('bounded', '100')
    const client = scene.client()
    const held = async (request_id: string, growth?: { of: readonly string[]; from: number }) => {
      const seen: (string | undefined)[] = []
      await client.access(
        { ...write('bounded', 10), request_id },
        async (lease) => {
          lease.report({ words: 10 })
          await pause(200)
          seen.push(lease.granted)
          lease.report({ words: 11 })
          while (growth !== undefined && growth.of.length > 0 && lease.granted === '10') await pause(5)
          seen.push(lease.granted)
        },
        growth === undefined ? {} : { growth },
      )
      return seen
    }
    assert.deepEqual(await held('bounded', { of: ['words'], from: 1.01 }), ['10', '16.5'])
    assert.deepEqual(await held('certain', { of: [], from: 0.75 }), ['10', '10'])
    await client.access({ ...write('bounded', 10), request_id: 'at-once' }, (lease) => {
      lease.report({ words: 10 })
    })
    const entriesOf = async (id: string) => (await client.explain('bounded', id)).entries.length
    await client.access({ ...write('bounded', 10), request_id: 'silent' }, () => {})
    assert.equal(await entriesOf('at-once'), await entriesOf('silent'), 'it was not extended')
    assert.ok((await entriesOf('bounded')) > (await entriesOf('silent')))
  })

  test('a lease grows before it runs out, and says when there is no more', async () => {
    await scene.account('grows', '30')
    const client = scene.client()
    let words = 0
    const answer = await client.access(write('grows', 10), async (lease) => {
      while (lease.report({ words }) && words < 100) {
        // Work that waits for what it has asked for uses no more than there is.
        while (!lease.signal.aborted && words >= Number(lease.granted)) await pause(1)
        if (!lease.signal.aborted) words++
      }
      assert.equal((lease.signal.reason as SluiceError).code, 'spent')
      assert.equal(lease.granted, '30')
      return words
    })
    assert.ok(answer.ok)
    assert.equal(words, 30)
    assert.equal(answer.charge?.charged, String(words))
    assert.equal(answer.charge?.debt, '0')
  })

  test('a hold is renewed for as long as the work takes', async () => {
    await scene.account('long', '100')
    const answer = await scene.client().access(write('long', 10), async (lease) => {
      await pause(3_500)
      assert.ok(!lease.signal.aborted)
    })
    assert.ok(answer.ok)
    assert.equal(answer.charge?.charged, '10')
    assert.equal(answer.charge?.returned, '0')
  })

  test('the caller’s signal, and the time it gives, end the work and the hold', async () => {
    await scene.account('ends', '100')
    const client = scene.client()
    const untilAborted = (signal: AbortSignal) =>
      new Promise<never>((_, reject) =>
        signal.addEventListener('abort', () => reject(signal.reason), { once: true }),
      )
    for (const afterMs of [0, 1, 3, 10, 50]) {
      const controller = new AbortController()
      setTimeout(() => controller.abort(new Error('enough')), afterMs)
      await assert.rejects(
        client.access(write('ends', 1), ({ signal }) => untilAborted(signal), { signal: controller.signal }),
        /enough/,
      )
    }
    await assert.rejects(
      client.access(write('ends', 1), ({ signal }) => untilAborted(signal), { timeoutMs: 20 }),
      { name: 'TimeoutError' },
    )
    assert.ok(await client.flush())
    const { held, available } = await credits('ends')
    assert.deepEqual({ held, available }, { held: '0', available: '100' })
  })

  const POINTS = [
    ...['before', 'reserve sent', 'reserve answered', 'begun', 'reported', 'extend sent', 'extend answered'],
    ...['done', 'settle sent', 'settle answered'],
  ]
  for (const point of POINTS) {
    test(`a call that is given up (${point}) holds nothing, and is charged what it told`, async () => {
      const account = `given-up-${point.replaceAll(' ', '-')}`
      await scene.account(account, '100', 'steady')
      const controller = new AbortController()
      const reached = (here: string): void => {
        if (here === point) controller.abort(new Error('enough'))
      }
      const client = scene.client({
        togetherMs: 0,
        async fetch(input, init) {
          const op = String(input).split('/').at(-1)
          reached(`${op} sent`)
          const response = await fetch(input, init)
          reached(`${op} answered`)
          return response
        },
      })
      reached('before')
      const request = { ...write(account, 10), request_id: 'r' }
      const running = client.access(
        request,
        async (lease) => {
          reached('begun')
          lease.signal.throwIfAborted()
          // More than three quarters: an extend leaves by itself.
          lease.report({ words: 9 })
          reached('reported')
          while (lease.granted === '10') {
            lease.signal.throwIfAborted()
            await pause(1)
          }
          reached('done')
          return 'text'
        },
        { signal: controller.signal },
      )
      const ended = await running.then(
        ({ ok }) => ok,
        ({ message }) => message,
      )
      assert.ok(await client.flush())
      assert.equal(client.running, 0)
      const told = POINTS.indexOf(point) >= POINTS.indexOf('reported')
      const isWhole = POINTS.indexOf(point) >= POINTS.indexOf('extend answered')
      if (!told) assert.equal(ended, 'enough')
      if (isWhole && point !== 'extend answered') assert.equal(ended, true)
      const { held, available } = await credits(account)
      assert.deepEqual({ held, available }, { held: '0', available: told ? '91' : '100' })
    })
  }

  test('closing ends what runs', async () => {
    await scene.account('closes', '100')
    const client = scene.client()
    const running = client.access(write('closes', 10), async (lease) => {
      lease.report({ words: 2 })
      await new Promise((resolve) => lease.signal.addEventListener('abort', resolve, { once: true }))
      throw lease.signal.reason
    })
    const ended = assert.rejects(running, { code: 'closing' })
    await pause(100)
    assert.equal(client.running, 1)
    assert.ok(await client.close())
    await ended
    assert.equal((await credits('closes')).available, '98')
    await assert.rejects(
      client.access(write('closes', 1), () => 1),
      { code: 'closing' },
    )
  })

  test('closing does not wait for work that does not listen: it is charged what it reported', async () => {
    await scene.account('deaf', '100', 'steady')
    const client = scene.client()
    let finish = (): void => {}
    const running = client.access(write('deaf', 10), async (lease) => {
      lease.report({ words: 3 })
      await new Promise<void>((resolve) => {
        finish = resolve
      })
      assert.equal(lease.report({ words: 4 }), false)
    })
    const ended = assert.rejects(running, { code: 'closing' })
    await pause(100)
    assert.ok(await client.close(500))
    await ended
    finish()
    const { available, held } = await credits('deaf')
    assert.deepEqual({ available, held }, { available: '97', held: '0' })
  })

  test('work that is let in while the client is being closed does not begin, and holds nothing', async () => {
    await scene.account('late', '100', 'steady')
    let answered = (): void => {}
    const client = scene.client({
      togetherMs: 0,
      async fetch(input, init) {
        const response = await fetch(input, init)
        if (String(input).endsWith('/reserve'))
          await new Promise<void>((resolve) => {
            answered = resolve
          })
        return response
      },
    })
    const running = client.access(write('late', 10), () => assert.fail('the work ran'))
    const ended = assert.rejects(running, { code: 'closing' })
    await pause(100)
    const closed = client.close()
    answered()
    assert.ok(await closed)
    await ended
    const { available, held } = await credits('late')
    assert.deepEqual({ available, held }, { available: '100', held: '0' })
  })

  test('a clock that goes wrong costs nobody a charge', async () => {
    await scene.account('clock', '100', 'steady')
    const now = Date.now
    const lost: unknown[] = []
    const client = scene.client({ onLost: (_, error) => lost.push(error) })
    try {
      for (const wrongMs of [3_600_000, -40 * 86_400_000]) {
        Date.now = () => now() + wrongMs
        const done = await client.access({ ...write('clock', 1), request_id: `r${wrongMs}` }, () => 1)
        assert.ok(done.ok)
        assert.equal(done.charge?.charged, '1')
        const { entries } = await client.explain('clock', `r${wrongMs}`)
        const startedAt = entries.find(({ kind }) => kind === 'usage')?.body.started_at
        assert.ok(Math.abs(Number(startedAt) - now()) < 60_000)
      }
    } finally {
      Date.now = now
    }
    assert.deepEqual(lost, [])
  })

  test('a time that no timer can wait for is as good as none', async () => {
    await scene.account('patient', '100')
    const client = scene.client({ deadlineMs: Number.POSITIVE_INFINITY })
    const answer = await client.access(
      write('patient', 1),
      async ({ signal }) => {
        await pause(20)
        return signal.aborted
      },
      { timeoutMs: Number.POSITIVE_INFINITY },
    )
    assert.ok(answer.ok && !answer.value)
  })

  test('a call that was given up before it was made may be made later under its id', async () => {
    await scene.account('anew', '100')
    const client = scene.client()
    const request = { ...write('anew', 1), request_id: 'r' }
    const options = { signal: AbortSignal.abort(new Error('enough')) }
    await assert.rejects(
      client.access(request, () => 1, options),
      /enough/,
    )
    assert.equal(client.kept, 0)
    assert.ok((await client.access(request, () => 1)).ok)
  })

  test('10,000 leases at once leave no timer and no listener behind', { timeout: 120_000 }, async (t) => {
    await scene.account('many', '100000', 'steady')
    const client = scene.client({ deadlineMs: 60_000 })
    const before = timers()
    await client.access(write('many', 1), () => 1)
    let most = 0
    let letGo = (): void => {}
    const all = new Promise<void>((resolve) => {
      letGo = resolve
    })
    const { signal } = new AbortController()
    const heard = [signal]
    const any = AbortSignal.any.bind(AbortSignal)
    t.mock.method(AbortSignal, 'any', (signals: AbortSignal[]) => {
      heard.push(any(signals))
      return heard.at(-1)
    })
    setMaxListeners(0, signal)
    const runs = Array.from({ length: 10_000 }, (_, number) => {
      const work = async (lease: Lease) => {
        most = Math.max(most, client.running)
        if (most === 10_000) letGo()
        await all
        lease.report({ words: 1 })
      }
      if (number >= 100) return client.access(write('many', 1), work, { signal })
      // What ends elsewhere, as in the middlewares.
      return open(client, write('many', 1), { signal }).then(async (opened) => {
        if (!opened.ok) return opened
        await work(opened.lease)
        await opened.end('done')
        return opened
      })
    })
    const answers: readonly { readonly ok: boolean }[] = await Promise.all(
      runs.map((run: Promise<{ readonly ok: boolean }>) => run.finally(letGo)),
    )
    assert.equal(answers.filter(({ ok }) => ok).length, 10_000)
    assert.equal(most, 10_000)
    assert.equal(client.running, 0)
    assert.ok(timers() <= before + 1, `${timers()} timers, ${before} before`)
    assert.equal(heard.length, 101)
    for (const one of heard) assert.equal(getEventListeners(one, 'abort').length, 0)
    const { held, available } = await credits('many')
    assert.deepEqual({ held, available }, { held: '0', available: '89999' })
  })
})

const timers = (): number => process.getActiveResourcesInfo().filter((one) => one === 'Timeout').length
