import assert from 'node:assert/strict'
import { type ChildProcess, fork } from 'node:child_process'
import { on, once } from 'node:events'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { openUpstream, until } from '../../test/gateway.ts'
import { chatStream } from '../../test/openai-wire.ts'
import { sluice, temporary } from '../../test/process.ts'
import type { AccountView, UsageRow } from '../wire.ts'

const STREAMS = 200
let ids = 0
const CHILD = new URL('../../test/gateway.child.ts', import.meta.url).pathname

type Ends = readonly { readonly decidedAt: number; readonly until: number; readonly endedAt: number }[]

interface Known {
  readonly account: AccountView
  readonly used: readonly UsageRow[]
}

/** What is promised: a leash of 30 s, and what a sweep may take. */
const MOST_HELD_MS = 35_000

test(`a gateway killed under ${STREAMS} streams holds nothing once their leash is over, and charges what the plan says`, async (t) => {
  const { folder, remove } = temporary()
  t.after(remove)
  const path = join(folder, 'gateway.db')
  const upstream = await openUpstream(async (got, response) => {
    const stream = chatStream(got, response)
    for (let n = 0; !response.closed; n++) {
      stream.piece({ content: 'word '.repeat(8) })
      // Slower and slower, so that all of them have been renewed before the first has taken much.
      await pause(100 + 10 * n)
    }
  })
  t.after(() => upstream.close())
  const children: ChildProcess[] = []
  t.after(() => {
    for (const child of children) child.kill('SIGKILL')
  })
  async function start() {
    const child = fork(CHILD, [path, upstream.url], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
    children.push(child)
    const [url] = (await once(child, 'message')) as [string]
    const tell = async (message: object) => {
      const id = ids++
      child.send({ id, ...message })
      for await (const [answer] of on(child, 'message') as AsyncIterable<[{ id: number; told: unknown }]>)
        if (answer.id === id) return answer.told
      throw new Error('the gateway has ended')
    }
    return { child, url, tell }
  }

  const first = await start()
  const plans = ['releases', 'charges'] as const
  const seen: string[] = []
  for (const plan of plans) {
    const secret = (await first.tell({ account: plan, plan })) as string
    for (let n = 0; n < STREAMS / 2; n++) {
      const place = seen.push('') - 1
      void read(first.url, secret, (text) => {
        seen[place] += text
      })
    }
  }
  // Twice what is held at first: each has been renewed, and told what it used.
  await until(
    () => pause(100),
    () => seen.every((text) => text.split('word').length > 100),
  )
  const ask = async (from: typeof first, account: string) => (await from.tell({ account })) as Known
  for (const plan of plans) assert.equal((await ask(first, plan)).account.open_holds, STREAMS / 2)
  assert.equal(upstream.running, STREAMS)

  const ended = once(first.child, 'exit')
  first.child.kill('SIGKILL')
  await ended
  await until(
    () => upstream.running,
    (running) => running === 0,
  )

  const second = await start()
  await until(
    async () => {
      await pause(100)
      return Promise.all(plans.map((plan) => ask(second, plan)))
    },
    (all) => all.every(({ account }) => account.open_holds === 0),
  )
  // An account is told as it is now; that its holds have ended is written down by and by.
  const [releases, charges] = await until(
    async () => {
      await pause(100)
      return Promise.all(plans.map((plan) => ask(second, plan)))
    },
    (all) => all[1]?.used[0]?.requests === STREAMS / 2,
  )
  // By the clock of the journal, however long this machine took: the last that the gateway was granted was before its end.
  const ends = (await Promise.all(plans.map((account) => second.tell({ account, ends: true })))) as Ends[]
  const heard = ends.flat().map(({ decidedAt }) => decidedAt)
  const killedAt = Math.max(...heard)
  for (const holds of ends) {
    assert.equal(holds.length, STREAMS / 2)
    for (const { until, endedAt } of holds) {
      assert.equal(endedAt, until)
      assert.ok(endedAt <= killedAt + MOST_HELD_MS, `held ${endedAt - killedAt} ms after the end`)
    }
  }
  assert.equal(Number(releases?.account.credits.held), 0)
  assert.equal(Number(charges?.account.credits.held), 0)
  assert.equal(releases?.account.credits.available, '1000000')
  const [row] = charges?.used ?? []
  assert.equal(row?.requests, STREAMS / 2)
  // Each of them was renewed when it had used three quarters of 40 tokens at the latest.
  assert.ok(Number(row?.charged) >= (STREAMS / 2) * 30 * 10, JSON.stringify(row))
  const shown = seen.slice(STREAMS / 2).reduce((sum, text) => sum + text.length, 0)
  assert.ok(Number(row?.charged) < shown * 10, `${row?.charged} for ${shown} bytes`)
  assert.equal(Number(charges?.account.credits.available), 1_000_000 - Number(row?.charged))

  const gone = once(second.child, 'exit')
  second.child.kill('SIGTERM')
  await gone
  const audit = await sluice(['audit', '--store', `sqlite:${path}`, '--json'])
  assert.equal(JSON.parse(audit.stdout).disagreements, 0, audit.stdout)
})

/** Until it breaks off. */
async function read(url: string, secret: string, see: (text: string) => void): Promise<void> {
  try {
    const response = await fetch(`${url}/v1/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${secret}`, 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'm', stream: true, messages: [{ role: 'user', content: 'go on' }] }),
    })
    for await (const piece of response.body as ReadableStream<Uint8Array>) see(Buffer.from(piece).toString())
  } catch {
    // It was killed.
  }
}
