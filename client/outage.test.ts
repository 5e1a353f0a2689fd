import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { openScene, type Scene } from '../test/client.ts'
import type { Access, Client, ClientOptions, SluiceError } from './index.ts'

/** Long enough for calls before, during and after. */
const EACH_MS = 400
const CALLERS = 16

/** A client that reaches nobody, lets everything through, and keeps three operations. */
const narrow = (scene: Scene, lost: string[]): Client =>
  scene.client({
    url: 'http://127.0.0.1:1',
    deadlineMs: 20,
    onUnavailable: 'open',
    maxKept: 3,
    breaker: { failures: 1_000 },
    onLost: ({ op }) => lost.push(op),
  })

describe('a server that is killed, paused or slow', { timeout: 180_000 }, () => {
  let scene: Scene
  let accounts = 0
  /** When nobody could answer, by this process's clock. */
  let gone = { from: 0, to: 0 }
  before(async () => {
    scene = await openScene()
  })
  after(() => scene.close())

  /** Each lasts until somebody has noticed, however slow the machine is. */
  const TROUBLES: Readonly<Record<string, (isNoticed: () => boolean) => Promise<void>>> = {
    async killed(isNoticed) {
      await scene.kill()
      const from = performance.now()
      await pause(EACH_MS)
      while (!isNoticed()) await pause(5)
      gone = { from, to: performance.now() }
      await scene.restart()
    },
    async paused(isNoticed) {
      scene.server.process.kill('SIGSTOP')
      await pause(EACH_MS)
      while (!isNoticed()) await pause(5)
      scene.server.process.kill('SIGCONT')
    },
    /** It answers, but for most of the time only after the deadline. */
    async slow(isNoticed) {
      const until = performance.now() + 2 * EACH_MS
      while (performance.now() < until || !isNoticed()) {
        scene.server.process.kill('SIGSTOP')
        await pause(150)
        scene.server.process.kill('SIGCONT')
        await pause(20)
      }
    },
  }

  interface Seen {
    /** Ids of requests whose work ran to its end, with what it used, and when it began. */
    readonly ran: Map<string, number>
    readonly begun: Map<string, number>
    readonly answers: Access<void>[]
    readonly lost: SluiceError[]
    readonly account: string
    readonly client: Client
  }

  /** Callers work without pause while there is trouble, and a while before and after it. */
  async function underLoad(
    trouble: (isNoticed: () => boolean) => Promise<void>,
    onUnavailable: ClientOptions['onUnavailable'],
  ): Promise<Seen> {
    const account = `a${accounts++}`
    await scene.account(account, '1000000', 'steady')
    const lost: SluiceError[] = []
    const client = scene.client({
      deadlineMs: 100,
      breaker: { failures: 3, restMs: 50, maxRestMs: 200 },
      ...(onUnavailable !== undefined && { onUnavailable }),
      onLost: (_, error) => lost.push(error),
    })
    const ran = new Map<string, number>()
    const begun = new Map<string, number>()
    const answers: Access<void>[] = []
    let going = true
    let count = 0
    const loops = Array.from({ length: CALLERS }, async () => {
      while (going) {
        const request_id = `r${count++}`
        const words = 1 + (count % 3)
        const answer = await client.access(
          { request_id, account, feature: 'write', estimate: { words: 3 } },
          async (lease) => {
            begun.set(request_id, performance.now())
            await pause(2)
            lease.report({ words })
            ran.set(request_id, words)
          },
        )
        answers.push(answer)
        if (!answer.ok) await pause(5)
      }
    })
    await pause(EACH_MS)
    await trouble(() => answers.some((one) => !one.ok || one.decision === undefined))
    await pause(EACH_MS)
    going = false
    await Promise.all(loops)
    assert.ok(await client.flush(20_000), `${client.kept} are still kept`)
    return { ran, begun, answers, lost, account, client }
  }

  /** Every request that ran is charged once, with what it used; no other is, and nothing is held. */
  async function expectEachOnce({ ran, lost, account }: Seen): Promise<void> {
    assert.deepEqual(lost, [])
    const admin = scene.client()
    const { credits } = await admin.account(account)
    const used = [...ran.values()].reduce((sum, words) => sum + words, 0)
    assert.equal(credits.held, '0')
    assert.equal(Number(credits.available), 1_000_000 - used)
    for (const [id, words] of [...ran].slice(0, 50)) {
      const { charged } = await admin.explain(account, id)
      assert.equal(charged, String(words), id)
    }
    await scene.kill()
    await scene.audit()
    await scene.restart()
  }
  const through = ({ answers }: Seen) => answers.filter((one) => one.ok && one.decision === undefined)
  const refused = ({ answers }: Seen) => answers.filter((one) => !one.ok)

  for (const [name, trouble] of Object.entries(TROUBLES)) {
    test(`${name}, closed: nobody passes who was not decided`, async () => {
      const seen = await underLoad(trouble, 'closed')
      assert.equal(through(seen).length, 0)
      assert.ok(refused(seen).length > 0)
      for (const one of refused(seen)) assert.equal(!one.ok && one.outcome, 'unavailable')
      await expectEachOnce(seen)
    })

    test(`${name}, open: everybody passes, and everything is told in the end`, async () => {
      const seen = await underLoad(trouble, 'open')
      assert.ok(through(seen).length > 0)
      assert.equal(refused(seen).length, 0)
      await expectEachOnce(seen)
    })

    test(`${name}, bounded: no more passes than may`, async () => {
      const seen = await underLoad(trouble, { mode: 'bounded', perAccount: '30' })
      const passed = through(seen).filter(({ request_id }) => {
        const at = seen.begun.get(request_id) ?? 0
        return name !== 'killed' || (at > gone.from && at < gone.to)
      })
      assert.ok(passed.length > 0, 'nobody passed')
      // Each outage has its own bound, and a pause may be seen as several; while the server is gone there is only one.
      const used = passed.reduce((sum, { request_id }) => sum + (seen.ran.get(request_id) ?? 0), 0)
      if (name === 'killed') assert.ok(used <= 30, `${used} CU passed`)
      assert.ok(refused(seen).length > 0)
      await expectEachOnce(seen)
    })
  }

  test('what nobody ever priced does not pass a bound', async () => {
    const client = scene.client({
      url: 'http://127.0.0.1:1',
      deadlineMs: 50,
      onUnavailable: { mode: 'bounded', perAccount: '10' },
    })
    const never = () => assert.fail('the work ran')
    const unknown = await client.access({ account: 'x', feature: 'write', estimate: { words: 1 } }, never)
    assert.equal(!unknown.ok && unknown.outcome, 'unavailable')
    const passes = (cost: string) => client.access({ account: 'x', feature: 'write', cost }, () => cost)
    assert.ok((await passes('6')).ok)
    assert.ok(!(await passes('4.000001')).ok)
    assert.ok((await passes('4')).ok)
    assert.ok(!(await passes('0.000001')).ok)
    assert.ok((await client.access({ account: 'y', feature: 'write', cost: '10' }, () => 1)).ok)
  })

  test('a bound holds for what it let through, also when the outage is over', async () => {
    await scene.account('after', '1000', 'steady')
    let away = true
    const client = scene.client({
      fetch: (...given) => (away ? Promise.reject(new TypeError('no route')) : fetch(...given)),
      deadlineMs: 1_000,
      breaker: { failures: 1_000 },
      onUnavailable: { mode: 'bounded', perAccount: '10' },
    })
    const passes = (work: (report: (cost: string) => boolean) => Promise<void>) =>
      client.access({ account: 'after', feature: 'write', cost: '2' }, async (lease) => {
        assert.ok(lease.local)
        await work((cost) => lease.reportCost(cost))
      })
    const isBack = Promise.withResolvers<void>()
    const first = passes(async (report) => {
      await isBack.promise
      assert.equal(report('7'), true)
      assert.equal(report('9'), false)
    })
    const second = passes(async () => isBack.promise)
    await pause(1_500)
    away = false
    const decided = await client.access(
      { account: 'after', feature: 'write', cost: '1' },
      (lease) => lease.local,
    )
    assert.ok(decided.ok && !decided.value)
    isBack.resolve()
    await Promise.all([first, second])
  })

  test('what was let through has room to be told, whatever else has to wait', async () => {
    const lost: string[] = []
    const client = narrow(scene, lost)
    const isOver = Promise.withResolvers<void>()
    const ask = () => client.access({ account: 'x', feature: 'write', cost: '1' }, () => isOver.promise)
    const running = [ask(), ask(), ask()]
    while (client.running < 3) await pause(5)
    // Each of these may have been held, and would be given back.
    for (let i = 0; i < 5; i++) assert.equal((await ask()).ok, false)
    isOver.resolve()
    for (const one of await Promise.all(running)) assert.ok(one.ok && one.pending)
    assert.equal(client.kept, 3)
    assert.ok(!lost.includes('settle'))
  })

  test('nobody waits longer than they said for what cannot be told', async () => {
    const client = scene.client({
      fetch: (_, init) =>
        new Promise((_resolve, reject) =>
          init?.signal?.addEventListener('abort', () => reject(new Error('late'))),
        ),
      deadlineMs: 20,
      onUnavailable: 'open',
    })
    await client.access({ account: 'x', feature: 'write', cost: '1' }, () => 1)
    const isSooner = await Promise.race([
      client.flush(50).then(() => true),
      pause(3_000, false, { ref: false }),
    ])
    assert.equal(isSooner, true)
    assert.equal(client.kept, 1)
  })

  test('a bound that is no amount is refused when it is set', async () => {
    const onUnavailable = { mode: 'bounded', perAccount: 'five' } as const
    assert.throws(() => scene.client({ onUnavailable }), RangeError)
    const never = () => assert.fail('the work ran')
    const asked = scene
      .client()
      .access({ account: 'x', feature: 'write', cost: '1' }, never, { onUnavailable })
    await assert.rejects(asked, RangeError)
  })

  test('what a proxy before Sluice answers in its own name says that Sluice is away', async () => {
    for (const status of [408, 429, 502]) {
      const client = scene.client({
        fetch: async () => new Response('<html>too many</html>', { status }),
        deadlineMs: 20,
        onUnavailable: 'open',
      })
      const passed = await client.access({ account: 'x', feature: 'write', cost: '1' }, ({ local }) => local)
      assert.ok(passed.ok && passed.value, String(status))
    }
  })

  test('work whose use nobody can price stops at a bound', async () => {
    const client = scene.client({
      url: 'http://127.0.0.1:1',
      deadlineMs: 50,
      onUnavailable: { mode: 'bounded', perAccount: '10' },
    })
    const spent = await client.access({ account: 'x', feature: 'write', cost: '2' }, (lease) => {
      assert.ok(lease.reportCost('2'))
      return lease.report({ words: 1 })
    })
    assert.deepEqual(spent.ok && spent.value, true, 'a cost that was told counts')
    const unpriced = await client.access({ account: 'x', feature: 'write', cost: '2' }, (lease) =>
      lease.report({ words: 1 }),
    )
    assert.deepEqual(unpriced.ok && unpriced.value, false)
  })

  test('work that goes wrong by what it reports leaves its bound to others', async () => {
    const client = scene.client({
      url: 'http://127.0.0.1:1',
      deadlineMs: 50,
      onUnavailable: { mode: 'bounded', perAccount: '2' },
    })
    for (const wrong of ['-1', 'much', '0.0000001', Number.NaN])
      await assert.rejects(
        client.access({ account: 'x', feature: 'write', cost: '2' }, (lease) => lease.reportCost(wrong)),
        RangeError,
      )
    assert.ok((await client.access({ account: 'x', feature: 'write', cost: '2' }, () => 1)).ok)
  })

  test('what a default estimate costs is charged later as it was decided before', async () => {
    await scene.account('usual', '100')
    const client = scene.client({ deadlineMs: 200, onUnavailable: 'open' })
    const write = { account: 'usual', feature: 'write' }
    assert.ok((await client.access(write, () => 1)).ok)
    await scene.kill()
    const away = await client.access({ ...write, request_id: 'away' }, () => 2)
    assert.ok(away.ok && away.pending)
    await scene.restart()
    assert.ok(await client.flush(20_000))
    assert.equal((await scene.client().explain('usual', 'away')).charged, '1')
  })

  test('a server that is gone does not cost each caller its deadline', async () => {
    const client = scene.client({ url: 'http://127.0.0.1:1', deadlineMs: 200, onUnavailable: 'open' })
    for (let i = 0; i < 20; i++)
      await client.access({ account: 'x', feature: 'write', cost: '1' }, () => 1).catch(() => {})
    const { calls, fetch } = counted()
    const other = scene.client({ fetch, deadlineMs: 200, onUnavailable: 'open', maxKept: 1_000 })
    for (let i = 0; i < 200; i++) await other.access({ account: 'x', feature: 'write', cost: '1' }, () => 1)
    assert.ok(calls() < 100, `${calls()} calls for 200 requests`)
    assert.equal(other.kept, 200)
  })

  test('what was never sent is not given back', async () => {
    const { calls, fetch } = counted()
    const client = scene.client({ fetch, deadlineMs: 50, breaker: { failures: 2, restMs: 60_000 } })
    for (let i = 0; i < 100; i++)
      assert.ok(!(await client.access({ account: 'x', feature: 'write', cost: '1' }, () => i)).ok)
    // Nobody knows what became of those that left, while the breaker was closed.
    assert.ok(client.kept >= 1 && client.kept <= calls(), `${client.kept} kept of ${calls()} calls`)
  })

  test('there is room for so much and no more', async () => {
    const lost: string[] = []
    const client = narrow(scene, lost)
    const answers = []
    for (let i = 0; i < 5; i++)
      answers.push(await client.access({ account: 'x', feature: 'write', cost: '1' }, () => i))
    assert.deepEqual(
      answers.map(({ ok }) => ok),
      [true, true, true, false, false],
    )
    assert.equal(client.kept, 3)
    // What it cannot keep is that two requests, which may have been held, are to be given back.
    assert.deepEqual(lost, ['release', 'release'])
  })
})

function counted(): { readonly calls: () => number; readonly fetch: typeof fetch } {
  let calls = 0
  return {
    calls: () => calls,
    fetch: () => {
      calls++
      return Promise.reject(new TypeError('no route'))
    },
  }
}
